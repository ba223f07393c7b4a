"""An evaluation's lesion-wise scores reach CSV, JSON, the engine's metrics and the terminal."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from common.errors import InputError
from common.handlers.lesion_wise import LesionWiseHandler
from common.metrics.lesion_wise import lesion_wise_scores

AFFINE = torch.diag(torch.tensor([1.0, 2.0, 0.5, 1.0]))


def case(seed: int) -> dict[str, MetaTensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 4, (2, 1, 4, 5, 6), generator=generator).float()
    prediction, reference = torch.nn.functional.interpolate(coarse, scale_factor=3)
    return {"pred": MetaTensor(prediction, affine=AFFINE), "label": MetaTensor(reference, affine=AFFINE)}


def handler(folder: Path) -> LesionWiseHandler:
    target = {"_target_": "common.handlers.lesion_wise.LesionWiseHandler", "output_dir": str(folder)}
    return ConfigParser({"handler": target | {"preset": "brats2023-met"}}).get_parsed_content("handler")


def test_scores_are_written_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    outputs = {"a": case(0), "b": case(1)}
    engine = Engine(lambda engine, batch: [outputs[item["case"]] for item in batch])
    handler(tmp_path).attach(engine)
    engine.run([[{"case": "a"}], [], [{"case": "b"}]])  # a case that failed leaves an empty batch
    with (tmp_path / "lesions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["region"]) for row in rows] == [(c, r) for c in "ab" for r in ("WT", "TC", "ET")]
    maps = (outputs["b"][key][0].numpy().astype(int) for key in ("pred", "label"))
    expected = lesion_wise_scores(*maps, (1, 2, 0.5))
    for row in rows[3:]:
        scores = expected[row["region"]]
        assert float(row["dice"]) == scores.dice and int(row["fp"]) == scores.fp
    written = json.loads((tmp_path / "lesions.json").read_text())
    assert written["preset"] == "brats2023-met"
    assert len(written["cases"][3]["lesions"]) == len(expected["WT"].lesions) > 0
    mean = (float(rows[0]["dice"]) + float(rows[3]["dice"])) / 2
    assert engine.state.metrics["lesion_dice_WT"] == pytest.approx(mean)
    assert {"lesion_hd95_WT", "lesion_dice_ET"} <= engine.state.metrics.keys()
    shown = capsys.readouterr().out
    assert "lesion by lesion (brats2023-met)" in shown and "of 2 cases" in shown and "found / missed / false" in shown


def test_policy_reaches_the_scores_and_mistakes_show_at_once(tmp_path: Path):
    outputs = case(0)
    engine = Engine(lambda engine, batch: [outputs])
    LesionWiseHandler(str(tmp_path), "brats2023-men", penalty=90, threshold=1).attach(engine)
    for _ in range(2):  # The second run starts anew.
        engine.run([[{"case": "a"}]])
    written = json.loads((tmp_path / "lesions.json").read_text())
    maps = (outputs[key][0].numpy().astype(int) for key in ("pred", "label"))
    expected = lesion_wise_scores(*maps, (1, 2, 0.5), "brats2023-men", penalty=90, threshold=1)
    assert [row["hd95"] for row in written["cases"]] == [scores.hd95 for scores in expected.values()]
    assert (written["policy"]["penalty"], written["policy"]["threshold"], written["policy"]["dilation"]) == (90, 1, 1)
    for mistake, line in (
        ({"preset": "none"}, "preset 'none' is unknown"),
        ({"dilatoin": 3}, "dilatoin is no setting"),
    ):
        with pytest.raises(InputError, match=line):
            LesionWiseHandler(str(tmp_path), **mistake)


def test_no_case_writes_nothing(tmp_path: Path):
    engine = Engine(lambda engine, batch: [])
    handler(tmp_path).attach(engine)
    engine.run([[]])
    assert not list(tmp_path.iterdir())
