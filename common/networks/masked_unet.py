"""A 2D U-Net that learns to reconstruct masked images, and then to segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.networks.blocks import UpSample
from monai.networks.nets import BasicUNet
from monai.networks.nets.basic_unet import TwoConv

from ..errors import InputError
from .adaptive_masking import AdaptiveMasking
from .patches import patch_mask

__all__ = ["MaskedImage", "MaskedUNet"]


class MaskedImage(NamedTuple):
    """What `MaskedUNet` returns when it reconstructs.

    Attributes:
        predicted: the whole image, (B, C, H, W).
        masked: which pixels the network didn't see, (B, 1, H, W), boolean.
    """

    predicted: torch.Tensor
    masked: torch.Tensor


class MaskedUNet(BasicUNet):
    """Ronneberger's 2D U-Net, as a masked autoencoder of images where it is given a masking, else for segmentation.

    Based on: Wang et al., "MPS-AMS: Masked Patches Selection and Adaptive Masking Strategy Based Self-Supervised
    Medical Image Segmentation". Both networks differ in nothing but the last layer, `final_conv`, so that the weights
    of all others can be moved from one to the other by name (`common.pretrained`).

    It is MONAI's BasicUNet with batch normalisation, whose last level halves the channels when it upsamples, as all
    others do: 31,042,369 parameters with one channel in and out.

    Args:
        in_channels: of the image, C.
        out_channels: C for a reconstruction, else the regions that are segmented, each with a sigmoid.
        features: channels of the five levels, finest first.
        masking: chooses the patches that are masked, which become 0; None for segmentation.

    Raises:
        InputError: when there are other than five levels.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        features: Sequence[int] = (64, 128, 256, 512, 1024),
        masking: AdaptiveMasking | None = None,
    ) -> None:
        if len(features) != 5:
            raise InputError(f"features {list(features)}: give five numbers, one a level")
        first, second = features[:2]
        act, norm = ("relu", {"inplace": True}), "batch"
        super().__init__(2, in_channels, out_channels, (*features, first), act, norm)
        self.upcat_1.upsample = UpSample(2, second, first, 2, mode="deconv")
        self.upcat_1.convs = TwoConv(2, 2 * first, first, act, norm, bias=True)
        self.masking = masking

    def forward(self, image: torch.Tensor, noise: torch.Tensor | None = None) -> MaskedImage | torch.Tensor:
        """Reconstruct, or segment.

        Args:
            image: (B, C, H, W), sizes that 16 divides; for reconstruction also the patches of the masking.
            noise: one number for each patch, (B, N), drawn uniformly, for the masking; None without.

        Returns:
            `MaskedImage`, or the logits (B, out_channels, H, W) where there is no masking.

        Raises:
            InputError: when the image has other sizes.
        """
        sizes = tuple(image.shape[2:])
        if any(size % 16 for size in sizes):
            raise InputError(f"image of {sizes} pixels: the network takes multiples of 16 along each axis")
        if self.masking is None:
            return super().forward(image)
        patch = self.masking.patch
        chosen = self.masking(image, noise).masked
        masked = patch_mask(chosen, patch, [size // edge for size, edge in zip(sizes, patch, strict=True)])
        return MaskedImage(super().forward(image.masked_fill(masked, 0)), masked)
