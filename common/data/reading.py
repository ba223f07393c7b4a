"""Read a case's scan and label map from NIfTI files, checked, so that what comes back can be computed with."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from ..errors import CaseError, InputError
from .case_files import find_modalities, stem
from .labels import CHANNELS, to_canonical

__all__ = ["read_image", "read_label", "read_label_map"]

AFFINE_TOLERANCE = 1e-3
"""Largest difference (mm) between entries of two affines that count as the same; tools round differently."""

_KINDS = {b"n+1\0": nibabel.Nifti1Header, b"n+2\0": nibabel.Nifti2Header}
_HEADER_BYTES = 540
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_EXPANSION = 1032  # of deflate, so that a damaged size at the end of a file can't ask for all memory


class _Geometry(NamedTuple):
    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray


class _Content(NamedTuple):
    voxels: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, float, float]


class _File:
    """One NIfTI file of a case; every failure names both."""

    def __init__(self, case: str, path: Path | str) -> None:
        self.case, self.path = case, Path(path)

    def fail(self, reason: str, remedy: str) -> NoReturn:
        raise CaseError(self.case, self.path, reason, remedy)

    def read_bytes(self, only_header: bool = False) -> bytes:
        """The content, unpacked. Packed or not is told by the content, as files of either kind are named either way."""
        try:
            with open(self.path, "rb") as file:
                if only_header:
                    packed = file.read(2) == _GZIP_MAGIC
                    file.seek(0)
                    return (gzip.GzipFile(fileobj=file) if packed else file).read(_HEADER_BYTES)
                content = file.read()
            if content[:2] != _GZIP_MAGIC:
                return content
            # The size at the end lets zlib unpack into one buffer, which takes a third less time than growing one.
            size = int.from_bytes(content[-4:], "little")
            unpacked = zlib.decompress(content, 31, max(1, min(size, _MOST_EXPANSION * len(content))))
            # zlib stops after the first of several gzip members, which then isn't as long as the last one says.
            return unpacked if len(unpacked) == size else gzip.decompress(content)
        except FileNotFoundError:
            self.fail("does not exist", "add the file or take the case out")
        except (zlib.error, EOFError, gzip.BadGzipFile):
            self.fail("is truncated or damaged", "copy or download it again")
        except OSError as error:
            self.fail(f"can't be read ({error.strerror})", "check the file and its permissions")

    def largest_size(self) -> int:
        """The most bytes that the file can hold, unpacked."""
        with open(self.path, "rb") as file:
            expansion = _MOST_EXPANSION if file.read(2) == _GZIP_MAGIC else 1
            return expansion * os.fstat(file.fileno()).st_size

    def read_header(self, content: bytes) -> nibabel.Nifti1Header:
        """The header with its spacing checked. nibabel's own check would set a spacing of 0 to 1 and go on."""
        kind = _KINDS.get(content[344:348]) or _KINDS.get(content[4:8])
        try:
            if kind is None:
                raise HeaderDataError
            header = kind(content[: kind.sizeof_hdr], check=False)
            header.get_data_dtype()
            header.get_slope_inter()
            if header.get_data_offset() < kind.single_vox_offset or min(header.get_data_shape(), default=0) < 1:
                raise HeaderDataError
        except (HeaderDataError, WrapStructError, ValueError, KeyError):
            self.fail("is not a NIfTI file" if content else "is empty", "replace it by the scan as .nii.gz")
        spacing = header["pixdim"][1:4].astype(float)
        if not (np.isfinite(spacing).all() and (spacing > 0).all()):
            self.fail(f"spacing {', '.join(f'{s:g}' for s in spacing)} mm", "write it again with a true spacing")
        try:
            affine = header.get_best_affine()
        except ValueError:  # the quaternion isn't a rotation
            affine = np.zeros((4, 4))
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            self.fail("its affine can't be inverted", "write it again with a true orientation and spacing")
        return header

    def read(self) -> _Content:
        """Voxels as they are stored (scaled, if the header says so, to float32), the affine, the header's spacing."""
        content = self.read_bytes()
        header = self.read_header(content)
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        if dtype.kind not in "iuf":
            self.fail(f"voxels of type {dtype}", "convert it to numbers, one a voxel")
        offset, count = int(header.get_data_offset()), math.prod(shape)
        if len(content) < _stored_size(header):
            self.fail("is truncated", "copy or download it again")
        voxels = np.frombuffer(content, dtype, count, offset).reshape(shape, order="F")
        slope, inter = header.get_slope_inter()
        if slope is not None and (slope, inter) != (1, 0):
            voxels = voxels.astype(np.float32) * np.float32(slope) + np.float32(inter)
        x, y, z = (float(zoom) for zoom in header["pixdim"][1:4])
        return _Content(voxels, header.get_best_affine().astype(float), (x, y, z))

    def read_geometry(self) -> _Geometry:
        header = self.read_header(self.read_bytes(only_header=True))
        # The shape decides how much memory is asked for, before the voxels are there to prove it.
        if _stored_size(header) > self.largest_size():
            self.fail("is truncated", "copy or download it again")
        return _Geometry(self.path, header.get_data_shape()[:3], header.get_best_affine())

    def expect_geometry(self, shape: tuple[int, ...], affine: np.ndarray, other: _Geometry) -> None:
        if shape != other.shape:
            self.fail(f"shape {_times(shape)} is not that of {other.path} ({_times(other.shape)})", "resample it")
        if not np.allclose(affine, other.affine, rtol=0, atol=AFFINE_TOLERANCE):
            largest = np.abs(affine - other.affine).max()
            self.fail(f"affine differs from that of {other.path} by up to {largest:.3g}", "resample it to that file")


def _stored_size(header: nibabel.Nifti1Header) -> int:
    return int(header.get_data_offset()) + math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _as_scan(file: _File, voxels: np.ndarray, out: np.ndarray) -> None:
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
        return _read_4d(_File(name, image), case.get("channels") or CHANNELS, present)
    if len(paths) == len(CHANNELS):
        paths = [path for path, channel in zip(paths, CHANNELS, strict=True) if channel in present]
    if len(paths) != len(present):
        raise CaseError(name, paths[0], f"{len(paths)} files", f"give the four of {', '.join(CHANNELS)}")
    return _read_modalities([_File(name, path) for path in paths], present)


def _read_modalities(files: list[_File], present: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    first = files[0].read_geometry()
    scan = _empty_scan(first.shape, present)

    def read_one(file: _File, out: np.ndarray) -> np.ndarray:
        voxels, affine, _ = file.read()
        if voxels.ndim < 3 or any(size != 1 for size in voxels.shape[3:]):
            file.fail(f"is {voxels.ndim}D ({_times(voxels.shape)}) where 3D is expected", "give one file a modality")
        file.expect_geometry(voxels.shape[:3], affine, first)
        _as_scan(file, voxels.reshape(voxels.shape[:3], order="F"), out)
        return affine

    with ThreadPoolExecutor(len(files)) as pool:  # unpacking, copying and min/max all release the GIL
        affines = list(pool.map(read_one, files, [scan[CHANNELS.index(channel)] for channel in present]))
    return scan, affines[0]


def _read_4d(file: _File, channels: Sequence[str], present: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    voxels, affine, _ = file.read()
    if voxels.ndim != 4 or voxels.shape[3] != len(CHANNELS):
        file.fail(
            f"is {voxels.ndim}D ({_times(voxels.shape)}) where 4D with {len(CHANNELS)} channels is expected",
            f"give one file with {', '.join(channels)}, or the four files",
        )
    scan = _empty_scan(voxels.shape[:3], present)
    sources = [voxels[..., channels.index(channel)] for channel in present]
    with ThreadPoolExecutor(len(sources)) as pool:
        list(pool.map(_as_scan, [file] * len(sources), sources, [scan[CHANNELS.index(c)] for c in present]))
    return scan, affine


def _image_geometry(name: str, image: Any) -> _Geometry:
    """Of the scan that a label belongs to: of its (first) file, or of a MetaTensor (C, X, Y, Z)."""
    if hasattr(image, "affine"):
        source = image.meta.get("filename_or_obj", "the image") if hasattr(image, "meta") else "the image"
        return _Geometry(Path(source), tuple(image.shape[1:]), np.asarray(image.affine))
    path = image[0] if isinstance(image, (list, tuple)) else image
    path = find_modalities(Path(path))[0] if Path(path).is_dir() else path
    return _File(name, path).read_geometry()


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
    file = _File(name, case["label"])
    voxels, affine, spacing = file.read()
    if voxels.ndim < 3 or any(size != 1 for size in voxels.shape[3:]):
        file.fail(f"is {voxels.ndim}D ({_times(voxels.shape)}) where 3D is expected", "give one label map")
    voxels = voxels.reshape(voxels.shape[:3], order="F")
    if case.get("image") is not None:
        file.expect_geometry(voxels.shape, affine, _image_geometry(name, case["image"]))
    try:
        return to_canonical(voxels, case.get("label_convention", "canonical")), affine, spacing
    except InputError as error:
        raise CaseError(name, file.path, str(error), "mend the label or name its convention") from None
