"""Overlap scores reach CSV, JSON, the engine's metrics and the terminal, slice by axial slice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from common.handlers.overlap_scores import OverlapScoresHandler, axial_slices
from common.metrics.overlap import Overlap
from common.transforms.load_slices import PICTURE_AFFINE


def test_axial_slices_of_any_orientation():
    volume = torch.arange(24.0).reshape(1, 2, 3, 4)
    for place in range(3):
        affine = torch.eye(4)[[*torch.tensor([1, 2, 0]).roll(place).tolist(), 3]] * torch.tensor([-1.0, 1, 1, 1])
        axis = int(affine[2, :3].abs().argmax())
        assert torch.equal(axial_slices(MetaTensor(volume, affine=affine)), volume[0].movedim(axis, 0))
    picture = torch.ones(1, 1, 5, 6)
    assert axial_slices(MetaTensor(picture, affine=torch.as_tensor(PICTURE_AFFINE))).shape == (1, 5, 6)


def test_files_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    # Volumes (1, X, Y, Z) whose last axis goes up: slice 1 has a lesion of two, of which one and one other are found.
    label, pred = torch.zeros(2, 1, 2, 2, 3)
    label[0, :, 0, 1], pred[0, 0, :, 1] = 1, 1
    affine = torch.eye(4)
    outputs = {
        "a": {"pred": MetaTensor(pred, affine=affine), "label": MetaTensor(label, affine=affine)},
        "b": {"pred": MetaTensor(torch.zeros(1, 2, 2, 1)), "label": MetaTensor(torch.zeros(1, 2, 2, 1))},
    }
    weights = tmp_path / "model.pt"
    torch.save({"model": {}, "trained_with": {"labelled_share": 0.05, "pretrained": True}}, weights)
    engine = Engine(lambda engine, batch: [outputs[batch[0]["case"]]])
    OverlapScoresHandler(str(tmp_path), weights).attach(engine)
    engine.run([[{"case": "a"}], [{"case": "b"}]])
    told = json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    assert told["trained_with"] == {"labelled_share": 0.05, "pretrained": True}
    first = {"region": "image", "case": "a", "slice": 2, **Overlap(1, 1, 1).scores()}
    assert told["cases"][0] == first and told["summary"]["image"]["dice"]["mean"] == pytest.approx(0.75)
    assert told["cases"][1]["ppv"] is None and told["summary"]["image"]["ppv"]["cases"] == 1
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["region"], row["case"], row["dice"]) for row in rows] == [
        ("image", "a", "0.5"), ("image", "b", "1.0"), ("patient", "a", "0.5"), ("patient", "b", "1.0"),
    ]  # fmt: skip
    assert engine.state.metrics["dice_patient"] == 0.75
    assert "2 images        2 patients" in capsys.readouterr().out
