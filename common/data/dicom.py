"""DICOM images of one frame as grey pictures, and masks of them as DICOM Segmentations."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import __version__
from ..atomic import whole_file
from ..errors import CaseError

try:
    import highdicom
    import pydicom
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder
    from pydicom.sr.coding import Code
    from pydicom.uid import SegmentationStorage
except ImportError:  # the extra `dicom`
    _INSTALLED = False
else:
    _INSTALLED = True
    # They say what is out of form in a file, the patient's name among it; what matters is raised here.
    for _name in ("pydicom", "highdicom"):
        logging.getLogger(_name).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=rf"{_name}\b")

__all__ = ["DICOM_ENDING", "is_dicom", "read_dicom", "write_segmentation"]

DICOM_ENDING = ".dcm"

_MAGIC_AT, _MAGIC = 128, b"DICM"
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"
)  # fmt: skip
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
_OTHER_FILE = "export it from the archive again, or give it as PNG"
_SERIES_NUMBER = 1000  # beyond those that scanners give, so that viewers list it last


def is_dicom(path: Path | str) -> bool:
    """Whether a file's name ends as that of a DICOM file, or is one without ending: scanners name by number or UID."""
    path = Path(path)
    if path.suffix.lower() == DICOM_ENDING:
        return True
    if (path.suffix and not path.suffix[1:].isdigit()) or path.name == "DICOMDIR":
        return False
    try:
        with open(path, "rb") as file:
            return file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    except OSError:
        return False


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
    dataset = _read(case, path)
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
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is not None and not _can_unpack(syntax):
        remedy = "unpack it with `gdcmconv --raw`, or install what can: pip install python-gdcm"
        raise CaseError(case, path, f"is packed as {syntax.name}, which nothing installed here can unpack", remedy)


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


def write_segmentation(path: Path, mask: np.ndarray, case: str, source: Path | str, algorithm: str, run: str) -> None:
    """Write what was found in a DICOM image as a DICOM Segmentation of one segment, whole or not at all.

    It refers to the image, lies in its frame of reference where it has one, and tells of its patient and study. It is a
    new instance, with an identifier and a time of its own, each time that it is written.

    Args:
        path: of the file to write.
        mask: (H, W) of the image's size, 0 or 1.
        case: name, for errors.
        source: file of the image.
        algorithm: name of what found it, up to 64 characters.
        run: tells one run from another; Segmentations of one run, of images of one series, are a series too.

    Raises:
        CaseError: the image lacks what a Segmentation must say of it, or has another size.
        InputError: the folder can't be written to, or the disk is full.
    """
    image = _read(case, source, stop_before_pixels=True)
    content = io.BytesIO()
    try:
        _check_source(case, source, image, mask)
        _segmentation(image, mask, algorithm, run).save_as(content)
    except (CaseError, MemoryError):
        raise
    except Exception as error:  # values out of form raise almost anything, with the patient's data in it
        missing = error.name if isinstance(error, AttributeError) else None
        if missing is None and "FrameOfReferenceUID" not in image:
            missing = "FrameOfReferenceUID"  # of the modalities that must have one
        lack = f" ({missing} is missing)" if missing else ""
        raise CaseError(case, source, f"a DICOM Segmentation can't refer to it{lack}", _OTHER_FILE) from None
    with whole_file(path) as temporary:
        temporary.write_bytes(content.getvalue())


def _check_source(case: str, source: Path | str, image: Any, mask: np.ndarray) -> None:
    if mask.shape != (image.get("Rows"), image.get("Columns")):
        sizes = f"{mask.shape[1]}×{mask.shape[0]} and {image.get('Columns')}×{image.get('Rows')} pixels"
        raise CaseError(case, source, f"the mask and the image differ in size: {sizes}", "predict this image again")
    for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if not image.get(name):
            raise CaseError(case, source, f"lacks {name}, which its mask must refer to", _OTHER_FILE)


def _segmentation(image: Any, mask: np.ndarray, algorithm: str, run: str) -> Any:
    """The Segmentation of an image without its pixels."""
    _leave_out_what_is_out_of_form(image)
    identification = highdicom.AlgorithmIdentificationSequence(
        name=algorithm, family=Code("123110", "DCM", "Artificial Intelligence"), version=__version__
    )
    lesion = SegmentDescription(
        segment_number=1,
        segment_label="Lesion",
        segmented_property_category=Code("49755003", "SCT", "Morphologically Abnormal Structure"),
        segmented_property_type=Code("52988006", "SCT", "Lesion"),
        algorithm_type="AUTOMATIC",
        algorithm_identification=identification,
    )
    segmentation = Segmentation(
        source_images=[image],
        pixel_array=mask.astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[lesion],
        series_instance_uid=pydicom.uid.generate_uid(entropy_srcs=[run, image.SeriesInstanceUID]),
        series_number=_SERIES_NUMBER,
        series_description=f"Lesions found by {algorithm}"[:64],
        sop_instance_uid=highdicom.UID(),
        instance_number=max(1, int(image.get("InstanceNumber") or 1)),
        manufacturer="Lesion Bundles",
        manufacturer_model_name=algorithm,
        software_versions=__version__,
        device_serial_number="0",
        content_label="LESION",
        omit_empty_frames=False,
    )
    if not image.get("SpacingBetweenSlices"):  # one slice doesn't tell, and highdicom says 1 mm
        for measures in segmentation.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence") or ():
            measures.pop("SpacingBetweenSlices", None)
    return segmentation


def _read(case: str, path: Path | str, stop_before_pixels: bool = False) -> Any:
    """The file as a pydicom Dataset."""
    if not _INSTALLED:
        raise CaseError(case, path, "is a DICOM file, which needs more packages", "pip install -e '.[dicom]'")
    try:
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)
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


def _can_unpack(syntax: Any) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _scaling(dataset: Any) -> Any:
    """What says how stored values become the modality's: the image, or, of an enhanced one, an entry of its frame."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in dataset.get(groups) or ():
            for transformation in group.get("PixelValueTransformationSequence") or ():
                return transformation
    return dataset


def _leave_out_what_is_out_of_form(image: Any) -> None:
    """Leave out what a Segmentation need not say of a patient, a study and a place, where it isn't as it must be.

    Of the place it says all or nothing: a part of it would be written, and couldn't be read again.
    """
    forms = {
        "PatientBirthDate": pydicom.valuerep.DA,
        "PatientSex": highdicom.PatientSexValues,
        "StudyDate": pydicom.valuerep.DA,
        "StudyTime": pydicom.valuerep.TM,
    }
    for name in _MAY_BE_EMPTY:
        try:
            if value := image.get(name):
                forms.get(name, str)(value)
            else:
                setattr(image, name, None)
        except ValueError:
            setattr(image, name, None)
    if not all(image.get(name) for name in _PLACE):
        for name in _PLACE:
            image.pop(name, None)
