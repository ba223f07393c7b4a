"""FANCL's network: nnU-Net's plain 3D U-Net, its logits corrected by feature-guided attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.networks.nets import DynUNet
from torch import nn

from ..errors import InputError
from .conv3 import Conv3
from .feature_guided_attention import FeatureGuidedAttention

__all__ = ["FANCL", "FANCLOutput"]


class FANCLOutput(NamedTuple):
    """What `FANCL` returns in training.

    Attributes:
        heads: logits of each supervised level, finest first, (B, K, D, H, W), (B, K, ⌈D / 2⌉, …) and so on.
        attention: (B, categories, image strips, feature strips), None without attention.
    """

    heads: list[torch.Tensor]
    attention: torch.Tensor | None


class FANCL(DynUNet):
    """nnU-Net's plain 3D U-Net with deep supervision, and feature-guided attention over one of its encoder's stages.

    Based on: Liu et al., "FANCL: Feature-Guided Attention Network with Curriculum Learning for Brain Metastases
    Segmentation", and Isensee et al., "nnU-Net" (Nature Methods 18, 2021) for the backbone, which is MONAI's DynUNet by
    nnU-Net's plan: stages of two convolutions with instance normalisation and leaky ReLU, 31,194,351 parameters with
    six stages, four modalities and three outputs. Attention over three categories adds 89,705.

    DynUNet itself supervises heads that it has upsampled; here each keeps its own resolution, as in nnU-Net.

    Args:
        in_channels: modalities.
        out_channels: outputs K: classes with the background first, or regions.
        features: channels of each stage, finest first; their number is the depth.
        attention: number of categories that are corrected, which are the last of the outputs and never the background;
            0 for the plain backbone.
        attention_patch: a and b of the attention's strips, in voxels.
        attention_stage: encoder stage whose features guide, 0 the first.
        attention_stride: in-plane stride of the attention's convolution of the image; see `FeatureGuidedAttention`.
        attention_normalisation: see `common.networks.feature_guided_attention.correlation`.
        attention_divisor: see `FeatureGuidedAttention`.
        softmax: the outputs are classes that exclude one another; else regions with a sigmoid each.

    Raises:
        InputError: when an argument is outside its range.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        features: Sequence[int] = (32, 64, 128, 256, 320, 320),
        attention: int = 3,
        attention_patch: Sequence[int] = (8, 8),
        attention_stage: int = 0,
        attention_stride: int = 2,
        attention_normalisation: str = "cosine",
        attention_divisor: str = "attention",
        softmax: bool = True,
    ) -> None:
        stages = len(features)
        if stages < 3:
            raise InputError(f"features {list(features)}: give at least three stages")
        if not 0 <= attention_stage < stages:
            raise InputError(f"attention_stage {attention_stage}: {stages} stages are counted from 0 to {stages - 1}")
        if not 0 <= attention <= out_channels - softmax:
            raise InputError(f"attention {attention}: it corrects 0 to {out_channels - softmax} of the outputs")
        super().__init__(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=[3] * stages,
            strides=[1] + [2] * (stages - 1),
            upsample_kernel_size=[2] * (stages - 1),
            filters=list(features),
            norm_name=("instance", {"affine": True}),
            act_name=("leakyrelu", {"inplace": True, "negative_slope": 0.01}),
            deep_supervision=True,
            deep_supr_num=stages - 2,
        )
        # The same layers once more, nested, which would be in the state dict twice; and random placeholders.
        del self.skip_layers, self.heads
        for module in self.modules():
            if isinstance(module, nn.Conv3d) and module.kernel_size == (3, 3, 3):
                # Which trains a map of two slices, that of a 64³ crop, on a CPU too. DynUNet builds its layers itself
                # and takes none; so they stay in their places, with their weights as they were drawn.
                module.__class__ = Conv3
        self.softmax, self.attention_stage = softmax, attention_stage
        self.multiple = 2 ** (stages - 1)
        self.attention: FeatureGuidedAttention | None = None
        if attention:
            self.attention = FeatureGuidedAttention(
                in_channels,
                features[attention_stage],
                attention,
                attention_patch,
                2**attention_stage,
                attention_stride,
                attention_normalisation,
                attention_divisor,
            )

    def forward(self, image: torch.Tensor) -> FANCLOutput | torch.Tensor:
        """Segment.

        Args:
            image: (B, in_channels, D, H, W), sizes that 2 to the power of the stages less one divides.

        Returns:
            `FANCLOutput` in training; the logits (B, out_channels, D, H, W) alone in evaluation. Logits that the
            attention has corrected are in float32 under autocast too, like the attention.

        Raises:
            InputError: when the image has another number of channels, or a size that the stages can't halve.
        """
        self._check(image)
        if torch.is_autocast_enabled(image.device.type):
            # Once: the encoder and the attention would each make, and keep for backward, a copy of their own.
            image = image.to(torch.get_autocast_dtype(image.device.type))
        encoded = [self.input_block(image)]
        for stage in [*self.downsamples, self.bottleneck]:
            encoded.append(stage(encoded[-1]))
        # Now, so that a segmentation needn't keep the features until its end.
        attention = None if self.attention is None else self.attention(image, encoded[self.attention_stage])
        x = encoded.pop()
        logits: list[torch.Tensor] = []
        for up, head in zip(self.upsamples, [*reversed(self.deep_supervision_heads), self.output_block], strict=True):
            x = up(x, encoded.pop())
            if self.training or head is self.output_block:
                logits.insert(0, head(x))
        if attention is not None:
            logits[0] = self._adjust(logits[0], attention)
        return FANCLOutput(logits, attention) if self.training else logits[0]

    def _adjust(self, logits: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        """Add the correction to the last of the logits (B, K, D, H, W), one channel a category (Eq. 15), in float32."""
        assert self.attention is not None
        logits, rest = logits.float(), logits.shape[1] - attention.shape[1]
        probabilities = logits.softmax(1) if self.softmax else logits.sigmoid()
        correction = self.attention.adjust(attention, probabilities[:, rest:])
        return torch.cat([logits[:, :rest], logits[:, rest:] + correction], dim=1)

    def _check(self, image: torch.Tensor) -> None:
        if image.ndim != 5 or image.shape[1] != self.in_channels:
            raise InputError(
                f"image of shape {tuple(image.shape)}: the network takes (batch, {self.in_channels} channels, D, H, W)"
            )
        sizes = tuple(image.shape[2:])
        if any(size % self.multiple for size in sizes) or max(sizes) <= self.multiple:
            raise InputError(
                f"image of {sizes} voxels: the network takes multiples of {self.multiple} along each axis, not "
                f"{self.multiple} along all three"  # a single voxel would be left, which can't be normalised
            )
