"""FANCL's network: nnU-Net's plain 3D U-Net, its logits corrected by feature-guided attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..errors import InputError
from .feature_guided_attention import FeatureGuidedAttention
from .plain_unet import PlainUNet

__all__ = ["FANCL", "FANCLOutput"]


class FANCLOutput(NamedTuple):
    """What `FANCL` returns in training.

    Attributes:
        heads: logits of each supervised level, finest first, (B, K, D, H, W), (B, K, ⌈D / 2⌉, …) and so on.
        attention: (B, categories, image strips, feature strips), None without attention.
    """

    heads: list[torch.Tensor]
    attention: torch.Tensor | None


class FANCL(PlainUNet):
    """nnU-Net's plain 3D U-Net with deep supervision, and feature-guided attention over one of its encoder's stages.

    Based on: Liu et al., "FANCL: Feature-Guided Attention Network with Curriculum Learning for Brain Metastases
    Segmentation". The backbone is `PlainUNet`; attention over three categories adds 89,705 parameters to its 31,194,351
    with six stages, four modalities and three outputs.

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
        if not 0 <= attention_stage < stages:
            raise InputError(f"attention_stage {attention_stage}: {stages} stages are counted from 0 to {stages - 1}")
        if not 0 <= attention <= out_channels - softmax:
            raise InputError(f"attention {attention}: it corrects 0 to {out_channels - softmax} of the outputs")
        super().__init__(in_channels, out_channels, features)
        self.softmax, self.attention_stage = softmax, attention_stage
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
        self.check(image)
        if torch.is_autocast_enabled(image.device.type):
            # Once: the encoder and the attention would each make, and keep for backward, a copy of their own.
            image = image.to(torch.get_autocast_dtype(image.device.type))
        encoded = self.encode(image)
        # Now, so that a segmentation needn't keep the features until its end.
        attention = None if self.attention is None else self.attention(image, encoded[self.attention_stage])
        logits = self.logits(encoded)
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
