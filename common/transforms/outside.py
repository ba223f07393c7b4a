"""What a network says of voxels outside the brain."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

__all__ = ["BackgroundOutsided"]


class BackgroundOutsided(MapTransform):
    """Give probability 1 of background to what lies outside the brain: where all channels of the image are 0.

    Args:
        keys: probabilities (K, D, H, W), background first.
        image: entry with the prepared image (C, D, H, W), on the same voxels.
    """

    def __init__(self, keys: KeysCollection, image: str = "image") -> None:
        super().__init__(keys)
        self.image = image

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Each key with background outside."""
        out = dict(data)
        outside = (out[self.image] == 0).all(dim=0)
        for key in self.keys:
            background = torch.zeros_like(out[key])
            background[0] = 1
            out[key] = torch.where(outside.to(background.device), background, out[key])
        return out
