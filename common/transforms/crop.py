"""Cropping to the brain."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import CropForegroundd

from ..errors import CaseError

__all__ = ["CropBraind"]


def _is_brain(image: torch.Tensor) -> torch.Tensor:
    # Interpolation leaves negative values inside the brain; only what was stripped away is exactly zero.
    return image != 0


class CropBraind(CropForegroundd):
    """Crop to the box of the voxels that are not zero in some channel of the image; `Invertd` pastes back.

    A scan that isn't skull-stripped has such voxels everywhere and stays whole.

    Args:
        keys: entries (C, D, H, W) that are cropped.
        source_key: the image among them.

    Raises:
        CaseError: nothing is left of the image, or of a label that had a lesion.
    """

    def __init__(self, keys: KeysCollection, source_key: str = "image") -> None:
        super().__init__(keys, source_key=source_key, select_fn=_is_brain, allow_smaller=True)

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Crop the keys of `data`."""
        cropped: dict[Hashable, Any] = super().__call__(data, lazy=lazy)
        case = str(data.get("case", "?"))
        if not cropped[self.source_key].numel():
            raise CaseError(
                case, None, "no voxel of the image differs from zero", "give the scan, or leave the case out"
            )
        for key in self.keys:
            if key != self.source_key and data[key].any() and not cropped[key].any():
                raise CaseError(
                    case,
                    data[key].meta.get("filename_or_obj"),
                    "the whole lesion lies where the image is zero",
                    "check that the label belongs to this image",
                )
        return cropped
