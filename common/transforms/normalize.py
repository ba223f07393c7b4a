"""Intensities of a scan in units of its own brain."""

from __future__ import annotations

from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import NormalizeIntensity, NormalizeIntensityd

__all__ = ["NormalizeBraind"]


class _NormalizeBrain(NormalizeIntensity):
    """Goes through whole arrays; taking the brain's voxels out and putting them back costs ten times as much."""

    def _normalize(self, img: Any, sub: Any = None, div: Any = None) -> Any:
        img = img.contiguous()  # sums depend on the order in memory, and a turned scan shall give the same labels
        brain = img != 0
        count = brain.sum().clamp_min(1)
        centred = (img - img.sum() / count).mul_(brain)
        deviation = torch.linalg.vector_norm(centred) / count.sqrt()
        return centred.div_(torch.where(deviation > 0, deviation, 1.0))


class NormalizeBraind(NormalizeIntensityd):
    """MONAI's NormalizeIntensityd with `nonzero` and `channel_wise`, several times faster.

    Each channel of (C, D, H, W) gets mean 0 and standard deviation 1 over its voxels that are not zero, as float32; the
    others stay 0.

    Args:
        keys: entries that are normalised.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)
        self.normalizer = _NormalizeBrain(nonzero=True, channel_wise=True)
