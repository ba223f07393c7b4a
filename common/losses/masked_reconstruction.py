"""The loss of a masked autoencoder: squared errors of the masked patches' pixels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from ..networks.masked_autoencoder import Reconstruction
from ..networks.patches import gather_tokens, patchify

__all__ = ["MaskedReconstructionLoss", "pixel_weights", "standardise"]

_EPSILON = 1e-6


class MaskedReconstructionLoss(nn.Module):
    """L_recon = 1/N Σ (x_i − x̂_i)², a mean over the masked patches' pixels, those of visible patches left out.

    Based on: Yang et al., "3D-TransUNet for Brain Metastases Segmentation in the BraTS2023 Challenge", section 2.4,
    and He et al., "Masked Autoencoders Are Scalable Vision Learners".

    A modality that a case lacks is zeros, and its pixels don't count: neither in the mean over pixels, nor in a patch's
    mean and standard deviation. So it is, too, where a crop has nothing but background of a modality. Computed in
    float32.

    Args:
        patch: voxels (d, h, w) of a token.
        normalise: what is predicted are a patch's pixels less their mean, divided by their standard deviation; else
            the pixels as they are.
    """

    def __init__(self, patch: Sequence[int] = (1, 16, 16), normalise: bool = True) -> None:
        super().__init__()
        self.patch, self.normalise = tuple(patch), normalise

    def forward(self, output: Reconstruction, image: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            output: what the network returns.
            image: (B, C, D, H, W), normalised, zeros where a modality is missing.

        Returns:
            A scalar; 0 where no pixel counts.
        """
        image = image.float()
        weights = pixel_weights(image, self.patch)
        target = gather_tokens(patchify(image, self.patch), output.masked)
        if self.normalise:
            target, _, _ = standardise(target, weights)
        squared = (output.predicted.float() - target).square() * weights
        count = weights.sum() * target.shape[1]
        return squared.sum() / count.clamp_min(1)


def pixel_weights(image: torch.Tensor, patch: Sequence[int]) -> torch.Tensor:
    """For the pixels of any patch of each image (B, 1, P): 1 where the image has that modality, 0 where it is zeros.

    Args:
        image: (B, C, D, H, W).
        patch: voxels (d, h, w) of a token.
    """
    there = (image != 0).flatten(2).any(dim=2)
    return there.repeat_interleave(prod(patch), dim=1)[:, None].to(image.dtype)


def standardise(patches: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Patches (B, M, P) less their mean and divided by their standard deviation, over the pixels that count.

    Args:
        patches: pixels.
        weights: 1 for those that count, else 0; (B, 1, P).

    Returns:
        The normalised patches, in which a patch of one value is zeros; their means and deviations, (B, M, 1) each.
    """
    count = weights.sum(dim=2, keepdim=True).clamp_min(1)
    mean = (patches * weights).sum(dim=2, keepdim=True) / count
    variance = ((patches - mean).square() * weights).sum(dim=2, keepdim=True) / count
    deviation = (variance + _EPSILON).sqrt()  # of one value everywhere, it divides by no zero
    return (patches - mean) / deviation, mean, deviation
