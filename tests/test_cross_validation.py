"""What cross_validate runs, leaves out, refuses and prints; `fake_launcher.py` stands for the workflows."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common import cross_validation
from common.cross_validation import cross_validate, write_folds
from common.data.phantoms import make_phantoms
from common.errors import InputError

FAKE = Path(__file__).with_name("fake_launcher.py")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    make_phantoms(folder, cases=5, shape=24)
    return folder


@pytest.fixture
def validate(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Runs cross_validate in two folds; returns the calls of the launcher, each as fold and workflow."""
    monkeypatch.setattr(cross_validation, "_LAUNCHER", (sys.executable, str(FAKE)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def run(**options: object) -> list[str]:
        (tmp_path / "calls").unlink(missing_ok=True)
        cross_validate("cga_unet", **{"dataset_dir": str(dataset), "out": str(tmp_path), "folds": 2, **options})
        return [" ".join(line.split()[:2]) for line in calls(tmp_path)]

    return run


def calls(root: Path) -> list[str]:
    return (root / "calls").read_text().splitlines() if (root / "calls").exists() else []


ALL = ["0 train", "0 evaluate", "1 train", "1 evaluate"]


def test_every_fold_trains_and_is_evaluated_once(validate: Callable[..., list[str]], tmp_path: Path, capsys):
    assert validate(epochs=3, lesion_preset="fancl", weights="start.pt") == ALL
    first, second = calls(tmp_path)[2:]
    for word in ("--fold=1", f"--partition_file={tmp_path}/folds.json", f"--ckpt_dir={tmp_path}/fold-1/models"):
        assert word in first.split() and word in second.split()
    for word in (
        "--epochs=3",
        "--seed=0",
        f"--cache_dir={tmp_path}/cache",
        "--weights=start.pt",
        f"--output_dir={tmp_path}/fold-1/training",
    ):
        assert word in first.split()
    assert "--resume=True" in first.split() and "--resume" not in second
    assert "--lesion_preset" not in first and "--weights" not in second and "--predictions_dir" not in first
    assert "--epochs" not in second and "--cache_dir" not in second  # an evaluation does nothing with these
    for word in ("--lesion_preset=fancl", "--seed=0", f"--predictions_dir={tmp_path}/predictions"):
        assert word in second.split()
    printed = capsys.readouterr().out
    assert "2 folds, 5 cases; mean of each fold" in printed
    assert "Dice             WT     0.500   0.600   0.550±0.071" in printed
    assert len(json.loads((tmp_path / "scores.json").read_text())["cases"]) == 5
    assert (tmp_path / "fold-1" / "training.log").exists()
    assert validate(epochs=3, lesion_preset="fancl", weights="start.pt") == []
    assert "fold 1: was done before" in capsys.readouterr().out


def test_a_fold_that_failed_is_one_line_and_is_done_by_the_next_call(
    validate: Callable[..., list[str]], tmp_path: Path
):
    for what, called, left in (("0 train", ["0 train", *ALL[2:]], ALL[:2]), ("1 evaluate", ALL, ALL[3:])):
        for path in tmp_path.glob("fold-*/*/*"):
            path.unlink()
        for path in tmp_path.glob("fold-*/models"):
            path.rmdir()
        (tmp_path / "fail").write_text(what)
        fold, workflow = what.split()
        name = {"train": "training", "evaluate": "evaluation"}[workflow]
        with pytest.raises(InputError) as raised:
            validate()
        log = tmp_path / f"fold-{fold}" / f"{name}.log"
        assert raised.value.problems == (f"fold {fold}, {name}: it can't; do otherwise; log: {log}",)
        assert [" ".join(line.split()[:2]) for line in calls(tmp_path)] == called
        (tmp_path / "fail").unlink()
        assert validate() == left


def test_other_overrides(validate: Callable[..., list[str]], tmp_path: Path):
    validate(epochs=3, patch_size=[16, 16, 16])
    with pytest.raises(InputError) as raised:
        validate(epochs=4)
    assert str(raised.value) == (
        f"{tmp_path}/fold-0 was trained with another --epochs (3 then, 4 now), --patch_size ([16, 16, 16] then, "
        "[128, 128, 128] now): give the same again, or begin anew in another folder"
    )
    assert calls(tmp_path) == []
    same = {"epochs": 3, "patch_size": [16, 16, 16]}
    assert validate(**same, spacing=[1.0, 1.0, 1.0]) == []  # as it is without
    assert validate(**same, num_workers=0, device="cpu", learning_rate=0.001) == []
    assert validate(**same, lesion_preset="fancl") == ["0 evaluate", "1 evaluate"]


def test_a_finished_fold_started_from_the_same_weights(validate: Callable[..., list[str]], tmp_path: Path):
    validate(weights="start.pt")
    for other, told in (({"weights": "other.pt"}, "other.pt"), ({}, "none")):
        with pytest.raises(InputError) as raised:
            validate(**other)
        assert f"was trained with another --weights (start.pt then, {told} now): give" in str(raised.value)
    assert validate(weights="start.pt") == []


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        (
            {"epochss": 3, "fold": 1},
            ["--fold: each fold gets its own; leave it out", "unknown id 'epochss': did you mean"],
        ),
        ({"members": ["a.pt"]}, ["--members: each fold gets its own; leave it out"]),
        ({"epochs": "ten", "patch_size": 3}, ["epochs is 'ten': give a whole number above zero"]),
        ({"device": "cuda:1", "parallel": 2}, ["--device cuda:1: beside --parallel 2 each fold gets a GPU by itself;"]),
        ({"folds": 1, "parallel": 0}, ["folds is 1: give a whole number of at least 2"]),
        ({"validation_share": 1}, ["validation_share is 1: give a number above 0 and below 1"]),
        ({"dataset_dir": "nowhere"}, ["nowhere: is no folder"]),
        ({"folds": 6}, ["5 patients are too few for 6 folds: each fold tests"]),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    validate: Callable[..., list[str]], tmp_path: Path, options: dict, problems: list[str]
):
    with pytest.raises(InputError) as raised:
        validate(**options)
    for found, problem in zip(raised.value.problems, problems, strict=False):
        assert found.startswith(problem)
    assert len(raised.value.problems) >= len(problems)
    assert calls(tmp_path) == [] and not (tmp_path / "folds.json").exists()


def test_folds_side_by_side_share_the_cores(
    validate: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cross_validation.torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(cross_validation.torch.cuda, "device_count", lambda: 0)
    assert sorted(validate(parallel=2)) == sorted(ALL)
    assert {line.split()[2] for line in calls(tmp_path)} == {"3"}


def test_each_slot_has_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cross_validation.torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    name = "CUDA_VISIBLE_DEVICES"
    assert cross_validation._slots(3, "") == [{name: "0"}, {name: "1"}, {name: "0"}]
    assert cross_validation._slots(1, "") == [{}]
    assert name not in cross_validation._slots(2, "cpu")[0]
    monkeypatch.setenv(name, "5,GPU-7")
    assert cross_validation._slots(2, "cuda") == [{name: "5"}, {name: "GPU-7"}]


def test_interrupted_it_says_how_to_go_on(
    validate: Callable[..., list[str]], tmp_path: Path, in_a_process: Callable[..., Any], capfd
):
    (tmp_path / "wait").write_text("1 train")
    process = in_a_process(validate)
    process.wait_for((tmp_path / "waiting").exists)
    os.kill(process.pid, signal.SIGINT)
    assert process.status() == 130
    assert capfd.readouterr().err.endswith("stopped; the same command goes on where it was\n")
    assert json.loads((tmp_path / "run-cross_validate-1.json").read_text())["outcome"] == "stopped"
    (tmp_path / "wait").unlink()
    assert validate() == ALL[2:]


def test_folds_verb_prints_what_it_wrote(dataset: Path, tmp_path: Path, capsys):
    write_folds(str(dataset), str(tmp_path / "folds.json"), folds=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path}/folds.json: 2 folds of 5 cases" and len(lines) == 3
