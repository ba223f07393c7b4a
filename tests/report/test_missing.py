"""The section on missing modalities: a chart and a table of what the evaluation wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.data.missing import COMBINATIONS
from common.errors import InputError
from common.report.build import build_report
from common.report.missing import read_missing


@pytest.fixture
def content() -> dict:
    summary = [
        {"missing": m, "dice": {r: {"mean": 0.9 - 0.01 * n, "std": 0.125} for r in ("WT", "TC", "ET")}}
        for n, m in enumerate(COMBINATIONS)
    ]
    return {"cases": [{"case": "a"}, {"case": "b"}, {"case": "a"}], "summary": summary}


def test_section(content: dict, tmp_path: Path) -> None:
    path = tmp_path / "missing_modalities.json"
    path.write_text(json.dumps(content))
    section = read_missing(path)
    assert section.cases == 2
    assert [row.present for row in section.rows[:3]] == ["t1n t1c t2w t2f", "t1c t2w t2f", "t1n t2w t2f"]
    assert section.rows[14].present == "t1n" and section.rows[14].dice["ET"][0].text == "0.760"
    assert section.rows[14].dice["ET"][1] == "0.125"
    assert "t1c t2w t2f: WT 0.89, TC 0.89, ET 0.89;" in section.chart.alt
    assert "var(--et)" in section.chart.svg and "#0102" not in section.chart.svg


def test_combination_without_a_case(content: dict, tmp_path: Path) -> None:
    """All of them failed there, such as by a damaged file."""
    content["summary"][3]["dice"] = {}
    path = tmp_path / "missing_modalities.json"
    path.write_text(json.dumps(content))
    assert read_missing(path).rows[3].dice["WT"][0].text == "–"


def test_page_has_the_section_where_there_is_one(content: dict, folders: tuple[Path, Path], tmp_path: Path) -> None:
    text = build_report(*folders, tmp_path / "without.html").read_text(encoding="utf-8")
    assert "Missing modalities" not in text
    (folders[1] / "missing_modalities.json").write_text(json.dumps(content))
    text = build_report(*folders, tmp_path / "with.html").read_text(encoding="utf-8")
    assert text.count("Missing modalities") == 1 and "mean of 2 cases" in text and "0.760" in text
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**content, "cases": [{"case": "z"}]}))
    text = build_report(*folders, tmp_path / "given.html", missing=other).read_text(encoding="utf-8")
    assert "mean of 1 case," in text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cases": [], "summary": []}', '{"cases": 5, "summary": 5}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json: not the scores of an evaluation with missing modalities; give a"):
        read_missing(tmp_path / "x.json")


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.json: No such file or directory; give a missing_modalities\.json"):
        read_missing(tmp_path / "x.json")
