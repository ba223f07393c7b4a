"""Curricula grow within the truth whatever was found, are the paper's, and are checked on the disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from common.data import curriculum_folder
from common.data.case_files import Case
from common.data.curriculum import (
    CATEGORIES,
    CoveredLesion,
    category_masks,
    entry_stages,
    measure_curriculum,
    read_curriculum,
)
from common.data.curriculum_folder import Manifest, read_manifest, with_curricula, write_curricula
from common.data.layouts import list_cases
from common.data.reading import read_label
from common.data.writing import finish_layout, write_case, write_nifti
from common.errors import CaseError, InputError

AFFINE = np.array([[0, 0, -1.5, 10], [-1, 0, 0, 20], [0, 2, 0, 30], [0, 0, 0, 1.0]])
NAMES = ("a", "b", "c")
label_maps = hnp.arrays(np.uint8, (3, 3, 2), elements=st.integers(0, 3))
found = st.tuples(st.lists(label_maps, min_size=1, max_size=4), label_maps, st.sampled_from(sorted(CATEGORIES)))


def plain_loop(outputs: Sequence[np.ndarray], truth: np.ndarray, labels: Sequence[int]) -> list[set[tuple[int, ...]]]:
    """C_1, C_2, … of one category as sets of voxels, and GT as the last (Eqs 20 and 21)."""

    def voxels(label_map: np.ndarray) -> set[tuple[int, ...]]:
        return {at for at in product(*map(range, label_map.shape)) if label_map[at] in labels}

    curricula = [voxels(outputs[0]) & voxels(truth)]
    for output in outputs[1:]:
        curricula.append((voxels(output) & voxels(truth)) | curricula[-1])
    return [*curricula, voxels(truth)]


@given(found)
def test_stages_are_those_of_the_equations(found):
    outputs, truth, categories = found
    stages = entry_stages(outputs, truth, categories)
    assert stages.dtype == np.uint8 and stages.shape == (3, *truth.shape)
    for of, labels in zip(stages, CATEGORIES[categories].values(), strict=True):
        expected = plain_loop(outputs, truth, labels)
        assert all(smaller <= larger for smaller, larger in pairwise(expected))
        for number, voxels in enumerate(expected, 1):
            assert set(zip(*np.nonzero((of > 0) & (of <= number)), strict=True)) == voxels


@given(found)
def test_laws(found):
    outputs, truth, categories = found
    stages, masks = entry_stages(outputs, truth, categories), category_masks(truth, categories)
    assert np.array_equal(stages > 0, masks) and stages.max() <= len(outputs) + 1
    again = entry_stages([*outputs, outputs[-1]], truth, categories)
    assert np.array_equal(np.where(again == len(outputs) + 2, len(outputs) + 1, again), stages)
    assert np.array_equal(entry_stages([truth, *outputs], truth, categories), masks)
    if categories == "labels":  # mined from the curricula themselves they stay what they are
        curricula = [np.where((stages > 0) & (stages <= t + 1), masks, 0).any(0) * truth for t in range(len(outputs))]
        assert np.array_equal(entry_stages(curricula, truth, categories), stages)


def test_categories():
    label = np.array([0, 1, 2, 3], np.uint8).reshape(4, 1, 1)
    assert category_masks(label, "labels")[..., 0, 0].tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert category_masks(label, "regions")[..., 0, 0].tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]
    assert list(CATEGORIES["labels"]) == ["NCR", "ED", "ET"] and list(CATEGORIES["regions"]) == ["WT", "TC", "ET"]
    with pytest.raises(InputError, match=r"^categories 'organs' are unknown; use one of labels, regions$"):
        category_masks(label, "organs")


def truth_of(name: str) -> np.ndarray:
    return np.random.default_rng(ord(name)).choice(4, (8, 7, 6), p=(0.7, 0.1, 0.1, 0.1)).astype(np.uint8)


def write_mined(folder: Path, names: Sequence[str] = NAMES) -> list[Path]:
    """Label maps of three mining networks, the later the better; none finds what lies in the last plane."""
    folders = [folder / f"mined{stage}" for stage in (1, 2, 3)]
    for stage, of_stage in enumerate(folders, 1):
        for name in names:
            rng = np.random.default_rng((stage, ord(name)))
            output = np.where(rng.random((8, 7, 6)) < stage / 4, truth_of(name), rng.integers(0, 4, (8, 7, 6)))
            output[-1] = 0
            write_nifti(of_stage / f"{name}.nii.gz", output.astype(np.uint8), AFFINE)
    return folders


def write_data(folder: Path, layout: str = "brats2023", names: Sequence[str] = NAMES) -> list[Case]:
    image = np.random.default_rng(0).integers(1, 900, (4, 8, 7, 6)).astype(np.int16)
    for name in names:
        write_case(folder, layout, name, image, truth_of(name), AFFINE)
    finish_layout(folder, layout, names)
    return list_cases(folder, labelled=True)


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return write_data(tmp_path / "data")


@pytest.fixture
def mined(tmp_path: Path) -> list[Path]:
    return write_mined(tmp_path)


@pytest.fixture
def folder(cases: list[Case], mined: list[Path], tmp_path: Path) -> Path:
    write_curricula(cases, mined, tmp_path / "curricula")
    return tmp_path / "curricula"


@pytest.mark.parametrize("layout", ["brats2018", "brats2023", "decathlon", "nnunet", "datalist", "flat"])
@pytest.mark.parametrize("categories", ["labels", "regions"])
def test_curricula_are_written_whatever_the_layout(mined: list[Path], tmp_path: Path, layout: str, categories: str):
    cases = write_data(tmp_path / "data", layout)
    manifest = write_curricula(cases, mined, tmp_path / "curricula", categories)
    assert manifest == read_manifest(tmp_path / "curricula")
    assert (manifest.categories, manifest.stages, sorted(manifest.cases)) == (categories, 3, list(NAMES))
    given = with_curricula(cases, tmp_path / "curricula", 3, categories)
    assert [{**case, "curriculum": ""} for case in given] == [{**case, "curriculum": ""} for case in cases]
    for case in given:
        name = case["case"]
        outputs = [read_label({"case": name, "label": of / f"{name}.nii.gz"})[0] for of in mined]
        expected = entry_stages(outputs, truth_of(name), categories)
        assert set(np.unique(expected)) == {0, 1, 2, 3, 4}
        stages = read_curriculum(case, truth_of(name), 3, categories)
        assert stages.dtype == np.uint8 and np.array_equal(stages, expected)
        assert measure_curriculum(case, 3, categories) == manifest.cases[name]
        for of, lesions in zip(stages, manifest.cases[name].values(), strict=True):
            check_lesions(of, lesions)


def check_lesions(stages: np.ndarray, lesions: list[CoveredLesion]):
    """Against scipy's components, each counted by itself."""
    components, count = ndimage.label(stages > 0, np.ones((3, 3, 3)))
    expected = []
    for number in range(1, count + 1):
        inside = stages[components == number]
        voxels = (*(int((inside <= t).sum()) for t in (1, 2, 3)), inside.size)
        expected.append(CoveredLesion(inside.size * 3.0, voxels))
    assert sorted(lesions) == sorted(expected)


def test_predictions_in_another_convention(cases: list[Case], mined: list[Path], tmp_path: Path):
    expected = write_curricula(cases, mined, tmp_path / "canonical")
    for path in (path for of in mined for path in of.iterdir()):
        label, affine = read_label({"label": path})
        write_nifti(path, np.where(label == 3, 4, label).astype(np.uint8), affine)
    assert write_curricula(cases, mined, tmp_path / "brats", convention="brats2018") == expected
    with pytest.raises(InputError) as error:
        write_curricula(cases, mined, tmp_path / "brats")
    assert len(error.value.problems) == 3 and "label value 4 is outside the convention" in error.value.problems[2]
    assert not (tmp_path / "brats" / "curriculum.json").exists()


def test_files_have_the_labels_geometry_and_writing_again_changes_nothing(folder: Path, cases, mined):
    image = nibabel.Nifti1Image.from_filename(folder / "a.nii.gz")
    assert image.shape == (8, 7, 6, 3) and image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.affine, AFFINE)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_curricula(cases, mined, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert str(folder.parent).encode() not in before["curriculum.json"]


def problems_of(*args: object, **options: object) -> tuple[str, ...]:
    with pytest.raises(InputError) as error:
        write_curricula(*args, **options)
    return error.value.problems


def test_predictions_that_are_missing_or_do_not_fit(cases: list[Case], mined: list[Path], tmp_path: Path):
    out = tmp_path / "out"
    write_curricula(cases, mined, out)
    moved = AFFINE.copy()
    moved[0, 3] += 1
    write_nifti(mined[1] / "a.nii.gz", np.zeros((8, 7, 6), np.uint8), moved)
    (mined[2] / "b.nii.gz").write_bytes((mined[2] / "b.nii.gz").read_bytes()[:40])
    write_nifti(mined[0] / "c.nii.gz", np.zeros((8, 7, 5), np.uint8), AFFINE)
    a, b, c = problems_of(cases, mined, out)
    label = cases[0]["label"]
    assert a == f"case a, {mined[1]}/a.nii.gz: affine differs from that of {label} by up to 1; resample it to that file"
    assert b == f"case b, {mined[2]}/b.nii.gz: is truncated or damaged; copy or download it again"
    assert c.startswith(f"case c, {mined[0]}/c.nii.gz: shape 8×7×5 is not that of {cases[2]['label']} (8×7×6); ")
    assert not (out / "curriculum.json").exists()
    (mined[1] / "a.nii.gz").unlink()
    (mined[1] / "c.nii.gz").unlink()
    remedy = "no prediction of it is here; predict it too, or leave the case out"
    assert problems_of(cases, mined, out) == tuple(f"case {name}, {mined[1]}: {remedy}" for name in "ac")
    (mined[1] / "b.nii.gz").rename(mined[1] / "z.nii.gz")
    assert problems_of(cases, mined, out) == (
        f"{mined[1]}: holds predictions of none of the 3 cases, such as a.nii.gz; give those of this data set",
    )
    assert problems_of(cases, [], out) == (
        "3 cases with predictions for 0 stages: give some cases, and a folder a stage",
    )
    assert problems_of(cases, [tmp_path / "none"], out)[0].startswith(f"{tmp_path / 'none'}: is no folder; ")


@pytest.mark.parametrize("place", ["mined2", "data/a"])
def test_curricula_do_not_replace_label_maps(cases: list[Case], mined: list[Path], tmp_path: Path, place: str):
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.nii.gz")}
    (problem,) = problems_of(cases, mined, tmp_path / place)
    assert problem.startswith(f"{tmp_path / place}: holds label maps, which the curricula would replace; ")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.nii.gz")} == before


def refused(case: Case, stages: int = 3, categories: str = "labels") -> str:
    with pytest.raises(CaseError) as error:
        measure_curriculum(case, stages, categories)
    return str(error.value).removeprefix(f"case a, {case['curriculum']}: ")


def test_what_does_not_fit_the_label_is_refused(cases: list[Case], folder: Path):
    case = with_curricula(cases, folder, 3, "labels")[0]
    path, label = Path(case["curriculum"]), case["label"]
    stages = np.moveaxis(read_curriculum(case, truth_of("a"), 3, "labels"), 0, -1).copy()
    changed = stages.copy()
    outside, inside = np.argwhere(stages[..., 2] == 0), np.argwhere(stages[..., 2] == 4)
    changed[(*outside[:2].T, 2)] = 1
    write_nifti(path, changed, AFFINE)
    assert f"ET is another than in {label} (2 voxels outside it, 0 of it without a stage)" in refused(case)
    changed[(*inside[0], 2)] = 0
    write_nifti(path, changed, AFFINE)
    assert refused(case) == (
        f"ET is another than in {label} (2 voxels outside it, 1 of it without a stage); mine it anew with this label"
    )
    write_nifti(path, stages, AFFINE)
    assert refused(case, stages=2).startswith("holds 4 where 2 stages give 0 to 3; mine it for as many stages")
    assert refused(case, categories="regions").startswith(f"WT is another than in {label} (0 voxels outside it, ")
    write_nifti(path, -stages.astype(np.int16), AFFINE)
    assert refused(case).startswith("holds -4 where 3 stages give 0 to 4; ")
    write_nifti(path, stages * np.float32(0.5), AFFINE)
    assert refused(case).startswith("holds values that are not whole numbers; ")
    write_nifti(path, stages * np.float32(np.nan), AFFINE)
    assert refused(case).startswith("holds values that are not whole numbers; ")
    write_nifti(path, stages[..., :2], AFFINE)
    assert refused(case).startswith("is 4D (8×7×6×2) where 4D with NCR, ED, ET as fourth axis is expected; ")
    write_nifti(path, stages[..., 0], AFFINE)
    assert refused(case).startswith("is 3D (8×7×6) where 4D with ")
    write_nifti(path, stages, np.eye(4))
    assert refused(case) == f"affine differs from that of {label} by up to 30; resample it to that file"
    write_nifti(path, stages[:4], AFFINE)
    assert refused(case).startswith(f"shape 4×7×6 is not that of {label} (8×7×6); ")
    path.write_bytes(path.read_bytes()[:60])
    assert refused(case) == "is truncated or damaged; copy or download it again"
    path.write_bytes(b"")
    assert refused(case).startswith("is empty; ")
    path.unlink()
    assert refused(case).startswith("does not exist; ")
    write_nifti(path, stages.astype(np.float32), AFFINE)
    assert measure_curriculum(case, 3, "labels") == read_manifest(folder).cases["a"]


def test_curricula_are_checked_as_they_are_on_the_disk(cases, mined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def spoil(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
        write_nifti(path, voxels * (path.name != "b.nii.gz"), affine)

    monkeypatch.setattr(curriculum_folder, "write_nifti", spoil)
    (problem,) = problems_of(cases, mined, tmp_path / "out")
    assert problem.startswith(f"case b, {tmp_path}/out/b.nii.gz: NCR is another than in {cases[1]['label']} (0 voxels ")


def given_error(*args: object) -> tuple[str, ...]:
    with pytest.raises(InputError) as error:
        with_curricula(*args)
    return error.value.problems


def test_a_folder_that_is_not_of_these_cases_and_settings_is_refused(cases: list[Case], folder: Path, tmp_path: Path):
    mine = "mine one with the workflow mine_curriculum"
    file = folder / "curriculum.json"
    assert given_error(cases, tmp_path / "none", 3, "labels") == (
        f"no curriculum at {tmp_path}/none/curriculum.json: {mine}, or give the folder of one",
    )
    assert given_error(cases, folder, 2, "labels") == (
        f"{file}: stages 3 where the training has 2; {mine} anew, or change that",
    )
    assert given_error(cases, folder, 3, "regions") == (
        f"{file}: categories labels where the training has regions; {mine} anew, or change that",
    )
    others = [{**case, "case": f"other{number}"} for number, case in enumerate(cases)]
    assert given_error([*cases, *others[1:]], folder, 3, "labels") == tuple(
        f"case {name}, {folder}/{name}.nii.gz: has no curriculum; mine it too, or leave the case out"
        for name in ("other1", "other2")
    )
    assert given_error(others, folder, 3, "labels") == (
        f"{folder}: holds the curriculum of none of the 3 cases, such as other0.nii.gz, but that of another data set; "
        f"{mine} of this one",
    )
    for content in ("[]", '{"categories": ["labels"], "stages": 3}', '{"categories": "labels", "stages": true}'):
        file.write_text(content)
        assert given_error(cases, folder, 3, "labels")[0].startswith(f'{file}: give "categories", one of labels, reg')
    file.write_text("{")
    assert given_error(cases, folder, 3, "labels")[0].startswith(f"{file}: is not JSON (")
    for content in ([1], {"a": {"ET": []}}, {"a": {"NCR": [3], "ED": [], "ET": []}}):
        file.write_text(json.dumps({"categories": "labels", "stages": 3, "cases": content}))
        assert given_error(cases, folder, 3, "labels")[0].startswith(f'{file}: "cases" is not what was written there; ')


def test_own_curricula(cases: list[Case], folder: Path):
    (folder / "curriculum.json").write_text('{"categories": "labels", "stages": 3}')
    assert read_manifest(folder) == Manifest("labels", 3, None)
    assert len(with_curricula(cases[:2], folder, 3, "labels")) == 2


def test_a_training_without_curriculum(cases: list[Case]):
    assert with_curricula(cases, "", 3, "regions") == cases


def test_categories_that_no_case_has_are_told(tmp_path: Path, mined: list[Path], caplog: pytest.LogCaptureFixture):
    cases = write_data(tmp_path / "data")
    with caplog.at_level(logging.WARNING):
        write_curricula(cases, mined, tmp_path / "out")
        with_curricula(cases, tmp_path / "out", 3, "labels")
    assert not caplog.records
    for case in cases[:2]:
        label, affine = read_label(case)
        write_nifti(Path(case["label"]), np.where(label == 3, 0, label) * (case["case"] == "a"), affine)
    with caplog.at_level(logging.WARNING):
        with_curricula(cases, "", 3, "labels")  # the third case has all
        with_curricula(cases[:2], "", 3, "labels")
        write_curricula(cases[1:2], mined, tmp_path / "out", "regions")
    assert [record.message for record in caplog.records] == [
        "none of the 2 cases has ET, which a network can't learn from them",
        "none of the 1 cases has WT, TC, ET, which a network can't learn from them",
    ]
    assert read_manifest(tmp_path / "out").cases == {"b": {"WT": [], "TC": [], "ET": []}}
