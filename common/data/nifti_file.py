"""One NIfTI file of a case: what it holds, checked, with failures that name the case and the file."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from ..errors import CaseError
from .case_files import find_modalities

__all__ = ["AFFINE_TOLERANCE", "Content", "Geometry", "NiftiFile", "geometry_of", "times"]

AFFINE_TOLERANCE = 1e-3
"""Largest difference (mm) between entries of two affines that count as the same; tools round differently."""

_KINDS = {b"n+1\0": nibabel.Nifti1Header, b"n+2\0": nibabel.Nifti2Header}
_HEADER_BYTES = 540
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_EXPANSION = 1032  # of deflate, so that a damaged size at the end of a file can't ask for all memory


class Geometry(NamedTuple):
    """Where a file's voxels lie: shape (X, Y, Z), affine (4, 4) to mm, and the file that says so."""

    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray


class Content(NamedTuple):
    """What a file holds: its voxels, the affine (4, 4) to mm, and the voxel size (mm) of its header."""

    voxels: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, float, float]


class NiftiFile:
    """One NIfTI file of a case.

    Args:
        case: its name.
        path: of the file.

    Raises:
        CaseError: every method does where the file is missing, damaged or not what is asked for.
    """

    def __init__(self, case: str, path: Path | str) -> None:
        self.case, self.path = case, Path(path)

    def fail(self, reason: str, remedy: str) -> NoReturn:
        """Raise the CaseError that says what is wrong with the file, and what to do about it."""
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

    def read(self) -> Content:
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
        return Content(voxels, header.get_best_affine().astype(float), (x, y, z))

    def read_geometry(self) -> Geometry:
        """Of the voxels, from the header alone."""
        header = self.read_header(self.read_bytes(only_header=True))
        # The shape decides how much memory is asked for, before the voxels are there to prove it.
        if _stored_size(header) > self.largest_size():
            self.fail("is truncated", "copy or download it again")
        return Geometry(self.path, header.get_data_shape()[:3], header.get_best_affine())

    def expect_geometry(self, shape: tuple[int, ...], affine: np.ndarray, other: Geometry) -> None:
        """Raise a CaseError where voxels of this file, of a shape and an affine, lie elsewhere than another file's."""
        if shape != other.shape:
            self.fail(f"shape {times(shape)} is not that of {other.path} ({times(other.shape)})", "resample it")
        if not np.allclose(affine, other.affine, rtol=0, atol=AFFINE_TOLERANCE):
            largest = np.abs(affine - other.affine).max()
            self.fail(f"affine differs from that of {other.path} by up to {largest:.3g}", "resample it to that file")


def _stored_size(header: nibabel.Nifti1Header) -> int:
    return int(header.get_data_offset()) + math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize


def times(shape: tuple[int, ...]) -> str:
    """A shape in words, such as 240×240×155."""
    return "×".join(map(str, shape))


def geometry_of(name: str, image: Any) -> Geometry:
    """Of the scan that a label belongs to: of its (first) file, or of a MetaTensor (C, X, Y, Z)."""
    if hasattr(image, "affine"):
        source = image.meta.get("filename_or_obj", "the image") if hasattr(image, "meta") else "the image"
        return Geometry(Path(source), tuple(image.shape[1:]), np.asarray(image.affine))
    path = image[0] if isinstance(image, (list, tuple)) else image
    path = find_modalities(Path(path))[0] if Path(path).is_dir() else path
    return NiftiFile(name, path).read_geometry()
