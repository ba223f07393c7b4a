"""DICOM files as scanners write them, made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    UltrasoundImageStorage,
    generate_uid,
)

STUDY, SERIES, FRAME = (generate_uid(entropy_srcs=[name]) for name in ("study", "series", "frame"))


def dicom_file(path: Path, pixels: np.ndarray, photometric: str = "MONOCHROME2", **entries: Any) -> Path:
    """Writes pixels (H, W) or (H, W, 3), uint8, uint16 or int16, in a file of a patient; None leaves an entry out."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=[str(path)])
    image.StudyInstanceUID, image.SeriesInstanceUID = STUDY, SERIES
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = "Doe^Jane", "4711", "19610203", "F"
    image.StudyDate, image.StudyTime, image.StudyID, image.AccessionNumber = "20240102", "030405", "", ""
    image.Modality, image.SeriesNumber, image.InstanceNumber = "CT", 2, 7
    image.Rows, image.Columns = pixels.shape[:2]
    image.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    if pixels.ndim == 3:
        image.PlanarConfiguration = 0
    image.PhotometricInterpretation = photometric
    image.BitsAllocated = image.BitsStored = 8 * pixels.dtype.itemsize
    image.HighBit, image.PixelRepresentation = image.BitsStored - 1, int(pixels.dtype.kind == "i")
    image.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for name, value in entries.items():
        if value is None:
            image.pop(name, None)
        else:
            setattr(image, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    return path


def ct_file(path: Path, pixels: np.ndarray, **entries: Any) -> Path:
    """An axial slice of a CT, whose stored values are Hounsfield units and 1024."""
    place = {
        "FrameOfReferenceUID": FRAME,
        "ImagePositionPatient": [-10, -20, 35],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.75],
        "SliceThickness": 3,
    }
    return dicom_file(path, pixels, **(place | {"RescaleSlope": 1, "RescaleIntercept": -1024} | entries))


def ultrasound_file(path: Path, pixels: np.ndarray, **entries: Any) -> Path:
    """A picture in colours, which lies nowhere in the patient."""
    return dicom_file(path, pixels, "RGB", **{"SOPClassUID": UltrasoundImageStorage, "Modality": "US", **entries})


def x_ray_file(path: Path, pixels: np.ndarray, **entries: Any) -> Path:
    """A picture whose least value is white."""
    entries = {"SOPClassUID": DigitalXRayImageStorageForPresentation, "Modality": "DX", **entries}
    return dicom_file(path, pixels, "MONOCHROME1", **entries)
