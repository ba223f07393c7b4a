"""FANCL on the two real cases that have labels: each is segmented by a network that saw the other, a few steps long."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.data.curriculum_folder import read_manifest, write_curricula
from common.data.layouts import list_cases

pytestmark = pytest.mark.slow

NETWORK = {
    "bundle": "fancl",
    "features": [8, 16, 16, 16],
    "attention_patch": [4, 4],
    "spacing": [2.0, 2.0, 2.0],
    "window_size": [64, 64, 64],
}
TRAINING = {"patch_size": [64, 64, 64], "steps_per_epoch": 4, "val_interval": 1, "num_workers": 0, "stages": [1]}


def test_a_fold_each(run_in_process: Callable[..., None], real_scans: Path, tmp_path: Path):
    dataset = real_scans / "brats2020"
    cases = list_cases(dataset, labelled=True)
    names = [case["case"] for case in cases]
    folds = [{"training": [a], "validation": [a], "test": [b]} for a, b in (names, names[::-1])]
    (tmp_path / "folds.json").write_text(json.dumps({"folds": folds}))
    of_both = {"dataset_dir": dataset, "partition_file": tmp_path / "folds.json", **NETWORK}
    for fold in range(2):
        places = {"fold": fold, "ckpt_dir": tmp_path / f"models-{fold}", "output_dir": tmp_path / f"run-{fold}"}
        cache = {"cache_dir": tmp_path / "cache"}
        run_in_process("train", **of_both, **places, **cache, **TRAINING, components="F")
        maps = {"predictions_dir": tmp_path / "maps", "flips": [], "components": "F"}
        run_in_process("evaluate", **of_both, **places, **maps)
    for case in cases:
        found, reference = nibabel.load(tmp_path / "maps" / f"{case['case']}.nii.gz"), nibabel.load(case["label"])
        assert found.shape == reference.shape
        np.testing.assert_allclose(found.affine, reference.affine, atol=1e-5)
        scores = json.loads((tmp_path / f"run-{names.index(case['case'])}" / "scores.json").read_text())
        assert scores["cases"]
    # What these found is the curriculum of a training with all parts.
    write_curricula(cases, [tmp_path / "maps"], tmp_path / "curriculum")
    assert {*read_manifest(tmp_path / "curriculum").cases} == {*names}
    places = {"fold": 0, "ckpt_dir": tmp_path / "models", "output_dir": tmp_path / "run"}
    run_in_process("train", **of_both, **places, **TRAINING, curriculum_dir=tmp_path / "curriculum")
    assert (tmp_path / "models" / "model.pt").is_file()
