"""A small scan with one lesion, whose place in the patient is known, and a report of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest

from common.report.build import build_report

NAME = "BraTS-GLI-00001-000"
RAS = np.diag([1.0, 1.0, 2.0, 1.0])


class Scan(NamedTuple):
    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray

    def turned(self, axes: str) -> Scan:
        """The same scan stored with other axes, such as LPS."""
        change = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(self.affine), nib.orientations.axcodes2ornt(axes)
        )
        affine = self.affine @ nib.orientations.inv_ornt_aff(change, self.label.shape)
        image = np.stack([nib.orientations.apply_orientation(channel, change) for channel in self.image])
        return Scan(image, nib.orientations.apply_orientation(self.label, change), affine)

    def save(self, path: Path, array: np.ndarray) -> None:
        """Writes an array with the scan's affine."""
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, self.affine), path)


@pytest.fixture
def scan() -> Scan:
    """RAS, 40×48×20 voxels of 1×1×2 mm; the lesion lies in the patient's right front upper part of the brain."""
    generator = np.random.default_rng(0)
    image = np.zeros((4, 40, 48, 20), np.float32)
    image[:, 4:36, 4:44, 2:18] = generator.normal(100, 5, (4, 32, 40, 16))
    label = np.zeros(image.shape[1:], np.uint8)
    label[24:34, 30:42, 11:17] = 2
    label[26:32, 33:39, 12:16] = 3
    label[28:30, 35:37, 13:15] = 1
    label[8:10, 8:10, 4:6] = 2
    image[:, label == 3] += 100
    return Scan(image, label, RAS)


@pytest.fixture
def folders(scan: Scan, tmp_path: Path) -> tuple[Path, Path]:
    """A data set of two cases, one without reference, and their predictions with scores and probabilities."""
    data, predictions = tmp_path / "data", tmp_path / "predictions"
    for number in (1, 2):
        name = f"BraTS-GLI-0000{number}-000"
        for channel, modality in zip(scan.image, ("t1n", "t1c", "t2w", "t2f"), strict=True):
            scan.save(data / name / f"{name}-{modality}.nii.gz", channel.astype(np.int16))
        scan.save(predictions / f"{name}.nii.gz", scan.label)
    scan.save(data / NAME / f"{NAME}-seg.nii.gz", scan.label)
    probabilities = np.eye(4, dtype=np.float32)[scan.label]
    scan.save(predictions / f"{NAME}_probabilities.nii.gz", probabilities)
    rows = [
        {"case": case, "region": region, "dice": dice, "hd95": float("inf"), "volume_prediction": 1234.5}
        for case, dice in ((NAME, 0.25), ("<script>alert(1)</script>", 0.75), ("c" * 90, float("nan")))
        for region in ("WT", "TC", "ET")
    ]
    summary = {r: {"dice": {"mean": 0.5, "std": 0.3, "median": 0.5}} for r in ("WT", "TC", "ET")}
    (predictions / "scores.json").write_text(json.dumps({"cases": rows, "summary": summary}))
    return data, predictions


@pytest.fixture
def page(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    return build_report(*folders, tmp_path / "out" / "report.html")
