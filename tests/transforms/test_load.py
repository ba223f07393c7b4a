"""Scans and label maps come as MetaTensors in canonical order, ready for MONAI's transforms and their inverses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Invertd, Orientationd

from common.data.layouts import list_cases
from common.data.writing import finish_layout, write_case
from common.errors import CaseError
from common.transforms.load import LoadLabelMapd, LoadScand
from common.transforms.spacing import SpacingOfKeysd

AFFINE = np.array([[0, 0, -1.5, 10], [-1, 0, 0, 20], [0, 2, 0, 30], [0, 0, 0, 1.0]])


@pytest.fixture
def arrays() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    images = generator.integers(1, 1000, (4, 9, 8, 7)).astype(np.int16)
    images[:, :2] = 0
    return images, generator.integers(0, 4, (9, 8, 7)).astype(np.uint8)


@pytest.mark.parametrize("layout", ["brats2018", "brats2023", "decathlon", "nnunet", "bids", "flat"])
def test_every_layout_gives_the_same_tensors(tmp_path: Path, arrays: tuple[np.ndarray, np.ndarray], layout: str):
    write_case(tmp_path, layout, "case1", *arrays, AFFINE)
    finish_layout(tmp_path, layout, ["case1"])
    item = Compose([LoadScand(), LoadLabelMapd()])(list_cases(tmp_path)[0])
    assert isinstance(item["image"], MetaTensor)
    assert (item["image"].dtype, item["label"].dtype) == (torch.float32, torch.uint8)
    np.testing.assert_array_equal(item["image"].numpy(), arrays[0])
    np.testing.assert_array_equal(item["label"].numpy()[0], arrays[1])
    np.testing.assert_allclose(item["image"].affine, AFFINE)
    assert item["label"].pixdim.tolist() == pytest.approx([1, 2, 1.5])


def test_preprocessing_is_undone_in_the_files_geometry(tmp_path: Path, arrays: tuple[np.ndarray, np.ndarray]):
    write_case(tmp_path, "brats2023", "case1", *arrays, AFFINE)
    preprocessing = Compose(
        [
            LoadScand(),
            Orientationd("image", axcodes="RAS", labels=None),
            SpacingOfKeysd("image", pixdim=(1.5, 1, 2)),
            CropForegroundd("image", source_key="image", select_fn=lambda x: x != 0, allow_smaller=True),
        ]
    )
    item = preprocessing(list_cases(tmp_path)[0])
    assert item["image"].shape == (4, 7, 7, 8)
    item["pred"] = item["image"].clone()
    undone = Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False)(item)["pred"]
    np.testing.assert_array_equal(undone.numpy(), arrays[0])
    np.testing.assert_allclose(undone.affine, AFFINE, atol=1e-6)


def test_label_that_is_needed_and_missing(tmp_path: Path, arrays: tuple[np.ndarray, np.ndarray]):
    write_case(tmp_path, "brats2023", "case1", arrays[0], None, AFFINE)
    with pytest.raises(CaseError, match="case case1: no label file; give one, or leave the case out"):
        LoadLabelMapd()(list_cases(tmp_path)[0])


def test_label_of_another_geometry(tmp_path: Path, arrays: tuple[np.ndarray, np.ndarray]):
    write_case(tmp_path, "brats2023", "case1", *arrays, AFFINE)
    write_case(tmp_path / "other", "brats2023", "case1", *arrays, np.eye(4))
    item = LoadScand()(list_cases(tmp_path / "other")[0])
    item["label"] = str(tmp_path / "case1" / "case1-seg.nii.gz")
    with pytest.raises(CaseError, match=r"case1-seg\.nii\.gz: affine differs from that of .*other/case1/case1-t1n"):
        LoadLabelMapd()(item)


def test_spacing_leaves_alone_what_only_begins_like_its_key(tmp_path: Path, arrays: tuple[np.ndarray, np.ndarray]):
    """MONAI Label adds `image_path`, which MONAI's own Spacingd takes for a meta dictionary."""
    write_case(tmp_path, "flat", "case1", *arrays, AFFINE)
    item = {**LoadScand()({"image": str(tmp_path / "case1.nii.gz")}), "image_path": "somewhere"}
    out = SpacingOfKeysd("image", pixdim=(1, 1, 1))(item)
    assert out["image_path"] == "somewhere"
    assert out["image"].shape == (4, 9, 15, 10)
