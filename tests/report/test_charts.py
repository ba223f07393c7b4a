"""Confidence, learning curves and the table of scores."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from common.errors import InputError
from common.report.confidence import count_confidence, draw_confidence
from common.report.curves import draw_curves, read_curves
from common.report.tables import COLUMNS, format_score, mean_dice, read_scores, table_rows


def test_confidence_against_a_loop() -> None:
    generator = np.random.default_rng(1)
    probabilities = generator.dirichlet((0.2,) * 4, size=(6, 5, 4)).transpose(3, 0, 1, 2)
    reference = generator.integers(0, 4, (6, 5, 4))
    expected = {"WT": [0] * 4, "TC": [0] * 4, "ET": [0] * 4}
    for place in np.ndindex(reference.shape):
        for region, labels in {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}.items():
            if reference[place] in labels:
                p = sum(probabilities[(label, *place)] for label in labels)
                expected[region][0 if p < 0.1 else 1 if p < 0.5 else 2 if p < 0.9 else 3] += 1
    counts = count_confidence(probabilities, reference)
    assert {region: list(n) for region, n in counts.items()} == expected


@pytest.mark.parametrize(("p", "place"), [(0.0, 0), (0.1, 1), (0.5, 2), (0.9, 3), (1.0, 3), (1.0001, 3)])
def test_confidence_at_the_edges(p: float, place: int) -> None:
    probabilities = np.zeros((4, 1, 1, 1), np.float32)
    probabilities[3] = p
    assert count_confidence(probabilities, np.full((1, 1, 1), 3))["ET"].argmax() == place


def test_confidence_chart_says_the_shares() -> None:
    chart = draw_confidence({"WT": np.array([1, 1, 0, 8]), "TC": np.zeros(4), "ET": np.array([0, 0, 0, 2])})
    assert chart is not None and "WT: 10% in 0–0.1" in chart.alt and "ET: 0% in" in chart.alt and "TC" not in chart.alt
    assert "var(--wt)" in chart.svg and "#0102" not in chart.svg
    assert draw_confidence({"WT": np.zeros(4), "TC": np.zeros(4), "ET": np.zeros(4)}) is None


def test_curves_read_back(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "a" / "b")) as writer:
        for step in range(1000):
            writer.add_scalar("train_loss", 1 / (step + 1), step)
            writer.add_scalar("attention", 2.0 * step, step)
        for epoch in (5, 10):
            writer.add_scalar("val_mean_dice", 0.1 * epoch, epoch)
            writer.add_scalar("val_dice_WT", 0.05 * epoch, epoch)
    curves = read_curves(tmp_path)
    assert list(curves) == ["attention", "train_loss", "val_dice_WT", "val_mean_dice"]
    steps, values = curves["attention"]
    assert np.array_equal(steps, np.arange(1000)) and values == pytest.approx(2.0 * np.arange(1000))
    charts = draw_curves(curves)
    assert [chart.caption for chart in charts] == ["Validation Dice", "Training loss", "Attention loss"]
    assert "mean from 0.5 to 1 in 2 points" in charts[0].alt and "WT from 0.25 to 0.5" in charts[0].alt
    assert charts == draw_curves(curves)


def test_a_second_run_in_the_same_folder_replaces_the_first(tmp_path: Path) -> None:
    for first, steps in ((1.0, range(1, 9)), (3.0, range(3, 6))):
        with SummaryWriter(str(tmp_path), filename_suffix=f".{first}") as writer:
            for step in steps:
                writer.add_scalar("train_loss", first, step)
        time.sleep(1.1)  # The files' names tell their order by whole seconds.
    steps, values = read_curves(tmp_path)["train_loss"]
    assert list(steps) == [1, 2, 3, 4, 5] and list(values) == [1, 1, 3, 3, 3]


def test_no_events(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no TensorBoard events"):
        read_curves(tmp_path)


def test_numbers_as_text() -> None:
    dice, hd95 = COLUMNS[0], COLUMNS[1]
    assert format_score(0.87251, dice) == ("0.873", pytest.approx(87.251))
    assert format_score(math.nan, dice).text == format_score(None, dice).text == "–"
    assert format_score(math.inf, hd95) == ("∞", None)
    assert format_score(12345.678, COLUMNS[-1]).text == "12.3"
    assert math.isnan(mean_dice({"WT": {"dice": math.nan}, "ET": {}}))
    assert mean_dice({"WT": {"dice": 0.5}, "ET": {"dice": 1.0}}) == 0.75


def test_scores_read(tmp_path: Path) -> None:
    row = {"case": "a", "region": "WT", "dice": math.nan, "hd95": math.inf}
    summary = {"WT": {"dice": {"mean": 0.5, "std": 0.25, "median": 0.75}}}
    (tmp_path / "scores.json").write_text(json.dumps({"cases": [row], "summary": summary}))
    scores = read_scores(tmp_path / "scores.json")
    assert [cell.text for cell in table_rows(scores.cases["a"])["WT"][:3]] == ["–", "∞", "–"]
    assert table_rows(scores.summary, "mean")["WT"][0] == ("0.500", 50.0)
    assert table_rows(scores.summary, "std")["WT"][0] == ("0.250", None)
    assert table_rows(scores.summary, "std")["ET"][0].text == "–"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"cases": 1, "summary": {}}', '{"cases": [{}], "summary": {}}', '{"cases": [], "summary": []}'],
)
def test_bad_scores(tmp_path: Path, content: str) -> None:
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(InputError, match="not the scores of an evaluation"):
        read_scores(tmp_path / "scores.json")
    with pytest.raises(InputError, match="No such file"):
        read_scores(tmp_path / "other.json")
