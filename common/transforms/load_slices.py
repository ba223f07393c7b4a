"""Loading images for a network of slices: pictures, and volumes of one modality, in one form."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from nibabel.orientations import io_orientation

from ..data.labels import to_canonical
from ..data.nifti_file import NiftiFile, geometry_of
from ..data.pictures import is_picture, read_mask, read_picture
from ..errors import CaseError, InputError
from .load import meta_tensor

__all__ = ["FilledSlicesd", "LoadLesiond", "LoadSlicesd"]

# A picture's one slice lies as an axial slice is looked at: rows go back, columns to the patient's left.
PICTURE_AFFINE = np.array([[0.0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


class LoadSlicesd(MapTransform):
    """Read a picture as a volume of one slice, (1, 1, H, W), or a volume of one modality, (1, X, Y, Z).

    The result is a MetaTensor, float32. Brought to the axes SPL (`Orientationd`) both are (1, slices, rows, columns).

    Args:
        keys: entries to read.
        window: least and greatest value; what is outside becomes the nearer one, and the least becomes 0, which is
            background. For CT, in Hounsfield units. None keeps values as they are.

    Raises:
        CaseError: a file is missing or damaged, is neither an axial slice nor a volume, or holds NaN
            or infinite values.
    """

    def __init__(self, keys: KeysCollection = ("image",), window: tuple[float, float] | None = None) -> None:
        super().__init__(keys)
        if window is not None and not window[0] < window[1]:
            raise InputError(f"intensity_window {list(window)}: give the least value and then a greater one")
        self.window = window

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each key's path by the tensor."""
        loaded = dict(data)
        for key in self.keys:
            case, path = str(data.get("case", data[key])), data[key]
            if is_picture(path):
                array, affine = read_picture(case, path)[None], PICTURE_AFFINE
            else:
                array, affine = _read_volume(case, path)
            if not np.isfinite([array.min(), array.max()]).all():
                raise CaseError(case, path, "holds NaN or infinite values", "replace them, e.g. by 0")
            array = np.array(array, np.float32)
            if self.window is not None:
                array = array.clip(*self.window) - self.window[0]
            loaded[key] = meta_tensor(array[None], affine, path)
        return loaded


class LoadLesiond(MapTransform):
    """Read where the lesion is: any of several masks, of pictures or of volumes, 0 or 1.

    The result is a MetaTensor like that of `LoadSlicesd`, uint8. Of a label map in a convention of BraTS every label
    is lesion.

    Args:
        keys: entries to read, each a path, or a list of paths; an empty list is no lesion anywhere.
        image: the entry that they belong to, already loaded.

    Raises:
        CaseError: there is no such entry, a file is missing or damaged, or doesn't fit the image.
    """

    def __init__(self, keys: KeysCollection = ("label",), image: str = "image") -> None:
        super().__init__(keys)
        self.image = image

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each key's paths by the tensor."""
        loaded = dict(data)
        image = data[self.image]
        for key in self.keys:
            case = str(data.get("case", "?"))
            if data.get(key) is None:
                raise CaseError(case, None, f"no {key}", "give one, or leave the case out")
            paths = [data[key]] if isinstance(data[key], str) else data[key]
            shape = tuple(image.shape[1:])
            if all(map(is_picture, paths)) and shape[0] == 1:
                lesion = read_mask(case, paths, shape[1:])[None]
            else:
                lesion = np.zeros(shape, np.uint8)
                for path in paths:
                    lesion |= self._of_volume(case, path, image, data.get(f"{key}_convention"))
            loaded[key] = meta_tensor(lesion[None], image.affine.numpy(), paths or "no mask")
        return loaded

    @staticmethod
    def _of_volume(case: str, path: str, image: MetaTensor, convention: str | None) -> np.ndarray:
        file = NiftiFile(case, path)
        voxels, affine, _ = file.read()
        voxels = voxels.reshape(voxels.shape[:3])
        file.expect_geometry(voxels.shape, affine, geometry_of(case, image))
        if convention is not None:
            voxels = to_canonical(voxels, convention)
        elif (voxels != np.round(voxels)).any():  # NaN too
            file.fail("isn't a mask: it holds other values than whole numbers", "give the label map itself")
        return (voxels != 0).astype(np.uint8)


class FilledSlicesd(Transform):
    """Note which slices aren't empty, along each axis: axis and number (N, 2), int64, as the entry "filled".

    Args:
        image: entry (C, D, H, W), with zeros as background.
    """

    def __init__(self, image: str = "image") -> None:
        self.image = image

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the entry."""
        filled = torch.as_tensor(data[self.image]).any(dim=0)
        plane = filled.any(dim=2)
        numbers = [line.nonzero()[:, 0] for line in (plane.any(dim=1), plane.any(dim=0), filled.any(dim=0).any(dim=0))]
        return {**data, "filled": torch.cat([_with_axis(axis, of_axis) for axis, of_axis in enumerate(numbers)])}


def _with_axis(axis: int, numbers: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.full_like(numbers, axis), numbers], dim=1)


def _read_volume(case: str, path: str) -> tuple[np.ndarray, np.ndarray]:
    file = NiftiFile(case, path)
    voxels, affine, _ = file.read()
    if voxels.ndim < 2 or any(size != 1 for size in voxels.shape[3:]):
        file.fail(f"is {voxels.ndim}D where a slice or a volume is expected", "give one file a modality")
    voxels = voxels.reshape((*voxels.shape, 1)[:3] if voxels.ndim == 2 else voxels.shape[:3])
    upwards = int((io_orientation(affine)[:, 0] == 2).argmax())
    if 1 in voxels.shape and voxels.shape[upwards] != 1:
        file.fail("is a single slice that isn't axial", "give axial slices, or the whole volume")
    return voxels, affine
