"""Dice over the share of labels: which evaluations are found, what is drawn of them, and what isn't one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from common.errors import InputError
from common.report.label_efficiency import label_efficiency, read_runs


def evaluation(folder: Path, share: float, pretrained: bool, dice: float | None) -> None:
    folder.mkdir(parents=True)
    scores = {score: {"mean": dice} for score in ("dice", "ppv", "sensitivity")}
    content = {"trained_with": {"labelled_share": share, "pretrained": pretrained}}
    (folder / "scores.json").write_text(json.dumps({**content, "summary": {"image": scores, "patient": scores}}))


def test_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for seed, dice in enumerate((0.4, 0.5)):
        evaluation(tmp_path / "runs" / f"a{seed}", 0.05, True, dice)
    evaluation(tmp_path / "runs" / "deep" / "b", 0.05, False, 0.3)
    evaluation(tmp_path / "runs" / "c", 1.0, False, 0.8)
    label_efficiency(tmp_path / "runs", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "pre-trained: 5% 0.45; from nothing: 5% 0.30, 100% 0.80" in text
    rows = [re.sub(r"<.*?>", " ", row).split() for row in re.findall(r"<tr><th scope=\"row\".*?</tr>", text)]
    assert rows[0] == ["5%", "from", "nothing", "1", *["0.300"] * 6]
    assert rows[1] == ["5%", "pre-trained", "2", *["0.450±0.071"] * 6] and len(rows) == 3
    assert capsys.readouterr().out.strip().endswith("page.html")


def test_a_mean_that_is_not_defined(tmp_path: Path):
    evaluation(tmp_path / "a", 0.5, False, None)
    (scores,) = read_runs(tmp_path)[0.5, False]
    assert scores["image", "ppv"] != scores["image", "ppv"]


@pytest.mark.parametrize("content", ["{", "{}", '{"summary": {"WT": {}}}', '{"trained_with": {}, "summary": {}}'])
def test_other_files(tmp_path: Path, content: str):
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(InputError, match=r"scores\.json: not the scores of mps_ams"):
        label_efficiency(tmp_path, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_nothing_there(tmp_path: Path):
    with pytest.raises(InputError, match=r"holds no scores\.json"):
        label_efficiency(tmp_path)
