"""msconvlstm_att on phantoms, by the commands that users type: slices to volumes, pieces, comparators, refusals."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from common.data.labels import REGIONS
from common.data.layouts import list_cases
from common.handlers.checkpoints import TrainingCheckpoints

pytestmark = pytest.mark.slow

SIZES: dict[str, Any] = {"crop_size": [26, 26], "resample": False}
SMALL = {"network_def#features": [4, 4, 8], "network_def#width": 8}
# Enough for every step to happen; nothing is learnt.
TINY: dict[str, Any] = {
    **{**SIZES, **SMALL, "epochs": 2, "val_interval": 1, "num_workers": 0},
    "fractions": [0.5, 0.25, 0.25],
}
FORKED: dict[str, Any] = {"bundle": "msconvlstm_att", **TINY}


@pytest.fixture(scope="module")
def run(said_by: Callable[..., str]) -> Callable[..., str]:
    """Runs a workflow of msconvlstm_att by `python -m monai.bundle run`; returns what it says."""
    return partial(said_by, "msconvlstm_att")


@pytest.fixture(scope="module")
def trained(run: Callable[..., str], phantoms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`models/model.pt`, `run/` and a log of a training on the decathlon's 4D files."""
    folder = tmp_path_factory.mktemp("trained")
    places = {"output_dir": folder / "run", "ckpt_dir": folder / "models"}
    (folder / "log").write_text(run("train", dataset_dir=phantoms["decathlon"], **places, **TINY))
    return folder


def test_training(trained: Path):
    log = (trained / "log").read_text()
    slices, volumes = map(int, re.search(r"(\d+) slices of (\d+) images", log).groups())  # type: ignore[union-attr]
    assert volumes == 2 < slices < 64 and f"training on {slices} slices, validating on 1 cases" in log
    for name in ("run/last.pt", "models/model.pt"):
        content = torch.load(trained / name, weights_only=True)
        assert content["trained_with"] == {
            **{"planes": ["axial"], "modality_dropout": 0.0},
            **{"brain_box": True, "resample": False, "pixel_size": [], "crop_size": [26, 26], "robust": False},
        }
        assert "branches.3.0.lstm.of_state.weight" in content["model"]


@pytest.mark.parametrize("layout", ["decathlon", "brats2018"])
def test_volumes_come_back_as_they_were(
    layout: str, run: Callable[..., str], phantoms: dict[str, Path], trained: Path, tmp_path: Path
):
    model = {**SIZES, **SMALL, "weights": trained / "models" / "model.pt"}
    run("inference", dataset_dir=phantoms[layout], output_dir=tmp_path / "out", **model, save_probabilities=True)
    for case in list_cases(phantoms[layout]):
        image = nibabel.load(tmp_path / "out" / f"{case['case']}.nii.gz")
        reference = nibabel.load(case["label"])
        assert image.shape == reference.shape and image.get_data_dtype() == np.uint8
        np.testing.assert_allclose(image.affine, reference.affine, atol=1e-5)
        assert {*np.unique(image.dataobj)} <= {0, 1, 2, 3}
        probabilities = nibabel.load(tmp_path / "out" / f"{case['case']}_probabilities.nii.gz")
        np.testing.assert_allclose(np.asarray(probabilities.dataobj).sum(-1), 1, atol=1e-4)


def test_evaluation_of_the_network_and_of_its_files_agree(
    run_in_process: Callable[..., None], phantoms: dict[str, Path], trained: Path, tmp_path: Path
):
    shared = {"bundle": "msconvlstm_att", "dataset_dir": phantoms["decathlon"]}
    parts = {"training": [], "validation": [], "test": [case["case"] for case in list_cases(phantoms["decathlon"])]}
    (tmp_path / "parts.json").write_text(json.dumps({"parts": parts}))
    own = {
        "partition_file": tmp_path / "parts.json",
        **SIZES,
        **SMALL,
        "ckpt_dir": trained / "models",
        "output_dir": tmp_path / "scores",
    }
    run_in_process("evaluate", **shared, **own, predictions_dir=tmp_path / "maps")
    run_in_process("evaluate_predictions", **shared, predictions_dir=tmp_path / "maps", output_dir=tmp_path / "of_maps")
    rows = [json.loads((tmp_path / name / "scores.json").read_text())["cases"] for name in ("scores", "of_maps")]
    assert rows[0] == rows[1] and {row["region"] for row in rows[0]} == {*REGIONS}
    assert (tmp_path / "scores" / "lesions.csv").is_file()


def test_components_that_are_too_small_are_removed(
    run_in_process: Callable[..., None], phantoms: dict[str, Path], trained: Path, tmp_path: Path
):
    model = {**SIZES, **SMALL, "weights": trained / "models" / "model.pt", "dataset_dir": phantoms["brats2018"]}
    shared = {"bundle": "msconvlstm_att", **model}
    run_in_process("inference", **shared, output_dir=tmp_path / "all")
    run_in_process("inference", **shared, output_dir=tmp_path / "none", minimum_component=1e9)
    before, after = (
        [np.asarray(nibabel.load(path).dataobj) for path in sorted((tmp_path / name).glob("*.nii.gz"))]
        for name in ("all", "none")
    )
    assert any(labels.any() for labels in before) and not any(labels.any() for labels in after)


def test_three_planes_vote(forked: Callable[..., Any], phantoms: dict[str, Path], tmp_path: Path):
    """A batch has slices of several sizes."""
    planes = {"planes": ["axial", "coronal", "sagittal"]}
    life = forked("train", phantoms["decathlon"], tmp_path / "all", **FORKED, **planes)
    assert life.end() == 0, life.log.read_text()
    slices = int(re.search(r"(\d+) slices of 2 images", life.log.read_text())[1])  # type: ignore[index]
    assert slices > 2 * 40
    model = {"bundle": "msconvlstm_att", **SIZES, **SMALL, "weights": tmp_path / "all" / "models" / "model.pt"}
    life = forked("inference", phantoms["decathlon"], tmp_path / "vote", **model, **planes)
    assert life.end() == 0, life.log.read_text()
    assert len([*(tmp_path / "vote" / "run").glob("*.nii.gz")]) == 4
    life = forked("evaluate", phantoms["decathlon"], tmp_path / "all", **model, planes=planes["planes"][::-1])
    assert life.end() == 0, life.log.read_text()
    life = forked("inference", phantoms["decathlon"], tmp_path / "other", **model)
    assert life.end() == 1
    assert "was trained with planes ['axial', 'coronal', 'sagittal']: say --planes" in life.log.read_text()


def test_folders_views_and_missing_modalities(
    run_in_process: Callable[..., None], phantoms: dict[str, Path], tmp_path: Path
):
    """Trained on BraTS's folders with modalities dropped; evaluated with flips, and with any modalities missing."""
    shared = {"bundle": "msconvlstm_att", "dataset_dir": phantoms["brats2018"], "ckpt_dir": tmp_path / "models"}
    run_in_process("train", **shared, **TINY, modality_dropout=0.5, output_dir=tmp_path / "run")
    model = {**shared, **SIZES, **SMALL}
    views = {"flips": [0, 1], "rotations": True, "save_uncertainty": True, "predictions_dir": tmp_path / "maps"}
    run_in_process("evaluate", **model, **views, output_dir=tmp_path / "scores")
    (case,) = {row["case"] for row in json.loads((tmp_path / "scores" / "scores.json").read_text())["cases"]}
    written = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert f"{case}.nii.gz" in written and len(written) > 1
    run_in_process("evaluate_missing", **model, output_dir=tmp_path / "missing")
    rows = json.loads((tmp_path / "missing" / "missing_modalities.json").read_text())["cases"]
    assert len(rows) == 15 * 3 and {row["case"] for row in rows} == {case}


ABLATIONS: dict[str, dict[str, Any]] = {
    "without ConvLSTM": {"network_def#conv_lstm": False},
    "without SE": {"network_def#squeeze": False},
    "one scale": {"network_def#features": [4]},
    "without attention": {"network_def#attention_depth": 0},
    "without averaging": {"network_def#average": False},
    "shared weights, peephole": {"network_def#share_weights": True, "network_def#peephole": True},
}
SHARED = {"spatial_dims": 2, "in_channels": 4, "out_channels": 4}
COMPARATORS: dict[str, dict[str, Any]] = {
    "U-Net": {"_target_": "UNet", **SHARED, "channels": [4, 8, 8], "strides": [2, 2]},
    "Attention U-Net": {"_target_": "AttentionUnet", **SHARED, "channels": [4, 8, 8], "strides": [2, 2]},
    "FCN": {"_target_": "common.networks.fcn.FCN8s", "in_channels": 4, "out_channels": 4, "features": [4, 4, 4, 4, 4]},
}


@pytest.mark.parametrize("name", [*ABLATIONS, *COMPARATORS])
def test_ablations_and_comparators_are_overrides(
    name: str, forked: Callable[..., Any], phantoms: dict[str, Path], tmp_path: Path
):
    if name in COMPARATORS:
        own = {key: value for key, value in FORKED.items() if not key.startswith("network_def")}
        own["network_def"] = COMPARATORS[name]
    else:
        own = {**FORKED, **ABLATIONS[name]}
    own |= {"epochs": 1, "crop_size": [32, 32]}
    life = forked("train", phantoms["decathlon"], tmp_path, **own)
    assert life.end() == 0, life.log.read_text()
    assert "is the best so far" in life.log.read_text()


def die_after(epochs: int) -> Callable[[], None]:
    """Has a training die when so many epochs' checkpoint is there."""

    def prepare() -> None:
        after_epoch = TrainingCheckpoints.after_epoch

        def die(self: TrainingCheckpoints, engine: Any) -> None:
            after_epoch(self, engine)
            if engine.state.epoch == epochs:
                os.kill(os.getpid(), signal.SIGKILL)

        TrainingCheckpoints.after_epoch = die  # type: ignore[method-assign]

    return prepare


def test_pieces_are_the_whole_to_the_bit(forked: Callable[..., Any], phantoms: dict[str, Path], tmp_path: Path):
    """As the authors trained: a checkpoint each so many epochs, and on from there; the rate is halved on the way."""
    settings = {**FORKED, "epochs": 3, "halving_epochs": 1, "checkpoint_epochs": 1, "checkpoint_minutes": 1000}
    whole = forked("train", phantoms["decathlon"], tmp_path / "whole", **settings)
    assert whole.end() == 0, whole.log.read_text()
    for epoch in (1, 2):
        piece = forked(
            "train", phantoms["decathlon"], tmp_path / "pieces", die_after(epoch), **settings, resume=epoch > 1
        )
        assert piece.end() == -signal.SIGKILL, piece.log.read_text()
    last = forked("train", phantoms["decathlon"], tmp_path / "pieces", **settings, resume=True)
    assert last.end() == 0, last.log.read_text()
    assert "going on after iteration" in last.log.read_text()
    ends = [(tmp_path / name / "run" / "last.pt").read_bytes() for name in ("whole", "pieces")]
    assert ends[0] == ends[1]
    saved = [torch.load(path, weights_only=True) for path in (tmp_path / "whole" / "run" / "checkpoints").iterdir()]
    assert {one["epoch"] for one in saved} == {2, 3}
    rates = {one["epoch"]: one["objects"]["optimizer"]["param_groups"][0]["lr"] for one in saved}
    assert rates == {2: 0.00025, 3: 0.000125}


def test_two_processes_do_what_one_does(
    forked: Callable[..., Any],
    forked_together: Callable[..., list[Any]],
    phantoms: dict[str, Path],
    tmp_path: Path,
):
    """Where nothing of a batch is computed together but the gradient's mean."""

    def each_image_alone() -> None:
        # On CPUs batch statistics are those of a process's own images.
        def forward(self: torch.nn.BatchNorm2d, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.instance_norm(images, weight=self.weight, bias=self.bias)

        torch.nn.BatchNorm2d.forward = forward  # type: ignore[method-assign]

    settings = {
        **FORKED,
        "loss#batch": False,
        "amp": False,
        "slice_range": [10, 20],
        "epochs": 1,
        "learning_rate": 1e-4,
    }
    settings["fractions"] = [0.5, 0.5, 0.0]
    one = forked("train", phantoms["decathlon"], tmp_path / "one", each_image_alone, **settings, batch_size=4)
    assert one.end() == 0, one.log.read_text()
    together = partial(forked_together, "multi_gpu_train", phantoms["decathlon"], tmp_path / "two", each_image_alone)
    for life in together(**settings, batch_size=2):
        assert life.end() == 0, life.log.read_text()
    last = [torch.load(tmp_path / name / "run" / "last.pt", weights_only=True)["model"] for name in ("one", "two")]
    assert last[0].keys() == last[1].keys()
    # A twentieth of a step of Adam, which makes rounding errors of small gradients larger.
    assert max(float((last[1][key] - value).abs().max()) for key, value in last[0].items()) <= 5e-6


def test_the_rate_falls_to_its_floor(repository: Path):
    parser = ConfigParser()
    parser.read_config(repository / "bundles" / "msconvlstm_att" / "configs" / "train.json")
    parser.update({"network_def#features": [4], "network_def#width": 8})
    rate = parser.get_parsed_content("lr_scheduler").lr_lambdas[0]
    assert [1e-3 * rate(epoch) for epoch in (0, 29, 30, 60, 299, 300, 499)] == pytest.approx(
        [1e-3, 1e-3, 5e-4, 2.5e-4, 1e-3 / 512, 1e-6, 1e-6]
    )
    parser.update({"learning_rate": 1e-7})
    parser.parse(reset=True)
    assert parser.get_parsed_content("lr_scheduler").lr_lambdas[0](400) == 1.0


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "odd sizes": ({"crop_size": [25, 24]}, "crop_size is [25, 24]: give two even numbers from 8"),
    "range outside the volume": ({"slice_range": [10, 40]}, "slice_range [10, 40] of 32 slices; give a range that"),
    "range of no brain": (
        {"slice_range": [0, 1]},
        "none of 2 images holds anything but background in slice_range [0, 1]: give another range",
    ),
    "range of other planes": ({"slice_range": [0, 4], "planes": ["coronal"]}, "slice_range counts axial slices"),
    "size that a network does not take": (
        {**{"crop_size": [26, 24], "network_def": COMPARATORS["U-Net"]}, **dict.fromkeys(SMALL)},
        "UNet doesn't take 4 channels of crop_size [26, 24]: RuntimeError: ",
    ),
    "range upside down": ({"slice_range": [20, 10]}, "slice_range is [20, 10]: give the first slice"),
    "planes that there are not": ({"planes": ["oblique"]}, "planes is ['oblique']: give a list of axial, coronal"),
    "features of no scale": (
        {"network_def#features": [4, 4, 4, 4]},
        "give a list of one to three multiples of 4, one a scale",
    ),
    "a word for a switch": ({"network_def#squeeze": "false"}, "squeeze 'false': give True or False"),
    "too few classes": (
        {"network_def#out_channels": 3},
        "MSConvLSTMAtt gives (1, 3, 26, 26) of a slice, not (1, 4, 26, 26): give another network_def",
    ),
    "a middle without the lesion": (
        {"crop_size": [8, 8], "brain_box": False},
        "the whole lesion lies outside the middle 32×8×8 voxels; give a larger crop_size",
    ),
    "no room for slices": ({"cache_gib": 0}, "cache_gib 0: slices are read from the cache"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings(name: str, phantoms: dict[str, Path], line_of: Callable[..., str], tmp_path: Path):
    settings, told = BAD[name]
    places = {"output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models", "cache_dir": tmp_path / "cache"}
    given = {id: value for id, value in {**FORKED, **places, **settings}.items() if value is not None}
    line = line_of("train", dataset_dir=phantoms["decathlon"], **given)
    assert told in line
    assert not (tmp_path / "models" / "model.pt").exists()


MODALITIES = ("t1", "t1ce", "t2", "flair")


def scan(
    folder: Path,
    name: str,
    shape: tuple[int, int, int],
    axes: str = "RAS",
    modalities: tuple[str, ...] = MODALITIES,
) -> None:
    """A case of noise in a box, of any size and orientation."""
    random = np.random.default_rng(0)
    (folder / name).mkdir(parents=True)
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(axes)
    )
    affine = np.diag([1.0, 1.0, 6.0, 1.0]) @ nibabel.orientations.inv_ornt_aff(turn, shape)
    for modality in modalities:
        voxels = random.uniform(1, 100, shape).astype(np.float32)
        voxels[:2] = voxels[-3:] = 0
        turned = nibabel.orientations.apply_orientation(voxels, turn)
        nibabel.save(nibabel.Nifti1Image(turned, affine), folder / name / f"{name}_{modality}.nii.gz")


def test_thick_slices_odd_sizes_and_other_axes(
    forked: Callable[..., Any], trained: Path, phantoms: dict[str, Path], tmp_path: Path
):
    """Five slices of 6 mm, 33 by 27 pixels, in two orientations: the same labels at the same places."""
    scan(tmp_path / "data", "a", (33, 27, 5))
    scan(tmp_path / "data", "b", (33, 27, 5), "PIR")
    model = {"bundle": "msconvlstm_att", **SIZES, **SMALL, "weights": trained / "models" / "model.pt"}
    life = forked("inference", tmp_path / "data", tmp_path / "out", **model)
    assert life.end() == 0, life.log.read_text()
    found = [nibabel.load(tmp_path / "out" / "run" / f"{name}.nii.gz") for name in ("a", "b")]
    assert found[0].shape == (33, 27, 5) and found[1].shape != (33, 27, 5)
    labels = [np.asarray(nibabel.as_closest_canonical(image).dataobj) for image in found]
    np.testing.assert_array_equal(*labels)
    assert labels[0].any()


def test_one_modality_only(line_of: Callable[..., str], trained: Path, tmp_path: Path):
    scan(tmp_path / "data", "a", (32, 32, 5), modalities=("flair",))
    model = {**SIZES, **SMALL, "weights": trained / "models" / "model.pt"}
    line = line_of(
        "inference", bundle="msconvlstm_att", dataset_dir=tmp_path / "data", output_dir=tmp_path / "out", **model
    )
    assert f"{tmp_path}/data/a: modality t1n, t1c, t2w is missing; add the file" in line
    assert not list((tmp_path / "out").glob("*.nii.gz"))
