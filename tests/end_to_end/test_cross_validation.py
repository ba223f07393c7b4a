"""Cross-validation as typed: stopped within a fold's training, it goes on as if nothing had happened."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import pytest
import torch

from common.cross_validation import cross_validate
from common.data.layouts import list_cases
from common.data.phantoms import make_phantoms
from common.scoring import score

pytestmark = pytest.mark.slow

SETTINGS = {
    "epochs": 12,
    "val_interval": 5,
    "batch_size": 1,
    "patch_size": [16, 16, 16],
    "resample": False,
    "num_workers": 0,
    "network_def#features": [8, 8, 8, 8],
}


def test_stopped_and_gone_on_with(
    tmp_path: Path,
    repository: Path,
    run_in_process: Callable[..., None],
    in_a_process: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(repository)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    dataset, out = tmp_path / "data", tmp_path / "cv"
    make_phantoms(dataset, cases=5, shape=24, layout="brats2018")
    options = {"dataset_dir": str(dataset), "out": str(out), "folds": 2, "parallel": 2, "checkpoint_minutes": 0}

    process = in_a_process(lambda: cross_validate("cga_unet", **options, **SETTINGS))
    process.wait_for(lambda: list(out.glob("fold-0/training/checkpoints/iteration-*.pt")), seconds=180)
    os.kill(process.pid, signal.SIGINT)
    assert process.status(seconds=120) == 130
    assert capfd.readouterr().err.endswith("stopped; the same command goes on where it was\n")
    assert not (out / "fold-0" / "evaluation").exists()

    cross_validate("cga_unet", **options, **SETTINGS)
    assert "2 folds, 5 cases; mean of each fold" in capfd.readouterr().out
    assert "going on after iteration" in (out / "fold-0" / "training.log").read_text()

    folds = json.loads((out / "folds.json").read_text())["folds"]
    for fold, parts in enumerate(folds):
        record = json.loads(max((out / f"fold-{fold}" / "training").glob("run-train-*.json")).read_text())
        assert {part: [case["case"] for case in cases] for part, cases in record["data"].items()} == parts
    for case in list_cases(dataset):
        written = nibabel.Nifti1Image.from_filename(out / "predictions" / f"{case['case']}.nii.gz")
        source = nibabel.Nifti1Image.from_filename(case["label"])
        assert written.shape == source.shape and (written.affine == source.affine).all()

    # Of the same fold, never stopped.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = {"ckpt_dir": tmp_path / "models", "output_dir": tmp_path / "run", "partition_file": out / "folds.json"}
    run_in_process("train", dataset_dir=dataset, fold=0, **whole, **SETTINGS)
    torch.set_num_threads(threads)
    for one, other in (("models/model.pt", "models/model.pt"), ("run/last.pt", "training/last.pt")):
        assert (tmp_path / one).read_bytes() == (out / "fold-0" / other).read_bytes()

    with (out / "scores.csv").open() as file:
        rows = {(row["case"], row["region"]): row for row in csv.DictReader(file)}
    score(str(out / "predictions"), str(dataset), preset="brats2023-gli", out=str(tmp_path / "scores"))
    with (tmp_path / "scores" / "lesions.csv").open() as file:
        for row in csv.DictReader(file):
            assert float(row["dice"]) == float(rows.pop((row["case"], row["region"]))["lesion_dice"])
    assert not rows
