"""Intensities of a scan in units of its own brain."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import NormalizeIntensity, NormalizeIntensityd

__all__ = ["NormalizeBraind"]

IQR_OF_NORMAL = 1.349
"""Interquartile range of a normal distribution of standard deviation 1."""

SPAN_OF_NORMAL = 3.29
"""How far its 5th and 95th percentiles are apart."""


class _NormalizeBrain(NormalizeIntensity):
    """Goes through whole arrays; taking the brain's voxels out and putting them back costs ten times as much."""

    def _normalize(self, img: Any, sub: Any = None, div: Any = None) -> Any:
        img = img.contiguous()  # sums depend on the order in memory, and a turned scan shall give the same labels
        brain = img != 0
        count = brain.sum().clamp_min(1)
        centred = (img - img.sum() / count).mul_(brain)
        deviation = torch.linalg.vector_norm(centred) / count.sqrt()
        return centred.div_(torch.where(deviation > 0, deviation, 1.0))


class _NormalizeByQuartiles(NormalizeIntensity):
    """By the middle and the width of the bulk of the voxels, whatever a lesion or an artefact adds to the ends.

    Where most voxels are alike, as in files whose values are cut off, the bulk has no width that anything else could be
    measured by. So it counts as a quarter of what it is by the 5th and 95th percentiles at least, or as the standard
    deviation where they are the same.
    """

    def _normalize(self, img: Any, sub: Any = None, div: Any = None) -> Any:
        brain = img != 0
        values = img[brain]
        if not len(values):
            return img
        lowest, low, middle, high, highest = np.percentile(values.cpu().numpy(), (5, 25, 50, 75, 95))
        width = max((high - low) / IQR_OF_NORMAL, (highest - lowest) / SPAN_OF_NORMAL / 4)
        width = width or float(values.std(correction=0)) or 1.0
        return (img - float(middle)).mul_(brain).div_(float(width))


class NormalizeBraind(NormalizeIntensityd):
    """MONAI's NormalizeIntensityd with `nonzero` and `channel_wise`, several times faster.

    Each channel of (C, D, H, W) gets mean 0 and standard deviation 1 over its voxels that are not zero, as float32; the
    others stay 0.

    Args:
        keys: entries that are normalised.
        robust: median 0, and the interquartile range that normally distributed values of standard deviation 1 have, or
            a smaller one where the middle half of the voxels is nearly the same.
    """

    def __init__(self, keys: KeysCollection, robust: bool = False) -> None:
        super().__init__(keys)
        kind = _NormalizeByQuartiles if robust else _NormalizeBrain
        self.normalizer = kind(nonzero=True, channel_wise=True)
