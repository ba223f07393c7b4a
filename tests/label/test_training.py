"""Batches, sampling and trainings by MONAI Label, which change what the server has; so they come last."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import nibabel
import pytest
import torch

from tests.label.server import (
    BESIDE,
    WHOLE,
    Server,
    members_of,
    new_lines,
    overlap,
    uncertainties,
)

pytestmark = [pytest.mark.label, pytest.mark.slow]


def test_sampling_before_there_is_anything_to_go_by(server: Server):
    """mps_ams notes no uncertainty."""
    answer, (line,) = new_lines(
        server, lambda: server.ask("POST", "activelearning/uncertainty", json={"model": "mps_ams"})
    )
    assert answer.status_code == 422 and "no uncertainty is noted of 8 images" in answer.json()["detail"]
    assert answer.json()["detail"] in line


def test_batch_and_sampling(server: Server, studies: Path):
    told = server.ask("POST", "batch/infer/fancl?images=all", json={"label_tag": "auto"})
    assert told.status_code == 200 and told.json()["status"] == "SUBMITTED"
    assert server.finished("batch/infer")["status"] == "DONE"
    written = {path.name for path in (studies / "labels" / "auto").iterdir()}
    assert written == {f"{name}.nii.gz" for name in WHOLE + BESIDE}
    server.wait_until(lambda: len(uncertainties(server, "fancl")) == len(written), 30)
    noted = uncertainties(server, "fancl")
    assert len({*noted.values()}) > 1 and all(0 < value < 1 for value in noted.values())
    answer = server.ask("POST", "activelearning/uncertainty", json={"model": "fancl"})
    most = max(noted.values())
    assert noted[answer.json()["id"]] == most == answer.json()["weight"]


VIEWER = """
import sys
from monailabel.client import MONAILabelClient
url, folder = sys.argv[1:]
client = MONAILabelClient(url, folder)
assert len(client.info()["models"]) == 5
sample = client.next_sample("uncertainty", {"model": "fancl"})
label, said = client.infer("fancl", sample["id"], {})
assert said["label_names"] == {"ncr": 1, "ed": 2, "et": 3} and said["uncertainty"] == sample["weight"]
label, _ = client.infer("fancl", "plain", {})
session = client.create_session(sample["path"].rpartition("/")[0] + "/plain.nii.gz")["session_id"]
same, _ = client.infer("fancl", "", {}, session_id=session)
assert open(same, "rb").read() == open(label, "rb").read()
assert client.save_label("plain", label, "looked_at")["label"] == "plain"
"""


def test_what_a_viewer_calls(server: Server, python: Path, tmp_path: Path):
    """By MONAI Label's client, which 3D Slicer's extension has; after a batch has noted uncertainties."""
    words = [python, "-c", VIEWER, server.url, tmp_path]
    done = subprocess.run([*map(str, words)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_too_few_labels_to_train(server: Server):
    server.ask("POST", "train/fancl", json={"max_epochs": 1})
    told = server.finished("train")
    assert told["status"] == "ERROR"
    assert "train fancl: 0 images with final labels" in told["details"][-1]


@pytest.fixture(scope="module")
def corrected(server: Server, phantoms: list[dict[str, Any]]) -> dict[str, Path]:
    """Final labels, put there as a viewer does."""
    labels = {name: Path(case["label"]) for name, case in zip(BESIDE, phantoms, strict=True)}
    for name, path in labels.items():
        with path.open("rb") as file:
            answer = server.ask("PUT", "datastore/label", params={"image": name, "tag": "final"}, files={"label": file})
        assert answer.json() == {"image": name, "label": name}
    return labels


def test_a_corrected_label(server: Server, corrected: dict[str, Path], tmp_path: Path):
    answer = server.ask("GET", "datastore/label", params={"label": "first", "tag": "final"})
    assert answer.content == corrected["first"].read_bytes()
    told = server.ask("GET", "datastore/?output=train").json()
    assert {Path(one["image"]).name for one in told} == {f"{name}.nii.gz" for name in BESIDE}
    assert server.ask("POST", "activelearning/uncertainty").json()["id"] in WHOLE


def test_better_weights_are_served(server: Server, corrected: dict[str, Path], tmp_path: Path):
    """Of two trainings at once the second is refused, and inference goes on."""
    before = server.infer("cga_unet", "third", tmp_path / "before.nii.gz").get_fdata()
    assert server.ask("POST", "train/cga_unet", json={"max_epochs": 10, "val_split": 0.3}).status_code == 200
    server.wait_until(lambda: server.ask("GET", "train/").json()["status"] == "RUNNING", 30)
    second = server.ask("POST", "train/fancl", json={"max_epochs": 1})
    assert second.status_code == 429 and "Train Task is Already Running" in second.json()["detail"]
    assert server.infer("fancl", "plain", tmp_path / "meanwhile.nii.gz").shape == (32, 32, 32)
    told = server.finished("train")
    assert told["status"] == "DONE", told["details"]
    after = server.infer("cga_unet", "third", tmp_path / "after.nii.gz").get_fdata()
    reference = nibabel.load(corrected["third"]).get_fdata()
    assert overlap(after, reference) > overlap(before, reference)


def test_worse_weights_are_not(server: Server, corrected: dict[str, Path], app: Path):
    folder = app / "model" / "transunet3d"
    before = torch.load(folder / "models" / "model.pt", weights_only=True)["model"]
    server.ask("POST", "train/transunet3d", json={"max_epochs": 2})
    told = server.finished("train")
    assert told["status"] == "DONE", told["details"]
    after = torch.load(folder / "models" / "model.pt", weights_only=True)["model"]
    last = torch.load(folder / "eval" / "label" / "last.pt", weights_only=True)["model"]
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert not all(torch.equal(last[key], before[key]) for key in before)


@pytest.mark.parametrize("name", ["fancl", "mps_ams", "msconvlstm_att"])
def test_the_others_train(name: str, server: Server, corrected: dict[str, Path], app: Path):
    server.ask("POST", f"train/{name}", json={"max_epochs": 1})
    told = server.finished("train")
    assert told["status"] == "DONE", told["details"]
    assert (app / "model" / name / "eval" / "label" / "last.pt").exists()
    assert server.ask("POST", f"infer/{name}", params={"image": "first"}).status_code == 200


def test_it_ends_when_asked_to(server: Server):
    """After all that; and no process of it stays."""
    assert server.end() == 0
    assert members_of(server.process.pid) == []
