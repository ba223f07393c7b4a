"""What MPS-AMS's ablation runs: ids of each row, the same labels and settings for all, nothing twice."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.ablation_mps_ams import ROWS, TABLE_2, Ablation, arguments, print_table

Words = list[str]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[Words]:
    """The commands that would have been run; images aren't made, only listed."""
    run: list[Words] = []
    listed = [{"case": f"image-{n:02}"} for n in range(24)]
    monkeypatch.setattr(Ablation, "command", lambda self, *words: run.append([str(word) for word in words]))
    monkeypatch.setattr("benchmarks.ablation_mps_ams.list_images", lambda folder: listed)
    return run


@pytest.fixture
def ablation(commands: list[Words], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ablation]:
    def make(*words: str) -> Ablation:
        monkeypatch.setattr(sys, "argv", ["ablation", "--cases", "20", "--validation", "4", *words])
        return Ablation(arguments(), tmp_path)

    return make


def value(words: Words, id: str) -> str:
    assert words.count(f"--{id}") == 1
    return words[words.index(f"--{id}") + 1]


def test_rows_differ_in_their_pretraining_alone(ablation: Callable[..., Ablation], commands: list[Words]):
    runs, shared, pretrained = ablation(), {}, {}
    for row in TABLE_2:
        commands.clear()
        runs.train(row, 1, 0.1)
        training, evaluation = commands[-2:]
        before = [words for words in commands if "pretrain" in words]
        assert [words[2] for words in (training, evaluation)] == ["train", "evaluate"]
        assert len(before) == ("--pretrained" in training) == (row != "U-Net")
        ids = ("seed", "labelled_share", "learning_rate", "epochs", "batch_size", "features", "partition_file")
        shared[row] = [value(training, id) for id in ids]
        assert value(evaluation, "ckpt_dir") == value(training, "ckpt_dir")
        assert value(evaluation, "dataset_dir") != value(training, "dataset_dir")
        if before:
            ids = ("lesion_first", "adaptive_ratio")
            pretrained[row] = [value(before[0], id) if f"--{id}" in before[0] else "True" for id in ids]
            assert value(before[0], "partition_file") == value(training, "partition_file")
            assert value(training, "pretrained").endswith("last.pt")
    assert len({tuple(own) for own in shared.values()}) == 1
    assert pretrained == {
        "base": ["False", "False"], "base+AMS": ["False", "True"], "base+MPS": ["True", "False"],
        "base+AMS+MPS": ["True", "True"],
    }  # fmt: skip


def test_other_rows(ablation: Callable[..., Ablation], commands: list[Words]):
    runs = ablation("--patch", "8")
    for row, (id, wanted) in {
        "σ₀ 0.5": ("initial_ratio", "0.5"),
        "τ 24": ("ratio_growth", "24.0"),
        "patch halved": ("masked_patch", "[4, 4]"),
    }.items():
        commands.clear()
        runs.pretrain(row, 0)
        assert value(commands[-1], id) == wanted and row in ROWS


def test_parts(ablation: Callable[..., Ablation]):
    folder, file = ablation().parts(3)
    parts = json.loads(file.read_text())["parts"]
    assert folder.name == "images-3" and len(parts["training"]) == 20 and len(parts["validation"]) == 4
    assert not {*parts["training"]} & {*parts["validation"]}


@pytest.mark.parametrize(("share", "epochs"), [(0.05, 400), (1.0, 200)])
def test_every_share_has_as_many_steps(
    ablation: Callable[..., Ablation], commands: list[Words], share: float, epochs: int
):
    """Of 20 images 1 makes one batch of 16, and 20 make two."""
    ablation().train("U-Net", 0, share)
    assert value(commands[-2], "epochs") == str(epochs)


def test_what_is_finished_is_not_done_again(ablation: Callable[..., Ablation], commands: list[Words], tmp_path: Path):
    runs = ablation()
    (tmp_path / "row-0.05-0-base" / "scores").mkdir(parents=True)
    (tmp_path / "row-0.05-0-base" / "scores" / "scores.json").write_text("{}")
    (tmp_path / "pretraining-0-base+AMS" / "training").mkdir(parents=True)
    (tmp_path / "pretraining-0-base+AMS" / "training" / "masking.html").write_text("")
    commands.clear()
    runs.train("base", 0, 0.05)
    assert commands == []
    runs.train("base+AMS", 0, 0.05)
    assert [words[2] for words in commands if words[0] == "run"] == ["train", "evaluate"]


def test_table(capsys: pytest.CaptureFixture[str]):
    scores = ("dice", "ppv", "sensitivity")
    print_table({row: {score: [0.1 * n, 0.11 * n] for score in scores} for n, row in enumerate(TABLE_2)})
    said = capsys.readouterr().out
    assert "base+AMS+MPS 0.420±0.028" in " ".join(said.split())
    assert "is reproduced, in the means and in each seed (2 of 2)" in said
    assert "base: DSC: 0.105±0.007, better in 2 of 2 seeds" in said


def test_the_figure_has_two_rows(ablation: Callable[..., Ablation], tmp_path: Path):
    with pytest.raises(SystemExit):
        ablation("--out", "page.html")
    runs = ablation("--out", "page.html", "--rows", "U-Net", "base+AMS+MPS")
    for row in TABLE_2:
        folder = runs.train(row, 0, 0.5).parent
        assert (folder.parent == tmp_path / "figure") == (row in ("U-Net", "base+AMS+MPS"))
