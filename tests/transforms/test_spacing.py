"""Resampling of skull-stripped images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Invertd, Spacingd

from common.transforms.spacing import SpacingOfKeysd


def image_of(voxels: np.ndarray) -> MetaTensor:
    """Of voxels of 1 mm."""
    return MetaTensor(torch.tensor(voxels, dtype=torch.float32), affine=torch.eye(4, dtype=torch.float64))


@settings(max_examples=20, deadline=None)
@given(size=st.floats(1.1, 3.5), begin=st.integers(1, 5), value=st.floats(1, 1000))
def test_a_brain_of_one_value_keeps_it_up_to_its_edge(size: float, begin: int, value: float):
    voxels = np.zeros((2, 20, 21, 22))
    voxels[0, begin:15, 4:16, 3:17] = value
    voxels[1, 4:18, begin:16, 5:17] = value  # each channel has an edge of its own
    out = SpacingOfKeysd("image", pixdim=[size] * 3, mode="bilinear")({"image": image_of(voxels)})["image"].numpy()
    for channel in out:
        inside = channel[channel != 0]
        np.testing.assert_allclose(inside, value, rtol=1e-4)
    expected = (voxels[0] != 0).sum() / size**3
    assert abs((out[0] != 0).sum() / expected - 1) < 0.5


def test_where_all_is_brain_it_is_plain_interpolation():
    voxels = np.random.default_rng(0).uniform(1, 2, (1, 12, 13, 14))
    kinds = (
        kind("image", (2, 1.3, 2.4), mode="bilinear", padding_mode="border") for kind in (SpacingOfKeysd, Spacingd)
    )
    ours, plain = (transform({"image": image_of(voxels)})["image"] for transform in kinds)
    np.testing.assert_allclose(ours.numpy(), plain.numpy(), rtol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_same_voxels_keep_their_values_and_labels_theirs(mode: str):
    voxels = np.random.default_rng(0).integers(0, 3, (1, 12, 13, 14))
    size = 1 if mode == "bilinear" else 2
    ours, plain = (
        kind("image", pixdim=[size] * 3, mode=mode)({"image": image_of(voxels)})["image"]
        for kind in (SpacingOfKeysd, Spacingd)
    )
    assert torch.equal(ours.as_tensor(), plain.as_tensor())


def test_a_prediction_is_taken_back_as_by_spacingd():
    voxels = np.zeros((1, 20, 21, 22))
    voxels[:, 4:15, 4:16, 3:17] = 7
    back = []
    for kind in (SpacingOfKeysd, Spacingd):
        transform = kind("image", pixdim=(2, 1.3, 2.4), mode="bilinear")
        data = transform({"image": image_of(voxels)})
        data["pred"] = MetaTensor(torch.ones_like(data["image"].as_tensor()), affine=data["image"].affine)
        back.append(Invertd("pred", transform, orig_keys="image", nearest_interp=False)(data)["pred"])
    assert back[0].shape == (1, 20, 21, 22) and torch.equal(back[0].affine, back[1].affine)
    assert torch.equal(back[0].as_tensor(), back[1].as_tensor())
