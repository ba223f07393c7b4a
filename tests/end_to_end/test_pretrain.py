"""Pre-training on phantoms by the command that a user types: it learns, goes on, and needs no labels."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.data.phantoms import make_phantoms
from common.handlers.checkpoints import TrainingCheckpoints

pytestmark = pytest.mark.slow

# Enough for every step to happen.
TINY: dict[str, Any] = {
    "patch_size": [16, 16, 16],
    "token_size": [4, 8, 8],
    "encoder_layers": 2,
    "encoder_width": 48,
    "encoder_heads": 4,
    "encoder_mlp": 96,
    "network_def#decoder_width": 24,
    "network_def#decoder_heads": 4,
    "epochs": 2,
    "warmup_epochs": 1,
    "val_interval": 1,
    "num_workers": 0,
    "resample": False,
    "fractions": [0.75, 0.25, 0.0],
}
FORKED: dict[str, Any] = {"bundle": "transunet3d", **TINY}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scans without labels; one lacks a modality, and one has a single one."""
    folder = tmp_path_factory.mktemp("unlabelled") / "data"
    make_phantoms(str(folder), cases=4, seed=3, shape=32, kind="metastases")
    for path in folder.rglob("*-seg.nii.gz"):
        path.unlink()
    (folder / "phantoms.json").unlink(missing_ok=True)
    first, second, *_ = sorted(path for path in folder.iterdir() if path.is_dir())
    (first / f"{first.name}-t2f.nii.gz").unlink()
    for modality in ("t1n", "t1c", "t2w"):
        (second / f"{second.name}-{modality}.nii.gz").unlink()
    return folder


@pytest.fixture(scope="module")
def pretrained(
    command: Callable[..., subprocess.CompletedProcess[str]], dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with `models/pretrained.pt`, `run/` and the `log` of a pre-training that learns something."""
    folder = tmp_path_factory.mktemp("pretrained")
    settings = {**TINY, "epochs": 20, "learning_rate": 0.003, "token_size": [2, 4, 4]}
    places = {"dataset_dir": dataset, "output_dir": folder / "run", "ckpt_dir": folder / "models"}
    done = command(
        *("monai.bundle", "run", "--config_file=bundles/transunet3d/configs/pretrain.json"),
        *("--bundle_root=bundles/transunet3d", "--meta_file=bundles/transunet3d/configs/metadata.json"),
        *("--logging_file=bundles/transunet3d/configs/logging.conf",),
        *(f"--{id}={value}" for id, value in {**settings, **places}.items()),
    )
    assert done.returncode == 0, done.stderr
    (folder / "log").write_text(done.stdout + done.stderr)
    return folder


def test_the_loss_of_cases_held_out_falls(pretrained: Path):
    log = (pretrained / "log").read_text()
    losses = [float(value) for value in re.findall(r"val_minus_loss -(\d+\.\d+) is the best", log)]
    assert len(losses) > 1 and losses[-1] < 0.92 * losses[0]
    assert "2 of 4 cases lack modalities, which are zeros and don't count" in log


def test_what_is_left(pretrained: Path):
    content = torch.load(pretrained / "models" / "pretrained.pt", weights_only=True)
    assert content["trained_with"] == {
        **{"token_size": [2, 4, 4], "mask_ratio": 0.75, "adaptive_ratio": False, "lesion_first": False},
        **{"initial_ratio": 0.25, "ratio_growth": 12.0},
        **{"normalise_patches": True, "encoder_heads": 4},
    }
    assert "encoder.blocks.1.linear1.weight" in content["model"]
    assert (pretrained / "run" / "last.pt").is_file()
    page = (pretrained / "run" / "reconstructions.html").read_text()
    assert 0 < page.count("<img") <= 4 * 3 and "Cases held out" in page


def test_labels_lying_there_are_ignored(forked: Callable[..., Any], dataset: Path, tmp_path: Path):
    """Whatever is in them; and the weights are the same to the bit as without."""
    labelled = Path(shutil.copytree(dataset, tmp_path / "labelled"))
    for folder in labelled.iterdir():
        (folder / f"{folder.name}-seg.nii.gz").write_bytes(b"no label")
    for name, folder in (("with", labelled), ("without", dataset)):
        life = forked("pretrain", folder, tmp_path / name, **FORKED)
        assert life.end() == 0, life.log.read_text()
        said = f"4 of 4 cases in {folder} have labels, which are ignored" in life.log.read_text()
        assert said == (name == "with")
    weights = [(tmp_path / name / "models" / "pretrained.pt").read_bytes() for name in ("with", "without")]
    assert weights[0] == weights[1]


def test_pretrained_blocks_begin_a_training(
    forked: Callable[..., Any], pretrained: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
):
    data = tmp_path_factory.mktemp("labelled") / "data"
    make_phantoms(str(data), cases=4, seed=4, shape=32, kind="metastases")
    settings = {
        **{"bundle": "transunet3d", "patch_size": [16, 16, 16], "window_size": [16, 16, 16], "features": [4, 8, 8, 8]},
        **{"num_workers": 0, "resample": False, "fractions": [0.5, 0.25, 0.25], "epochs": 1, "steps_per_epoch": 1},
        **{"encoder_layers": 2, "encoder_width": 48, "encoder_heads": 4},
        **{"encoder_mlp": 96, "network_def#positions": [2, 2, 2]},
        **{"pretrained": pretrained / "models" / "pretrained.pt"},
    }
    life = forked("train", data, tmp_path / "fits", **settings)
    assert life.end() == 0, life.log.read_text()
    assert "moved 26 tensors" in life.log.read_text() and "blocks.0–1, norm" in life.log.read_text()
    life = forked("train", data, tmp_path / "other", **{**settings, "encoder_layers": 3})
    assert life.end() == 1
    assert (
        "has 2 blocks of width 48 and 96, the network 3 blocks of width 48 and 96"
        in life.log.read_text().splitlines()[-1]
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"token_size": [4, 8, 5]}, "patch_size [16, 16, 16]: tokens of [4, 8, 5] voxels don't divide it"),
        ({"token_size": [16, 16, 16]}, "makes 1 token, and masking needs two"),
        ({"mask_ratio": 1.0}, "mask_ratio is 1.0: give a number above 0 and below 1"),
        ({"encoder_heads": 5}, "transformer of width 48: 5 heads don't divide it"),
        ({"encoder_layers": 0}, "0 transformer layers: give at least one"),
        ({"pretrained": "x.pt"}, "unknown id 'pretrained'"),
    ],
)
def test_bad_input(line_of: Callable[..., str], dataset: Path, tmp_path: Path, wrong: dict[str, Any], told: str):
    places = {"dataset_dir": dataset, "output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models"}
    assert told in line_of("pretrain", bundle="transunet3d", **places, **{**TINY, **wrong})


def die_within_an_epoch() -> None:
    after_iteration = TrainingCheckpoints.after_iteration

    def die(self: TrainingCheckpoints, engine: Any) -> None:
        after_iteration(self, engine)
        if engine.state.iteration == 4:  # of three in an epoch
            os.kill(os.getpid(), signal.SIGKILL)

    TrainingCheckpoints.after_iteration = die  # type: ignore[method-assign]


def test_killed_and_gone_on_to_the_bit(forked: Callable[..., Any], dataset: Path, tmp_path: Path):
    settings = {**FORKED, "epochs": 3, "batch_size": 1, "checkpoint_minutes": 0, "val_interval": 2}
    life = forked("pretrain", dataset, tmp_path / "whole", **settings)
    assert life.end() == 0, life.log.read_text()
    life = forked("pretrain", dataset, tmp_path / "killed", die_within_an_epoch, **settings)
    assert life.end() == -signal.SIGKILL, life.log.read_text()
    checkpoints = sorted(path.name for path in (tmp_path / "killed" / "run" / "checkpoints").iterdir())
    assert checkpoints == ["iteration-3.pt", "iteration-4.pt"]
    life = forked("pretrain", dataset, tmp_path / "killed", resume=True, **settings)
    assert life.end() == 0, life.log.read_text()
    for name in ("models/pretrained.pt", "run/last.pt", "run/checkpoints/iteration-9.pt", "run/reconstructions.html"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_another_mask_ratio_is_another_training(forked: Callable[..., Any], dataset: Path, tmp_path: Path):
    life = forked("pretrain", dataset, tmp_path, **FORKED)
    assert life.end() == 0, life.log.read_text()
    life = forked("pretrain", dataset, tmp_path, resume=True, **{**FORKED, "mask_ratio": 0.5})
    assert life.end() == 1
    assert "mask_ratio (0.75 then, 0.5 now)" in life.log.read_text()


def test_adaptive_masking(forked: Callable[..., Any], dataset: Path, tmp_path: Path):
    """MPS-AMS's masking in place of chance and a fixed ratio: likely lesions first, more each epoch."""
    settings = {**FORKED, "adaptive_ratio": True, "lesion_first": True, "ratio_growth": 3.0}
    life = forked("pretrain", dataset, tmp_path / "adaptive", **settings)
    assert life.end() == 0, life.log.read_text()
    facts = torch.load(tmp_path / "adaptive" / "run" / "last.pt", weights_only=True)["trained_with"]
    assert facts["adaptive_ratio"] and facts["lesion_first"] and facts["ratio_growth"] == 3


def test_two_processes_do_what_one_does(
    forked: Callable[..., Any], forked_together: Callable[..., list[Any]], dataset: Path, tmp_path: Path
):
    """With scans that have all modalities: the mean of two losses is that of all pixels."""
    whole = tmp_path / "data"
    make_phantoms(str(whole), cases=4, seed=4, shape=32)
    settings = {**FORKED, "amp": False, "fractions": [0.5, 0.5, 0.0], "learning_rate": 0.001}
    life = forked("pretrain", whole, tmp_path / "one", batch_size=2, **settings)
    assert life.end() == 0, life.log.read_text()
    for life in forked_together("multi_gpu_pretrain", whole, tmp_path / "two", batch_size=1, **settings):
        assert life.end() == 0, life.log.read_text()
    assert (tmp_path / "two" / "run" / "reconstructions.html").is_file()
    weights = [torch.load(tmp_path / n / "run" / "last.pt", weights_only=True)["model"] for n in ("one", "two")]
    # Adam makes more of the last bits of tiny gradients than other optimisers; two other steps differ by 1e-3.
    assert max(float((weights[1][key] - value).abs().max()) for key, value in weights[0].items()) <= 2e-5
