"""An evaluation's scores reach CSV, JSON, the engine's metrics and the terminal."""

import csv
import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from common.handlers.scores import RegionScoresHandler, scores_table
from common.metrics.region_scores import SCORES, region_scores, summarise

SPACING = torch.diag(torch.tensor([1.0, 2.0, 0.5, 1.0]))


def case(seed: int) -> dict[str, MetaTensor]:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(0, 4, (2, 1, 4, 5, 6), generator=generator)
    return {"pred": MetaTensor(maps[0].float(), affine=SPACING), "label": MetaTensor(maps[1], affine=SPACING)}


def test_scores_are_written_and_summarised(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    outputs = {"a": case(0), "b": case(1)}
    engine = Engine(lambda engine, batch: [outputs[batch[0]["case"]]])
    RegionScoresHandler(str(tmp_path)).attach(engine)
    engine.run([[{"case": "a"}], [{"case": "b"}]])
    written = json.loads((tmp_path / "scores.json").read_text())
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["region"]) for row in rows] == [(c, r) for c in "ab" for r in ("WT", "TC", "ET")]
    expected = region_scores(outputs["b"]["pred"][0], outputs["b"]["label"][0], (1, 2, 0.5))
    for score in SCORES:
        assert float(rows[3][score]) == written["cases"][3][score] == pytest.approx(expected["WT"][score])
    assert written["summary"] == summarise(written["cases"])
    assert engine.state.metrics["dice_TC"] == written["summary"]["TC"]["dice"]["mean"]
    assert "2 cases" in capsys.readouterr().out


def test_table_fits_a_terminal():
    rows = [{"case": "a", "region": region, **dict.fromkeys(SCORES, 1.0)} for region in ("WT", "TC", "ET")]
    table = scores_table(summarise(rows), cases=1)
    assert "of 1 case\n" in table
    assert max(map(len, table.splitlines())) <= 79
    assert "1.000±0.000 (1.000)" in table
