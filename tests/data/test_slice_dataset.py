"""Slices as samples: which there are, what is in each, and that none needs its volume in memory."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Orientationd, RandFlipd, Resized
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image

from common.data.order import Draw
from common.data.slice_dataset import SliceDataset
from common.errors import CaseError, InputError, find_input_error
from common.transforms.load_slices import FilledSlicesd, LoadLesiond, LoadSlicesd

KEYS = ("image", "label")


def steps(*more: object, **arguments: object) -> Compose:
    orient = Orientationd(KEYS, axcodes="SPL", labels=None)
    return Compose([LoadSlicesd(**arguments), LoadLesiond(), orient, FilledSlicesd(), *more])  # type: ignore[arg-type]


@pytest.fixture
def volume(tmp_path: Path) -> tuple[dict, np.ndarray, np.ndarray]:
    """A case of axes LAS, its voxels and lesion in SPL; slices 0 and 3 are empty."""
    random = np.random.default_rng(0)
    voxels = random.uniform(1, 9, (4, 5, 6)).astype(np.float32)
    voxels[[0, 3]] = 0
    lesion = (random.uniform(size=voxels.shape) < 0.2) * (voxels > 0)
    turn = ornt_transform(axcodes2ornt("SPL"), axcodes2ornt("LAS"))
    spl = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    for name, array in {"scan": voxels, "mask": lesion.astype(np.uint8)}.items():
        turned = nibabel.orientations.apply_orientation(array, turn)
        nibabel.save(nibabel.Nifti1Image(turned, spl @ inv_ornt_aff(turn, array.shape)), tmp_path / f"{name}.nii.gz")
    case = {"case": "v", "image": str(tmp_path / "scan.nii.gz"), "label": [str(tmp_path / "mask.nii.gz")]}
    return case, voxels, lesion


@pytest.fixture
def picture(tmp_path: Path) -> tuple[dict, np.ndarray, np.ndarray]:
    voxels = np.random.default_rng(1).integers(1, 255, (5, 6)).astype(np.uint8)
    lesion = voxels > 200
    Image.fromarray(voxels).save(tmp_path / "p.png")
    Image.fromarray(lesion).save(tmp_path / "p_mask.png")
    return {"case": "p", "image": str(tmp_path / "p.png"), "label": [str(tmp_path / "p_mask.png")]}, voxels, lesion


def test_slices_of_volumes_and_pictures_alike(volume, picture, tmp_path: Path):
    (one, voxels, lesion), (two, pixels, mask) = volume, picture
    dataset = SliceDataset([one, two], steps(), tmp_path / "cache")
    assert len(dataset) == 3 and len(list((tmp_path / "cache").iterdir())) == 2
    expected = [(voxels[1], lesion[1]), (voxels[2], lesion[2]), (pixels, mask)]
    for index, (image, label) in enumerate(expected):
        sample = dataset[index]
        np.testing.assert_allclose(sample["image"], image[None])
        np.testing.assert_array_equal(sample["label"], label[None])
        assert "filled" not in sample
    everything = SliceDataset([one, two], steps(), tmp_path / "cache", empty_slices=True)
    assert len(everything) == 5 and not everything[3]["image"].any()


def test_what_is_random_is_of_a_slice_and_its_draw(volume, tmp_path: Path):
    flip = RandFlipd(KEYS, prob=0.5, spatial_axis=1)
    dataset = SliceDataset([volume[0]], steps(flip), tmp_path / "cache")
    flipped = [bool((dataset[Draw(0, seed)]["image"][0, :, 0] == volume[1][1, :, -1]).all()) for seed in range(30)]
    assert 5 < sum(flipped) < 25
    assert flipped == [
        bool((dataset[Draw(0, seed)]["image"][0, :, 0] == volume[1][1, :, -1]).all()) for seed in range(30)
    ]


def test_only_slices_are_read(volume, tmp_path: Path):
    """Of an entry that memory couldn't hold as often as it is used."""
    dataset = SliceDataset([volume[0]], steps(Resized(KEYS, (-1, 1024, 1024), mode="nearest")), tmp_path / "cache")
    entry = next((tmp_path / "cache").iterdir())
    samples = [dataset[0] for _ in range(2)]
    with open("/proc/self/maps") as maps:  # mapped, not read
        assert entry.name in maps.read()
    assert samples[0]["image"].shape == (1, 1024, 1024)


def test_windows_of_ct(volume, tmp_path: Path):
    image = LoadSlicesd(window=(2, 5))({"case": "v", "image": volume[0]["image"]})["image"]
    plain = LoadSlicesd()({"case": "v", "image": volume[0]["image"]})["image"]
    assert torch.equal(image.as_tensor(), plain.as_tensor().clip(2, 5) - 2) and image.min() == 0


def test_masks_that_do_not_fit(volume, picture, tmp_path: Path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "small.nii.gz")
    for case, told in (
        ({**volume[0], "label": [str(tmp_path / "small.nii.gz")]}, "is not that of"),
        ({key: value for key, value in picture[0].items() if key != "label"}, "no label"),
    ):
        with pytest.raises(RuntimeError) as error:
            steps()(case)
        assert told in str(find_input_error(error.value))
    assert not steps()({**picture[0], "label": []})["label"].any()


@pytest.mark.parametrize("cache_gib", [0, 1e-7])
def test_a_cache_without_room(volume, tmp_path: Path, cache_gib: float):
    """A whole volume would be read for each slice."""
    with pytest.raises(InputError, match=f"cache_gib {cache_gib:g}: slices are read from the cache"):
        SliceDataset([volume[0]], steps(), tmp_path / "cache", cache_gib)


def test_images_of_nothing_are_told(volume, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    black = {"case": "black", "image": str(tmp_path / "black.png"), "label": []}
    assert len(SliceDataset([volume[0], black], steps(), tmp_path / "cache")) == 2
    assert "black has nothing but background and is left out" in caplog.text
    with pytest.raises(InputError, match="none of 1 images holds anything but background"):
        SliceDataset([black], steps(), tmp_path / "cache")
    assert len(SliceDataset([black], steps(), tmp_path / "cache", empty_slices=True)) == 1


def slice_file(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> str:
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return str(path)


def test_a_slice_as_nifti(tmp_path: Path):
    voxels = np.random.default_rng(0).uniform(1, 2, (5, 6)).astype(np.float32)
    for name, array in {"flat": voxels, "thin": voxels[..., None]}.items():
        loaded = LoadSlicesd()({"case": name, "image": slice_file(tmp_path / f"{name}.nii.gz", array)})["image"]
        assert loaded.shape == (1, 5, 6, 1)
        np.testing.assert_array_equal(loaded[0, ..., 0].numpy(), voxels)
    path = slice_file(tmp_path / "coronal.nii.gz", voxels[:, None])
    with pytest.raises(CaseError, match="is a single slice that isn't axial; give axial slices"):
        LoadSlicesd()({"case": "a", "image": path})


@pytest.mark.parametrize("value", [0.3, np.nan])
def test_probabilities_are_no_mask(tmp_path: Path, value: float):
    image = slice_file(tmp_path / "a.nii.gz", np.ones((4, 4, 2), np.float32))
    mask = slice_file(tmp_path / "m.nii.gz", np.full((4, 4, 2), value, np.float32))
    with pytest.raises(CaseError, match="isn't a mask: it holds other values than whole numbers"):
        LoadLesiond()(LoadSlicesd()({"case": "a", "image": image, "label": [mask]}))


def test_one_mask_needs_no_list(volume):
    """As MONAI Label's datastore has it."""
    case = volume[0]
    (mask,) = case["label"]
    listed, alone = (steps()({**case, "label": label})["label"] for label in ([mask], mask))
    np.testing.assert_array_equal(alone, listed)


def test_slices_of_other_planes_and_of_a_range(volume, tmp_path: Path):
    case, voxels, lesion = volume

    def dataset(**arguments: object) -> SliceDataset:
        return SliceDataset([case], steps(), tmp_path / "cache", **arguments)  # type: ignore[arg-type]

    both = dataset(axes=(0, 2))
    assert both.samples == [(0, 0, 1), (0, 0, 2), *((0, 2, column) for column in range(6))]
    np.testing.assert_allclose(both[1]["image"], voxels[None, 2])
    np.testing.assert_allclose(both[4]["image"], voxels[None, :, :, 2])
    np.testing.assert_array_equal(both[4]["label"], lesion[None, :, :, 2])
    assert dataset(slice_range=(1, 2)).samples == [(0, 0, 1)]
    assert dataset(slice_range=(2, 4), empty_slices=True).samples == [(0, 0, 2), (0, 0, 3)]
    assert len(dataset(slice_range=(1, 2), axes=(0, 1))) == 1 + 5  # of axial slices alone
    assert len(dataset(slice_range=(0, 4))) == 2


def test_a_range_that_a_volume_does_not_have(volume, tmp_path: Path):
    both = [volume[0], {**volume[0], "case": "w"}]
    with pytest.raises(InputError) as raised:
        SliceDataset(both, steps(), tmp_path / "cache", slice_range=(2, 5))
    told = "slice_range [2, 5] of 4 slices; give a range that all scans have, or [] for all slices"
    assert raised.value.problems == (f"case v: {told}", f"case w: {told}")
    with pytest.raises(InputError, match=r"anything but background in slice_range \[3, 4\]: give another range"):
        SliceDataset([volume[0]], steps(), tmp_path / "cache", slice_range=(3, 4))
