"""What 3D-TransUNet's ablation runs and says: ids of each row, labels left aside, orders, gains."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ablation import Table
from benchmarks.ablation_transunet3d import (
    DECISIONS,
    ORDERS,
    PAIRS,
    ROWS,
    Ablation,
    arguments,
    caution,
    gain,
    labelled,
    steps,
)

Words = list[str]
LOSSES = {"val_loss": (np.array([10, 20]), np.array([0.9, 0.7]))}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[Words]:
    """The commands that would have been run; scans aren't made, only listed."""
    run: list[Words] = []
    monkeypatch.setattr(Ablation, "command", lambda self, *words: run.append([str(word) for word in words]))
    monkeypatch.setattr("benchmarks.ablation_transunet3d.names", lambda folder: [f"case-{n:02}" for n in range(34)])
    monkeypatch.setattr("benchmarks.ablation.names", lambda folder: ["held-back"])
    monkeypatch.setattr("benchmarks.ablation_transunet3d.read_curves", lambda folder: LOSSES)
    return run


@pytest.fixture
def ablation(commands: list[Words], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ablation]:
    def make(*words: str) -> Ablation:
        monkeypatch.setattr(sys, "argv", ["ablation", *words])
        return Ablation(arguments(), tmp_path)

    return make


def value(words: Words, id: str) -> str:
    assert words.count(f"--{id}") == 1
    return words[words.index(f"--{id}") + 1]


def test_rows_differ_in_the_variant_and_the_beginning_alone(ablation: Callable[..., Ablation], commands: list[Words]):
    runs = ablation()
    trained = {}
    for row, settings in ROWS.items():
        commands.clear()
        runs.train(row, 1, 1.0)
        *before, training, evaluation = commands
        assert [words[2] for words in (training, evaluation)] == ["train", "evaluate"]
        assert ["pretrain"] * row.startswith("pre-trained") == [words[2] for words in before if words[0] == "run"]
        assert ("--pretrained" in training) == row.startswith("pre-trained")
        assert value(training, "variant") == value(evaluation, "variant") == row.removeprefix("pre-trained ")
        for id in ("encoder_layers", "decoder_layers"):
            assert ((f"--{id}") in training) == (row.split()[-1] in (id.split("_")[0], "both"))
        assert value(evaluation, "ckpt_dir") == value(training, "ckpt_dir")
        shared = ("seed", "learning_rate", "epochs", "steps_per_epoch", "batch_size", "features", "dataset_dir")
        trained[row] = [value(training, id) for id in shared]
        assert settings.ids["variant"] in ("none", "encoder", "decoder", "both")
    assert len({tuple(own) for own in trained.values()}) == 1
    # One pre-training serves both rows, as it has the layers of both.
    assert value(commands[-2], "encoder_layers") == "2" and value(commands[-2], "pretrained").endswith("pretrained.pt")


def test_labels_are_left_aside(ablation: Callable[..., Ablation], commands: list[Words], tmp_path: Path):
    runs = ablation("--labels", "0.1")
    runs.train("pre-trained encoder", 0, 0.1)
    pretraining, training = [words for words in commands if words[0] == "run"][:2]
    parts = json.loads(Path(value(training, "partition_file")).read_text())["parts"]
    assert parts["training"] == ["case-00", "case-01", "case-02"]
    assert not parts["validation"] and len(parts["test"]) == 31
    parts = json.loads(Path(value(pretraining, "partition_file")).read_text())["parts"]
    assert len(parts["training"]) == 30 and len(parts["validation"]) == 4 and not parts["test"]


def test_caution_where_a_region_is_not_learnt():
    table = Table(["none", "both"])
    for row, enhancing in (("none", [0.04, 0.5]), ("both", [0.05, 0.5])):
        table.scores[row] = {"Dice WT": [0.7, 0.7], "Dice TC": [0.5, 0.5], "Dice ET": enhancing}
    assert "0.05 of ET of none in 1 of 2 seeds: not" in caution(table)
    table.scores["none"]["Dice ET"][0] = 0.1
    assert caution(table) == ""


@pytest.mark.parametrize(("cases", "labels", "count"), [(30, 1.0, 30), (30, 0.1, 3), (4, 0.1, 1)])
def test_labelled(cases: int, labels: float, count: int):
    assert labelled(cases, labels) == count


def test_what_is_finished_is_not_done_again(ablation: Callable[..., Ablation], commands: list[Words], tmp_path: Path):
    runs = ablation()
    done = tmp_path / "row-0.1-2-pre-trained-both" / "scores"
    done.mkdir(parents=True)
    (done / "lesions.json").write_text("{}")
    (tmp_path / "pretraining-2-planes" / "training").mkdir(parents=True)
    (tmp_path / "pretraining-2-planes" / "training" / "reconstructions.html").write_text("")
    commands.clear()
    assert runs.train("pre-trained both", 2, 0.1) == done
    assert runs.pretrain("planes", 2)[1] == [0.9, 0.7]
    assert not commands
    runs.train("pre-trained both", 2, 1.0)
    assert [words[2] for words in commands if words[0] == "run"] == ["train", "evaluate"]


def test_decisions(ablation: Callable[..., Ablation], commands: list[Words]):
    assert [*ablation().settings] == [*ROWS]
    runs = ablation("--decisions")
    assert [*runs.settings] == [*ROWS, *DECISIONS]
    for row in DECISIONS:
        runs.train(row, 0, 1.0)
    started = [words for words in commands if words[0] == "run"]
    (queries,) = [words for words in started if words[2] == "train" and "--queries" in words]
    assert value(queries, "queries") == "5" and value(queries, "variant") == "decoder"
    (pretraining,) = [words for words in started if words[2] == "pretrain"]
    assert value(pretraining, "token_size") == "[4, 8, 8]"


def test_orders_are_of_rows_that_are_there():
    for order in ORDERS.values():
        assert {*order} <= {*ROWS}
    assert {*sum(PAIRS, ())} <= {*ROWS}
    assert steps(["none", "encoder", "decoder"]) == [("none", "encoder"), ("encoder", "decoder")]


@pytest.mark.parametrize(
    ("differences", "told"),
    [
        # Three seeds: the mean, 4.30 standard errors either way.
        ([0.04, 0.05, 0.06], "0.050±0.010, better in 3 of 3 seeds; 95% interval 0.025 to 0.075: pre-training helps."),
        ([-0.04, -0.05, -0.06], "better in 0 of 3 seeds; 95% interval -0.075 to -0.025: pre-training harms."),
        ([0.09, 0.05, -0.01], "pre-training neither helps nor harms for certain."),
        ([0.02, 0.05, 0.08], "3 of 3 seeds; 95% interval -0.025 to 0.125: pre-training neither"),
        ([0.05], "0.050, better in 1 of 1 seeds; one seed may be chance."),
    ],
)
def test_gain(differences: list[float], told: str):
    assert told in gain("Dice", differences)
