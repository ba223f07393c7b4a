"""DICOM files: whether one is it, its entries and its values, and images of one frame as grey pictures."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import CaseError

try:
    import highdicom  # noqa: F401  # one extra holds both, and pydicom alone is there for other reasons too
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder
    from pydicom.uid import SegmentationStorage
except ImportError:  # the extra `dicom`
    _INSTALLED = False
else:
    _INSTALLED = True
    # They say what is out of form in a file, the patient's name among it; what matters is raised here.
    for _name in ("pydicom", "highdicom"):
        logging.getLogger(_name).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=rf"{_name}\b")

__all__ = ["DICOM_ENDING", "has_preamble", "is_dicom", "items", "read_dataset", "read_dicom", "read_frames", "whole"]

DICOM_ENDING = ".dcm"

_MAGIC_AT, _MAGIC = 128, b"DICM"
_UNPACK = "unpack it with `gdcmconv --raw`, or install what can: pip install python-gdcm"


def is_dicom(path: Path | str) -> bool:
    """Whether a file's name ends as that of a DICOM file, or is one without ending: scanners name by number or UID."""
    path = Path(path)
    if path.suffix.lower() == DICOM_ENDING:
        return True
    if (path.suffix and not path.suffix[1:].isdigit()) or path.name == "DICOMDIR":
        return False
    try:
        return has_preamble(path)
    except OSError:
        return False


def has_preamble(path: Path) -> bool:
    """Whether a file begins as every DICOM file does, whatever its name.

    Raises:
        OSError: it can't be read.
    """
    with open(path, "rb") as file:
        return file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC


def items(dataset: Any, keyword: str) -> list[Any]:
    """The Datasets in a sequence; none where there is no such entry, or it holds something else."""
    value = dataset.get(keyword)
    return list(value) if isinstance(value, pydicom.Sequence) else []


def whole(value: Any) -> int | None:
    """An entry as a whole number; None where it is none, or several."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def read_dicom(case: str, path: Path | str) -> np.ndarray:
    """A DICOM image of one frame as grey values.

    Its modality's table or rescaling is applied, so that a CT is in Hounsfield units. Where the file says that its
    least value is white (MONOCHROME1), its values are turned around between their least and greatest. Colours (of
    ultrasound) become grey as those of other pictures do.

    Args:
        case: name, for errors.
        path: of the file.

    Returns:
        float32 (H, W), bright is more.

    Raises:
        CaseError: the file is missing or damaged, holds no image or several, or is packed as nothing here can unpack.
    """
    dataset = read_dataset(case, path)
    try:
        _refuse_what_is_no_slice(case, path, dataset)
        return _grey(dataset)
    except (CaseError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes pydicom raise almost anything
        raise CaseError(case, path, f"its image can't be read ({error})", "copy it again, or take it out") from None


def _refuse_what_is_no_slice(case: str, path: Path | str, dataset: Any) -> None:
    if dataset.get("SOPClassUID") == SegmentationStorage:
        raise CaseError(case, path, "is a DICOM Segmentation, no image", "give the image that it belongs to")
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise CaseError(case, path, "holds no image, or is truncated", "copy it again, or take it out")
    frames = dataset.get("NumberOfFrames") or 1
    if frames > 1:
        raise CaseError(case, path, f"holds {frames} frames", "save each frame that you want as a file of its own")
    if (packed := _unknown_packing(dataset)) is not None:
        raise CaseError(case, path, f"is packed as {packed}, which nothing installed here can unpack", _UNPACK)


def _grey(dataset: Any) -> np.ndarray:
    colours, stored = dataset.PhotometricInterpretation, dataset.pixel_array
    if colours == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.ndim == 3:
        eight_bits = stored if stored.dtype == np.uint8 else (stored >> 8).astype(np.uint8)
        return np.asarray(Image.fromarray(eight_bits).convert("L"), np.float32)
    values = apply_modality_lut(stored, _scaling(dataset))
    if colours == "MONOCHROME1":
        values = values.max() + values.min() - values.astype(np.float64)
    return values.astype(np.float32)


def read_frames(case: str, path: Path | str, what: str) -> np.ndarray:
    """The values of each frame of a grey DICOM image, rescaled as its frame says.

    Args:
        case: name, for errors.
        path: of the file, which errors don't name, as names in a study may be the patient's.
        what: the image is, for errors: "slice 7 of series 3".

    Returns:
        float32 (F, H, W).

    Raises:
        CaseError: the image is damaged, holds colours, or is packed as nothing here can unpack.
    """
    try:
        dataset = pydicom.dcmread(path)
        if (packed := _unknown_packing(dataset)) is not None:
            raise CaseError(
                case, None, f"{what} is packed as {packed}, which nothing installed here can unpack", _UNPACK
            )
        if dataset.get("PhotometricInterpretation") != "MONOCHROME2":
            raise CaseError(case, None, f"{what} isn't grey with bright as more (MONOCHROME2)", "choose another series")
        stored = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
        frames = [apply_modality_lut(frame, _scaling(dataset, index)) for index, frame in enumerate(stored)]
        return np.stack(frames).astype(np.float32)
    except (CaseError, MemoryError):
        raise
    except Exception:  # a damaged file makes pydicom raise almost anything, with the patient's data in it
        raise CaseError(case, None, f"{what} can't be read: it is truncated or damaged", "export it again") from None


def read_dataset(
    case: str, path: Path | str, stop_before_pixels: bool = False, tags: Sequence[str] | None = None
) -> Any:
    """The file as a pydicom Dataset.

    Args:
        case: name, for errors.
        path: of the file.
        stop_before_pixels: leave out the image itself.
        tags: entries to read, by their keywords; all without it.

    Raises:
        CaseError: the file is missing, damaged or no DICOM file; or the packages aren't installed.
    """
    if not _INSTALLED:
        raise CaseError(case, path, "is a DICOM file, which needs more packages", "pip install highdicom python-gdcm")
    try:
        wanted = None if tags is None else list(tags)
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels, specific_tags=wanted)
    except FileNotFoundError:
        raise CaseError(case, path, "does not exist", "add the file or take the case out") from None
    except pydicom.errors.InvalidDicomError:
        raise CaseError(case, path, "is no DICOM file, or damaged", "export it from the archive again") from None
    except OSError as error:
        raise CaseError(case, path, f"can't be read ({error.strerror})", "check the file and its permissions") from None
    except MemoryError:
        raise
    except Exception:  # a damaged file makes pydicom raise almost anything, with the patient's data in it
        raise CaseError(case, path, "is damaged", "copy or export it again") from None


def _unknown_packing(dataset: Any) -> str | None:
    """The name of how a dataset's pixels are packed where nothing installed here can unpack them."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        return None if syntax is None or get_decoder(syntax).is_available else str(syntax.name)
    except NotImplementedError:
        return str(syntax.name)


def _scaling(dataset: Any, frame: int = 0) -> Any:
    """What says how stored values become the modality's: the image, or, of an enhanced one, an entry of its frame."""
    own = items(dataset, "PerFrameFunctionalGroupsSequence")[frame : frame + 1]
    for group in (*own, *items(dataset, "SharedFunctionalGroupsSequence")):
        for transformation in items(group, "PixelValueTransformationSequence"):
            return transformation
    return dataset
