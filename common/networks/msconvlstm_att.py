"""MSConvLSTM-Att: four patches read as a sequence, three scales, spatial attention."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InputError
from .conv_lstm import ConvLSTM
from .position_attention import PositionAttention
from .squeeze_excitation import SEInception, SEResNet, conv_norm

__all__ = ["MSConvLSTMAtt", "MultiScaleFusion", "PatchSequence", "ScaleHead", "ScalePrediction", "double"]


def double(coarse: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Enlarge a map by two, linearly, with its cell i at cell 2i of the result.

    That is where a convolution of stride 2 sees it; halves of a cell, as where corners or edges are aligned, would be
    off by a place that drifts over the map where sizes are odd.

    Args:
        coarse: (B, C, h, w).
        size: of the result, H and W, of which h and w are the halves, rounded up; beyond the last cell it is repeated.
    """
    whole = [2 * cells - 1 for cells in coarse.shape[2:]]
    between = F.interpolate(coarse, size=whole, mode="bilinear", align_corners=True)
    return F.pad(between, (0, size[1] - whole[1], 0, size[0] - whole[0]), mode="replicate")


class ScalePrediction(NamedTuple):
    """What a scale finds.

    Attributes:
        refined: what its attention looks at, (B, width, h, w).
        logits: (B, out_channels, h, w).
    """

    refined: torch.Tensor
    logits: torch.Tensor


class PatchSequence(nn.Module):
    """Scale 1 of Fig. 6: the four quarters of a modality, read as a sequence, and put together again.

    They are read row by row: top left, top right, bottom left, bottom right.

    Args:
        channels: of the result.
        peephole: see `ConvLSTM`.
    """

    def __init__(self, channels: int, peephole: bool = False) -> None:
        super().__init__()
        self.lstm = ConvLSTM(1, channels, peephole=peephole)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W), even sizes, to (B, channels, H, W)."""
        height, width = (size // 2 for size in image.shape[2:])
        quarters = image.unflatten(2, (2, height)).unflatten(4, (2, width))  # (B, 1, 2, h, 2, w)
        read = self.lstm(quarters.permute(0, 2, 4, 1, 3, 5).flatten(1, 2))  # (B, 4, channels, h, w)
        whole = read.unflatten(1, (2, 2)).permute(0, 3, 1, 4, 2, 5)  # (B, channels, 2, h, 2, w)
        return whole.flatten(4, 5).flatten(2, 3)


class MSConvLSTMAtt(nn.Module):
    """Multi-scale ConvLSTM attention network for slices.

    Based on: Ait Skourt et al., "Multi-Scale ConvLSTM Attention-Based Brain Tumor Segmentation" (2022), Fig. 6. Each
    modality goes by itself through the ConvLSTM (scale 1, the image's size), SE-Inception (scale 2, half of it) and
    SE-ResNet (scale 3, a quarter). The modalities of a scale together are its single-scale features; those of all
    scales are convolved to multi-scale features. Each scale joins both, refines them by a convolution, attends, and
    predicts; the predictions are averaged and upsampled.

    What the paper leaves open: 32, 64 and 128 channels a modality, 64 from the single-scale features on; the logits are
    what is averaged, at half the image's size. Modalities are computed one after
    another: on a CPU they took longer as groups of each convolution (benchmarks/msconvlstm_att_cost.py).

    Args:
        in_channels: modalities.
        out_channels: classes, background included.
        features: channels of the scales in each modality, finest first; a list of one is the first scale alone.
        width: channels from the single-scale features on, a multiple of 8.
        share_weights: whether all modalities go through the same weights.
        conv_lstm: whether scale 1 reads patches as a sequence; else it is a 3×3 convolution of the whole.
        peephole: see `ConvLSTM`.
        squeeze: whether inception and residual block have squeeze and excitation.
        attention_depth: attention modules of a scale, one after another; 0 for none.
        average: whether each scale predicts and the predictions are averaged; else the last scale alone does.

    Raises:
        InputError: when an argument is outside its range.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        features: Sequence[int] = (32, 64, 128),
        width: int = 64,
        share_weights: bool = False,
        conv_lstm: bool = True,
        peephole: bool = False,
        squeeze: bool = True,
        attention_depth: int = 1,
        average: bool = True,
    ) -> None:
        super().__init__()
        several = isinstance(features, Sequence) and all(isinstance(channels, int) for channels in features)
        if not several or not 1 <= len(features) <= 3 or any(channels < 4 or channels % 4 for channels in features):
            raise InputError(f"features {features}: give a list of one to three multiples of 4, one a scale")
        if (
            not all(isinstance(n, int) for n in (width, attention_depth))
            or width < 8
            or width % 8
            or attention_depth < 0
        ):
            raise InputError(
                f"width {width}, attention_depth {attention_depth}: give a multiple of 8, and zero or more modules"
            )
        switches = {"share_weights": share_weights, "conv_lstm": conv_lstm, "peephole": peephole}
        switches |= {"squeeze": squeeze, "average": average}
        for name, value in switches.items():  # a command line's `false` is a word, which Python takes for true
            if not isinstance(value, bool):
                raise InputError(f"{name} {value!r}: give True or False")
        if peephole and not conv_lstm:
            raise InputError("peephole is True and conv_lstm is False: there is no ConvLSTM to have peepholes")
        self.in_channels = in_channels

        def branch() -> nn.ModuleList:
            first: nn.Module = PatchSequence(features[0], peephole) if conv_lstm else conv_norm(1, features[0], 3)
            steps = zip((SEInception, SEResNet), pairwise(features), strict=False)
            return nn.ModuleList([first, *(block(*ends, squeeze) for block, ends in steps)])

        self.branches = nn.ModuleList(branch() for _ in range(1 if share_weights else in_channels))
        self.fusion = MultiScaleFusion([in_channels * channels for channels in features], width)
        predicting = range(len(features)) if average else range(len(features) - 1, len(features))
        self.heads = nn.ModuleDict(
            {str(number + 1): ScaleHead(width, out_channels, attention_depth) for number in predicting}
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Segment slices.

        Args:
            image: (B, in_channels, H, W), even sizes.

        Returns:
            Logits (B, out_channels, H, W).

        Raises:
            InputError: when the image has another number of channels, or odd sizes.
        """
        logits = torch.stack([scale.logits for scale in self.predictions(image).values()]).mean(dim=0)
        return double(logits.float(), image.shape[2:])

    def predictions(self, image: torch.Tensor) -> dict[str, ScalePrediction]:
        """What each scale that predicts finds, by its number from "1", the finest, at half the image's size.

        Arguments and errors are those of `forward`.
        """
        if image.ndim != 4 or image.shape[1] != self.in_channels:
            shape = tuple(image.shape)
            raise InputError(f"image of shape {shape}: the network takes (batch, {self.in_channels} channels, H, W)")
        if any(size % 2 or not size for size in image.shape[2:]):
            sizes = tuple(image.shape[2:])
            raise InputError(f"image of {sizes} pixels: the network halves it, so give even sizes")
        singles, multi = self.fusion(self.modality_features(image))
        return {name: head(singles[int(name) - 1], multi) for name, head in self.heads.items()}

    def modality_features(self, image: torch.Tensor) -> list[torch.Tensor]:
        """What each scale makes of the modalities, finest first, (B, modalities · channels, h, w)."""
        several = len(self.branches) == self.in_channels
        # With shared weights the modalities are samples.
        maps = list(image.split(1, dim=1)) if several else [image.flatten(0, 1)[:, None]]
        found = []
        for steps in zip(*self.branches, strict=True):
            maps = [step(one) for step, one in zip(steps, maps, strict=True)]
            found.append(torch.cat(maps, dim=1) if several else maps[0].unflatten(0, (len(image), -1)).flatten(1, 2))
        return found


class MultiScaleFusion(nn.Module):
    """Single-scale and multi-scale features of Fig. 6, all at half the image's size.

    A 1×1 convolution brings each scale to the same width. Cell i of a map that strides have made r times smaller lies
    at pixel r·i, so of scale 1 the mean is taken about every second pixel, and scale 3 is enlarged by `double`.

    Args:
        in_channels: of each scale, finest first, all modalities together.
        width: channels of the results.
    """

    def __init__(self, in_channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.single = nn.ModuleList(conv_norm(channels, width, 1) for channels in in_channels)
        self.multi = conv_norm(len(in_channels) * width, width, 3)

    def forward(self, scales: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Maps of the image's size, half of it and a quarter to the single-scale features and the multi-scale ones."""
        # Down before the convolution and up after it, which is cheaper.
        first = F.avg_pool2d(scales[0], 3, stride=2, padding=1, count_include_pad=False)
        singles = [single(scale) for single, scale in zip(self.single, (first, *scales[1:]), strict=True)]
        singles[2:] = [double(one, singles[0].shape[2:]) for one in singles[2:]]
        return singles, self.multi(torch.cat(singles, dim=1))


class ScaleHead(nn.Module):
    """What follows the multi-scale features in each scale of Fig. 6: refine, attend, predict.

    Args:
        width: channels of single-scale and multi-scale features.
        out_channels: classes.
        depth: attention modules.
    """

    def __init__(self, width: int, out_channels: int, depth: int) -> None:
        super().__init__()
        self.refine = conv_norm(2 * width, width, 3)
        self.attention = nn.Sequential(*(PositionAttention(width) for _ in range(depth)))
        self.predict = nn.Conv2d(width, out_channels, kernel_size=1)

    def forward(self, single: torch.Tensor, multi: torch.Tensor) -> ScalePrediction:
        """Two maps (B, width, h, w) to the scale's prediction."""
        refined = self.refine(torch.cat([single, multi], dim=1))
        return ScalePrediction(refined, self.predict(self.attention(refined)))
