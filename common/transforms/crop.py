"""Cropping to the brain, or to the middle."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import CenterSpatialCropd, CropForeground, CropForegroundd
from numpy.typing import NDArray

from ..errors import CaseError

__all__ = ["CropBraind", "CropMiddled", "bounding_box"]

logger = logging.getLogger(__name__)


def bounding_box(mask: NDArray[np.bool_], margin: int = 0) -> tuple[slice, slice, slice]:
    """The smallest box that holds a mask (D, H, W), found in one pass along the memory; empty for an empty mask.

    Args:
        mask: in any order in memory.
        margin: voxels more on all sides, as far as the mask's array goes.
    """
    order = np.argsort(mask.strides)[::-1]
    straight = mask.transpose(order)
    plane = np.logical_or.reduce(straight, axis=2)
    side = np.logical_or.reduce(straight, axis=0)
    box = [slice(0, 0)] * 3
    for axis, line in zip(order, (plane.any(1), plane.any(0), side.any(0)), strict=True):
        if line.any():
            first, last = np.flatnonzero(line)[[0, -1]]
            box[axis] = slice(max(0, int(first) - margin), min(mask.shape[axis], int(last) + 1 + margin))
    return box[0], box[1], box[2]


class _BrainBox(CropForeground):
    """Finds the box in one pass along the memory, several times faster than going through an index of voxels."""

    def __init__(self, whole: Sequence[int]) -> None:
        super().__init__(allow_smaller=True)
        self.whole = whole

    def compute_bounding_box(self, img: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """First and past-the-last index along each axis of an image (C, D, H, W); both 0 where nothing is there."""
        array = img.numpy(force=True)
        # Interpolation leaves negative values inside the brain; only what was stripped away is exactly zero.
        box = bounding_box(np.logical_or.reduce([channel != 0 for channel in array]))
        first, stop = np.array([part.start for part in box]), np.array([part.stop for part in box])
        for axis in self.whole:
            first[axis], stop[axis] = 0, array.shape[axis + 1]
        return first, stop


class CropBraind(CropForegroundd):
    """Crop to the box of the voxels that are not zero in some channel of the image; `Invertd` pastes back.

    A scan that isn't skull-stripped has such voxels everywhere and stays whole.

    Args:
        keys: entries (C, D, H, W) that are cropped.
        source_key: the image among them.
        allow_missing_keys: the others may be missing.
        whole: axes, from 0, along which nothing is cropped.

    Raises:
        CaseError: nothing is left of the image, or of a label that had a lesion.
    """

    def __init__(
        self,
        keys: KeysCollection,
        source_key: str = "image",
        allow_missing_keys: bool = False,
        whole: Sequence[int] = (),
    ) -> None:
        super().__init__(keys, source_key=source_key, allow_smaller=True, allow_missing_keys=allow_missing_keys)
        self.cropper = _BrainBox(whole)

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Crop the keys of `data`."""
        cropped: dict[Hashable, Any] = super().__call__(data, lazy=lazy)
        case = str(data.get("case", "?"))
        if not cropped[self.source_key].numel():
            raise CaseError(
                case, None, "no voxel of the image differs from zero", "give the scan, or leave the case out"
            )
        for key in self.key_iterator(cropped):
            if key != self.source_key and data[key].any() and not cropped[key].any():
                raise CaseError(
                    case,
                    data[key].meta.get("filename_or_obj"),
                    "the whole lesion lies where the image is zero",
                    "check that the label belongs to this image",
                )
        return cropped


class CropMiddled(CenterSpatialCropd):
    """Crop to the middle, as MONAI does, and say what is lost; `Invertd` pastes back.

    Args:
        keys: "image", and perhaps "label", (C, D, H, W).
        roi_size: voxels along each axis; -1 for all.

    Raises:
        CaseError: nothing is left of a lesion.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Crop the keys of `data`."""
        cropped: dict[Hashable, Any] = super().__call__(data, lazy=lazy)
        case = str(data.get("case", "?"))
        for key in self.key_iterator(cropped):
            lost = sum(sign * int(one[key].ne(0).any(dim=0).sum()) for sign, one in ((1, data), (-1, cropped)))
            size = "×".join(map(str, cropped[key].shape[1:]))
            if lost and key == "label" and not cropped[key].any():
                raise CaseError(
                    case,
                    data[key].meta.get("filename_or_obj"),
                    f"the whole lesion lies outside the middle {size} voxels",
                    "give a larger crop_size, or brain_box True",
                )
            if lost:
                what = "lesion" if key == "label" else "brain"
                logger.warning(
                    "%s: %d voxels of the %s lie outside the middle %s and are left out", case, lost, what, size
                )
        return cropped
