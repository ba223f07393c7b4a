"""Bad predictions and bad evaluations: one line, a status, and the cases that can be scored are."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from common.data.layouts import list_cases
from common.networks.cga_unet import CGAUNet

Line = Callable[..., str]
CASE = "BraTS-GLI-00001-000"


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> None:
    image = nibabel.load(path)
    voxels = change(np.asarray(image.dataobj))
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine if affine is None else affine), path)


PREDICTIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        rf"case {CASE}, .*{CASE}\.nii\.gz: is truncated or damaged",
    ),
    "other shape": (
        lambda path: rewrite(path, lambda v: v[1:]),
        rf"case {CASE}, .*out/{CASE}\.nii\.gz: shape 31×32×32 is not that of .*-seg\.nii\.gz \(32×32×32\)",
    ),
    "other affine": (
        lambda path: rewrite(path, lambda v: v, np.eye(4)),
        rf"case {CASE}, .*out/{CASE}\.nii\.gz: affine differs from that of .*-seg\.nii\.gz by up to",
    ),
    "value outside": (
        lambda path: rewrite(path, lambda v: np.full_like(v, 4)),
        rf"case {CASE}, .*out/{CASE}\.nii\.gz: label value 4 is outside the convention 'canonical'",
    ),
}


@pytest.mark.parametrize(("damage", "line"), PREDICTIONS.values(), ids=PREDICTIONS)
def test_one_bad_prediction_among_many(
    line_of: Line, dataset: Path, tmp_path: Path, damage: Callable[[Path], object], line: str
):
    """The others are scored, each once, and the run ends with the bad one's line."""
    (tmp_path / "out").mkdir()
    for case in sorted(path.name for path in dataset.iterdir()):
        shutil.copy(dataset / case / f"{case}-seg.nii.gz", tmp_path / "out" / f"{case}.nii.gz")
    damage(tmp_path / "out" / f"{CASE}.nii.gz")
    message = line_of("evaluate_predictions", dataset_dir=dataset, predictions_dir=tmp_path / "out")
    assert re.search(f"1 of 3 cases failed: {line}", message), message
    rows = json.loads((tmp_path / "out" / "scores.json").read_text())["cases"]
    assert [row["case"] for row in rows[::3]] == ["BraTS-GLI-00000-000", "BraTS-GLI-00002-000"]
    assert all(row["dice"] == 1 for row in rows)


def test_missing_prediction(line_of: Line, dataset: Path, tmp_path: Path):
    message = line_of("evaluate_predictions", dataset_dir=dataset, predictions_dir=tmp_path)
    assert re.search(r"no prediction in .* for BraTS-GLI-00000-000, .*: predict these cases first", message)


def test_evaluation_draws_no_partition_of_its_own(line_of: Line, dataset: Path, weights: Path, tmp_path: Path):
    message = line_of("evaluate", dataset_dir=dataset, ckpt_dir=tmp_path, weights=weights)
    assert re.search(r"no partition at .*: give the one that the training wrote", message), message


@pytest.mark.parametrize("where", ["labelsTr", "imagesTr"])
def test_label_maps_do_not_replace_what_they_are_made_of(
    line_of: Line, phantoms: dict[str, Path], weights: Path, tmp_path: Path, where: str
):
    """In the decathlon's layout a reference has the very name that a prediction gets."""
    dataset = tmp_path / "data"
    shutil.copytree(phantoms["decathlon"], dataset)
    names = [case["case"] for case in list_cases(dataset)]
    (tmp_path / "partition.json").write_text(json.dumps({"parts": {"training": [], "validation": [], "test": names}}))
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    settings = {"dataset_dir": dataset, "ckpt_dir": tmp_path, "weights": weights, "output_dir": tmp_path / "out"}
    message = line_of("evaluate", **settings, resample=False, predictions_dir=dataset / where)
    assert "write the predictions elsewhere with --predictions_dir DIR" in message
    assert {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()} == before


def test_evaluation_of_nothing(line_of: Line, dataset: Path, weights: Path, tmp_path: Path):
    names = [f"BraTS-GLI-{number:05}-000" for number in range(3)]
    partition = {"parts": {"training": names, "validation": [], "test": []}}
    (tmp_path / "partition.json").write_text(json.dumps(partition))
    settings = {"dataset_dir": dataset, "ckpt_dir": tmp_path, "weights": weights, "output_dir": tmp_path / "out"}
    message = line_of("evaluate", **settings)
    assert message == "there is no case to evaluate in this part; choose another with --evaluate_on"
    assert [path.name for path in tmp_path.glob("out/*")] == ["run-evaluate-1.json"]


def test_no_memory_for_one_case(
    line_of: Line,
    monkeypatch: pytest.MonkeyPatch,
    dataset: Path,
    weights: Path,
    tmp_path: Path,
):
    """The others are done, in inference and in an evaluation."""
    forward, calls = CGAUNet.forward, []

    def too_large_for_the_first(self: CGAUNet, image: torch.Tensor) -> torch.Tensor:
        calls.append(image)
        if len(calls) == 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 EB")
        return forward(self, image)

    monkeypatch.setattr(CGAUNet, "forward", too_large_for_the_first)
    settings = {"dataset_dir": dataset, "output_dir": tmp_path / "out", "weights": weights}
    line = (
        r"1 of 3 cases failed: case BraTS-GLI-00000-000: memory ran out on its \d+×\d+×\d+ voxels; "
        r'make the window smaller, such as --window_size "\[128,128,128\]"'
    )
    message = line_of("inference", **settings)
    assert re.fullmatch(line, message), message
    written = [f"{case}.nii.gz" for case in (CASE, "BraTS-GLI-00002-000")]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == written
    calls.clear()
    names = [f"BraTS-GLI-{number:05}-000" for number in range(3)]
    (tmp_path / "partition.json").write_text(json.dumps({"parts": {"training": [], "validation": [], "test": names}}))
    message = line_of("evaluate", **settings, ckpt_dir=tmp_path)
    assert re.fullmatch(line, message), message
    rows = json.loads((tmp_path / "out" / "scores.json").read_text())["cases"]
    assert [row["case"] for row in rows[::3]] == names[1:]
