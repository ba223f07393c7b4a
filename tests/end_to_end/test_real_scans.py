"""Real scans: a network learns one of them, and geometry is kept whatever the orientation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from common.data.layouts import list_cases
from common.networks.cga_unet import CGAUNet

pytestmark = pytest.mark.slow

Command = Callable[..., CompletedProcess[str]]
CASE = "TCGA-DU-7294"
# Voxels of 2.5 mm: a fifteenth of the work, and still a Dice of 0.95 for a perfect network.
COARSE = {"resample": True, "spacing": [2.5, 2.5, 2.5], "threads": 2}


@pytest.fixture(scope="module")
def learnt(real_scans: Path, bundle_run: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights from training on one case alone, and its scores after inference with them."""
    folder = tmp_path_factory.mktemp("learnt")
    (folder / "data").mkdir()
    (folder / "data" / CASE).symlink_to(real_scans / "brats2020" / CASE)
    done = bundle_run(
        "train",
        dataset_dir=folder / "data",
        output_dir=folder / "run",
        ckpt_dir=folder / "models",
        **COARSE,
        patch_size=[48, 48, 48],
        fractions=[0.5, 0.5, 0.0],
        epochs=240,
        val_interval=240,
        learning_rate=0.002,
        cross_entropy_weight=1,
    )
    assert done.returncode == 0, done.stderr
    done = bundle_run(
        "inference",
        dataset_dir=folder / "data",
        output_dir=folder / "out",
        ckpt_dir=folder / "models",
        **COARSE,
    )
    assert done.returncode == 0, done.stderr
    done = bundle_run("evaluate_predictions", dataset_dir=folder / "data", predictions_dir=folder / "out")
    assert done.returncode == 0, done.stderr
    return folder


def test_one_case_is_learnt(learnt: Path):
    """No axis, label or channel is crossed on the way from the files to the network and back."""
    summary = json.loads((learnt / "out" / "scores.json").read_text())["summary"]
    assert summary["WT"]["dice"]["mean"] > 0.9


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network: its labels are noise that follows the image, which shows any displacement."""
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.manual_seed(1)
    torch.save(CGAUNet(features=(8, 16, 32), blocks=(1, 1, 1), attention_rate=4).state_dict(), path)
    return path


SMALL = {
    "network_def#features": [8, 16, 32],
    "network_def#blocks": [1, 1, 1],
    "attention_rate": 4,
    "resample": True,
    "threads": 2,
}


@pytest.mark.parametrize("folder", ["brats2020", "brats_mets2023"])
def test_shape_and_affine_are_those_of_the_input(
    real_scans: Path, bundle_run: Command, random_weights: Path, tmp_path: Path, folder: str
):
    done = bundle_run(
        "inference", dataset_dir=real_scans / folder, output_dir=tmp_path, weights=random_weights, **SMALL
    )
    assert done.returncode == 0, done.stderr
    cases = list_cases(real_scans / folder)
    assert len(list(tmp_path.iterdir())) == len(cases)
    for case in cases:
        scan, label = nibabel.load(case["image"][0]), nibabel.load(tmp_path / f"{case['case']}.nii.gz")
        assert label.shape == scan.shape == (240, 240, 155)
        np.testing.assert_allclose(label.affine, scan.affine, atol=1e-6)
        brain = np.any([np.asarray(nibabel.load(path).dataobj) != 0 for path in case["image"]], axis=0)
        box = tuple(slice(axis.min(), axis.max() + 1) for axis in np.nonzero(brain))
        labels = np.asarray(label.dataobj).copy()
        assert labels[box].any()
        labels[box] = 0
        assert not labels.any()


def reoriented(image: nibabel.Nifti1Image, axcodes: str) -> nibabel.Nifti1Image:
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(axcodes))
    voxels = apply_orientation(np.asarray(image.dataobj), turn)
    return nibabel.Nifti1Image(voxels, image.affine @ inv_ornt_aff(turn, image.shape))


def oblique(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """The same voxels in a head tilted by 10° about x and 15° about z."""
    a, b = np.deg2rad([10, 15])
    tilt = np.eye(4)
    tilt[:3, :3] = [[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]]
    tilt[:3, :3] @= np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    return nibabel.Nifti1Image(np.asarray(image.dataobj), tilt @ image.affine)


def test_reoriented_copies_give_the_same_labels_in_patient_space(
    real_scans: Path, bundle_run: Command, random_weights: Path, tmp_path: Path
):
    source = real_scans / "brats2020" / CASE
    copies = {
        "original": lambda image: image,
        "LAS": lambda image: reoriented(image, "LAS"),
        "PIR": lambda image: reoriented(image, "PIR"),
        "oblique": oblique,
    }
    for name, change in copies.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for kind in ("t1", "t1ce", "t2", "flair"):
            image = nibabel.load(source / f"{CASE}_{kind}.nii.gz")
            nibabel.save(change(image), tmp_path / "data" / name / f"{name}_{kind}.nii.gz")
    out = tmp_path / "out"
    done = bundle_run("inference", dataset_dir=tmp_path / "data", output_dir=out, weights=random_weights, **SMALL)
    assert done.returncode == 0, done.stderr
    maps = {name: nibabel.load(out / f"{name}.nii.gz") for name in copies}
    expected = np.asarray(maps["original"].dataobj)
    assert len(np.unique(expected)) > 1
    for name in ("LAS", "PIR"):
        scan = nibabel.load(tmp_path / "data" / name / f"{name}_t1.nii.gz")
        assert maps[name].shape == scan.shape
        np.testing.assert_allclose(maps[name].affine, scan.affine, atol=1e-6)
        back = reoriented(maps[name], "".join(nibabel.aff2axcodes(maps["original"].affine)))
        np.testing.assert_allclose(back.affine, maps["original"].affine, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(back.dataobj), expected)
    np.testing.assert_array_equal(np.asarray(maps["oblique"].dataobj), expected)
    np.testing.assert_allclose(maps["oblique"].affine, oblique(maps["original"]).affine, atol=1e-4)
