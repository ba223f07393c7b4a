"""A small scan with lesions whose place in the patient is known, a report of it, and a page of lesion-wise scores."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch

from common.data.pairs import Pair
from common.metrics.comparison import compare
from common.metrics.lesion_wise import PRESETS
from common.networks.transunet3d import TransUNet3D
from common.report.build import build_report
from common.report.lesions import write_lesion_page
from common.scoring import score_pairs

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
    """A data set of two cases, one without reference, and their predictions with scores.

    Where there is a reference, its prediction misses the small lesion, and has probabilities, entropy and variance.
    """
    data, predictions = tmp_path / "data", tmp_path / "predictions"
    for number in (1, 2):
        name = f"BraTS-GLI-0000{number}-000"
        for channel, modality in zip(scan.image, ("t1n", "t1c", "t2w", "t2f"), strict=True):
            scan.save(data / name / f"{name}-{modality}.nii.gz", channel.astype(np.int16))
        scan.save(predictions / f"{name}.nii.gz", scan.label)
    missed = scan.label.copy()
    missed[8:10, 8:10, 4:6] = 0
    scan.save(predictions / f"{NAME}.nii.gz", missed)
    unsure = np.zeros(scan.label.shape, np.float32)
    unsure[6:12, 6:12, 2:8] = 0.75
    unsure[24:34, 30:42, 11:17] = 0.25
    scan.save(predictions / f"{NAME}_entropy.nii.gz", unsure)
    scan.save(predictions / f"{NAME}_variance.nii.gz", unsure / 2)
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


@pytest.fixture
def query_page(folders: tuple[Path, Path], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same report by a bundle whose queries, not trained, say and paint regions."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    torch.manual_seed(0)
    network = TransUNet3D(features=(4, 8, 8, 8), encoder_layers=0, decoder_layers=2, queries=5)
    assert network.query_decoder is not None
    with torch.no_grad():
        network.query_decoder.classes.bias[-1] -= 1
    torch.save(network.state_dict(), tmp_path / "queries.pt")
    plan = {"variant": "decoder", "features": [4, 8, 8, 8], "decoder_layers": 2, "queries": 5}
    given = {"bundle": repository / "bundles" / "transunet3d", "checkpoint": tmp_path / "queries.pt", **plan}
    given |= {"window_size": [16, 24, 16], "resample": False, "device": "cpu"}
    return build_report(*folders, tmp_path / "out" / "queries.html", **given)


MET = "brats2023-met"
HOSTILE = "<script>alert(2)</script>"


class Methods(NamedTuple):
    """Two methods' files and scores."""

    pairs: dict[str, list[Pair]]
    scored: dict[str, Any]

    def write(self, path: Path, **given: Any) -> Path:
        usual = {
            "policy": PRESETS[MET],
            "comparisons": compare({name: cases for name, cases in self.scored.items() if cases}),
            "missing": {HOSTILE: ["second"]},
            "failed": {},
        }
        return write_lesion_page(path, MET, scored=self.scored, pairs=self.pairs, **{**usual, **given})


@pytest.fixture
def methods(scan: Scan, tmp_path: Path) -> Methods:
    """Two cases of the same two lesions. One method is right but for a false lesion in the second case; the other takes
    the core of the first case for edema, misses its small lesion, and has no prediction of the second.
    """
    references: list[dict[str, Any]] = []
    for name in ("first", "second"):
        image = [str(tmp_path / "lesions" / name / f"{channel}.nii.gz") for channel in "abcd"]
        for path, channel in zip(image, scan.image, strict=True):
            scan.save(Path(path), channel.astype(np.int16))
        label = tmp_path / "lesions" / name / "label.nii.gz"
        scan.save(label, scan.label)
        references.append({"case": name, "image": image, "label": str(label)})
    false = scan.label.copy()
    false[10:13, 30:33, 8:10] = 3
    edema = np.where(scan.label > 0, 2, 0).astype(np.uint8)
    edema[8:10, 8:10, 4:6] = 0
    maps = {"exact": (scan.label, false), HOSTILE: (edema, None)}
    pairs: dict[str, list[Pair]] = {}
    for number, (method, predictions) in enumerate(maps.items()):
        for reference, prediction in zip(references, predictions, strict=True):
            path = tmp_path / "lesions" / f"method-{number}" / f"{reference['case']}.nii.gz"
            if prediction is not None:
                scan.save(path, prediction)
            pairs.setdefault(method, []).append(Pair(reference, None if prediction is None else path))
    return Methods(pairs, {method: score_pairs(of, PRESETS[MET])[0] for method, of in pairs.items()})


@pytest.fixture
def lesion_page(methods: Methods, tmp_path: Path) -> Path:
    return methods.write(tmp_path / "out" / "lesions.html")


@pytest.fixture
def shown(request: pytest.FixtureRequest) -> Path:
    """The page of that name: `page`, `lesion_page` or `query_page`."""
    path: Path = request.getfixturevalue(getattr(request, "param", "page"))
    return path
