"""Masks of DICOM images as DICOM Segmentations that refer to them, and what all Segmentations have in common."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..atomic import whole_file
from ..errors import CaseError
from .dicom import read_dataset

with suppress(ImportError):  # the extra `dicom`; without it `read_dataset` says so
    import highdicom
    import pydicom
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.coding import Code

__all__ = [
    "SEGMENTS",
    "SERIES_NUMBER",
    "describe",
    "equipment",
    "leave_out_what_is_out_of_form",
    "write_made",
    "write_segmentation",
]

SEGMENTS = {
    "NCR": ("Necrotic and non-enhancing core", ("C81175", "NCIt", "Non-Enhancing Lesion")),
    "ED": ("Edema", ("79654002", "SCT", "Edema")),
    "ET": ("Enhancing tumour", ("C113842", "NCIt", "Enhancing Lesion")),
    "lesion": ("Lesion", ("52988006", "SCT", "Lesion")),
}
"""Name of a label → the segment's label, and the code of what it is: those that the standard has for parts of brain
lesions where necrosis isn't told apart (PS3.16, CID 7169), and the lesion of CID 7159."""

SERIES_NUMBER = 1000
"""Of a Segmentation: beyond those that scanners give, so that viewers list it last."""

_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"
)  # fmt: skip
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
_OTHER_FILE = "export it from the archive again, or give it as PNG"


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
    image = read_dataset(case, source, stop_before_pixels=True)
    _check_source(case, source, image, mask)
    write_made(path, case, source, image, lambda: _segmentation(image, mask, algorithm, run), _OTHER_FILE)


def write_made(path: Path, case: str, source: Path | str, image: Any, make: Callable[[], Any], remedy: str) -> None:
    """Write the Segmentation that is made, whole or not at all.

    Args:
        path: of the file to write.
        case: name, for errors.
        source: of the image, for errors.
        image: that the Segmentation refers to.
        make: makes it.
        remedy: for errors.

    Raises:
        CaseError: the image lacks what a Segmentation must say of it.
        InputError: the folder can't be written to, or the disk is full.
    """
    content = io.BytesIO()
    try:
        make().save_as(content)
    except (CaseError, MemoryError):
        raise
    except Exception as error:  # values out of form raise almost anything, with the patient's data in it
        missing = error.name if isinstance(error, AttributeError) else None
        if missing is None and "FrameOfReferenceUID" not in image:
            missing = "FrameOfReferenceUID"  # of the modalities that must have one
        lack = f" ({missing} is missing)" if missing else ""
        raise CaseError(case, source, f"a DICOM Segmentation can't refer to it{lack}", remedy) from None
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
    leave_out_what_is_out_of_form(image)
    name, code = SEGMENTS["lesion"]
    lesion = describe(1, name, Code(*code), algorithm, __version__)
    segmentation = Segmentation(
        source_images=[image],
        pixel_array=mask.astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[lesion],
        series_instance_uid=pydicom.uid.generate_uid(entropy_srcs=[run, image.SeriesInstanceUID]),
        series_number=SERIES_NUMBER,
        series_description=f"Lesions found by {algorithm}"[:64],
        sop_instance_uid=highdicom.UID(),
        instance_number=max(1, int(image.get("InstanceNumber") or 1)),
        content_label="LESION",
        **equipment(algorithm, __version__),
        omit_empty_frames=False,
    )
    if not image.get("SpacingBetweenSlices"):  # one slice doesn't tell, and highdicom says 1 mm
        for measures in segmentation.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence") or ():
            measures.pop("SpacingBetweenSlices", None)
    return segmentation


def equipment(algorithm: str, version: str) -> dict[str, Any]:
    """What made a Segmentation, as arguments for it."""
    return {
        "manufacturer": "Lesion Bundles",
        "manufacturer_model_name": algorithm,
        "software_versions": version,
        "device_serial_number": "0",
    }


def describe(number: int, label: str, kind: Any, algorithm: str, version: str, anatomy: Sequence[Any] = ()) -> Any:
    """The segment of one kind of lesion, found by an algorithm."""
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=Code("49755003", "SCT", "Morphologically Abnormal Structure"),
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=algorithm, family=Code("123110", "DCM", "Artificial Intelligence"), version=version
        ),
        anatomic_regions=anatomy or None,
    )


def leave_out_what_is_out_of_form(image: Any, keep_place: bool = False) -> None:
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
    if not keep_place and not all(image.get(name) for name in _PLACE):
        for name in _PLACE:
            image.pop(name, None)
