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
import onnxruntime
import pytest
import torch

from common.data.image_phantoms import make_image_phantoms
from common.data.layouts import list_cases
from common.data.phantoms import make_phantoms
from common.export.bundle import export
from common.weights import load_weights
from tests.export.small import NETWORKS, network_of

NAMES = (*NETWORKS,)
PINNED = Path(__file__).resolve().parents[2] / "constraints.txt"  # of all packages, MONAI's for conversions among them
TRAINING: dict[str, Any] = {"epochs": 1, "val_interval": 1, "num_workers": 0, "fractions": [0.5, 0.25, 0.25]}
OWN: dict[str, dict[str, Any]] = {
    "cga_unet": {"patch_size": [16, 16, 16], "batch_size": 1},
    "fancl": {"patch_size": [16, 16, 16], "steps_per_epoch": 1, "stages": [1]},
    "transunet3d": {"patch_size": [16, 16, 16], "steps_per_epoch": 1},
}
# Runs jobs one after another where nothing can be imported but what the requirements bring along: not this project.
CHILD = """
import json, re, sys
from importlib import metadata

def closure(names):
    found, waiting = set(), [*names]
    while waiting:
        name = re.sub("[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            found.add(name)
            try:
                needed = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue
            waiting += [re.match("[A-Za-z0-9._-]+", one)[0] for one in needed if "extra ==" not in one]
    return found

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name in REFUSED else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

jobs, requirements = json.loads(sys.argv[1])
brought = closure(line.split("==")[0] for file in requirements for line in open(file))
REFUSED = {"common"} | {
    module for module, packages in metadata.packages_distributions().items()
    if not {re.sub("[-_.]+", "-", one).lower() for one in packages} & brought
}
for one in {*REFUSED} & {*sys.modules}:
    del sys.modules[one]
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import monai.bundle, torch
torch.set_num_threads(1)
for call, words in jobs:
    if call == "forward":
        words = words | {"args_file": {"bundle_root": words["root"]}, "device": "cpu", "key_in_ckpt": "model"}
        network = monai.bundle.load(words["name"], bundle_dir=words["bundle_dir"], **{
            key: words[key] for key in ("args_file", "device", "key_in_ckpt")}).eval()
        with torch.no_grad():
            print("forward of", words["name"], tuple(network(torch.zeros(words["shape"])).shape))
    else:
        if call not in ("run", "download"):  # they are typed in the bundle's folder
            sys.path.insert(0, words["meta_file"].rsplit("/", 2)[0])
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

    def call(jobs: Sequence[tuple[str, dict[str, Any]]], folders: Sequence[Path]) -> str:
        given = [jobs, [folder / "requirements.txt" for folder in folders]]
        words = [sys.executable, "-c", CHILD, json.dumps(given, default=os.fspath)]
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
    folders = {name: root / name for name in NAMES}
    jobs = [
        workflow(folder, "train", dataset_dir=scans[name], **TRAINING, **OWN.get(name, {}))
        for name, folder in folders.items()
    ]
    child(jobs, [*folders.values()])
    return folders


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
    child(jobs, [*trained.values()])
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
    said = child(jobs, [trained["msconvlstm_att"], trained["cga_unet"]])
    assert re.findall(r"forward of (\w+) \((.*)\)", said) == [
        ("msconvlstm_att", "1, 4, 16, 16"),
        ("cga_unet", "1, 4, 16, 16, 16"),
    ]
    for path in (tmp_path / "trained").rglob("*.nii.gz"):
        again = tmp_path / "downloaded" / path.relative_to(tmp_path / "trained")
        np.testing.assert_array_equal(nibabel.load(path).get_fdata(), nibabel.load(again).get_fdata())


def test_weights_that_lie_elsewhere(trained: dict[str, Path], tmp_path: Path):
    weights = trained["mps_ams"] / "models" / "model.pt"
    export("mps_ams", str(tmp_path), str(weights), weights_url=weights.as_uri(), **NETWORKS["mps_ams"])
    unpack(tmp_path, tmp_path)
    assert not (tmp_path / "mps_ams" / "models").exists()
    # Reads YAML, for which MONAI asks for a package of its own.
    words = ["monai.bundle", "download_large_files", "--bundle_path", tmp_path / "mps_ams"]
    subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, check=True, capture_output=True, timeout=300)
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
        given = [f"--weights={weights}"] if weights else []
        done = subprocess.run([*words, *given], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 1 and told in done.stderr.splitlines()[-1], done.stderr[-3000:]
        assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def test_errors_of_a_second_bundle_are_one_line(trained: dict[str, Path], scans: dict[str, Path], tmp_path: Path):
    jobs = [
        workflow(trained["mps_ams"], "inference", dataset_dir=scans["mps_ams"], output_dir=tmp_path / "out"),
        workflow(trained["cga_unet"], "inference", dataset_dir=tmp_path / "none", output_dir=tmp_path / "none"),
    ]
    given = [jobs, [trained[name] / "requirements.txt" for name in ("mps_ams", "cga_unet")]]
    words = [sys.executable, "-c", CHILD, json.dumps(given, default=os.fspath)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'none'}")


SHAPES = {"mps_ams": [1, 1, 32, 32], "msconvlstm_att": [1, 4, 26, 26]}


def test_monai_verifies_and_converts_each(trained: dict[str, Path], repository: Path, tmp_path: Path):
    """By the functions behind its commands, with the words of docs/deploy.md."""
    schema = tmp_path / "schema.json"
    schema.write_text((repository / "tests" / "metadata_schema.json").read_text())
    jobs: list[tuple[str, dict[str, Any]]] = []
    for name, folder in trained.items():
        config, metadata = folder / "configs" / "inference.json", folder / "configs" / "metadata.json"
        jobs.append(("verify_metadata", {"meta_file": metadata, "filepath": schema}))
        shared = {"config_file": config, "meta_file": metadata}
        jobs.append(("verify_net_in_out", {"net_id": "network_def", **shared, "device": "cpu", "n": 2}))
        shared |= {"net_id": "network_def", "ckpt_file": folder / "models" / "model.pt", "key_in_ckpt": "model"}
        shared["input_shape"] = SHAPES.get(name, [1, 4, 16, 16, 16])
        jobs.append(("ckpt_export", {**shared, "use_trace": True, "filepath": tmp_path / f"{name}.ts"}))
        jobs.append(("onnx_export", {**shared, "filepath": tmp_path / f"{name}.onnx"}))
    words = [sys.executable, "-c", CHILD, json.dumps([jobs, [PINNED]], default=os.fspath)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (done.stdout + done.stderr).count("verified with no error") >= 2 * len(NAMES)
    for name, folder in trained.items():
        network = network_of(name)
        load_weights(network, folder / "models" / "model.pt")
        image = torch.randn(SHAPES.get(name, [1, 4, 16, 16, 16]))
        with torch.no_grad():
            expected = network(image)
            torch.testing.assert_close(torch.jit.load(tmp_path / f"{name}.ts")(image), expected, rtol=0, atol=1e-4)
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx")
        (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-4)
