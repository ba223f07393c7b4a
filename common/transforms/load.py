"""Loading scans and label maps, whatever layout they came in."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import SpaceKeys

from ..data.reading import read_image, read_label
from ..errors import CaseError

__all__ = ["LoadLabelMapd", "LoadScand", "meta_tensor"]


def meta_tensor(array: np.ndarray, affine: np.ndarray, source: object) -> MetaTensor:
    """Voxels (C, X, Y, Z) that know their affine and the (first) file that they are from."""
    first = source[0] if isinstance(source, (list, tuple)) else source
    meta = {
        "filename_or_obj": str(first),
        "affine": affine,
        "original_affine": affine,
        "spatial_shape": np.asarray(array.shape[1:]),
        "original_channel_dim": 0,
        "space": SpaceKeys.RAS,
    }
    return MetaTensor(array, meta=meta)


class LoadScand(MapTransform):
    """Read the scan of a case: four modality files, one 4D file, or the folder of a case.

    The result is a MetaTensor (4, X, Y, Z), float32, channels in canonical order (t1n t1c t2w t2f), in the geometry
    of the (first) file. Entries `case`, `channels`, `missing` of the dictionary are used where present; see
    `common.data.reading.read_image` for these and for what is checked.

    Raises:
        CaseError: when a file is missing, damaged or doesn't fit the others.
    """

    def __init__(self, keys: KeysCollection = ("image",)) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each key's paths by the tensor."""
        loaded = dict(data)
        for key in self.keys:
            said = {name: data.get(name) for name in ("case", "channels", "missing")}
            array, affine = read_image({**said, "image": data[key]})
            loaded[key] = meta_tensor(array, affine, data[key])
        return loaded


class LoadLabelMapd(MapTransform):
    """Read label maps as MetaTensors (1, X, Y, Z), uint8, in canonical labels.

    The file's convention is the entry `<key>_convention` of the dictionary, canonical where there is none; see
    `common.data.labels`.

    Args:
        keys: entries to read.
        geometry_of: entry whose shape and affine the others must have, where it is there.

    Raises:
        CaseError: when the file is missing or damaged, doesn't fit the image, or holds a value outside its convention.
    """

    def __init__(self, keys: KeysCollection = ("label",), geometry_of: str = "image") -> None:
        super().__init__(keys)
        self.geometry_of = geometry_of

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each key's path by the tensor."""
        loaded = dict(data)
        for key in self.keys:
            if data.get(key) is None:
                case = str(data.get("case", "?"))
                raise CaseError(case, None, f"no {key} file", "give one, or leave the case out")
            entry = {"case": data.get("case"), "label": data[key]}
            entry["label_convention"] = data.get(f"{key}_convention", "canonical")
            if key != self.geometry_of:
                entry["image"] = loaded.get(self.geometry_of)
            array, affine = read_label(entry)
            loaded[key] = meta_tensor(array[None], affine, data[key])
        return loaded
