"""Label maps of DICOM series as DICOM Segmentations that refer to them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CaseError
from .dicom import read_dataset
from .dicom_segmentation import (
    SEGMENTS,
    SERIES_NUMBER,
    describe,
    equipment,
    leave_out_what_is_out_of_form,
    write_made,
)
from .dicom_study import Series, Study
from .dicom_volume import Place

with suppress(ImportError):  # the extra `dicom`; without it `read_dataset` says so
    import highdicom
    import pydicom
    from highdicom.seg import Segmentation
    from pydicom.sr.coding import Code

__all__ = ["read_regions", "write_regions"]

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_BRAIN = ("12738006", "SCT", "Brain")


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
            leave_out_what_is_out_of_form(image, keep_place=True)
        return Segmentation(
            source_images=sources,
            pixel_array=frames,
            segmentation_type="BINARY",
            segment_descriptions=[
                describe(value, SEGMENTS[name][0], Code(*SEGMENTS[name][1]), algorithm, version, [Code(*_BRAIN)])
                for value, name in segments.items()
            ],
            series_instance_uid=highdicom.UID(),
            series_number=SERIES_NUMBER,
            series_description=f"Lesions found by {algorithm}"[:64],
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            content_label="LESIONS",
            **equipment(algorithm, version),
        )

    write_made(path, case, study.path, images[0], make, f"export {series} again")


def read_regions(path: Path, place: Place) -> np.ndarray:
    """The label map (columns, rows, slices) that a Segmentation holds of a series' voxels, 0 where it has no frames.

    Args:
        path: of a Segmentation whose segments don't overlap.
        place: of the series.
    """
    affine = _RAS_TO_LPS @ place.affine
    grid = highdicom.VolumeGeometry(affine, place.shape, "PATIENT", place.frame_of_reference)
    found = highdicom.seg.segread(path).get_volume(combine_segments=True, allow_missing_positions=True)
    return np.asarray(found.match_geometry(grid).array)
