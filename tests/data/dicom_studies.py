"""Studies of a brain as DICOM files, made up: four series and a localizer, of a patient whose data must stay inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, generate_uid

from common.errors import InputError
from tests.data.dicom_files import dicom_file

PATIENT = {
    "PatientName": "Planted^Petronella",
    "PatientID": "ID-PLANTED-4711",
    "PatientBirthDate": "19610203",
    "PatientSex": "F",
    "AccessionNumber": "ACC0815",
    "StudyDate": "20240102",
    "StudyTime": "030405",
    "StudyID": "1",
    "InstitutionName": "Hospital Secretstead",
    "ReferringPhysicianName": "Quackenbush^Quentin",
    "PatientComments": "burned in",
}
SECRETS = (
    "planted",
    "petronella",
    "4711",
    "19610203",
    "0815",
    "20240102",
    "secretstead",
    "quacken",
    "private",
    "burned",
)
"""What of a patient, in lower case, must be nowhere but in DICOM files."""

AXIAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1)
SERIES = {
    1: {"SeriesDescription": "localizer", "ImageType": ["ORIGINAL", "PRIMARY", "M", "LOCALIZER"]},
    2: {"SeriesDescription": "t1_se_tra Planted"},
    3: {"SeriesDescription": "t2_tse_tra"},
    4: {"SeriesDescription": "t2_flair_tra"},
    5: {"SeriesDescription": "ep2d_diff_3scan_trace"},
    6: {"SeriesDescription": "t1_mprage_sag +KM"},
}
CHANNELS = {"t1n": 2, "t1c": 6, "t2w": 3, "t2f": 4}
UID_ROOT = "1.2.826.0.1.3680043.8.498."


def uid(*names: object) -> str:
    return str(generate_uid(prefix=UID_ROOT, entropy_srcs=[str(name) for name in names]))


def values_at(points: np.ndarray, number: int) -> np.ndarray:
    """What series `number` measures at points (…, 3) in mm, LPS: linear, so that resampling is exact."""
    x, y, z = np.moveaxis(np.asarray(points, float), -1, 0)
    return np.round(1000 + 100 * number + 4 * x + 8 * y + 12 * z).astype(np.int16)


def slices_of(
    shape: tuple[int, int, int],
    orientation: Sequence[float],
    spacing: tuple[float, float, float],
    origin: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (S, 3) of slices and points (S, rows, columns, 3) of their pixels; shape (rows, columns, slices)."""
    right, down = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    positions = np.asarray(origin, float) + np.outer(np.arange(shape[2]) * spacing[2], np.cross(right, down))
    i, j = np.arange(shape[0]) * spacing[0], np.arange(shape[1]) * spacing[1]
    points = positions[:, None, None] + i[None, :, None, None] * down + j[None, None, :, None] * right
    return positions, points


def mr_series(
    folder: Path,
    number: int,
    shape: tuple[int, int, int] = (14, 12, 8),
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float, float] = (2, 2.5, 3),
    origin: Sequence[float] = (-15, -14, -12),
    study: str = "one",
    values: np.ndarray | None = None,
    each: Callable[[int], dict[str, Any]] = lambda index: {},
    **entries: Any,
) -> list[Path]:
    """Writes a series of single slices, shape (rows, columns, slices), and returns its files in order of the slices."""
    positions, points = slices_of(shape, orientation, spacing, origin)
    values = values_at(points, number) if values is None else values
    files = []
    for index, position in enumerate(positions):
        place = {
            "SOPClassUID": MRImageStorage,
            "SOPInstanceUID": uid(study, number, index),
            "InstanceNumber": index + 1,
            "ImagePositionPatient": [float(p) for p in position],
            "ImageOrientationPatient": list(orientation),
            "PixelSpacing": list(spacing[:2]),
            "SliceThickness": spacing[2],
        }
        path = folder / f"Planted_{number}" / f"Planted_{number}_{index:03d}.dcm"
        files.append(dicom_file(path, values[index], **(_common(number, study) | place | entries | each(index))))
    _plant(files[0])
    return files


def _common(number: int, study: str) -> dict[str, Any]:
    return (
        PATIENT
        | {
            "StudyInstanceUID": uid(study),
            "SeriesInstanceUID": uid(study, number),
            "FrameOfReferenceUID": uid(study, "frame"),
            "Modality": "MR",
            "Manufacturer": "Phantom",
            "PositionReferenceIndicator": "",
            "SeriesNumber": number,
            "ImageType": ["ORIGINAL", "PRIMARY", "M"],
            "ScanningSequence": "SE",
            "SequenceVariant": "SK",
            "ScanOptions": "",
            "MRAcquisitionType": "2D",
            "EchoTime": 10,
            "RepetitionTime": 500,
            "EchoTrainLength": 1,
            "PatientPosition": "HFS",
        }
        | SERIES.get(number, {})
    )


def _plant(path: Path) -> None:
    """Add private entries with the patient's name, which scanners burn in."""
    file = pydicom.dcmread(path)
    block = file.private_block(0x0029, "PRIVATE PLANTED", create=True)
    block.add_new(0x10, "LO", "private Planted Petronella")
    file.save_as(path, enforce_file_format=True)


def enhanced_series(folder: Path, number: int, order: Sequence[int], study: str = "one", **place: Any) -> Path:
    """Writes a series as one enhanced image; its frames are those slices in an order of their own."""
    given = {"shape": (14, 12, 8), "orientation": AXIAL, "spacing": (2, 2.5, 3), "origin": (-15, -14, -12)} | place
    positions, points = slices_of(**given)
    values = values_at(points, number)

    def item(**entries: Any) -> Dataset:
        dataset = Dataset()
        for name, value in entries.items():
            setattr(dataset, name, value)
        return dataset

    spacing = given["spacing"]
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=list(spacing[:2]), SliceThickness=spacing[2])],
        PlaneOrientationSequence=[item(ImageOrientationPatient=list(given["orientation"]))],
    )
    frames = [
        item(
            PixelValueTransformationSequence=[item(RescaleSlope=2, RescaleIntercept=-2 * index, RescaleType="US")],
            PlanePositionSequence=[item(ImagePositionPatient=[float(p) for p in positions[index]])],
            FrameContentSequence=[item(StackID="1", InStackPositionNumber=index + 1, DimensionIndexValues=[index + 1])],
        )
        for index in order
    ]
    stored = (values[list(order)] // 2 + np.reshape(order, (-1, 1, 1))).astype(np.uint16)
    path = folder / f"Planted_{number}.dcm"
    entries = _common(number, study) | {
        "SOPClassUID": EnhancedMRImageStorage,
        "SOPInstanceUID": uid(study, number, "enhanced"),
        "NumberOfFrames": len(frames),
        "Rows": given["shape"][0],
        "Columns": given["shape"][1],
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": frames,
    }
    dicom_file(path, stored.reshape(-1, given["shape"][1]), **entries)
    return path


def mr_study(folder: Path, study: str = "one", without: Sequence[int] = (), **entries: Any) -> Path:
    """Writes a study: a localizer, T1, T2, FLAIR and diffusion of axial slices, and T1c of sagittal ones."""
    for number in SERIES:
        if number not in without:
            place = {"shape": (12, 14, 10), "orientation": SAGITTAL, "spacing": (2, 2, 2), "origin": (9, -13, 10)}
            few = {"shape": (8, 8, 3)} if number == 1 else {}
            mr_series(folder, number, study=study, **(place if number == 6 else few), **entries)
    return folder


def refusal(call: Callable[..., None], *arguments: object, **options: object) -> str:
    """Why a verb refuses its arguments, which get text."""
    with pytest.raises(InputError) as error:
        call(*map(str, arguments), **options)
    assert all("\n" not in line for line in error.value.problems)
    return str(error.value)


def label_of(case: Path, axes: str = "") -> tuple[Path, np.ndarray]:
    """Writes a label map of a case, with slices of nothing, in its geometry or with other axes."""
    scan = nibabel.load(next(case.glob("*-t1c.nii.gz")))
    label = np.random.default_rng(0).integers(0, 4, scan.shape).astype(np.uint8)
    label[..., :3] = 0
    image = nibabel.Nifti1Image(label, scan.affine)
    if axes:
        turn = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(scan.affine), nibabel.orientations.axcodes2ornt(axes)
        )
        image = image.as_reoriented(turn)
    path = case.parent.parent / f"labels{axes}" / f"{case.name}.nii.gz"
    path.parent.mkdir(exist_ok=True)
    nibabel.save(image, path)
    return path, label
