"""Replacing what is too small to be believed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import cc3d
import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

__all__ = ["RemoveSmallComponentsd", "ReplaceSmallClassd"]


class ReplaceSmallClassd(MapTransform):
    """Give all voxels of one class another label where the whole class has fewer than `minimum` voxels.

    The release of CGA U-Net turns an enhancing tumour of fewer than 500 voxels into the core's label; BraTS scores a
    few wrong voxels of an absent class as a complete miss.

    Args:
        keys: label maps, any shape.
        minimum: number of voxels; 0 changes nothing.
        label: the class (3: enhancing tumour).
        replacement: what it becomes (1: necrotic and non-enhancing core).
    """

    def __init__(self, keys: KeysCollection, minimum: int = 0, label: int = 3, replacement: int = 1) -> None:
        super().__init__(keys)
        self.minimum, self.label, self.replacement = minimum, label, replacement

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the class in each key where it is too small."""
        out = dict(data)
        for key in self.keys:
            small = out[key] == self.label
            if 0 < small.sum() < self.minimum:
                out[key] = torch.where(small, torch.full_like(out[key], self.replacement), out[key])
        return out


class RemoveSmallComponentsd(MapTransform):
    """Make background of what hangs together, whatever its labels, and is smaller than `minimum`.

    Voxels hang together where they share a face, an edge or a corner, in all three directions; so what a network of
    slices sees in one slice alone goes. MONAI's `RemoveSmallObjectsd` does the same by a package that nothing else here
    needs.

    Args:
        keys: label maps (1, D, H, W) that know their affine.
        minimum: mm³; 0 changes nothing.
    """

    def __init__(self, keys: KeysCollection, minimum: float = 0) -> None:
        super().__init__(keys)
        self.minimum = minimum

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Remove them in each key."""
        out = dict(data)
        for key in self.keys if self.minimum else ():
            labels = out[key]
            volume = abs(float(np.linalg.det(np.asarray(labels.affine)[:3, :3])))
            there = labels[0].numpy(force=True) > 0
            kept = cc3d.dust(there, threshold=round(self.minimum / volume, 3), connectivity=26)
            out[key] = labels * torch.as_tensor(kept, device=labels.device)
        return out
