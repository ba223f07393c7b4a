"""The table of real cases: what is reckoned there, on generated ones."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from benchmarks.ablation_phantoms import ROWS
from benchmarks.real_cases import TRIVIAL, at_spacing, combine, labelled_cases, print_tables, scores_of, trivial, trust
from common.data.labels import LABEL_NAMES
from common.data.layouts import list_cases
from common.data.phantom_variety import FEATURES
from common.data.phantoms import make_phantoms
from common.data.reading import read_image, read_label
from common.data.writing import write_nifti
from common.errors import InputError
from common.running import BUNDLES


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans") / "data"
    make_phantoms(str(folder), cases=2, kind="glioma", seed=3, shape=40, layout="brats2018")
    return folder


def test_trivial_way_is_a_largest_component_without_holes(dataset: Path, tmp_path: Path):
    (case, _) = list_cases(dataset)
    image, affine = read_image(case)
    image[:, image[3] != 0] = 100
    image[3, 10:20, 10:20, 10:20] = 900
    image[3, 14:16, 14:16, 14:16] = 100  # a hole
    image[3, 25:30, 25:30, 25:30] = 900  # smaller
    image[3, 10:20, 10:20, 20:30][image[3, 10:20, 10:20, 20:30] != 0] = 100
    image[3, 14, 14, 20:26] = 900  # a thread, which is opened away
    files = [tmp_path / f"{name}.nii.gz" for name in ("t1n", "t1c", "t2w", "t2f")]
    for file, channel in zip(files, image, strict=True):
        write_nifti(file, channel, affine)
    trivial({"case": "a", "image": [str(file) for file in files]}, tmp_path / "out")
    found = np.asarray(nibabel.load(tmp_path / "out" / "a.nii.gz").dataobj)
    expected = np.zeros_like(found)
    expected[10:20, 10:20, 10:20] = 2
    corners = np.argwhere(found != expected)
    assert len(corners) <= 8 + 12 * 10  # what opening takes of edges
    assert not found[25:30, 25:30, 25:30].any() and found[14:16, 14:16, 14:16].all() and not found[14, 14, 21:26].any()


def test_right_labels_score_one_and_are_trusted(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cases = list_cases(dataset)
    folders = [tmp_path / "sure", tmp_path / "unsure"]
    for case in cases:
        label, affine = read_label(case)
        sure = np.eye(len(LABEL_NAMES), dtype=np.float32)[label]
        write_nifti(folders[0] / f"{case['case']}_probabilities.nii.gz", sure, affine)
        write_nifti(folders[1] / f"{case['case']}_probabilities.nii.gz", 0.5 * sure + 0.125, affine)
    names = [case["case"] for case in cases]
    combine(folders, names, tmp_path / "mean")
    mean = np.asarray(nibabel.load(tmp_path / "mean" / f"{names[0]}_probabilities.nii.gz").dataobj)
    np.testing.assert_allclose(mean, 0.75 * np.eye(4)[read_label(cases[0])[0]] + 0.0625, atol=1e-6)
    scores = scores_of(tmp_path / "mean", dataset)
    assert all(one.volume_dice == 1 for of_case in scores.values() for one in of_case.values())
    for (sure, _), (modest, _) in zip(*(trust(folder, cases) for folder in folders), strict=True):
        assert sure == pytest.approx(0, abs=1e-6)
        assert modest > 0.2  # too modest is badly calibrated, too
    print_tables({TRIVIAL: scores, "ours": scores}, names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"| Dice: WT / TC / ET | {names[0]} | {names[1]} | mean |"
    assert lines[3] == f"| {TRIVIAL} |" + " 1.000 |" * 3
    assert lines[4] == "| ours |" + " 1.000 / 1.000 / 1.000 |" * 3
    assert lines[-1] == "ours: whole tumour above the threshold in 0 of 2, mean 1.000"


def test_reference_at_coarser_voxels_stays_where_it_was(dataset: Path, tmp_path: Path):
    (case, _) = list_cases(dataset)
    label, affine = read_label(case)
    at_spacing(case, [7.0] * 3, tmp_path)  # from 4.65 mm
    there = nibabel.load(tmp_path / f"{case['case']}.nii.gz")
    coarse = np.asarray(there.dataobj)
    np.testing.assert_allclose(there.affine, affine, atol=1e-4)
    assert coarse.shape == label.shape and 0 < (coarse != label).sum() < (label > 0).sum()
    middles = [np.argwhere(one > 0).mean(axis=0) for one in (coarse, label)]
    np.testing.assert_allclose(*middles, atol=0.5)


def test_few_labelled_cases_are_a_line(dataset: Path, tmp_path: Path):
    assert len(labelled_cases(dataset, least=2)) == 2
    with pytest.raises(InputError, match="has 2 labelled cases: give a data set with 3 or more"):
        labelled_cases(dataset, least=3)


def test_ablation_leaves_out_each_feature_once():
    left_out = [words[1] for words in ROWS.values() if words[:1] == ["--without"]]
    assert left_out == [[name] for name in FEATURES]
    assert [words for words in ROWS.values() if words[:1] != ["--without"]] == [[], ["--robust", False]]
    config = json.loads((BUNDLES / "cga_unet" / "configs" / "train_generated.json").read_text())
    assert config["robust"] is True and config["without"] == [], "or a row would be as the first one"
