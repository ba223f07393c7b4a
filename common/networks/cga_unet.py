"""Category Guided Attention U-Net (CGA U-Net), and the plain U-Net that its paper compares it with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InputError
from .conv3 import Conv3
from .supervised_attention import SupervisedAttention

__all__ = ["CGAOutput", "CGAUNet"]

_GROUPS = 8


class CGAOutput(NamedTuple):
    """What `CGAUNet` returns in training.

    Attributes:
        logits: (B, K, D, H, W), one channel a class, before the softmax.
        attention: attention map (B, K, d, h, w), None without attention, like the next two.
        prototypes: mean feature vector of each class (B, K, C), zero where the class is absent.
        present: whether the class is there in the sample's masks (B, K), boolean.
    """

    logits: torch.Tensor
    attention: torch.Tensor | None
    prototypes: torch.Tensor | None
    present: torch.Tensor | None


class CGAUNet(nn.Module):
    """CGA U-Net for 3D images.

    Based on: Li et al., "Category Guided Attention Network for Brain Tumor Segmentation in MRI" (2021), Table 1.

    Readings of Table 1 that give the published size (4,768,616 parameters, 151.55 GMac at 4×128³): "BN" is group
    normalisation with 8 groups, convolutions have biases, those named Conv3 before and after the transposed
    convolution of a DeUp are 1×1×1, and DeBlock3 works at the size of EnBlock3.

    Any size of at least 8 voxels along each axis (with four levels) is taken: strided convolutions round sizes up, and
    the decoder cuts the surplus voxel plane of an upsampled map to the skip's size. Only where the coarsest level has
    no more than 8 channels is 8×8×8 too small for a batch of one: that leaves a group a single value to normalise.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes, background included.
        features: channels of each level from the finest down, multiples of 8.
        blocks: residual blocks of each encoder level.
        dropout: probability of dropping a whole channel after the first convolution, in training only.
        attention_rate: downsampling rate of the attention map, 8, 4 or 2 (Table 3), or 0 for the paper's baseline.
            The paper describes rate 8, which is the bottleneck. At rates 4 and 2 the encoder's map of the same
            rate is updated after its blocks, before it goes down and into the skip connection.
        hard_attention: see `SupervisedAttention`.
        update_classes: see `SupervisedAttention`; empty for the paper's "Baseline + Inter", where the prototypes only
            serve the loss.

    Raises:
        InputError: when an argument is outside its range.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        features: Sequence[int] = (16, 32, 64, 128),
        blocks: Sequence[int] = (1, 2, 2, 4),
        dropout: float = 0.2,
        attention_rate: int = 8,
        hard_attention: bool = True,
        update_classes: Sequence[int] = (0, 1, 2, 3),
    ) -> None:
        super().__init__()
        if len(features) != len(blocks):
            raise InputError(f"features {list(features)} and blocks {list(blocks)}: give one of each a level")
        if any(channels % _GROUPS for channels in features):
            raise InputError(f"features {list(features)}: they must be multiples of {_GROUPS}")
        self.in_channels = in_channels
        self.coarsest_channels = features[-1]
        self.smallest = 2 ** (len(features) - 1)

        self.init_conv = Conv3(in_channels, features[0])
        self.dropout = nn.Dropout3d(dropout)
        self.encoder = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))
            for channels, count in zip(features, blocks, strict=True)
        )
        self.down = nn.ModuleList(Conv3(fine, coarse, stride=2) for fine, coarse in pairwise(features))
        self.up = nn.ModuleList(UpConcat(coarse, fine) for fine, coarse in pairwise(features))
        self.decoder = nn.ModuleList(ResidualBlock(channels) for channels in features[:-1])
        self.end_conv = nn.Conv3d(features[0], out_channels, kernel_size=1)

        self.attention: SupervisedAttention | None = None
        self.attention_level: int | None = None
        if attention_rate:
            self.attention = SupervisedAttention(
                in_channels, out_channels, attention_rate, hard_attention, update_classes
            )
            self.attention_level = attention_rate.bit_length() - 1
            if self.attention_level >= len(features):
                raise InputError(f"attention rate {attention_rate}: {len(features)} levels reach {self.smallest} only")

    def forward(self, image: torch.Tensor) -> CGAOutput | torch.Tensor:
        """Segment.

        Args:
            image: (B, in_channels, D, H, W).

        Returns:
            `CGAOutput` in training; the logits (B, out_channels, D, H, W) alone in evaluation.

        Raises:
            InputError: when the image has another number of channels or is too small.
        """
        self._check(image)
        if torch.is_autocast_enabled(image.device.type):
            # Once: each of the two convolutions of the image would make, and keep for backward, a copy of its own.
            image = image.to(torch.get_autocast_dtype(image.device.type))
        attention = prototypes = present = None
        skips: list[torch.Tensor] = []
        x = self.dropout(self.init_conv(image))
        for level, stage in enumerate(self.encoder):
            x = stage(x if level == 0 else self.down[level - 1](x))
            if self.attention is not None and level == self.attention_level:
                x, attention, prototypes, present = self.attention(image, x)
            skips.append(x)
        skips.pop()
        for level in reversed(range(len(skips))):
            x = self.decoder[level](self.up[level](x, skips.pop()))
        logits = self.end_conv(x)
        return CGAOutput(logits, attention, prototypes, present) if self.training else logits

    def _check(self, image: torch.Tensor) -> None:
        if image.ndim != 5 or image.shape[1] != self.in_channels:
            raise InputError(
                f"image of shape {tuple(image.shape)}: the network takes (batch, {self.in_channels} channels, D, H, W)"
            )
        if min(image.shape[2:]) < self.smallest:
            raise InputError(
                f"image of {tuple(image.shape[2:])} voxels: the network needs at least {self.smallest} along each axis"
            )
        if (len(image), self.coarsest_channels, *image.shape[2:]) == (1, _GROUPS, *[self.smallest] * 3):
            raise InputError(
                f"image of {tuple(image.shape[2:])} voxels: {_GROUPS} channels at the coarsest level need a larger one"
            )


class ResidualBlock(nn.Module):
    """EnBlock and DeBlock of Table 1: normalise, ReLU, convolve, twice, and add the input.

    Backward needs the inputs of the normalisations and of the convolutions and nothing more, so ReLU and the sum
    work in place.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, channels)
        self.conv1 = Conv3(channels, channels)
        self.norm2 = nn.GroupNorm(_GROUPS, channels)
        self.conv2 = Conv3(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) to the same shape."""
        y = self.conv1(F.relu_(self.norm1(x)))
        y = self.conv2(F.relu_(self.norm2(y)))
        return y.add_(x)


class UpConcat(nn.Module):
    """DeUp of Table 1: 1×1×1 convolution, transposed convolution, concatenation with the skip, 1×1×1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv3d(in_channels, out_channels, kernel_size=1)
        self.up = nn.ConvTranspose3d(out_channels, out_channels, kernel_size=2, stride=2)
        self.merge = ConcatConv(2 * out_channels, out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, d, h, w) and a skip (B, out_channels, D, H, W) to the skip's shape."""
        depth, height, width = skip.shape[2:]
        x = self.up(self.reduce(x))[:, :, :depth, :height, :width]
        return self.merge(skip, x)


class ConcatConv(nn.Conv3d):
    """A 1×1×1 convolution of two concatenated tensors, as the sum of the convolutions of each.

    The concatenation, which backward would have to keep at full resolution, is never made.
    """

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(B, C1, D, H, W) and (B, C2, D, H, W) to (B, out_channels, D, H, W)."""
        first_weight, second_weight = self.weight.split((first.shape[1], second.shape[1]), dim=1)
        return F.conv3d(first, first_weight, self.bias).add_(F.conv3d(second, second_weight))
