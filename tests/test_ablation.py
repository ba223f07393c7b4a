"""What ablations share: the scores that an evaluation wrote, the order of the rows, and the table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.ablation import Runs, Table, expect_settings, read_scores, relations, spread, verdict

ORDER = [("low", "middle"), ("middle", "high")]


def write_scores(folder: Path, dice: dict[str, float], found: int) -> Path:
    """An evaluation's files; lesion-wise Dice is half of Dice."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [{"above": 0, "up_to": 50, "detected": found, "lesions": 4}]
    sizes += [{"above": 50, "up_to": None, "detected": 0, "lesions": 0}]
    volumes = {region: {"dice": {"mean": value}} for region, value in dice.items()}
    lesions = {region: {"dice": {"mean": value / 2}, "lesions": {"by_size": sizes}} for region, value in dice.items()}
    (folder / "scores.json").write_text(json.dumps({"summary": volumes}))
    (folder / "lesions.json").write_text(json.dumps({"summary": lesions}))
    return folder


def test_reads_what_an_evaluation_wrote(tmp_path: Path):
    scores, by_size = read_scores(write_scores(tmp_path, {"WT": 0.8, "TC": 0.5, "ET": 0.2}, 1))
    assert scores["Dice ET"] == 0.2 and scores["Dice mean"] == pytest.approx(0.5)
    assert scores["lesion-wise WT"] == 0.4 and scores["lesion-wise mean"] == pytest.approx(0.25)
    assert by_size == {"0–50 mm³": (1, 4), "above 50 mm³": (0, 0)}


def test_spread_is_that_of_a_sample():
    assert spread([0.1, 0.3]) == "0.200±0.141"
    assert spread([0.1]) == "0.100"


def test_steps_of_an_order():
    found = relations({"low": 0.1, "middle": 0.3, "high": 0.3}, ORDER)  # the same is no gain
    assert found == {"low < middle": True, "middle < high": False}


def test_verdict_looks_at_the_rows_of_its_order_alone():
    scores = {"low": [0.1, 0.2], "other": [0.9, 0.9], "middle": [0.2, 0.3], "high": [0.3, 0.4]}
    assert verdict("Dice", scores, ORDER).endswith("in the means and in each seed (2 of 2).")
    told = verdict("Dice", scores | {"high": [0.0, 0.4]}, ORDER)
    assert "NOT reproduced" in told and "middle < high; it holds in 1 of 2" in told


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    table = Table(["none", "more"])
    for seed, (none, more) in enumerate([(0.2, 0.5), (0.4, 0.5)]):
        for row, value, found in (("none", none, 1), ("more", more, 3)):
            same = {region: value for region in ("WT", "TC", "ET")}
            assert table.add(row, write_scores(tmp_path / f"{row}-{seed}", same, found))["Dice mean"] == value
    assert table.of("Dice WT") == {"none": [0.2, 0.4], "more": [0.5, 0.5]}
    assert table.differences("Dice mean", "more", "none") == pytest.approx([0.3, 0.1])
    table.print()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["none", *["0.300±0.141"] * 4] in lines and ["none", *["0.150±0.071"] * 4] in lines
    assert ["more", "−", "none", *["0.200±0.141"] * 4] in lines
    assert ["lesions", "4"] in lines and ["more", "0.750±0.000"] in lines  # sizes without lesions are left out


def test_command_that_fails_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    interpreter = tmp_path / "python"
    interpreter.write_text('#!/bin/sh\necho "$OMP_NUM_THREADS thread, no $4" >&2\nexit 1\n')
    interpreter.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(interpreter))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    runs = Runs(argparse.Namespace(parallel=1), tmp_path)
    with pytest.raises(SystemExit, match="common run nosuch failed: 1 thread, no nosuch"):
        runs.command("run", "nosuch", "train")


def test_partition_has_all_parts(tmp_path: Path):
    file = Runs(argparse.Namespace(), tmp_path).partition("some", training=["a"])
    assert file == tmp_path / "some.json"
    assert json.loads(file.read_text()) == {"parts": {"training": ["a"], "validation": [], "test": []}}


def test_kept_runs_are_of_the_same_settings(tmp_path: Path):
    given = {"epochs": 6, "dataset": Path("scans"), "seeds": [0], "rows": ["a"], "device": "cpu"}
    expect_settings(argparse.Namespace(**given), tmp_path / "new")
    expect_settings(
        argparse.Namespace(**given | {"seeds": [0, 1], "rows": ["a", "b"], "device": "cuda"}), tmp_path / "new"
    )
    with pytest.raises(SystemExit, match=r"new has runs with --epochs 6, not 12: give another --keep"):
        expect_settings(argparse.Namespace(**given | {"epochs": 12}), tmp_path / "new")
