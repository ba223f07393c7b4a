"""The loss of a network that reconstructs masked images: squared errors of the masked pixels."""

from __future__ import annotations

import torch
from torch import nn

from ..networks.masked_unet import MaskedImage

__all__ = ["MaskedPixelLoss"]


class MaskedPixelLoss(nn.Module):
    """L = mean of (y − x)² over the masked pixels; those that the network saw don't count.

    Based on: Wang et al., "MPS-AMS: Masked Patches Selection and Adaptive Masking Strategy Based Self-Supervised
    Medical Image Segmentation", Eq. 4, which sums where this takes the mean: the number of masked pixels grows with the
    epochs, and the step shouldn't. Computed in float32.
    """

    def forward(self, output: MaskedImage, image: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            output: what the network returns.
            image: the whole image (B, C, H, W).

        Returns:
            A scalar.
        """
        squared = (output.predicted.float() - image.float()).square().mean(dim=1, keepdim=True)
        return squared[output.masked].mean()
