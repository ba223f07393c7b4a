"""Masks and label maps of DICOM images as DICOM Segmentations that refer to them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..atomic import whole_file
from ..errors import CaseError
from .dicom import read_dataset
from .dicom_study import Series, Study
from .dicom_volume import Place

with suppress(ImportError):  # the extra `dicom`; without it `read_dataset` says so
    import highdicom
    import pydicom
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.coding import Code

__all__ = ["SEGMENTS", "write_regions", "write_segmentation"]

SEGMENTS = {
    "NCR": ("Necrotic and non-enhancing core", ("C81175", "NCIt", "Non-Enhancing Lesion")),
    "ED": ("Edema", ("79654002", "SCT", "Edema")),
    "ET": ("Enhancing tumour", ("C113842", "NCIt", "Enhancing Lesion")),
    "lesion": ("Lesion", ("52988006", "SCT", "Lesion")),
}
"""Name of a label → the segment's label, and the code of what it is: those that the standard has for parts of brain
lesions where necrosis isn't told apart (PS3.16, CID 7169), and the lesion of CID 7159."""

_BRAIN = ("12738006", "SCT", "Brain")
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"
)  # fmt: skip
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
_OTHER_FILE = "export it from the archive again, or give it as PNG"
_SERIES_NUMBER = 1000  # beyond those that scanners give, so that viewers list it last


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
    _write(path, case, source, image, lambda: _segmentation(image, mask, algorithm, run), _OTHER_FILE)


def _write(path: Path, case: str, source: Path | str, image: Any, make: Callable[[], Any], remedy: str) -> None:
    """Write what is made, whole or not at all, with a CaseError where the image doesn't allow it."""
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
    _leave_out_what_is_out_of_form(image)
    name, code = SEGMENTS["lesion"]
    lesion = _describe(1, name, Code(*code), algorithm, __version__)
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
        content_label="LESION",
        **_equipment(algorithm, __version__),
        omit_empty_frames=False,
    )
    if not image.get("SpacingBetweenSlices"):  # one slice doesn't tell, and highdicom says 1 mm
        for measures in segmentation.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence") or ():
            measures.pop("SpacingBetweenSlices", None)
    return segmentation


def _equipment(algorithm: str, version: str) -> dict[str, Any]:
    return {
        "manufacturer": "Lesion Bundles",
        "manufacturer_model_name": algorithm,
        "software_versions": version,
        "device_serial_number": "0",
    }


def _describe(number: int, label: str, kind: Any, algorithm: str, version: str, anatomy: Sequence[Any] = ()) -> Any:
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


def write_regions(
    path: Path,
    label: np.ndarray,
    case: str,
    study: Study,
    series: Series,
    place: Place,
    segments: Mapping[int, str],
    algorithm: str,
    version: str,
) -> None:
    """Write a label map of a series as a DICOM Segmentation with a segment for each label, whole or not at all.

    Each of the labels is a segment, found or not; frames where a segment has no voxel are left out.

    Args:
        path: of the file to write.
        label: (columns, rows, slices) of label values, on the series' own voxels.
        case: name, for errors.
        study: that the series is of.
        series: that the label map belongs to.
        place: of the series.
        segments: label value, from 1 on without a gap → name in `SEGMENTS`.
        algorithm: name of what found the lesions, up to 64 characters.
        version: of the algorithm.

    Raises:
        CaseError: the series lacks what a Segmentation must say of it.
        InputError: the folder can't be written to, or the disk is full.
    """
    try:
        images = [read_dataset(case, header.filename, stop_before_pixels=True) for header in series.headers]
    except CaseError as error:  # without the file's name, which may be the patient's
        raise CaseError(case, study.path, f"a file of {series} {error.reason}", error.remedy) from None
    frames = np.zeros(label.shape[::-1], np.uint8)
    sources = [images[index] for index, _ in place.frames]
    if len(images) == 1:  # of several frames, in the file's own order
        sources = images
        frames[[frame for _, frame in place.frames]] = label.transpose(2, 1, 0)
    else:
        frames[:] = label.transpose(2, 1, 0)

    def make() -> Any:
        step = float(np.linalg.norm(place.affine[:3, 2]))
        for image in sources:
            # An enhanced image says its thickness in its frames.
            if len(images) > 1 and not image.get("SliceThickness"):
                image.SliceThickness = pydicom.valuerep.DSfloat(step, auto_format=True)
            _leave_out_what_is_out_of_form(image, keep_place=True)
        return Segmentation(
            source_images=sources,
            pixel_array=frames,
            segmentation_type="BINARY",
            segment_descriptions=[
                _describe(value, SEGMENTS[name][0], Code(*SEGMENTS[name][1]), algorithm, version, [Code(*_BRAIN)])
                for value, name in segments.items()
            ],
            series_instance_uid=highdicom.UID(),
            series_number=_SERIES_NUMBER,
            series_description=f"Lesions found by {algorithm}"[:64],
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            content_label="LESIONS",
            **_equipment(algorithm, version),
        )

    _write(path, case, study.path, images[0], make, f"export {series} again")


def _leave_out_what_is_out_of_form(image: Any, keep_place: bool = False) -> None:
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
