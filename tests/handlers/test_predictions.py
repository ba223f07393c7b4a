"""Label maps and probabilities are written in the input's geometry, in the wanted convention, whole."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from common.errors import InputError
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


def test_folder_is_tried_before_the_first_case(tmp_path: Path):
    (tmp_path / "taken").write_text("")
    seen = []
    engine = Engine(lambda engine, batch: seen.append(batch))
    PredictionSaver(str(tmp_path / "taken")).attach(engine)
    with pytest.raises(InputError, match="can't be written"):
        engine.run([0])
    assert not seen
