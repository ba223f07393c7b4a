"""Reading pictures (PNG, JPEG, BMP, TIFF, DICOM) as grey images, and masks of lesions in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import CaseError
from .dicom import DICOM_ENDING, is_dicom, read_dicom

__all__ = ["PICTURE_ENDINGS", "is_picture", "read_mask", "read_picture"]

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", DICOM_ENDING)


def is_picture(path: Path | str) -> bool:
    """Whether a file's name ends as that of a picture, in capitals or not, or it is a DICOM file without ending."""
    return Path(path).suffix.lower() in PICTURE_ENDINGS or is_dicom(path)


def read_picture(case: str, path: Path | str) -> np.ndarray:
    """A picture as grey values, whatever its kind: 8 or 16 bits, palette, colour, with alpha (which is left out).

    A turn that its EXIF data ask for is done. How DICOM files are read is said at `common.data.dicom.read_dicom`.

    Args:
        case: name, for errors.
        path: of the picture.

    Returns:
        float32 (H, W), in the file's own units.

    Raises:
        CaseError: the file is missing, damaged, or no picture.
    """
    if is_dicom(path):
        return read_dicom(case, path)
    picture = _open(case, path)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La", "P", "CMYK", "YCbCr", "HSV", "LAB", "RGB"):
        picture = picture.convert("RGB").convert("L")
    elif picture.mode == "1":
        picture = picture.convert("L")
    return np.asarray(picture, dtype=np.float32)


def read_mask(case: str, paths: Sequence[Path | str], shape: tuple[int, int]) -> np.ndarray:
    """The lesions of a picture: where any of its masks isn't black.

    Args:
        case: name, for errors.
        paths: of the masks, any number; none is a picture without lesion.
        shape: (H, W) of the picture.

    Returns:
        uint8 (H, W), 0 or 1.

    Raises:
        CaseError: a mask is missing, damaged, of another size, or not of black and one other grey.
    """
    lesion = np.zeros(shape, np.uint8)
    for path in paths:
        if is_dicom(path):
            raise CaseError(case, path, "is a mask as DICOM file", "save it as PNG, in black and white")
        picture = _open(case, path)
        if picture.mode not in ("1", "L", "I", "F", "I;16", "I;16B"):
            channels = np.asarray(picture.convert("RGB"))
            if (channels != channels[..., :1]).any():
                raise CaseError(case, path, "is a mask in colours", "save it in black and white")
            values = channels[..., 0]
        else:
            values = np.asarray(picture)
        if values.shape != shape:
            sizes = " and ".join("×".join(map(str, size[::-1])) for size in (values.shape, shape))
            raise CaseError(
                case, path, f"the mask and its picture differ in size: {sizes} pixels", "give the mask of this picture"
            )
        if not (values == 0).any():
            raise CaseError(case, path, "is a mask without black: lesion everywhere", "save it as white on black")
        found = np.unique(values[values != 0])
        if len(found) > 1:
            raise CaseError(
                case, path, f"is a mask with {len(found)} greys beside black", "save it in black and white, not as JPEG"
            )
        lesion |= (values != 0).astype(np.uint8)
    return lesion


def _open(case: str, path: Path | str) -> Image.Image:
    try:
        with Image.open(path) as picture:
            if (pages := getattr(picture, "n_frames", 1)) > 1:
                raise CaseError(case, path, f"holds {pages} pages", "save each as a picture of its own")
            picture.load()
            return ImageOps.exif_transpose(picture)
    except FileNotFoundError:
        raise CaseError(case, path, "does not exist", "add the file or take the case out") from None
    except UnidentifiedImageError:
        raise CaseError(case, path, "is no picture, or damaged", "replace it by a PNG or JPEG file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CaseError(case, path, f"can't be read ({error})", "copy or download it again") from None
