"""Exported bundles where this project isn't: each trains, segments and evaluates, and all do so in one process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from common.data.image_phantoms import make_image_phantoms
from common.data.layouts import list_cases
from common.data.phantoms import make_phantoms
from common.export.bundle import export
from tests.export.small import NETWORKS

NAMES = (*NETWORKS,)
TRAINING: dict[str, Any] = {"epochs": 1, "val_interval": 1, "num_workers": 0, "fractions": [0.5, 0.25, 0.25]}
OWN: dict[str, dict[str, Any]] = {
    "cga_unet": {"patch_size": [16, 16, 16], "batch_size": 1},
    "fancl": {"patch_size": [16, 16, 16], "steps_per_epoch": 1, "stages": [1]},
    "transunet3d": {"patch_size": [16, 16, 16], "steps_per_epoch": 1},
}
# Runs jobs one after another where no package `common` can be imported.
CHILD = """
import json, sys
sys.modules["common"] = None
import monai.bundle, torch
torch.set_num_threads(1)
for call, words in json.loads(sys.argv[1]):
    if call == "forward":
        words = words | {"args_file": {"bundle_root": words["root"]}, "device": "cpu", "key_in_ckpt": "model"}
        network = monai.bundle.load(words["name"], bundle_dir=words["bundle_dir"], **{
            key: words[key] for key in ("args_file", "device", "key_in_ckpt")}).eval()
        with torch.no_grad():
            print("forward of", words["name"], tuple(network(torch.zeros(words["shape"])).shape))
    else:
        getattr(monai.bundle, call)(**words)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundle → folder of what it segments."""
    root = tmp_path_factory.mktemp("scans")
    make_phantoms(str(root / "gliomas"), cases=4, seed=5, shape=32)
    make_image_phantoms(str(root / "ultrasound"), "ultrasound", cases=8, size=64)
    return {name: root / ("ultrasound" if name == "mps_ams" else "gliomas") for name in NAMES}


def unpack(archives: Path, folder: Path) -> None:
    for path in archives.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Calls functions of `monai.bundle`, all in one process in an empty folder; returns what it says."""
    empty = tmp_path_factory.mktemp("empty")

    def call(jobs: Sequence[tuple[str, dict[str, Any]]]) -> str:
        words = [sys.executable, "-c", CHILD, json.dumps(jobs, default=os.fspath)]
        done = subprocess.run(words, cwd=empty, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    return call


def workflow(folder: Path, *names: str, **ids: Any) -> tuple[str, dict[str, Any]]:
    files = [folder / "configs" / f"{name}.json" for name in names]
    return "run", {"config_file": files, "bundle_root": folder, **ids}


@pytest.fixture(scope="module")
def trained(
    scans: dict[str, Path], child: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Bundle → its exported folder with the weights of a short training there, all by one process."""
    root = tmp_path_factory.mktemp("exported")
    for name in NAMES:
        export(name, str(root), **NETWORKS[name])
    unpack(root, root)
    child([workflow(root / name, "train", dataset_dir=scans[name], **TRAINING, **OWN.get(name, {})) for name in NAMES])
    return {name: root / name for name in NAMES}


def test_each_trains_segments_and_evaluates(
    trained: dict[str, Path], scans: dict[str, Path], child: Callable[..., str], tmp_path: Path
):
    """By turns, so that none runs what another has left behind."""
    jobs = []
    for name, folder in trained.items():
        assert (folder / "models" / "model.pt").is_file()
        jobs.append(workflow(folder, "inference", dataset_dir=scans[name], output_dir=tmp_path / name))
    for name, folder in trained.items():
        ids = {"output_dir": tmp_path / f"{name}-scores", "num_workers": 0, "fractions": TRAINING["fractions"]}
        jobs.append(workflow(folder, "train", "evaluate", dataset_dir=scans[name], **ids))
    child(jobs)
    for name in NAMES:
        assert json.loads((tmp_path / f"{name}-scores" / "scores.json").read_text())["cases"], name
        if name == "mps_ams":
            assert len([*(tmp_path / name).glob("*.png")]) == 8
            continue
        for case in list_cases(scans[name]):
            found, label = nibabel.load(tmp_path / name / f"{case['case']}.nii.gz"), nibabel.load(case["label"])
            assert found.shape == label.shape
            np.testing.assert_allclose(found.affine, label.affine, atol=1e-5)


def test_downloaded_with_weights_and_loaded(
    trained: dict[str, Path], scans: dict[str, Path], child: Callable[..., str], tmp_path: Path
):
    """From a local address, by MONAI's `download` and `load`; what comes out is what the training's folder gives."""
    sources, models = tmp_path / "sources", tmp_path / "models"
    jobs: list[tuple[str, dict[str, Any]]] = []
    for name in ("msconvlstm_att", "cga_unet"):
        export(name, str(sources), str(trained[name] / "models" / "model.pt"), **NETWORKS[name])
        (archive,) = sources.glob(f"{name}*.zip")
        jobs.append(("download", {"name": name, "url": archive.as_uri(), "bundle_dir": models, "progress": False}))
        shape = [1, 4, *[16] * (2 if name == "msconvlstm_att" else 3)]
        jobs.append(("forward", {"name": name, "bundle_dir": models, "root": models / name, "shape": shape}))
        outputs = {"downloaded": models / name, "trained": trained[name]}
        for source, folder in outputs.items():
            jobs.append(workflow(folder, "inference", dataset_dir=scans[name], output_dir=tmp_path / source / name))
    models.mkdir()
    said = child(jobs)
    assert re.findall(r"forward of (\w+) \((.*)\)", said) == [
        ("msconvlstm_att", "1, 4, 16, 16"),
        ("cga_unet", "1, 4, 16, 16, 16"),
    ]
    for path in (tmp_path / "trained").rglob("*.nii.gz"):
        again = tmp_path / "downloaded" / path.relative_to(tmp_path / "trained")
        np.testing.assert_array_equal(nibabel.load(path).get_fdata(), nibabel.load(again).get_fdata())


def test_weights_that_lie_elsewhere(trained: dict[str, Path], child: Callable[..., str], tmp_path: Path):
    weights = trained["mps_ams"] / "models" / "model.pt"
    export("mps_ams", str(tmp_path), str(weights), weights_url=weights.as_uri(), **NETWORKS["mps_ams"])
    unpack(tmp_path, tmp_path)
    assert not (tmp_path / "mps_ams" / "models").exists()
    child([("download_large_files", {"bundle_path": tmp_path / "mps_ams"})])
    assert (tmp_path / "mps_ams" / "models" / "model.pt").read_bytes() == weights.read_bytes()
    bill = json.loads((tmp_path / "mps_ams" / "sbom.cdx.json").read_text())
    assert "models/model.pt" in [component["name"] for component in bill["components"]]


def test_without_weights(trained: dict[str, Path], scans: dict[str, Path], tmp_path: Path):
    """By the command that a user types; the one line says what lacks."""
    export("cga_unet", str(tmp_path))
    unpack(tmp_path, tmp_path)
    (tmp_path / "common.py").write_text("raise ImportError('not here')")
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "cga_unet/configs/inference.json"]
    words += ["--bundle_root=cga_unet", f"--dataset_dir={scans['cga_unet']}", f"--output_dir={tmp_path / 'out'}"]
    for weights, told in {
        "": "no weights at cga_unet/models/model.pt",
        os.fspath(trained["fancl"] / "models" / "model.pt"): "is of another network",
    }.items():
        given = [f"--ckpt_path={weights}"] if weights else []
        done = subprocess.run([*words, *given], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 1 and told in done.stderr.splitlines()[-1], done.stderr[-3000:]
        assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def test_errors_of_a_second_bundle_are_one_line(trained: dict[str, Path], scans: dict[str, Path], tmp_path: Path):
    jobs = [
        workflow(trained["mps_ams"], "inference", dataset_dir=scans["mps_ams"], output_dir=tmp_path / "out"),
        workflow(trained["cga_unet"], "inference", dataset_dir=tmp_path / "none", output_dir=tmp_path / "none"),
    ]
    words = [sys.executable, "-c", CHILD, json.dumps(jobs, default=os.fspath)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'none'}")
