"""Read a case's scan and label map from NIfTI files, checked, so that what comes back can be computed with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CaseError, InputError
from .case_files import find_modalities, stem
from .labels import CHANNELS, to_canonical
from .nifti_file import NiftiFile, geometry_of, times

__all__ = ["read_image", "read_label", "read_label_map"]


def _as_scan(file: NiftiFile, voxels: np.ndarray, out: np.ndarray) -> None:
    """Copy one modality to float32 and check it; extremes are NaN where any voxel is, so one pass tells all."""
    np.copyto(out, voxels, casting="unsafe")
    checked = voxels if voxels.dtype.kind in "iu" else out
    least, most = checked.min(), checked.max()
    if not (np.isfinite(least) and np.isfinite(most)):
        file.fail("holds NaN or infinite values", "replace them, e.g. by 0 outside the brain")
    if least == most:
        file.fail(f"every voxel is {least:g}", "give the scan itself, or take the case out")


def _empty_scan(shape: tuple[int, ...], present: Sequence[str]) -> np.ndarray:
    """(4, X, Y, Z) with each channel in the memory order of NIfTI files, so that copying into it runs straight.

    Channels that aren't in `present` are zeros; the others are to be filled.
    """
    scan = np.moveaxis(np.empty((*shape, len(CHANNELS)), np.float32, order="F"), -1, 0)
    scan[[channel not in present for channel in CHANNELS]] = 0
    return scan


def read_image(case: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Read the scan of a case: four modality files (in parallel), one 4D file, or the folder of a case.

    Args:
        case: dictionary of `common.data.layouts`; "image" may also be a folder. Without "case" the name is that of the
            file or folder, without "channels" a 4D file is in canonical order. Modalities in "missing" are zeros.

    Returns:
        float32 array (4, X, Y, Z), channels t1n t1c t2w t2f, each channel in Fortran order as in the file; and the
        affine, float64 (4, 4), voxel to world in mm.

    Raises:
        CaseError: a file is missing, damaged, not a NIfTI file, of another shape or affine than the first, not 3D (not
            4D with four channels, for one file), holds NaN or infinity or one value everywhere, or has no true spacing.
    """
    image = case["image"]
    name = case.get("case") or stem(image[0] if isinstance(image, (list, tuple)) else image)
    present = [channel for channel in CHANNELS if channel not in (case.get("missing") or "").split()]
    if isinstance(image, (list, tuple)):
        paths = list(image)
        if len(paths) == 1 < len(present):
            image = paths[0]
    elif Path(image).is_dir():
        paths = image = find_modalities(Path(image))
    if isinstance(image, (str, Path)):
        return _read_4d(NiftiFile(name, image), case.get("channels") or CHANNELS, present)
    if len(paths) == len(CHANNELS):
        paths = [path for path, channel in zip(paths, CHANNELS, strict=True) if channel in present]
    if len(paths) != len(present):
        raise CaseError(name, paths[0], f"{len(paths)} files", f"give the four of {', '.join(CHANNELS)}")
    return _read_modalities([NiftiFile(name, path) for path in paths], present)


def _read_modalities(files: list[NiftiFile], present: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    first = files[0].read_geometry()
    scan = _empty_scan(first.shape, present)

    def read_one(file: NiftiFile, out: np.ndarray) -> np.ndarray:
        voxels, affine, _ = file.read()
        if voxels.ndim < 3 or any(size != 1 for size in voxels.shape[3:]):
            file.fail(f"is {voxels.ndim}D ({times(voxels.shape)}) where 3D is expected", "give one file a modality")
        file.expect_geometry(voxels.shape[:3], affine, first)
        _as_scan(file, voxels.reshape(voxels.shape[:3], order="F"), out)
        return affine

    with ThreadPoolExecutor(len(files)) as pool:  # unpacking, copying and min/max all release the GIL
        affines = list(pool.map(read_one, files, [scan[CHANNELS.index(channel)] for channel in present]))
    return scan, affines[0]


def _read_4d(file: NiftiFile, channels: Sequence[str], present: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    voxels, affine, _ = file.read()
    if voxels.ndim != 4 or voxels.shape[3] != len(CHANNELS):
        file.fail(
            f"is {voxels.ndim}D ({times(voxels.shape)}) where 4D with {len(CHANNELS)} channels is expected",
            f"give one file with {', '.join(channels)}, or the four files",
        )
    scan = _empty_scan(voxels.shape[:3], present)
    sources = [voxels[..., channels.index(channel)] for channel in present]
    with ThreadPoolExecutor(len(sources)) as pool:
        list(pool.map(_as_scan, [file] * len(sources), sources, [scan[CHANNELS.index(c)] for c in present]))
    return scan, affine


def read_label(case: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Read the label map of a case.

    Args:
        case: dictionary of `common.data.layouts`. With "image" (paths, or the scan already loaded as a MetaTensor) the
            label must have its shape and affine. Without "label_convention" the values are canonical.

    Returns:
        uint8 array (X, Y, Z) of canonical labels and the affine, float64 (4, 4).

    Raises:
        CaseError: there is no label; the file is missing, damaged or not 3D; it doesn't fit the image; or a value is
            outside the convention or not a whole number.
    """
    label, affine, _ = read_label_map(case)
    return label, affine


def read_label_map(case: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Like `read_label`, and with it the voxel size (mm) that the file's header states.

    That of a NIfTI-1 file is of float32, and the affine's columns may differ from it in the last digits.
    """
    if not case.get("label"):
        raise CaseError(str(case.get("case", "?")), None, "has no label", "add one or take the case out")
    name = case.get("case") or stem(case["label"])
    file = NiftiFile(name, case["label"])
    voxels, affine, spacing = file.read()
    if voxels.ndim < 3 or any(size != 1 for size in voxels.shape[3:]):
        file.fail(f"is {voxels.ndim}D ({times(voxels.shape)}) where 3D is expected", "give one label map")
    voxels = voxels.reshape(voxels.shape[:3], order="F")
    if case.get("image") is not None:
        file.expect_geometry(voxels.shape, affine, geometry_of(name, case["image"]))
    try:
        return to_canonical(voxels, case.get("label_convention", "canonical")), affine, spacing
    except InputError as error:
        raise CaseError(name, file.path, str(error), "mend the label or name its convention") from None
