"""Generated images of other kinds than brains: ultrasound of the breast and CT of the neck, with lesions and masks.

As with `common.data.phantoms`, every random choice is drawn into a plain record, which is saved beside the images and
from which they can be rendered again.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..atomic import whole_file
from ..errors import InputError
from .ct_phantom import NeckCT, draw_ct
from .ct_rendering import ct_affine, render_ct
from .phantom_folder import check_cases, fill_folder
from .ultrasound_phantom import draw_ultrasound
from .ultrasound_record import Ultrasound
from .ultrasound_rendering import render_ultrasound
from .writing import write_nifti

__all__ = ["IMAGE_KINDS", "make_image_phantoms"]

IMAGE_KINDS = ("ultrasound", "ct")

_PIXELS = (64, 1024)  # fewest and most along a side of an ultrasound image
_IN_PLANE, _SLICES = (48, 512), (8, 256)  # the same of a CT
_DEFAULT_SLICES = 24


def make_image_phantoms(
    folder: Path | str,
    kind: str,
    cases: int = 12,
    seed: int = 0,
    size: int | tuple[int, int, int] | None = None,
) -> None:
    """Generate a labelled data set of ultrasound images of breasts, or of CTs of necks with a tumour.

    Ultrasound is written as BUSI has it: folders benign, malignant and normal of `benign (1).png` with
    `benign (1)_mask.png`, perhaps `benign (1)_mask_1.png`; the mask of a normal image is black. Of eight images three
    are benign, three malignant and two normal. CT is written as HECKTOR has it: `HN001_ct.nii.gz` in Hounsfield units
    with `HN001_gtvt.nii.gz`.

    Args:
        folder: where it goes; a new or empty folder, or one that these same arguments filled before.
        kind: ultrasound or ct.
        cases: how many. The first cases of a larger set are those of a smaller one.
        seed: another seed, other images.
        size: ultrasound: the root of the number of pixels, about, 256 if not given; sizes vary from image to image.
            ct: voxels along X,Y,Z, or one number for X and Y with 24 slices; 128,128,24 if not given. The neck fills
            the image: 210 mm to the sides and in depth, and 72 mm in height.

    Raises:
        InputError: an argument outside these, or a folder that holds something else.
    """
    if kind not in IMAGE_KINDS:
        raise InputError(f"kind of image {kind!r} is not known; choose one of {', '.join(IMAGE_KINDS)}")
    check_cases(cases)
    if kind == "ultrasound":
        _make_ultrasound(Path(folder), cases, seed, _check_pixels(size))
    else:
        _make_ct(Path(folder), cases, seed, _check_shape(size))


def _make_ultrasound(folder: Path, cases: int, seed: int, size: int) -> None:
    phantoms: dict[str, Ultrasound] = {}
    counted: Counter[str] = Counter()
    for index in range(cases):
        phantom = draw_ultrasound(seed, index)
        counted[phantom.kind] += 1
        phantoms[f"{phantom.kind} ({counted[phantom.kind]})"] = phantom

    def write(item: tuple[str, Ultrasound]) -> None:
        case, phantom = item
        image, masks = render_ultrasound(phantom, size)
        place = folder / phantom.kind
        for number, mask in enumerate(masks or [np.zeros_like(image)]):
            _write_png(place / f"{case}_mask{f'_{number}' if number else ''}.png", mask)
        _write_png(place / f"{case}.png", image)

    fill_folder(folder, _record("ultrasound", size, phantoms), list(phantoms.items()), write)


def _make_ct(folder: Path, cases: int, seed: int, shape: tuple[int, int, int]) -> None:
    phantoms = {f"HN{index + 1:03d}": draw_ct(seed, index) for index in range(cases)}
    affine = ct_affine(shape)

    def write(item: tuple[str, NeckCT]) -> None:
        case, phantom = item
        image, tumour = render_ct(phantom, shape)
        write_nifti(folder / f"{case}_gtvt.nii.gz", tumour, affine)
        write_nifti(folder / f"{case}_ct.nii.gz", image, affine)

    fill_folder(folder, _record("ct", list(shape), phantoms), list(phantoms.items()), write)


def _record(kind: str, size: int | list[int], phantoms: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "size": size, "cases": {case: phantom.to_dict() for case, phantom in phantoms.items()}}


def _write_png(path: Path, pixels: np.ndarray) -> None:
    with whole_file(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def _check_pixels(size: Any) -> int:
    size = 256 if size is None else size
    if not _is_within(size, _PIXELS):
        raise InputError(f"size {size!r} of an ultrasound image: give one integer from {_PIXELS[0]} to {_PIXELS[1]}")
    return int(size)


def _check_shape(size: Any) -> tuple[int, int, int]:
    size = 128 if size is None else size
    sizes = (
        tuple(size)
        if isinstance(size, tuple | list)
        else (size, size, _DEFAULT_SLICES)
        if isinstance(size, int)
        else ()
    )
    if len(sizes) != 3 or not all(map(_is_within, sizes, (_IN_PLANE, _IN_PLANE, _SLICES))):
        raise InputError(
            f"size {size!r} of a CT: give X,Y,Z, integers from {_IN_PLANE[0]} to {_IN_PLANE[1]} and slices from "
            f"{_SLICES[0]} to {_SLICES[1]}, or one for X and Y"
        )
    return sizes[0], sizes[1], sizes[2]


def _is_within(value: Any, limits: tuple[int, int]) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and limits[0] <= value <= limits[1]
