from __future__ import annotations

import csv
import json
import math
import statistics
from pathlib import Path

import pytest

from common.metrics.fold_scores import SCORES, fold_rows, fold_scores_table, summarise_folds, write_fold_scores

DICE = {0: {"a": 0.9, "b": 0.5, "c": 0.7}, 1: {"d": 0.3}}


def write_evaluation(folder: Path, dice: dict[str, float], lesion_f1: float | None) -> None:
    whole = [
        {"case": case, "region": r, "dice": value, "hd95": 10 * value} for case, value in dice.items() for r in "WE"
    ]
    lesions = [
        {"case": case, "region": "W", "dice": value / 2, "hd95": 1.0, "lesion_f1": lesion_f1, "lesions": []}
        for case, value in dice.items()
    ]
    folder.mkdir()
    (folder / "scores.json").write_text(json.dumps({"cases": whole}))
    (folder / "lesions.json").write_text(json.dumps({"cases": lesions}))


@pytest.fixture
def rows(tmp_path: Path) -> list[dict]:
    for fold, dice in DICE.items():
        write_evaluation(tmp_path / str(fold), dice, None if fold else 0.25)
    return [row for fold in DICE for row in fold_rows(fold, tmp_path / str(fold))]


def test_rows_join_both_files(rows: list[dict]):
    assert [(row["fold"], row["case"], row["region"]) for row in rows] == [
        *((fold, case, region) for fold, dice in DICE.items() for case in dice for region in "WE"),
    ]
    first, other, last = rows[0], rows[1], rows[-2]
    assert {key: first[key] for key in SCORES} == {
        "dice": 0.9,
        "hd95": 9.0,
        "lesion_dice": 0.45,
        "lesion_hd95": 1.0,
        "lesion_f1": 0.25,
    }
    assert math.isnan(last["lesion_f1"]) and math.isnan(other["lesion_dice"]) and other["dice"] == 0.9


def test_spread_over_folds_and_over_cases(rows: list[dict]):
    summary = summarise_folds(rows)
    means = [statistics.mean(dice.values()) for dice in DICE.values()]
    cases = [value for dice in DICE.values() for value in dice.values()]
    for region in "WE":
        assert [summary["folds"][fold][region]["dice"]["mean"] for fold in DICE] == pytest.approx(means)
        for over, values in (("over_folds", means), ("over_cases", cases)):
            found = summary[over][region]["dice"]
            assert found["mean"] == pytest.approx(statistics.mean(values))
            assert found["std"] == pytest.approx(statistics.stdev(values))
            assert found["median"] == pytest.approx(statistics.median(values))
    assert summary["over_folds"]["W"]["lesion_f1"]["mean"] == 0.25  # the other fold has none
    assert math.isnan(summary["over_cases"]["E"]["lesion_f1"]["mean"])


def test_files_and_table(rows: list[dict], tmp_path: Path):
    summary = write_fold_scores(tmp_path / "out", rows, {"bundle": "toy"})
    with (tmp_path / "out" / "scores.csv").open() as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(rows) and read[0]["dice"] == "0.9" and read[-1]["lesion_f1"] == ""
    content = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert content["bundle"] == "toy" and content["cases"][-1]["lesion_f1"] is None
    assert content["summary"]["over_folds"]["W"]["dice"] == pytest.approx(summary["over_folds"]["W"]["dice"])
    table = fold_scores_table(summary).splitlines()
    assert table[1].split() == ["fold", "0", "fold", "1", "over", "folds", "over", "cases"]
    assert table[2].split() == ["Dice", "W", "0.700", "0.300", "0.500±0.283", "0.600±0.258", "(0.600)"]
    assert table[-1].split() == ["lesion", "F1", "E", "–", "–", "–±–", "–±–", "(–)"]
    assert len({len(line) for line in table[1:]}) == 1
