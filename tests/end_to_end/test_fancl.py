"""FANCL's whole sequence on phantoms, by the commands that a user types: mining, stages, inference, evaluation."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from common.data.labels import REGIONS
from common.data.layouts import list_cases
from common.handlers.checkpoints import TrainingCheckpoints

pytestmark = pytest.mark.slow

# Enough for every step to happen; nothing is learnt.
NETWORK = {"features": [4, 8, 8, 8], "attention_patch": [4, 4], "resample": False, "window_size": [16, 16, 16]}
TINY = {
    **NETWORK,
    "steps_per_epoch": 2,
    "val_interval": 1,
    "patch_size": [16, 16, 16],
    "num_workers": 0,
    "fractions": [0.5, 0.25, 0.25],
    "stages": [1, 2],
}
MINING = {
    **{id: TINY[id] for id in ("features", "resample", "window_size", "steps_per_epoch", "patch_size", "num_workers")},
    "val_interval": 1,
    "mining_depths": [3, 4],
    "mining_epochs": 1,
    "folds": 2,
    "flips": [],
}


@pytest.fixture(scope="module")
def run(said_by: Callable[..., str]) -> Callable[..., str]:
    """Runs a workflow of fancl by `python -m monai.bundle run`; returns what it says."""
    return partial(said_by, "fancl")


@pytest.fixture(scope="module")
def curriculum(run: Callable[..., str], metastases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mined") / "curriculum"
    run("mine_curriculum", dataset_dir=metastases, curriculum_dir=folder, output_dir=folder.parent / "eval", **MINING)
    return folder


@pytest.fixture(scope="module")
def trained(
    run: Callable[..., str], metastases: Path, curriculum: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    places = {"dataset_dir": metastases, "output_dir": folder / "run", "ckpt_dir": folder / "models"}
    (folder / "log").write_text(run("train", **places, curriculum_dir=curriculum, **TINY))
    return folder


def test_curricula_are_within_one_another_and_the_truth(metastases: Path, curriculum: Path):
    manifest = json.loads((curriculum / "curriculum.json").read_text())
    assert manifest["stages"] == 2 and manifest["categories"] == "labels"
    found = 0
    for case in list_cases(metastases, labelled=True):
        label = np.asarray(nibabel.load(case["label"]).dataobj)
        entry = np.asarray(nibabel.load(curriculum / f"{case['case']}.nii.gz").dataobj)
        outputs = [
            np.asarray(
                nibabel.load(curriculum / "mining" / f"depth-{d}" / "predictions" / f"{case['case']}.nii.gz").dataobj
            )
            for d in (3, 4)
        ]
        for index, value in enumerate((1, 2, 3)):
            truth = label == value
            first = truth & (outputs[0] == value)
            second = first | truth & (outputs[1] == value)
            of_category = entry[..., index]
            np.testing.assert_array_equal(of_category == 1, first)
            np.testing.assert_array_equal((of_category > 0) & (of_category <= 2), second)
            np.testing.assert_array_equal(of_category > 0, truth)
            found += int(second.sum())
    assert found > 0  # else the comparison says nothing


def test_mining_goes_on_where_it_was(run: Callable[..., str], metastases: Path, curriculum: Path):
    told = run(
        "mine_curriculum",
        dataset_dir=metastases,
        curriculum_dir=curriculum,
        output_dir=curriculum.parent / "eval",
        **MINING,
    )
    assert told.count("was done before") == 4


def test_training_leaves_the_weights_of_its_stages(trained: Path):
    for name in ("run/stage1.pt", "run/last.pt", "models/model.pt"):
        content = torch.load(trained / name, weights_only=True)
        assert content["trained_with"]["components"] == "CF"
        assert any(key.startswith("attention.") for key in content["model"])
    assert "stage 1 has ended" in (trained / "log").read_text()
    assert (trained / "run" / "checkpoints" / "iteration-6.pt").is_file()


def test_later_stage_from_the_one_before(
    forked: Callable[..., Any], metastases: Path, curriculum: Path, trained: Path, tmp_path: Path
):
    settings = {"bundle": "fancl", "curriculum_dir": curriculum, **TINY, "first_stage": 2}
    life = forked("train", metastases, tmp_path, **settings)
    assert life.end() == 1
    assert f"no weights at {tmp_path}/run/stage1.pt: train first" in life.log.read_text().splitlines()[-1]
    life = forked("train", metastases, tmp_path, **settings, weights=trained / "run" / "stage1.pt")
    assert life.end() == 0
    assert "2 epochs of 2 steps" in life.log.read_text()


def test_inference_and_evaluation(run: Callable[..., str], metastases: Path, trained: Path, tmp_path: Path):
    model = {"weights": trained / "models" / "model.pt", **NETWORK}
    run("inference", dataset_dir=metastases, output_dir=tmp_path / "out", **model)
    for case in list_cases(metastases):
        image = nibabel.load(tmp_path / "out" / f"{case['case']}.nii.gz")
        reference = nibabel.load(case["label"])
        assert image.shape == reference.shape and image.get_data_dtype() == np.uint8
        np.testing.assert_allclose(image.affine, reference.affine)
    run(
        "train",
        "evaluate",
        dataset_dir=metastases,
        ckpt_dir=trained / "models",
        output_dir=tmp_path / "scores",
        **NETWORK,
    )
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert {row["region"] for row in scores["cases"]} == {*REGIONS}
    assert (tmp_path / "scores" / "lesions.csv").is_file()


@pytest.mark.parametrize("components", ["", "C", "F"])
def test_ablations_are_one_override(
    forked: Callable[..., Any], metastases: Path, curriculum: Path, tmp_path: Path, components: str
):
    own = {"bundle": "fancl", "components": components}
    life = forked("train", metastases, tmp_path, curriculum_dir=curriculum, **TINY, **own)
    assert life.end() == 0, life.log.read_text()
    content = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert any(key.startswith("attention.") for key in content["model"]) == ("F" in components)


def test_regions(run_in_process: Callable[..., None], metastases: Path, tmp_path: Path):
    """Regions with a sigmoid each, from the training to a label map, a vote and its variance."""
    places = {"dataset_dir": metastases, "output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models"}
    own = {"bundle": "fancl", "regions": True, "components": "F"}
    run_in_process("train", **places, **{**TINY, **own, "stages": [1]})
    model = {"weights": tmp_path / "models" / "model.pt", "save_uncertainty": True, "save_probabilities": True}
    for combine in ("mean", "vote"):
        out = {"dataset_dir": metastases, "output_dir": tmp_path / combine, "flips": [0], "combine": combine}
        run_in_process("inference", **model, **out, **NETWORK, **own)
        for case in list_cases(metastases):
            image = nibabel.load(tmp_path / combine / f"{case['case']}.nii.gz")
            assert {*np.unique(image.dataobj)} <= {0, 1, 2, 3}
            probabilities = nibabel.load(tmp_path / combine / f"{case['case']}_probabilities.nii.gz")
            np.testing.assert_allclose(np.asarray(probabilities.dataobj).sum(-1), 1, atol=1e-4)


def test_two_processes_do_what_one_does(
    forked: Callable[..., Any],
    forked_together: Callable[..., list[Any]],
    metastases: Path,
    curriculum: Path,
    tmp_path: Path,
):
    """Also which of the patches are about a lesion, and the stages."""
    settings = {"bundle": "fancl", "curriculum_dir": curriculum, **TINY, "amp": False, "fractions": [0.5, 0.5, 0.0]}
    life = forked("train", metastases, tmp_path / "one", batch_size=2, **settings)
    assert life.end() == 0, life.log.read_text()
    for life in forked_together("multi_gpu_train", metastases, tmp_path / "two", batch_size=1, **settings):
        assert life.end() == 0, life.log.read_text()
    for name in ("stage1", "last"):
        weights = [torch.load(tmp_path / n / "run" / f"{name}.pt", weights_only=True)["model"] for n in ("one", "two")]
        assert max(float((weights[1][key] - value).abs().max()) for key, value in weights[0].items()) <= 1e-6


def die_after_the_first_stage() -> None:
    after_epoch = TrainingCheckpoints.after_epoch

    def die(self: TrainingCheckpoints, engine: object) -> None:
        after_epoch(self, engine)
        os.kill(os.getpid(), signal.SIGKILL)

    TrainingCheckpoints.after_epoch = die  # type: ignore[method-assign]


def test_killed_after_a_stage_and_gone_on_to_the_bit(
    forked: Callable[..., Any], metastases: Path, curriculum: Path, tmp_path: Path
):
    """No checkpoint is due but that of the stage's end."""
    settings = {"bundle": "fancl", "curriculum_dir": curriculum, **TINY, "checkpoint_minutes": 1000}
    life = forked("train", metastases, tmp_path / "whole", **settings)
    assert life.end() == 0, life.log.read_text()
    life = forked("train", metastases, tmp_path / "killed", die_after_the_first_stage, **settings)
    assert life.end() == -signal.SIGKILL, life.log.read_text()
    assert [path.name for path in (tmp_path / "killed" / "run" / "checkpoints").iterdir()] == ["iteration-2.pt"]
    life = forked("train", metastases, tmp_path / "killed", resume=True, **settings)
    assert life.end() == 0, life.log.read_text()
    for name in ("models/model.pt", "run/last.pt", "run/stage1.pt", "run/checkpoints/iteration-6.pt"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
