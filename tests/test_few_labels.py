"""What one labelled scan brings: which commands that takes, and what differs between the rows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks import few_labels
from benchmarks.few_labels import ROWS, FewLabels
from common.data.phantoms import make_phantoms
from common.networks.cga_unet import CGAUNet


@pytest.fixture
def given(tmp_path: Path) -> argparse.Namespace:
    make_phantoms(str(tmp_path / "scans"), cases=2, kind="glioma", seed=3, shape=24, layout="brats2018")
    facts = {"spacing": [9.0] * 3, "robust": True, "patch_size": [16, 24, 16]}
    torch.save({"model": CGAUNet().state_dict(), "trained_with": facts}, tmp_path / "weights.pt")
    cases = sorted(path.name for path in (tmp_path / "scans").iterdir() if path.is_dir())
    settings = {"dataset": tmp_path / "scans", "weights": tmp_path / "weights.pt", "cases": cases, "steps": 2}
    return argparse.Namespace(**settings, rate=1e-3, fine_rate=1e-4, device="cpu", parallel=1)


def pairs(words: Sequence[object]) -> dict[str, str]:
    """Option → value."""
    return {str(one): str(words[place + 1]) for place, one in enumerate(words) if str(one).startswith("--")}


def test_rows_differ_in_weights_and_rate_alone(
    given: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, str]] = []
    monkeypatch.setattr(FewLabels, "command", lambda _, *words: said.append(pairs(words)) if "train" in words else "")
    monkeypatch.setattr(few_labels, "scores_of", lambda *_: {})
    for row in ROWS[1:]:
        with pytest.raises(Exception, match="at least one data point"):  # nothing was predicted
            FewLabels(given, tmp_path).scores(row, given.cases[0], seed=0)
    scratch, fine = said
    assert fine.keys() - scratch.keys() == {"--weights"} and scratch.keys() <= fine.keys()
    assert {name for name in scratch if scratch[name] != fine[name]} == {
        "--learning_rate",
        "--output_dir",
        "--ckpt_dir",
    }
    assert scratch["--spacing"] == "[9.0, 9.0, 9.0]" and scratch["--robust"] == "True"
    assert scratch["--patch_size"] == "[16, 24, 16]"


def test_one_case_trains_and_the_other_is_scored(given: argparse.Namespace, tmp_path: Path) -> None:
    runs = FewLabels(given, tmp_path / "runs")
    runs.root.mkdir()
    scores = {row: runs.scores(row, given.cases[0], seed=0) for row in ROWS}
    assert all(
        {*row} == {"WT", "TC", "ET"} and all(0 <= value <= 1 for value in row.values()) for row in scores.values()
    )
    for row in ROWS[1:]:
        folder = runs.root / f"{row.replace(' ', '-')}-{given.cases[0]}-0"
        assert (folder / "last.pt").is_file()
    state = torch.load(runs.root / f"from-the-weights-{given.cases[0]}-0" / "last.pt", weights_only=True)
    assert state["trained_with"]["patch_size"] == [16, 24, 16]


def test_bad_input_is_one_line(given: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", ["few_labels", str(given.dataset), "--weights", str(tmp_path / "none.pt")])
    with pytest.raises(ValueError, match=r"no weights at .*none\.pt"):
        few_labels.main()
    make_phantoms(str(tmp_path / "one"), cases=1, shape=24)
    monkeypatch.setattr(sys, "argv", ["few_labels", str(tmp_path / "one"), "--weights", str(given.weights)])
    with pytest.raises(ValueError, match="has 1 labelled cases: give a data set with 2 or more"):
        few_labels.main()
