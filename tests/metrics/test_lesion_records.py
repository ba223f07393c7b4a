"""Scores as rows, files, a summary and a table."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import InputError
from common.metrics.lesion_records import case_rows, lesion_wise_table, records, summarise_lesions, write_records
from common.metrics.lesion_wise import NUMBERS, RegionScores, lesion_wise_scores

REGIONS = ["WT", "TC", "ET"]
Cases = dict[str, dict[str, RegionScores]]


@pytest.fixture(scope="module")
def cases() -> Cases:
    """One case with a lesion found (48 of 64 mm³), one missed (27 mm³) and a false one; one with nothing at all."""
    reference, prediction = np.zeros((2, 24, 12, 12), np.uint8)
    reference[2:6, 2:6, 2:6] = 3
    reference[12:15, 2:5, 2:5] = 1
    prediction[2:6, 2:6, 2:5] = 3
    prediction[20, 8, 8] = 2
    empty = np.zeros_like(reference)
    spacing = (1.0, 1.0, 1.0)
    return {
        "one": lesion_wise_scores(prediction, reference, spacing),
        "nothing": lesion_wise_scores(empty, empty, spacing),
    }


def test_rows(cases: Cases):
    rows = case_rows(cases)
    assert [(row["case"], row["region"]) for row in rows] == [(c, r) for c in ("one", "nothing") for r in REGIONS]
    assert list(rows[0]) == ["case", "region", *NUMBERS]
    assert [(row["tp"], row["fn"], row["fp"]) for row in rows[:3]] == [(1, 1, 1), (1, 1, 0), (1, 0, 0)]


def test_summary(cases: Cases):
    summary = summarise_lesions(cases)
    assert list(summary) == REGIONS
    dice = (cases["one"]["WT"].dice, 1.0)
    found = summary["WT"]["dice"]
    expected = {"mean": np.mean(dice), "std": np.std(dice, ddof=1), "median": np.median(dice), "cases": 2}
    assert found == pytest.approx(expected)
    assert summary["WT"]["lesion_f1"]["mean"] == 0.75
    # The empty case has no lesion to be sensitive to; that of the other stands alone.
    assert summary["WT"]["lesion_sensitivity"] == {"mean": 0.5, "std": 0.0, "median": 0.5, "cases": 1}
    counts = summary["WT"]["lesions"]
    assert (counts["tp"], counts["fn"], counts["fp"]) == (1, 1, 1)
    sizes = [(one["above"], one["up_to"], one["detected"], one["lesions"]) for one in counts["by_size"]]
    assert sizes[:2] == [(0, 50, 0, 1), (50, 200, 1, 1)]
    assert all(size[2:] == (0, 0) for size in sizes[2:]) and sizes[-1][1] == math.inf
    twice = summarise_lesions({**cases, "again": cases["one"]})["WT"]["lesions"]
    assert (twice["tp"], twice["by_size"][0]["lesions"], twice["by_size"][1]["detected"]) == (2, 2, 2)
    assert summarise_lesions({}) == {}


def test_files_hold_everything(cases: Cases, tmp_path: Path):
    returned = write_records(
        tmp_path / "new" / "folder", cases, {"preset": "brats2023-met", "limit": math.inf}, ["nothing"]
    )
    with (tmp_path / "new" / "folder" / "lesions.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, expected in zip(rows, case_rows(cases), strict=True):
        for name, value in expected.items():
            if isinstance(value, float):
                assert (math.nan if row[name] == "" else float(row[name])) == pytest.approx(value, rel=0, nan_ok=True)
            else:
                assert row[name] == str(value)
    assert rows[3]["lesion_sensitivity"] == "" and rows[3]["dice"] == "1.0"
    assert [row["missing"] for row in rows] == ["0"] * 3 + ["1"] * 3
    text = (tmp_path / "new" / "folder" / "lesions.json").read_text()
    written = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert written == json.loads(json.dumps(returned))
    assert list(written) == ["preset", "limit", "missing", "cases", "summary"]
    assert (written["preset"], written["limit"]) == ("brats2023-met", None)
    first = written["cases"][0]
    assert [lesion["hd95"] for lesion in first["lesions"]] == [cases["one"]["WT"].lesions[0].hd95, None]
    assert first["lesions"][0]["matched_components"] == [[2, 2, 2]]
    assert (first["lesions"][1]["first_voxel"], first["lesions"][1]["centroid"]) == ([12, 2, 2], [13, 3, 3])
    assert [lesion["volume"] for lesion in first["false_positives"]] == [1]
    assert written["missing"] == ["nothing"]
    assert written["cases"][3]["lesion_sensitivity"] is None and written["cases"][3]["lesions"] == []
    assert written["summary"]["WT"]["lesions"]["by_size"][-1]["up_to"] is None
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["lesions.csv", "lesions.json"]


def test_records_say_what_was_scored(cases: Cases):
    facts: dict[str, Any] = {"method": "a"}
    content = records(cases, facts)
    assert content["method"] == "a" and len(content["cases"]) == 6
    assert facts == {"method": "a"}


def test_a_folder_that_cannot_be_written(cases: Cases, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        write_records(tmp_path / "file", cases, {})


@pytest.mark.parametrize("read_back", [False, True])
def test_table(cases: Cases, tmp_path: Path, read_back: bool):
    summary = write_records(tmp_path, cases, {})["summary"] if read_back else summarise_lesions(cases)
    lines = lesion_wise_table(summary, 2).splitlines()
    assert lines[0] == "mean±standard deviation (median) of 2 cases"
    assert max(map(len, lines)) == 100
    assert lines[1].split() == REGIONS
    cells = {line[:22].strip(): line[22:].split() for line in lines[2:]}
    one = [f"{value}±0.000 ({value}) of 1".split() for value in ("0.500", "0.500", "1.000")]
    assert cells["lesion sensitivity"] == [*one[0], *one[1], *one[2]]
    assert cells["lesion F1"][-2:] == ["1.000±0.000", "(1.000)"]
    assert "".join(cells["found / missed / false"]) == "1/1/11/1/01/0/0"
    assert cells["0–50 mm³"] == ["0", "of", "1", "0", "of", "1", "0", "of", "0"]
    assert not [name for name in cells if name.startswith(("200", "1000", "5000", "above"))]


def test_table_of_what_is_defined_nowhere(cases: Cases):
    lines = lesion_wise_table(summarise_lesions({"nothing": cases["nothing"]}), 1).splitlines()
    assert lines[0].endswith("of 1 case")
    assert next(line for line in lines if line.startswith("surface Dice")).split() == ["surface", "Dice", "–", "–", "–"]
