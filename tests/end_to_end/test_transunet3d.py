"""3D-TransUNet on phantoms, by the commands that a user types: its variants, folds, ensembles, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from common.data.labels import REGIONS
from common.data.layouts import list_cases
from common.handlers.checkpoints import TrainingCheckpoints
from common.transforms.curriculum import CategoryTargetsd
from common.transforms.load import LoadLabelMapd

pytestmark = pytest.mark.slow

# Enough for every step to happen; nothing is learnt.
NETWORK: dict[str, Any] = {
    "features": [4, 8, 8, 8],
    "encoder_width": 48,
    "encoder_heads": 4,
    "encoder_mlp": 96,
    "queries": 4,
    "resample": False,
    "window_size": [16, 16, 16],
}
TINY: dict[str, Any] = {
    **NETWORK,
    "epochs": 2,
    "steps_per_epoch": 2,
    "val_interval": 1,
    "patch_size": [16, 16, 16],
    "num_workers": 0,
    "fractions": [0.5, 0.25, 0.25],
}
BOTH = {"variant": "both", "encoder_layers": 1, "decoder_layers": 2}
VARIANTS = {
    "encoder": {"variant": "encoder", "encoder_layers": 2},
    "decoder": {"variant": "decoder", "decoder_layers": 2},
    "both": BOTH,
    "none": {"variant": "none"},
}


@pytest.fixture(scope="module")
def run(said_by: Callable[..., str]) -> Callable[..., str]:
    """Runs a workflow of transunet3d by `python -m monai.bundle run`; returns what it says."""
    return partial(said_by, "transunet3d")


@pytest.fixture(scope="module")
def trained(run: Callable[..., str], metastases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`models/model.pt` and `run/` of the variant with both transformers."""
    folder = tmp_path_factory.mktemp("trained")
    places = {"dataset_dir": metastases, "output_dir": folder / "run", "ckpt_dir": folder / "models"}
    run("train", **places, **{**TINY, **BOTH})
    return folder


def test_training_says_what_its_weights_are(trained: Path):
    for name in ("run/last.pt", "models/model.pt"):
        content = torch.load(trained / name, weights_only=True)
        assert content["trained_with"] == {
            **{"variant": "both", "encoder_heads": 4, "modality_dropout": 0.0},
            **{"spacing": [], "robust": False, "patch_size": TINY["patch_size"]},
        }
        assert "transformer.encoder.blocks.0.linear1.weight" in content["model"]
        assert "query_decoder.layers.1.norm1.weight" in content["model"]


def test_inference_and_evaluation(run: Callable[..., str], metastases: Path, trained: Path, tmp_path: Path):
    model = {"weights": trained / "models" / "model.pt", **NETWORK, **BOTH}
    run("inference", dataset_dir=metastases, output_dir=tmp_path / "out", **model, save_probabilities=True)
    for case in list_cases(metastases):
        image = nibabel.load(tmp_path / "out" / f"{case['case']}.nii.gz")
        reference = nibabel.load(case["label"])
        assert image.shape == reference.shape and image.get_data_dtype() == np.uint8
        np.testing.assert_allclose(image.affine, reference.affine)
        assert {*np.unique(image.dataobj)} <= {0, 1, 2, 3}
        probabilities = nibabel.load(tmp_path / "out" / f"{case['case']}_probabilities.nii.gz")
        np.testing.assert_allclose(np.asarray(probabilities.dataobj).sum(-1), 1, atol=1e-4)
    own = {**NETWORK, **BOTH}
    run(
        *("train", "evaluate"),
        **{"dataset_dir": metastases, "ckpt_dir": trained / "models", "output_dir": tmp_path / "scores", **own},
    )
    run(
        "evaluate_predictions",
        **{"dataset_dir": metastases, "predictions_dir": tmp_path / "out", "output_dir": tmp_path / "of_maps"},
    )
    for name in ("scores", "of_maps"):
        scores = json.loads((tmp_path / name / "scores.json").read_text())
        assert {row["region"] for row in scores["cases"]} == {*REGIONS}
        assert (tmp_path / name / "lesions.csv").is_file()


@pytest.fixture(scope="module")
def folds(
    command: Callable[..., subprocess.CompletedProcess[str]], metastases: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A cross-validation of the plain variant."""
    out = tmp_path_factory.mktemp("folds") / "cv"
    own = {
        **TINY,
        "variant": "none",
        "epochs": 1,
        "steps_per_epoch": 1,
        "out": out,
        "dataset_dir": metastases,
        "folds": 2,
    }
    own.pop("fractions")
    settings = [f"--{name}={value}" for name, value in own.items()]
    done = command("common", "cross_validate", "transunet3d", *settings)
    assert done.returncode == 0, done.stderr
    return out


def test_ensemble_of_folds(
    run_in_process: Callable[..., None],
    line_of: Callable[..., str],
    metastases: Path,
    folds: Path,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    members = f"{folds}/fold-*/models/model.pt"
    own = {"bundle": "transunet3d", "dataset_dir": metastases, "output_dir": tmp_path / "out", "members": members}
    own |= {**NETWORK, "variant": "none", "flips": [0], "draw": 1, "draw_seed": 1}
    run_in_process("ensemble", **own)
    assert "ensemble of 1 of 2 networks" in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 4
    other = trained / "models" / "model.pt"
    both = [str(folds / "fold-0" / "models" / "model.pt"), str(other)]
    told = line_of("ensemble", **{**own, "members": both, "draw": 2, "overwrite": True})
    assert told.startswith(f"members: {both[0]} was trained with variant 'none', and {other} with 'both': an ensemble")
    (folds / "fold-1" / "models" / "model.pt").rename(tmp_path / "away.pt")
    try:
        told = line_of("ensemble", **own, overwrite=True)
    finally:
        (tmp_path / "away.pt").rename(folds / "fold-1" / "models" / "model.pt")
    assert f"{folds}/folds.json has 2 folds, and no file of fold-1 fits" in told


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [("encoder", 116_792_111), ("decoder", 34_071_475), ("both", 41_702_643), ("none", 31_194_351)],
)
def test_variants_are_one_id(repository: Path, variant: str, parameters: int):
    for workflow in ("train", "inference"):
        parser = ConfigParser()
        parser.read_config(repository / "bundles" / "transunet3d" / "configs" / f"{workflow}.json")
        parser["variant"] = variant
        with torch.device("meta"):
            network = parser.get_parsed_content("network_def")
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_targets_are_regions(repository: Path, metastases: Path, tmp_path: Path):
    parser = ConfigParser()
    parser.read_config(repository / "bundles" / "transunet3d" / "configs" / "train.json")
    settings = {"resample": False, "cache_dir": str(tmp_path), "num_workers": 0, "patch_size": [32, 32, 32]}
    parser.update({**settings, "data": {"training": list_cases(metastases, labelled=True)}})
    steps = parser.get_parsed_content("train#random_transforms")
    (step,) = [step for step in steps if isinstance(step, CategoryTargetsd)]
    for case in parser.get_parsed_content("train#dataset").data:
        label = LoadLabelMapd()(case)["label"]
        target = step({"label": label})["label"]
        expected = [sum(label[0] == value for value in values) for values in REGIONS.values()]
        assert torch.equal(target.as_tensor() > 0, torch.stack(expected).as_tensor() > 0)
        assert (target > 0).any()


@pytest.mark.parametrize("variant", ["encoder", "decoder", "none"])
def test_each_variant_trains(forked: Callable[..., Any], metastases: Path, tmp_path: Path, variant: str):
    """With fewer layers than the default ones, which need five stages and minutes."""
    own = {"bundle": "transunet3d", **TINY, **VARIANTS[variant], "epochs": 1, "optimizer_name": "adamw"}
    life = forked("train", metastases, tmp_path, **own)
    assert life.end() == 0, life.log.read_text()
    names = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["model"]
    assert any(name.startswith("transformer.") for name in names) == (variant == "encoder")
    assert any(name.startswith("query_decoder.") for name in names) == (variant == "decoder")


def test_two_processes_do_what_one_does(
    forked: Callable[..., Any], forked_together: Callable[..., list[Any]], metastases: Path, tmp_path: Path
):
    """Without dropout, which each process draws for itself."""
    settings = {"bundle": "transunet3d", **TINY, **BOTH, "amp": False, "fractions": [0.5, 0.5, 0.0]}
    settings["network_def#dropout"] = 0.0
    life = forked("train", metastases, tmp_path / "one", batch_size=2, **settings)
    assert life.end() == 0, life.log.read_text()
    for life in forked_together("multi_gpu_train", metastases, tmp_path / "two", batch_size=1, **settings):
        assert life.end() == 0, life.log.read_text()
    weights = [torch.load(tmp_path / n / "run" / "last.pt", weights_only=True)["model"] for n in ("one", "two")]
    assert max(float((weights[1][key] - value).abs().max()) for key, value in weights[0].items()) <= 1e-6


def die_after_an_epoch() -> None:
    after_epoch = TrainingCheckpoints.after_epoch

    def die(self: TrainingCheckpoints, engine: object) -> None:
        after_epoch(self, engine)
        os.kill(os.getpid(), signal.SIGKILL)

    TrainingCheckpoints.after_epoch = die  # type: ignore[method-assign]


def test_killed_and_gone_on_to_the_bit(forked: Callable[..., Any], metastases: Path, tmp_path: Path):
    settings = {"bundle": "transunet3d", **TINY, **BOTH, "checkpoint_minutes": 0}
    life = forked("train", metastases, tmp_path / "whole", **settings)
    assert life.end() == 0, life.log.read_text()
    life = forked("train", metastases, tmp_path / "killed", die_after_an_epoch, **settings)
    assert life.end() == -signal.SIGKILL, life.log.read_text()
    life = forked("train", metastases, tmp_path / "killed", resume=True, **settings)
    assert life.end() == 0, life.log.read_text()
    for name in ("models/model.pt", "run/last.pt", "run/checkpoints/iteration-4.pt"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"queries": 2}, "2 queries: give at least as many as there are classes, 3"),
        ({"no_object_weight": 0}, "no_object_weight is 0: give a number above zero"),
        ({"variant": "Encoder"}, "variant is 'Encoder': give encoder, decoder, both or none"),
        ({"optimizer_name": "adam"}, "optimizer_name is 'adam': give sgd or adamw"),
        ({"decoder_layers": 3}, "decoder_layers 3: 4 stages have levels for 0 to 2"),
        ({"encoder_heads": 5}, "transformer of width 48: 5 heads don't divide it"),
        ({"patch_size": [16, 16, 12]}, "patch_size [16, 16, 12]: a network of 4 stages takes multiples of 8, not 8"),
        ({"window_size": [8, 8, 8]}, "window_size [8, 8, 8]: a network of 4 stages takes multiples of 8"),
        ({"encoder_layers": 0}, "variant is 'both', and encoder_layers 0 with decoder_layers 2 is 'decoder'"),
        ({"pretrained": __file__, "weights": __file__}, "pretrained and weights are given"),
        ({"pretrained": "none.pt"}, "no pre-trained blocks at none.pt: run pretrain first"),
    ],
)
def test_bad_input(line_of: Callable[..., str], metastases: Path, tmp_path: Path, wrong: dict[str, Any], told: str):
    places = {"dataset_dir": metastases, "output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models"}
    line = line_of("train", bundle="transunet3d", **places, **{**TINY, **BOTH, **wrong})
    assert told in line
    assert not (tmp_path / "models" / "model.pt").exists()
