"""Curricula go where the label goes, and targets hold the truth whether there is a curriculum or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CopyItemsd, Orientationd, RandRotated, SpatialPadd

from common.data.case_dataset import CaseDataset
from common.data.case_files import Case
from common.data.curriculum import category_masks, entry_stages
from common.data.curriculum_folder import with_curricula, write_curricula
from common.data.layouts import list_cases
from common.data.order import Draw
from common.data.writing import write_case, write_nifti
from common.errors import CaseError, InputError
from common.transforms.crop import CropBraind
from common.transforms.curriculum import CategoryTargetsd, LoadCurriculumd
from common.transforms.load import LoadLabelMapd, LoadScand

AFFINE = np.array([[0, 0, -1.5, 10], [-1, 0, 0, 20], [0, 2, 0, 30], [0, 0, 0, 1.0]])
SHAPE = (9, 8, 7)
TRUTH = np.random.default_rng(1).choice(4, SHAPE, p=(0.4, 0.2, 0.2, 0.2)).astype(np.uint8)
TRUTH[:2] = 0
OUTPUTS = [np.where(np.random.default_rng(t).random(SHAPE) < t / 4, TRUTH, 2).astype(np.uint8) for t in (1, 2)]


def make(folder: Path, categories: str = "labels") -> Case:
    """A case with its curriculum of two stages, in a layout whose labels have values of their own."""
    image = np.random.default_rng(0).integers(1, 900, (4, *SHAPE)).astype(np.int16)
    image[:, :2] = 0
    write_case(folder / "data", "brats2018", "a", image, TRUTH, AFFINE)
    for stage, output in enumerate(OUTPUTS):
        write_nifti(folder / f"mined{stage}" / "a.nii.gz", output, AFFINE)
    cases = list_cases(folder / "data")
    write_curricula(cases, [folder / "mined0", folder / "mined1"], folder / "curricula", categories)
    return with_curricula(cases, folder / "curricula", 2, categories)[0]


both = pytest.mark.parametrize("categories", ["labels", "regions"])


@both
def test_curriculum_comes_in_the_geometry_of_the_label(tmp_path: Path, categories: str):
    item = Compose([LoadLabelMapd(), LoadCurriculumd(categories=categories, stages=2)])(make(tmp_path, categories))
    curriculum, label = item["curriculum"], item["label"]
    assert isinstance(curriculum, MetaTensor) and curriculum.dtype == torch.uint8
    np.testing.assert_array_equal(curriculum.numpy(), entry_stages(OUTPUTS, TRUTH, categories))
    assert set(np.unique(curriculum)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(label.numpy()[0], TRUTH)
    assert torch.equal(curriculum.affine, label.affine)
    assert curriculum.meta["filename_or_obj"].endswith("curricula/a.nii.gz")
    curriculum.affine[0, 0] = 7
    assert label.affine[0, 0] != 7


@both
@pytest.mark.parametrize("has_curriculum", [True, False])
def test_target_is_the_truth_and_the_curriculum_where_there_is_one(
    tmp_path: Path, categories: str, has_curriculum: bool
):
    case = make(tmp_path, categories)
    if not has_curriculum:
        del case["curriculum"]
    load = [LoadLabelMapd(), LoadCurriculumd(categories=categories, stages=2, allow_missing_keys=True)]
    target = Compose([*load, CategoryTargetsd(categories=categories)])(case)["label"]
    assert isinstance(target, MetaTensor) and target.dtype == torch.uint8
    masks = category_masks(TRUTH, categories)
    np.testing.assert_array_equal(target > 0, masks)
    np.testing.assert_array_equal(target, entry_stages(OUTPUTS, TRUTH, categories) if has_curriculum else masks)


@both
def test_curriculum_goes_where_the_label_goes_and_is_kept_with_the_case(tmp_path: Path, categories: str):
    keys = ["image", "label", "curriculum"]
    transforms = [
        LoadScand(),
        LoadLabelMapd(),
        LoadCurriculumd(categories=categories, stages=2),
        CropBraind(keys),
        Orientationd(keys, axcodes="SPL", labels=None),
        SpatialPadd(keys, spatial_size=(10, 10, 10)),
        RandRotated(
            keys, range_x=0.5, range_z=0.5, prob=1.0, mode=("bilinear", "nearest", "nearest"), padding_mode="zeros"
        ),
        CategoryTargetsd("turned", categories=categories),
    ]
    case = make(tmp_path, categories)
    transforms.insert(-1, CopyItemsd("label", names="turned"))
    for _ in range(2):  # made, and read again
        item = CaseDataset([case], Compose(transforms), tmp_path / "cache")[Draw(0, 5)]
        assert item["turned"].shape == (3, 10, 10, 10) and item["turned"].unique().tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(item["turned"] > 0, category_masks(item["label"].numpy()[0], categories))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    write_nifti(Path(case["curriculum"]), np.moveaxis(entry_stages(OUTPUTS[:1], TRUTH, categories), 0, -1), AFFINE)
    item = CaseDataset([case], Compose(transforms), tmp_path / "cache")[Draw(0, 5)]
    assert item["turned"].unique().tolist() == [0, 1, 2]


def test_a_curriculum_that_does_not_fit_is_refused(tmp_path: Path):
    case = make(tmp_path)
    with pytest.raises(
        CaseError, match=r"^case a, .*curricula/a\.nii\.gz: holds 3 where 1 stages give 0 to 2; mine it"
    ):
        LoadCurriculumd(stages=1)(LoadLabelMapd()(case))
    write_nifti(Path(case["label"]), np.where(TRUTH == 3, 0, TRUTH), AFFINE)
    with pytest.raises(CaseError, match=r"a\.nii\.gz: ET is another than in .*a_seg\.nii\.gz \(\d+ voxels outside"):
        LoadCurriculumd(stages=2)(LoadLabelMapd()(case))
    with pytest.raises(KeyError, match="curriculum"):
        LoadCurriculumd()(LoadLabelMapd()({"case": "a", "label": case["label"]}))


def test_damaged_curricula_are_all_named_when_the_cases_are_prepared(tmp_path: Path):
    case = make(tmp_path)
    others = [{**case, "case": name, "curriculum": str(tmp_path / f"{name}.nii.gz")} for name in "bc"]
    for other in others:
        Path(other["curriculum"]).write_bytes(b"damaged")
    with pytest.raises(InputError) as error:
        CaseDataset([case, *others], Compose([LoadLabelMapd(), LoadCurriculumd(stages=2)]), tmp_path / "cache")
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        f"case {other['case']}, {other['curriculum']}" for other in others
    ]
