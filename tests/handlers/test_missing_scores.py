"""Dice under each combination of missing modalities reaches CSV, JSON and the terminal."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from common.data.labels import CHANNELS
from common.data.missing import COMBINATIONS, leave_out_each
from common.errors import InputError
from common.handlers.missing_scores import MissingModalityScores
from common.metrics.region_scores import region_scores


def evaluate(folder: Path, cases: list[str]) -> list[tuple[dict, dict]]:
    generator = torch.Generator().manual_seed(0)
    items = leave_out_each([{"case": case} for case in cases])
    maps = [torch.randint(0, 4, (2, 1, 4, 5, 6), generator=generator) for _ in items]
    maps[0][0] = maps[0][1]
    maps[1][:] = 0  # both empty
    maps[2][1] = 0  # one empty
    outputs = [{"pred": MetaTensor(pred.to(torch.uint8)), "label": MetaTensor(label)} for pred, label in maps]
    engine = Engine(lambda engine, batch: [outputs[engine.state.iteration - 1]])
    MissingModalityScores(str(folder)).attach(engine)
    engine.run([[item] for item in items])
    return list(zip(items, outputs, strict=True))


def test_scores_are_those_of_the_regions(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scored = evaluate(tmp_path, ["a", "b"])
    content = json.loads((tmp_path / "missing_modalities.json").read_text())
    with (tmp_path / "missing_modalities.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(content["cases"]) == 2 * 15 * 3
    expected = [
        (item["case"], item["missing"], region, pytest.approx(scores["dice"], abs=1e-6))
        for item, output in scored
        for region, scores in region_scores(output["pred"][0], output["label"][0], (1, 1, 1)).items()
    ]
    assert [(r["case"], r["missing"], r["region"], r["dice"]) for r in content["cases"]] == expected
    assert [(r["case"], r["missing"], r["region"], float(r["dice"])) for r in rows] == expected
    assert [tuple(row["missing"]) for row in content["summary"]] == list(COMBINATIONS)
    values = [r["dice"] for r in content["cases"] if r["missing"] == "t1c t2w" and r["region"] == "TC"]
    row = next(row for row in content["summary"] if row["missing"] == ["t1c", "t2w"])
    assert row["dice"]["TC"]["mean"] == pytest.approx(sum(values) / 2)
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "Dice with some modalities missing, mean±standard deviation of 2 cases"
    assert table[1].split() == [*CHANNELS, "WT", "TC", "ET"]
    assert len(table) == 2 + 15
    assert table[3].split()[:4] == ["·", "●", "●", "●"]
    assert max(map(len, table)) <= 79


def test_no_case_is_an_error_unless_all_of_them_failed(tmp_path: Path):
    handler = MissingModalityScores(str(tmp_path))
    with pytest.raises(InputError, match="there is no case to evaluate in this part; choose another"):
        handler.write(SimpleNamespace(data_loader=SimpleNamespace(dataset=SimpleNamespace(failures=[]))))
    handler.write(SimpleNamespace(data_loader=SimpleNamespace(dataset=SimpleNamespace(failures=["a"]))))
    assert not list(tmp_path.iterdir())
