"""One server for all tests of a session: it takes longer to start than most of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from common.data.layouts import list_cases
from common.data.phantoms import make_phantoms
from common.data.reading import read_image
from common.export.bundle import export
from tests.label.server import APP, BESIDE, FOUR_MODALITIES, REPOSITORY, TINY, WHOLE, Server, weights_of


@pytest.fixture(scope="session")
def python() -> Path:
    folder = Path(os.environ.get("LESION_LABEL_ENV", REPOSITORY / ".venv-label"))
    if not (folder / "bin" / "python").exists():
        pytest.skip(f"MONAI Label isn't in {folder}: make label-env")
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def app(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the app with the five, one without weights, and one with another's."""
    folder = tmp_path_factory.mktemp("label") / "app"
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("model", "logs", "__pycache__"))
    for name, tiny in TINY.items():
        weights_of(name, folder / f"{name}.pt")
        export(name, str(folder / "dist"), str(folder / f"{name}.pt"), **tiny, num_workers=0)
        with zipfile.ZipFile(next((folder / "dist").glob(f"{name}_v*.zip"))) as archive:
            archive.extractall(folder / "model")
    for broken in ("weightless", "mistaken"):
        shutil.copytree(folder / "model" / "cga_unet", folder / "model" / broken)
    (folder / "model" / "weightless" / "models" / "model.pt").unlink()
    shutil.copy(folder / "fancl.pt", folder / "model" / "mistaken" / "models" / "model.pt")
    return folder


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    make_phantoms(str(folder), cases=3, layout="brats2023", shape=32, seed=5)
    return list_cases(folder, labelled=True)


@pytest.fixture(scope="session")
def studies(phantoms: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "studies"
    folder.mkdir()
    voxels, affine = read_image(phantoms[0])
    plain = nibabel.Nifti1Image(np.moveaxis(voxels, 0, -1), affine)
    nibabel.save(plain, folder / "plain.nii.gz")
    turn = nibabel.orientations.axcodes2ornt("SPL")
    turned = plain.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), turn))
    nibabel.save(turned, folder / "turned.nii.gz")
    angle = np.deg2rad(12)
    rotation = np.diag([-1.0, -1, 1, 1])  # to LPS
    rotation[:2, :2] @= [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    oblique = nibabel.Nifti1Image(np.asarray(plain.dataobj), rotation @ affine @ np.diag([1, 0.8, 1.25, 1]))
    nibabel.save(oblique, folder / "oblique.nii.gz")
    for name, case in zip(BESIDE, phantoms, strict=True):
        (folder / name).mkdir()
        for file in case["image"]:
            shutil.copy(file, folder / name)
        shutil.copy(case["image"][3], folder / f"{name}.nii.gz")
    Image.fromarray(np.random.default_rng(0).integers(1, 255, (48, 64), np.uint8)).save(folder / "picture.png")
    (folder / "bad.nii.gz").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="session")
def server(
    python: Path, app: Path, studies: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    server = Server(python, app, studies, free_port(), tmp_path_factory.mktemp("server"))
    yield server
    server.end()


@pytest.fixture(scope="session")
def own(app: Path, studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the exported bundles themselves make of the same images, in folders of their names."""
    folder = tmp_path_factory.mktemp("own")
    groups = {"whole": [f"{name}.nii.gz" for name in WHOLE], "one": [f"{name}.nii.gz" for name in BESIDE]}
    groups["pictures"] = ["picture.png"]
    for group, files in groups.items():
        (folder / group).mkdir()
        for file in files:
            shutil.copy(studies / file, folder / group)
    for bundle, group in [*((name, "whole") for name in FOUR_MODALITIES), ("mps_ams", "one"), ("mps_ams", "pictures")]:
        root = app / "model" / bundle
        words = ["--config_file", root / "configs" / "inference.json", "--bundle_root", root]
        words += ["--dataset_dir", folder / group, "--output_dir", folder / bundle]
        done = subprocess.run(
            [sys.executable, "-m", "monai.bundle", "run", *map(str, words)],
            **{"cwd": folder, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "timeout": 300},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    return folder
