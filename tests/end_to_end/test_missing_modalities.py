"""Cases that lack modalities: refused, or segmented by weights that were trained for it, and measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from common.data.layouts import list_cases
from common.errors import InputError
from common.metrics.region_scores import region_scores
from common.report.build import build_report
from common.running import find_bundle
from common.scoring import score
from common.weights import read_facts

Run = Callable[..., None]
CASE = "BraTS-GLI-00001-000"


@pytest.fixture
def dropout_weights(weights: Path, tmp_path: Path) -> Path:
    """Of an untrained network that say that they were trained with modality dropout."""
    path = tmp_path / "models" / "model.pt"
    path.parent.mkdir()
    torch.save({"model": torch.load(weights, weights_only=True), "trained_with": {"modality_dropout": 0.5}}, path)
    return path


def remove(dataset: Path, *channels: str) -> None:
    for channel in channels:
        (dataset / CASE / f"{CASE}-{channel}.nii.gz").unlink()


def test_incomplete_case_is_segmented_and_it_is_said(
    run_in_process: Run, dataset: Path, dropout_weights: Path, tmp_path: Path
):
    remove(dataset, "t1c", "t2f")
    arguments = {"dataset_dir": dataset, "output_dir": tmp_path / "out", "weights": dropout_weights}
    run_in_process("inference", **arguments, missing_modalities=True)
    written = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith("run-")}
    assert written == {f"BraTS-GLI-0000{number}-000.nii.gz" for number in range(3)} | {f"{CASE}.json"}
    assert json.loads((tmp_path / "out" / f"{CASE}.json").read_text())["missing"] == ["t1c", "t2f"]

    # What was predicted can be scored, evaluated and reported: a reference is a label.
    score(str(tmp_path / "out"), str(dataset), out=str(tmp_path / "scores"))
    assert CASE in (tmp_path / "scores" / "lesions.csv").read_text()
    run_in_process("evaluate_predictions", dataset_dir=dataset, predictions_dir=tmp_path / "out")
    assert CASE in (tmp_path / "out" / "scores.json").read_text()
    given = {"bundle": find_bundle("cga_unet"), "checkpoint": dropout_weights, "resample": False}
    text = build_report(dataset, tmp_path / "out", tmp_path / "report.html", **given).read_text()
    assert f"<h3>{CASE}</h3>" in text
    assert text.count("<h4>Attention map</h4>") == 3


def test_without_the_option_it_is_an_error_that_names_it(
    line_of: Callable[..., str], dataset: Path, dropout_weights: Path, tmp_path: Path
):
    remove(dataset, "t1c")
    message = line_of("inference", dataset_dir=dataset, output_dir=tmp_path / "out", weights=dropout_weights)
    assert "1 of 3 cases failed" in message
    assert "modality t1c is missing; add the file or take the case out, or, with weights trained with" in message


@pytest.mark.parametrize("given", ["weights", "members"])
def test_weights_that_were_not_trained_for_it_are_refused(
    line_of: Callable[..., str], dataset: Path, weights: Path, dropout_weights: Path, tmp_path: Path, given: str
):
    paths = {"weights": weights} if given == "weights" else {"members": [str(dropout_weights), str(weights)]}
    remove(dataset, "t1c")
    settings = {"dataset_dir": dataset, "output_dir": tmp_path / "out", "missing_modalities": True}
    message = line_of("inference", **settings, **paths)
    assert message.startswith(f"{weights} wasn't trained with missing modalities")
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_evaluation_leaves_out_what_inference_would_lack(
    run_in_process: Run, dataset: Path, dropout_weights: Path, tmp_path: Path
):
    """The Dice of a combination is that of the label map which inference gives for a case that lacks those files."""
    names = sorted(case["case"] for case in list_cases(dataset))
    parts = {"training": names[:1], "validation": names[2:], "test": [CASE]}
    (tmp_path / "models" / "partition.json").write_text(json.dumps({"parts": parts}))
    settings = {"dataset_dir": dataset, "ckpt_dir": dropout_weights.parent}
    run_in_process("evaluate_missing", **settings, output_dir=tmp_path / "eval", resample=False)
    rows = json.loads((tmp_path / "eval" / "missing_modalities.json").read_text())["cases"]
    assert len(rows) == 15 * 3
    remove(dataset, "t1n", "t2w")
    run_in_process("inference", **settings, output_dir=tmp_path / "out", missing_modalities=True)
    maps = [tmp_path / "out" / f"{CASE}.nii.gz", dataset / CASE / f"{CASE}-seg.nii.gz"]
    pred, label = (torch.from_numpy(np.asarray(nibabel.load(path).dataobj)) for path in maps)
    expected = {
        region: pytest.approx(s["dice"], abs=1e-6) for region, s in region_scores(pred, label, (1, 1, 1)).items()
    }
    assert {row["region"]: row["dice"] for row in rows if row["missing"] == "t1n t2w"} == expected
    assert {row["region"]: row["dice"] for row in rows if row["missing"] == ""} != expected


@pytest.mark.parametrize("given", [{"predictions_dir": "maps"}, {"lesion_preset": "fancl", "save_uncertainty": True}])
def test_measuring_writes_no_maps_and_says_so(
    run_in_process: Run, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: dict[str, object]
):
    with pytest.raises(InputError) as raised:
        run_in_process("evaluate_missing", dataset_dir=dataset, output_dir=tmp_path / "eval", **given)
    for name in given:
        assert f"--{name}: evaluate_missing does nothing with it; leave it out" in raised.value.problems
    run_in_process("evaluate_missing", list=True)
    assert not any(f"--{name} " in capsys.readouterr().out for name in given)


@pytest.mark.slow
def test_training_with_dropout_is_said_by_its_weights(run_in_process: Run, dataset: Path, tmp_path: Path):
    arguments = {"dataset_dir": dataset, "output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models", "epochs": 1}
    run_in_process("train", **arguments, modality_dropout=0.5, fractions=[1.0, 0.0, 0.0])
    for path in (tmp_path / "models" / "model.pt", tmp_path / "run" / "last.pt"):
        assert read_facts(path)["modality_dropout"] == 0.5
