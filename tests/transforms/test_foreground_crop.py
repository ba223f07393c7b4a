"""Patches lie anywhere alike, or around foreground with every class as often as any other."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import ClassesToIndicesd, Compose, RandomizableTrait, SpatialPadd

from common.data.case_dataset import CaseDataset
from common.data.layouts import list_cases
from common.data.order import Draw
from common.data.writing import write_case
from common.transforms.foreground_crop import RandForegroundCropd
from common.transforms.load import LoadLabelMapd, LoadScand

KEYS = ["image", "label"]
sizes = st.tuples(*[st.integers(1, 9)] * 3)


def case(size: tuple[int, ...], *voxels: list[tuple[int, ...]], **entries: Any) -> dict[str, Any]:
    """An image of which each voxel has its own number, and the places of the background and of some classes."""
    image = torch.arange(np.prod(size), dtype=torch.float32).reshape(1, *size)
    classes = [{int(np.ravel_multi_index(at, size)) for at in of_class} for of_class in voxels]
    places = [set(range(image.numel())).difference(*classes), *classes]
    tensors = {"image": MetaTensor(torch.cat([image, -image])), "label": MetaTensor(image * 2)}
    return {**tensors, "label_places": [torch.tensor(sorted(of), dtype=torch.int64) for of in places], **entries}


def place(cropped: dict[str, Any], size: tuple[int, ...]) -> tuple[int, ...]:
    """Where a patch begins."""
    return tuple(int(at) for at in np.unravel_index(int(cropped["image"].flatten()[0]), size))


def places(crop: RandForegroundCropd, given: dict[str, Any], draws: int) -> Counter[tuple[int, ...]]:
    size = tuple(given["image"].shape[1:])
    return Counter(place(crop(given), size) for _ in range(draws))


@given(sizes, sizes, st.integers(0, 2**32 - 1), st.data())
def test_laws(size: tuple[int, ...], roi: tuple[int, ...], seed: int, data: st.DataObject):
    voxel = st.tuples(*(st.integers(0, along - 1) for along in size))
    classes = data.draw(st.lists(st.lists(voxel, max_size=4), min_size=2, max_size=3))
    given = case(size, *classes, foreground=data.draw(st.booleans()), other="kept")
    crop = RandForegroundCropd(KEYS, roi)
    crop.set_random_state(seed)
    cropped = crop(given)
    assert set(cropped) == {"image", "label", "other"} and set(given) == {*cropped, "foreground", "label_places"}
    start = place(cropped, size)
    shape = tuple(min(pair) for pair in zip(size, roi, strict=True))
    inside = (slice(None), *(slice(at, at + along) for at, along in zip(start, shape, strict=True)))
    for key in KEYS:
        assert isinstance(cropped[key], MetaTensor)
        assert torch.equal(cropped[key].as_tensor(), given[key][inside].as_tensor())
        np.testing.assert_array_equal(cropped[key].affine[:3, 3], start)
        # A view: nothing else is read of what is mapped.
        assert cropped[key].untyped_storage().data_ptr() == given[key].untyped_storage().data_ptr()
    around = {
        tuple(int(np.clip(at - along // 2, 0, most - along)) for at, along, most in zip(v, shape, size, strict=True))
        for of_class in classes
        for v in of_class
    }
    if given["foreground"] and around:
        assert start in around
    crop.set_random_state(seed)
    again = crop(given)
    assert all(torch.equal(again[key].as_tensor(), cropped[key].as_tensor()) for key in KEYS)


@pytest.mark.parametrize("entries", [{}, {"foreground": False}, {"foreground": True, "nothing": True}])
def test_every_place_is_as_likely_as_any_other(entries: dict[str, bool]):
    voxels = [] if entries.pop("nothing", False) else [(0, 0, 0)]
    crop = RandForegroundCropd(KEYS, (4, 4, 2))
    crop.set_random_state(0)
    found = places(crop, case((6, 4, 5), voxels, [], **entries), 2400)
    assert set(found) == set(product(range(3), range(1), range(4)))
    for count in found.values():
        assert count == pytest.approx(2400 / 12, rel=0.25)


def test_every_class_that_is_there_is_shown_as_often_and_its_voxels_too():
    large = [(2, y, z) for y, z in product(range(2, 6), repeat=2)]
    crop = RandForegroundCropd(KEYS, (3, 3, 3))
    crop.set_random_state(0)
    found = places(crop, case((9, 9, 9), large, [], [(6, 5, 5)], foreground=True), 3000)
    assert found.pop((5, 4, 4)) == pytest.approx(1500, rel=0.06)
    assert set(found) == {(x - 1, y - 1, z - 1) for x, y, z in large}
    for count in found.values():
        assert count == pytest.approx(1500 / 16, rel=0.35)


def test_patches_of_small_images_are_padded():
    crop = Compose([RandForegroundCropd(KEYS, (4, 5, 6)), SpatialPadd(KEYS, (4, 5, 6))])
    crop.set_random_state(0)
    found = crop(case((3, 9, 2), [(1, 8, 1)], foreground=True))
    assert found["image"].shape == (2, 4, 5, 6)
    assert (found["label"] == 2 * np.ravel_multi_index((1, 8, 1), (3, 9, 2))).sum() == 1


def test_indices_that_the_config_forgot_are_missed():
    given = case((4, 4, 4), [(0, 0, 0)], foreground=True)
    del given["label_places"]
    with pytest.raises(KeyError, match="label_places"):
        RandForegroundCropd(KEYS, (2, 2, 2))(given)


def test_a_data_set_keeps_the_indices_with_the_case_and_seeds_the_crop(tmp_path: Path):
    label = np.zeros((20, 20, 20), np.uint8)
    label[2:18, 2:18, 2:17] = 2
    label[3, 16, 4] = 3
    image = np.random.default_rng(0).integers(1, 900, (4, *label.shape)).astype(np.int16)
    write_case(tmp_path / "data", "brats2023", "a", image, label, np.eye(4))
    steps = [
        LoadScand(),
        LoadLabelMapd(),
        ClassesToIndicesd("label", "_places", num_classes=4, max_samples_per_class=500),
        RandForegroundCropd([*KEYS, "curriculum"], (5, 5, 5), allow_missing_keys=True),
    ]
    assert [isinstance(step, RandomizableTrait) for step in steps] == [False] * 3 + [True]
    dataset = CaseDataset(list_cases(tmp_path / "data"), Compose(steps), tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    kept = torch.load(entry, weights_only=True)["label_places"]
    assert [len(places) for places in kept] == [500, 0, 500, 1]
    # Evenly spaced, the first and the last among them.
    edema = np.flatnonzero(label == 2)
    np.testing.assert_array_equal(kept[2], edema[np.round(np.linspace(0, len(edema) - 1, 500)).astype(int)])
    shown: Counter[bool] = Counter()
    for seed in range(40):
        patches = [dataset[Draw(0, seed, foreground=True)]["label"] for _ in range(2)]
        assert torch.equal(*patches) and patches[0].shape == (1, 5, 5, 5) and patches[0].any()
        shown[bool((patches[0] == 3).any())] += 1
    assert shown[True] == pytest.approx(20, abs=10)
    samples = [dataset[Draw(0, seed)] for seed in range(40)]
    assert sum(bool((sample["label"] == 3).any()) for sample in samples) < 10
    assert len({float(sample["image"].flatten()[0]) for sample in samples}) > 20
