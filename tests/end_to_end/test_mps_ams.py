"""mps_ams from unlabelled images to masks, on the three kinds of generated images, by the commands that users type."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from common.data.image_phantoms import make_image_phantoms
from common.data.phantoms import make_phantoms
from common.handlers.checkpoints import TrainingCheckpoints

pytestmark = pytest.mark.slow

NETWORK = {"features": [4, 8, 8, 8, 8], "image_size": [32, 32]}
TINY = {**NETWORK, "num_workers": 0, "epochs": 2, "fractions": [0.6, 0.2, 0.2]}
PRETRAINING = {**TINY, "masked_patch": [8, 8], "val_interval": 1, "learning_rate": 0.002}
KINDS = {"ultrasound": {}, "ct": {"intensity_window": [-160, 240]}, "mri": {"modality": "t2f"}}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind → folder of images."""
    root = tmp_path_factory.mktemp("images")
    make_image_phantoms(str(root / "ultrasound"), "ultrasound", cases=12, size=64)
    make_image_phantoms(str(root / "ct"), "ct", cases=5, size=(48, 48, 8))
    make_phantoms(str(root / "mri"), cases=5, layout="brats2018", shape=32, kind="glioma")
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(scope="module")
def trained(images: dict[str, Path], said_by: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what pre-training and then training on half of the labels make of the ultrasound images."""
    folder = tmp_path_factory.mktemp("trained")
    places = {"dataset_dir": images["ultrasound"], "partition_file": folder / "partition.json"}
    own = {"output_dir": folder / "pretraining", "ckpt_dir": folder / "pretrained"}
    log = said_by("mps_ams", "pretrain", **{**PRETRAINING, "epochs": 12, "batch_size": 2}, **places, **own)
    own = {"output_dir": folder / "run", "ckpt_dir": folder / "models", "labelled_share": 0.5}
    own["pretrained"] = folder / "pretrained" / "pretrained.pt"
    log += said_by("mps_ams", "train", **TINY, **places, **own)
    (folder / "log").write_text(log)
    return folder


def test_pretraining(trained: Path):
    log = (trained / "log").read_text()
    losses = [float(value) for value in re.findall(r"val_minus_loss -(\d+\.\d+) is the best", log)]
    assert len(losses) > 2 and losses[-1] < 0.9 * losses[0]
    page = (trained / "pretraining" / "masking.html").read_text()
    assert page.count("likely lesion: ") >= 2 and "epoch 12: 46% masked" in page
    facts = torch.load(trained / "pretrained" / "pretrained.pt", weights_only=True)["trained_with"]
    assert facts["adaptive_ratio"] and facts["lesion_first"] and facts["masked_patch"] == [8, 8]


def test_fine_tuning(trained: Path):
    log = (trained / "log").read_text()
    transfer = json.loads((trained / "run" / "transfer.json").read_text())
    assert transfer["stayed"] == transfer["left"] == ["final_conv.weight", "final_conv.bias"]
    moved = torch.load(trained / "pretrained" / "pretrained.pt", weights_only=True)["model"]
    assert {*transfer["moved"]} == {*moved} - {"final_conv.weight", "final_conv.bias"}
    labelled = json.loads((trained / "run" / "labelled.json").read_text())
    partition = json.loads((trained / "partition.json").read_text())["parts"]
    assert len(labelled["training"]) == round(len(partition["training"]) / 2) and log.count("moved ") == 1
    assert {*labelled["training"]} < {*partition["training"]}
    facts = torch.load(trained / "models" / "model.pt", weights_only=True)["trained_with"]
    assert facts["labelled_share"] == 0.5 and facts["pretrained"] is True


def test_evaluation(trained: Path, images: dict[str, Path], run_in_process: Callable[..., None], tmp_path: Path):
    where = {"dataset_dir": images["ultrasound"], "partition_file": trained / "partition.json"}
    where |= {"ckpt_dir": trained / "models", "output_dir": tmp_path / "eval", "predictions_dir": tmp_path / "masks"}
    run_in_process("evaluate", "mps_ams", **NETWORK, **where)
    told = json.loads((tmp_path / "eval" / "scores.json").read_text())
    tested = json.loads((trained / "partition.json").read_text())["parts"]["test"]
    assert [row["case"] for row in told["cases"] if row["region"] == "image"] == sorted(tested)
    assert told["trained_with"]["labelled_share"] == 0.5
    for row in told["cases"]:
        found = np.asarray(Image.open(tmp_path / "masks" / f"{row['case']}.png")) > 0
        masks = images["ultrasound"].rglob(f"{row['case']}_mask*.png")
        there = np.logical_or.reduce([np.asarray(Image.open(mask)) > 0 for mask in masks])
        both = int((found & there).sum())
        whole = int(found.sum() + there.sum())
        assert row["dice"] == pytest.approx(2 * both / whole if whole else 1.0)


def test_inference_of_pictures(trained: Path, images: dict[str, Path], said_by: Callable[..., str], tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    given = sorted(p for p in images["ultrasound"].rglob("*.png") if "_mask" not in p.name)[:3]
    for path in given:
        shutil.copy(path, data)
    (data / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    where = {"dataset_dir": data, "output_dir": tmp_path / "out", "weights": trained / "models" / "model.pt"}
    with pytest.raises(AssertionError, match=r"1 of 4 cases failed: case broken, .*broken\.jpg: is no picture"):
        said_by("mps_ams", "inference", **NETWORK, **where)
    for path in given:
        mask = np.asarray(Image.open(tmp_path / "out" / path.name))
        assert mask.shape == np.asarray(Image.open(path)).shape and {*np.unique(mask)} <= {0, 255}
        assert (tmp_path / "out" / "overlays" / path.name).is_file()
    assert not list((tmp_path / "out").glob("broken*"))
    (data / "broken.jpg").unlink()
    assert "3 of 3 images are finished already" in said_by("mps_ams", "inference", **NETWORK, **where)


@pytest.mark.parametrize("kind", ["ct", "mri"])
def test_volumes_slice_by_slice(kind: str, images: dict[str, Path], forked: Callable[..., Any], tmp_path: Path):
    """Pre-training, training, evaluation and inference; masks lie on the scans."""
    data = {"dataset_dir": images[kind], "partition_file": tmp_path / "partition.json", **KINDS[kind]}
    weights = tmp_path / "pre" / "models" / "pretrained.pt"
    for name, workflow, settings in (
        ("pre", "pretrain", {**PRETRAINING, **data}),
        ("tune", "train", {**TINY, **data, "pretrained": weights}),
        ("evaluate", "evaluate", {**NETWORK, **data, "ckpt_dir": tmp_path / "tune" / "models"}),
        ("infer", "inference", {**NETWORK, **data, "ckpt_dir": tmp_path / "tune" / "models"}),
    ):
        if workflow == "inference":
            settings.pop("partition_file")
        settings.pop("dataset_dir")
        life = forked(workflow, images[kind], tmp_path / name, bundle="mps_ams", **settings)
        assert life.end() == 0, life.log.read_text()
    partition = json.loads((tmp_path / "partition.json").read_text())["parts"]
    slices, volumes = re.search(r"(\d+) slices of (\d+) images", (tmp_path / "pre" / "log").read_text()).groups()
    assert int(volumes) == len(partition["training"]) < int(slices)
    rows = json.loads((tmp_path / "evaluate" / "run" / "scores.json").read_text())["cases"]
    assert [row["case"] for row in rows if row["region"] == "patient"] == partition["test"]
    ending = {"ct": "{}_ct.nii.gz", "mri": "{0}/{0}_flair.nii.gz"}[kind]
    masks = sorted((tmp_path / "infer" / "run").glob("*.nii.gz"))
    assert len(masks) == 5
    for path in masks:
        mask = nibabel.load(path)
        scan = nibabel.load(images[kind] / ending.format(path.name.removesuffix(".nii.gz")))
        assert mask.shape == scan.shape and mask.get_data_dtype() == np.uint8
        np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-5)
        assert (tmp_path / "infer" / "run" / "overlays" / path.name.replace(".nii.gz", ".png")).is_file()


@pytest.mark.parametrize("workflow", ["pretrain", "train"])
def test_killed_and_resumed_is_the_same_to_the_bit(
    workflow: str, images: dict[str, Path], forked: Callable[..., Any], tmp_path: Path
):
    settings = {"bundle": "mps_ams", **(PRETRAINING if workflow == "pretrain" else TINY), "batch_size": 4}
    settings |= {"partition_file": tmp_path / "partition.json", "checkpoint_minutes": 0}
    whole = forked(workflow, images["ultrasound"], tmp_path / "whole", **settings)
    assert whole.end() == 0, whole.log.read_text()

    def prepare() -> None:
        """Die when the first epoch's checkpoint is there; the second masks more."""
        after_epoch = TrainingCheckpoints.after_epoch

        def die(self: TrainingCheckpoints, engine: object) -> None:
            after_epoch(self, engine)
            os.kill(os.getpid(), signal.SIGKILL)

        TrainingCheckpoints.after_epoch = die  # type: ignore[method-assign]

    killed = forked(workflow, images["ultrasound"], tmp_path / "killed", prepare, **settings)
    assert killed.end() == -signal.SIGKILL
    again = forked(workflow, images["ultrasound"], tmp_path / "killed", resume=True, **settings)
    assert again.end() == 0, again.log.read_text()
    last = [(tmp_path / name / "run" / "last.pt").read_bytes() for name in ("whole", "killed")]
    assert last[0] == last[1]


@pytest.mark.parametrize("workflow", ["pretrain", "train"])
def test_two_processes_do_what_one_does(
    workflow: str,
    images: dict[str, Path],
    forked: Callable[..., Any],
    forked_together: Callable[..., list[Any]],
    tmp_path: Path,
):
    """Where nothing of a batch is computed together but the gradient's mean."""

    def each_image_alone() -> None:
        # On CPUs batch statistics are those of a process's own images.
        def forward(self: torch.nn.BatchNorm2d, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.instance_norm(images, weight=self.weight, bias=self.bias)

        torch.nn.BatchNorm2d.forward = forward  # type: ignore[method-assign]

    tiny = PRETRAINING if workflow == "pretrain" else {**TINY, "loss#batch": False}
    settings = {"bundle": "mps_ams", **tiny, "partition_file": tmp_path / "partition.json", "amp": False}
    settings["fractions"] = [8 / 12, 2 / 12, 2 / 12]  # a multiple of the batch
    one = forked(workflow, images["ultrasound"], tmp_path / "one", each_image_alone, **settings, batch_size=4)
    assert one.end() == 0, one.log.read_text()
    settings["batch_size"] = 2
    two = f"multi_gpu_{workflow}"
    for life in forked_together(two, images["ultrasound"], tmp_path / "two", each_image_alone, **settings):
        assert life.end() == 0, life.log.read_text()
    last = [torch.load(tmp_path / name / "run" / "last.pt", weights_only=True)["model"] for name in ("one", "two")]
    assert last[0].keys() == last[1].keys()
    # The norms take these away, so that their gradients are nothing but rounding.
    compared = [key for key in last[0] if not key.endswith(".conv.bias")]
    assert "final_conv.weight" in compared
    assert max(float((last[1][key] - last[0][key]).abs().max()) for key in compared) <= 1e-6


BAD = {
    "share of nobody": ("train", {"labelled_share": 0.01}, "labelled_share 0.01 of 8 labelled training patients"),
    "size that doesn't divide": ("train", {"image_size": [40, 32]}, "image_size is (40, 32): give two multiples of 16"),
    "patch that doesn't divide": (
        "pretrain",
        {"masked_patch": [12, 8]},
        "masked_patch [12, 8]: must divide",
    ),
    "patch larger than images": ("pretrain", {"masked_patch": [64, 64]}, "masked_patch [64, 64]: must divide"),
    "window upside down": ("train", {"intensity_window": [3, 1]}, "intensity_window is"),
    "weights that aren't there": ("train", {"pretrained": "nowhere.pt"}, "no pre-trained"),
    "too many levels": ("train", {"features": [4, 8, 8]}, "give five numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings(name: str, images: dict[str, Path], line_of: Callable[..., str], tmp_path: Path):
    workflow, settings, told = BAD[name]
    places = {"output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models", "cache_dir": tmp_path / "cache"}
    places |= {"dataset_dir": images["ultrasound"], "partition_file": tmp_path / "partition.json"}
    tiny = PRETRAINING if workflow == "pretrain" else TINY
    line = line_of(workflow, bundle="mps_ams", **{**tiny, **places, **settings})
    assert told in line.replace("[40, 32]", "(40, 32)")
    assert not (tmp_path / "models").exists() or not list((tmp_path / "models").glob("*.pt"))


def test_weights_of_the_other_task(trained: Path, images: dict[str, Path], line_of: Callable[..., str], tmp_path: Path):
    """Both networks have the same layers, so that nothing but what the files say tells them apart."""
    places = {"dataset_dir": images["ultrasound"], "output_dir": tmp_path / "run"}
    pretrained, model = trained / "pretrained" / "pretrained.pt", trained / "models" / "model.pt"
    line = line_of("inference", bundle="mps_ams", **NETWORK, **places, weights=pretrained)
    assert line == f"{pretrained} was trained for reconstruction, not for segmentation: give other weights"
    assert not list((tmp_path / "run").glob("*.png"))
    own = {"ckpt_dir": tmp_path / "models", "cache_dir": tmp_path / "cache", "pretrained": model}
    own["partition_file"] = tmp_path / "partition.json"
    line = line_of("train", bundle="mps_ams", **TINY, **places, **own)
    assert line == f"{model} was trained for segmentation: give the weights that pretrain.json saved"


def test_images_of_nothing(line_of: Callable[..., str], tmp_path: Path):
    (tmp_path / "data").mkdir()
    for number in range(5):
        Image.fromarray(np.full((40, 40), 90, np.uint8)).save(tmp_path / "data" / f"{number}.png")
    places = {"output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models", "cache_dir": tmp_path / "cache"}
    places |= {"dataset_dir": tmp_path / "data", "partition_file": tmp_path / "partition.json"}
    line = line_of("pretrain", bundle="mps_ams", **PRETRAINING, **places)
    assert line == "none of 3 images holds anything but background: give other images"
    line = line_of("pretrain", bundle="mps_ams", **{**PRETRAINING, **places, "cache_gib": 0})
    assert line.startswith("cache_gib 0: slices are read from the cache")
