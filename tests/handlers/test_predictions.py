"""Label maps and probabilities are written in the input's geometry, in the wanted convention, whole."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from common.data.writing import write_nifti
from common.errors import InputError
from common.handlers import predictions
from common.handlers.predictions import PredictionSaver

AFFINE = np.array([[-1.0, 0, 0, 5], [0, 0, 2, 6], [0, 1.5, 0, 7], [0, 0, 0, 1]])


def output(probabilities: bool = False) -> dict[str, MetaTensor]:
    label = torch.arange(24).reshape(1, 2, 3, 4) % 4
    out = {"pred": MetaTensor(label.to(torch.uint8), affine=torch.from_numpy(AFFINE))}
    if probabilities:
        maps = torch.full((4, 2, 3, 4), 0.25)
        maps[:, 0] = 0  # what undoing the crop leaves outside the brain
        out["probabilities"] = MetaTensor(maps, affine=torch.from_numpy(AFFINE))
    return out


def run(saver: PredictionSaver, item: dict, out: dict) -> None:
    engine = Engine(lambda engine, batch: [out])
    saver.attach(engine)
    engine.run([[item]])


def test_writes_labels_with_geometry(tmp_path: Path):
    run(PredictionSaver(str(tmp_path / "new")), {"case": "c"}, output())
    image = nibabel.load(tmp_path / "new" / "c.nii.gz")
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.arange(24).reshape(2, 3, 4) % 4)
    np.testing.assert_allclose(image.affine, AFFINE)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["c.nii.gz"]


@pytest.mark.parametrize(("convention", "values"), [("brats2018", [0, 1, 2, 4]), ("decathlon", [0, 2, 1, 3])])
def test_source_convention(tmp_path: Path, convention: str, values: list[int]):
    run(PredictionSaver(str(tmp_path), source_labels=True), {"case": "c", "label_convention": convention}, output())
    assert np.asarray(nibabel.load(tmp_path / "c.nii.gz").dataobj).ravel()[:4].tolist() == values


def test_probabilities_add_up_to_one_also_outside_the_brain(tmp_path: Path):
    run(PredictionSaver(str(tmp_path)), {"case": "c"}, output(probabilities=True))
    maps = np.asarray(nibabel.load(tmp_path / "c_probabilities.nii.gz").dataobj)
    assert maps.shape == (2, 3, 4, 4)
    np.testing.assert_allclose(maps.sum(-1), 1)
    assert maps[0, 0, 0].tolist() == [1, 0, 0, 0]


def test_uncertainty_lies_beside_the_labels(tmp_path: Path):
    maps = {
        name: MetaTensor(torch.rand(1, 2, 3, 4), affine=torch.from_numpy(AFFINE)) for name in ("entropy", "variance")
    }
    run(PredictionSaver(str(tmp_path)), {"case": "c"}, output() | maps)
    for name, values in maps.items():
        image = nibabel.load(tmp_path / f"c_{name}.nii.gz")
        assert image.get_data_dtype() == np.float32
        np.testing.assert_array_equal(np.asarray(image.dataobj), values[0])
        np.testing.assert_allclose(image.affine, AFFINE)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("kept", [(), ("probabilities",), ("entropy",), ("entropy", "variance")])
def test_maps_of_an_earlier_prediction_go(tmp_path: Path, kept: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    """They go before the new label map is there, so that no report sets the ones against the other."""
    unsure = MetaTensor(torch.rand(1, 2, 3, 4), affine=torch.from_numpy(AFFINE))
    full = output(probabilities=True) | {"entropy": unsure, "variance": unsure}
    for case in ("c", "c2"):
        run(PredictionSaver(str(tmp_path)), {"case": case}, full)
    (tmp_path / "c_notes.nii.gz").write_text("of somebody else")
    others = {"c2.nii.gz", *(f"c2_{name}.nii.gz" for name in full if name != "pred"), "c_notes.nii.gz"}
    maps = {f"c_{name}.nii.gz" for name in kept}
    seen = []

    def write(path: Path, *args: Any) -> None:
        seen.append((path.name, {file.name for file in tmp_path.glob("c_*")} - others))
        write_nifti(path, *args)

    monkeypatch.setattr(predictions, "write_nifti", write)
    run(PredictionSaver(str(tmp_path)), {"case": "c"}, {name: full[name] for name in ("pred", *kept)})
    assert {path.name for path in tmp_path.iterdir()} == {"c.nii.gz", *maps} | others
    assert seen[-1] == ("c.nii.gz", maps)


def test_folder_is_tried_before_the_first_case(tmp_path: Path):
    (tmp_path / "taken").write_text("")
    seen = []
    engine = Engine(lambda engine, batch: seen.append(batch))
    PredictionSaver(str(tmp_path / "taken")).attach(engine)
    with pytest.raises(InputError, match="can't be written"):
        engine.run([0])
    assert not seen


def test_missing_modalities_are_said_beside_the_prediction(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("WARNING"):
        run(PredictionSaver(str(tmp_path)), {"case": "c", "missing": "t1c t2f"}, output())
    assert caplog.messages == ["case c has no t1c, t2f: zeros took its place"]
    said = json.loads((tmp_path / "c.json").read_text())
    assert said == {"case": "c", "missing": ["t1c", "t2f"], "used": ["t1n", "t2w"]}
    run(PredictionSaver(str(tmp_path)), {"case": "whole"}, output())
    run(PredictionSaver(str(tmp_path)), {"case": "c"}, output())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.nii.gz", "whole.nii.gz"]


@pytest.mark.parametrize("content", ['{"case": "c", "age": 61}', '{"missing": ["t1c"]}', "[]", "no JSON"])
@pytest.mark.parametrize("missing", [{}, {"missing": "t1c"}])
def test_a_file_of_another_that_has_the_name_of_a_note_stays(tmp_path: Path, content: str, missing: dict[str, str]):
    (tmp_path / "c.json").write_text(content)
    run(PredictionSaver(str(tmp_path)), {"case": "c", **missing}, output())
    assert (tmp_path / "c.json").read_text() == content
    assert (tmp_path / "c.nii.gz").exists()
