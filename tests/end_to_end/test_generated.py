"""Training on scans that are generated beside it, and what its weights do: how those that come along were made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from common.weights import read_facts, read_state

pytestmark = pytest.mark.slow

SMALL = {"val_interval": 1, "validation_cases": 2, "num_workers": 0}
VOLUMES = {**SMALL, "spacing": [5.0] * 3, "patch_size": [32, 32, 32]}
TINY: dict[str, dict[str, Any]] = {
    "cga_unet": {**VOLUMES, "epochs": 2, "cases_per_epoch": 2, "batch_size": 1, "checkpoint_minutes": 0},
    "fancl": {**VOLUMES, "stages": [1], "steps_per_epoch": 1, "features": [8, 8, 8]},
    "transunet3d": {
        **{**VOLUMES, "epochs": 1, "steps_per_epoch": 1, "features": [8, 8, 8], "encoder_layers": 1},
        **{"encoder_width": 48, "encoder_heads": 2, "encoder_mlp": 48},
    },
    "msconvlstm_att": {
        **{**SMALL, "pixel_size": [5.0, 5.0], "crop_size": [32, 48], "epochs": 1, "cases_per_epoch": 2},
        **{"network_def#features": [4, 8, 8], "network_def#width": 8, "patches_per_case": 2},
    },
    "mps_ams": {
        **{**SMALL, "image_size": [32, 32], "epochs": 1, "cases_per_epoch": 2, "patches_per_case": 2},
        "features": [4, 4, 8, 8, 8],
    },
}


@pytest.fixture(scope="module")
def folders(forked: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each bundle's training, by name."""
    made = {name: tmp_path_factory.mktemp("generated") / name for name in TINY}
    for name, folder in made.items():
        run = forked("train_generated", None, folder, bundle=name, **TINY[name])
        assert run.end() == 0, run.log.read_text()
    return made


@pytest.mark.parametrize("name", [*TINY])
def test_each_bundle_trains_on_generated_scans(name: str, folders: dict[str, Path]):
    log = (folders[name] / "log").read_text()
    assert "validating on 2 cases" in log and "in half precision" in log
    whole, half = (folders[name] / "models" / file for file in ("model.pt", "generated.pt"))
    assert {value.dtype for value in read_state(half)[0].values()} <= {torch.float16, torch.int64}
    facts = read_facts(half)
    assert facts["data"] == "generated scans" and facts == read_facts(whole)
    size = {"msconvlstm_att": ("pixel_size", [5.0, 5.0]), "mps_ams": ("modality", "t2f")}
    id, value = size.get(name, ("spacing", [5.0] * 3))
    assert facts[id] == value


def test_inference_follows_the_weights_and_says_what_they_are(
    folders: dict[str, Path], phantoms: dict[str, Path], forked: Any, tmp_path: Path
):
    weights = folders["cga_unet"] / "models" / "generated.pt"
    run = forked("inference", phantoms["brats2018"], tmp_path, weights=weights)
    assert run.end() == 0, run.log.read_text()
    assert run.log.read_text().count("generated.pt: trained on generated scans alone. Experimental") == 1
    (record,) = (tmp_path / "run").glob("run-inference-*.json")
    settings = json.loads(record.read_text())["settings"]
    assert settings["spacing"] == [5.0] * 3 and settings["weights"] == str(weights) and settings["robust"] is True
    assert len([*(tmp_path / "run").glob("*.nii.gz")]) == 4


def test_fine_tuning_goes_on_at_the_spacing_of_the_weights(
    folders: dict[str, Path], phantoms: dict[str, Path], forked: Any, tmp_path: Path
):
    weights = folders["cga_unet"] / "models" / "generated.pt"
    settings = {"epochs": 1, "num_workers": 0, "patch_size": [16, 16, 16], "fractions": [0.5, 0.5, 0.0]}
    run = forked("train", phantoms["brats2018"], tmp_path, weights=weights, **settings)
    assert run.end() == 0, run.log.read_text()
    facts = read_facts(tmp_path / "models" / "model.pt")
    assert facts["spacing"] == [5.0] * 3
    assert "data" not in facts, "real scans had a part in these"


def test_a_training_that_goes_on_sees_the_same_scans(folders: dict[str, Path], forked: Any, tmp_path: Path):
    """Killed after its third step, it ends with the same weights to the bit."""
    done = folders["cga_unet"]
    shutil.copytree(done / "run" / "checkpoints", tmp_path / "run" / "checkpoints")
    *_, last = sorted((tmp_path / "run" / "checkpoints").glob("iteration-*.pt"))
    assert last.name == "iteration-4.pt"
    last.unlink()
    assert (tmp_path / "run" / "checkpoints" / "iteration-3.pt").is_file()
    run = forked("train_generated", None, tmp_path, **TINY["cga_unet"], resume=True)
    assert run.end() == 0, run.log.read_text()
    first, second = (torch.load(folder / "run" / "last.pt", weights_only=True)["model"] for folder in (done, tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_settings_that_it_does_nothing_with_are_refused(forked: Any, tmp_path: Path):
    settings = {"kind": "stroke", "without": ["colour"], "validation_cases": 0}
    run = forked("train_generated", tmp_path, tmp_path / "new", **settings)
    assert run.end() == 1
    lines = [line for line in run.log.read_text().splitlines() if line.startswith("error: ")]
    assert any("kind is 'stroke': give one of metastases, glioma, mixed" in line for line in lines)
    assert any("without is ['colour']: give a list of anatomy, compartments" in line for line in lines)
    assert any("validation_cases is 0: give a whole number above zero" in line for line in lines)
    assert any("--dataset_dir: train_generated does nothing with it; leave it out" in line for line in lines)
