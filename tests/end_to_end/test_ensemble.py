"""Ensembles, views and uncertainty through cga_unet's workflows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import scipy.stats
import torch

from common.data.layouts import list_cases
from common.networks.cga_unet import CGAUNet

Workflow = Callable[..., None]
EXACT = {"amp": False, "save_probabilities": True}


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three untrained networks that differ much: their last layers are turned up."""
    folder = tmp_path_factory.mktemp("members")
    paths = []
    for seed in range(3):
        torch.manual_seed(seed)
        state = CGAUNet().state_dict()
        last = [key for key in state if key.endswith("weight")][-1]
        state[last] = state[last] * 20
        torch.save(state, folder / f"{seed}.pt")
        paths.append(str(folder / f"{seed}.pt"))
    return paths


def read(folder: Path, source: Path, ending: str = "") -> dict[str, np.ndarray]:
    """The maps of all cases, in the geometry of the scans."""
    found = {}
    for case in list_cases(source):
        image = nibabel.load(folder / f"{case['case']}{ending}.nii.gz")
        scan = nibabel.load(case["image"][0])
        assert image.shape[:3] == scan.shape
        np.testing.assert_allclose(image.affine, scan.affine)
        found[case["case"]] = np.asarray(image.dataobj)
    return found


def test_members_and_their_uncertainty_in_files(
    run_in_process: Workflow, source: Path, members: list[str], tmp_path: Path
):
    for number, member in enumerate(members):
        run_in_process("inference", dataset_dir=source, output_dir=tmp_path / f"{number}", weights=member, **EXACT)
    settings = {"dataset_dir": source, "output_dir": tmp_path / "all", "members": members[::-1], **EXACT}
    run_in_process("inference", **settings, save_uncertainty=True)
    singles = [read(tmp_path / str(number), source, "_probabilities") for number in range(3)]
    averaged, labels, entropy, variance = (
        read(tmp_path / "all", source, ending) for ending in ("_probabilities", "", "_entropy", "_variance")
    )
    for case in labels:
        maps = np.stack([single[case] for single in singles])
        np.testing.assert_allclose(averaged[case], maps.mean(0), atol=1e-5)
        np.testing.assert_array_equal(labels[case], averaged[case].argmax(-1))
        np.testing.assert_allclose(entropy[case], scipy.stats.entropy(maps.mean(0), base=4, axis=-1), atol=1e-4)
        np.testing.assert_allclose(variance[case], maps.var(0).sum(-1), atol=1e-4)
        assert entropy[case].dtype == variance[case].dtype == np.float32
        assert entropy[case].max() > 0.5 and variance[case].max() > 0.01
        outside = averaged[case][..., 0] == 1
        assert outside.any() and not entropy[case][outside].any() and not variance[case][outside].any()
    # A case is finished when its label map and entropy are there.
    case = list_cases(source)[1]["case"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "all").glob("*.nii.gz")}
    (tmp_path / "all" / f"{case}_entropy.nii.gz").unlink()
    run_in_process("inference", **settings, save_uncertainty=True)
    changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {f"{case}{ending}.nii.gz" for ending in ("", "_probabilities", "_entropy", "_variance")}


def test_views_and_votes(run_in_process: Workflow, source: Path, members: list[str], tmp_path: Path):
    settings = {"dataset_dir": source, "weights": members[0], "save_uncertainty": True, **EXACT}
    for name, views in {"plain": {}, "flips": {"flips": [0, 1]}, "turns": {"rotations": True}}.items():
        run_in_process("inference", **settings, **views, output_dir=tmp_path / name)
    plain, flips, turns = (read(tmp_path / name, source, "_probabilities") for name in ("plain", "flips", "turns"))
    for case in plain:
        assert np.abs(plain[case] - flips[case]).max() > 1e-3 and np.abs(flips[case] - turns[case]).max() > 1e-3
    # One pass has an entropy and no variance.
    assert len(list((tmp_path / "plain").glob("*_entropy.nii.gz"))) == 3
    assert not list((tmp_path / "plain").glob("*_variance.nii.gz"))
    assert len(list((tmp_path / "flips").glob("*_variance.nii.gz"))) == 3
    run_in_process(
        "inference", dataset_dir=source, output_dir=tmp_path / "vote", members=members, combine="vote", **EXACT
    )
    votes = read(tmp_path / "vote", source, "_probabilities")
    for values in votes.values():
        np.testing.assert_allclose(values * 3, np.round(values * 3), atol=1e-5)
        assert (np.abs(values - 2 / 3) < 1e-5).any()


def test_evaluation_of_an_ensemble_is_that_of_its_files(
    run_in_process: Workflow, line_of: Callable[..., str], source: Path, members: list[str], tmp_path: Path
):
    common = {"dataset_dir": source, "members": members, "draw": 2, "draw_seed": 3, "flips": [0], "resample": False}
    run_in_process("inference", output_dir=tmp_path / "files", **common, save_uncertainty=True)
    parts = {"ckpt_dir": tmp_path / "models"}
    (tmp_path / "models").mkdir()
    names = [case["case"] for case in list_cases(source)]
    partition = {"parts": {"training": [], "validation": [], "test": names}}
    (tmp_path / "models" / "partition.json").write_text(json.dumps(partition))
    written = {"output_dir": tmp_path / "scores", "predictions_dir": tmp_path / "maps", "save_uncertainty": True}
    run_in_process("evaluate", **common, **parts, **written)
    for ending in ("", "_entropy", "_variance"):
        found, expected = (read(tmp_path / folder, source, ending) for folder in ("maps", "files"))
        for case in expected:
            np.testing.assert_array_equal(found[case], expected[case])
    run_in_process("evaluate_predictions", dataset_dir=source, predictions_dir=tmp_path / "files")
    by_files, by_network = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("files", "scores"))
    assert by_files == by_network
    line = line_of("evaluate", **common, **parts, output_dir=tmp_path / "scores", save_uncertainty=True)
    assert "save_uncertainty is True and predictions_dir is empty: give the folder that the maps go to" in line


def test_a_bad_member_stops_before_the_first_case(
    line_of: Callable[..., str], source: Path, members: list[str], tmp_path: Path
):
    settings = {"dataset_dir": source, "output_dir": tmp_path / "out"}
    torch.save(CGAUNet(attention_rate=0).state_dict(), tmp_path / "other.pt")
    other = line_of("inference", **settings, members=[*members, str(tmp_path / "other.pt")])
    assert "other.pt is of another network: " in other
    assert "members: no file fits runs/none/*.pt; give" in line_of("inference", **settings, members="runs/none/*.pt")
    assert "draw is 7, and members names 3 files" in line_of("inference", **settings, members=members, draw=7)
    line = line_of("inference", **settings, weights=members[0], draw=2)
    assert "draw is 2 and members is empty: name the checkpoints to draw from" in line
    line = line_of("inference", **settings, weights="")
    assert "weights is empty: give the file of the network's weights, or members" in line
    facts = {"model": torch.load(members[0], weights_only=True), "trained_with": {"attention_rate": 4}}
    torch.save(facts, tmp_path / "other.pt")
    other = line_of("inference", **settings, members=[*members, str(tmp_path / "other.pt")])
    assert "other.pt was trained with attention_rate 4: say --attention_rate 4, not 8" in other
    assert other == line_of("inference", **settings, weights=tmp_path / "other.pt")
    wrong = line_of("inference", **settings, members=3, flips=0, combine="median", rotations=1)
    for name in ("members is 3", "flips is 0", "combine is 'median': give one of mean, logits, vote", "rotations is 1"):
        assert name in wrong
    assert not list((tmp_path / "out").glob("*.nii.gz"))
