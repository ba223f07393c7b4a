"""Files of images: what they are called, how large they are unpacked, and whether a label fits one."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image, ImageOps

_PICTURES = (".png", ".jpg", ".jpeg")
# That of the bundles, between entries in mm.
_AFFINE_TOLERANCE = 1e-3


def name_of(image: str | Path) -> str:
    """What messages call it."""
    return Path(image).name.split(".")[0]


def unpacked_size(file: str | Path) -> int:
    """Bytes of an image's voxels, as its header says; 0 where it says nothing, and the bundle tells what is wrong.

    Of a folder those of all its files but labels.
    """
    if os.path.isdir(file):
        names = [path for path in Path(file).rglob("*") if path.is_file() and not name_of(path).endswith("seg")]
        return sum(map(unpacked_size, names))
    try:
        header: Any = nibabel.load(file).header
        return math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
    except Exception:  # damaged files make nibabel raise almost anything
        return 0


def expect_fit(label: Path, image: Path, values: Collection[int]) -> None:
    """Read a label, and what it belongs to: one that doesn't fit would fail each training until it is replaced.

    Args:
        label: its file.
        image: the file whose spatial axes it must have.
        values: those that a label map may have, beside 0; any where there are none. In a picture that is one grey.

    Raises:
        Exception: the label doesn't fit, or one of them can't be read; damaged files raise almost anything.
    """
    is_picture = image.suffix.lower() in _PICTURES
    if is_picture != (label.suffix.lower() in _PICTURES):
        raise ValueError("give a .png for a picture, a .nii.gz for a volume")
    (_expect_picture if is_picture else _expect_volume)(label, image, values)


def _expect_volume(label: Path, image: Path, values: Collection[int]) -> None:
    scan: Any = nibabel.load(image)
    given: Any = nibabel.load(label)
    space, shape = ((*one.shape, 1, 1, 1)[:3] for one in (scan, given))
    if shape != space or any(size != 1 for size in given.shape[3:]):
        raise ValueError(f"its shape {given.shape} is not that of the image, {space}")
    if not np.allclose(given.affine, scan.affine, rtol=0, atol=_AFFINE_TOLERANCE):
        difference = np.abs(given.affine - scan.affine).max()
        raise ValueError(f"its affine differs from that of the image by up to {difference:.3g}")
    # Not before: a header may claim any size.
    found = np.unique(np.asanyarray(given.dataobj)).astype(float)
    if (strange := found[~np.isin(found, [0, *values]) if values else found != np.rint(found)]).size:
        allowed = f"the bundles know 0, {', '.join(map(str, sorted(values)))}" if values else "give whole numbers"
        raise ValueError(f"its value {strange[0]:g}: {allowed}")


def _expect_picture(label: Path, image: Path, values: Collection[int]) -> None:
    with Image.open(image) as opened:
        size = ImageOps.exif_transpose(opened).size
    with Image.open(label) as opened:
        if opened.size != size:
            raise ValueError(f"its {opened.size} pixels are not those of the image, {size}")
        greys = np.asarray(opened.convert("RGB") if opened.mode in ("P", "PA", "LA", "RGBA", "RGB") else opened)
    if greys.ndim == 3 and (greys != greys[..., :1]).any():
        raise ValueError("it is in colours: save it in black and white")
    if len(np.unique(greys[greys != 0])) > 1 or not (greys == 0).any():
        raise ValueError("it is not of black and one grey: save it as white on black")
