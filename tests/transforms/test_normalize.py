"""The same as MONAI's normalisation of what is not zero."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import NormalizeIntensityd

from common.transforms.normalize import NormalizeBraind


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    brain=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
    offset=st.floats(-1e4, 1e4),
    spread=st.floats(1, 1e3),
    dtype=st.sampled_from([torch.float32, torch.int16]),
)
def test_equals_monais(seed: int, brain: float, offset: float, spread: float, dtype: torch.dtype):
    random = np.random.default_rng(seed)
    voxels = (random.normal(offset, spread, (4, 7, 8, 9)) * (random.random((4, 7, 8, 9)) < brain)).round()
    image = MetaTensor(torch.from_numpy(voxels).to(dtype), affine=torch.diag(torch.tensor([2.0, 1, 1, 1])))
    reference = NormalizeIntensityd("image", nonzero=True, channel_wise=True)({"image": image.clone()})["image"]
    normalised = NormalizeBraind("image")({"image": image})["image"]
    assert normalised.dtype == torch.float32
    assert torch.equal(normalised.affine, image.affine)
    torch.testing.assert_close(normalised.as_tensor(), reference.as_tensor(), rtol=1e-3, atol=1e-3)


def test_zero_stays_zero_and_one_value_gives_no_nan():
    image = torch.zeros(2, 4, 4, 4)
    image[1, :2] = 7.0
    assert not NormalizeBraind("image")({"image": image})["image"].any()


def test_order_in_memory_changes_no_bit():
    """Sums do depend on it: a scan and its turned copy would get other labels at some voxels."""
    image = torch.from_numpy(np.random.default_rng(0).normal(100, 30, (4, 61, 57, 59)).astype(np.float32))
    turned = image.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    first, second = (NormalizeBraind("image")({"image": voxels})["image"] for voxels in (image, turned))
    assert turned.stride() != image.stride()
    assert torch.equal(first, second)


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 2, 1)])
def test_order_in_memory_stays(axes: tuple[int, ...]):
    image = torch.rand(2, 4, 5, 6).permute(axes)
    assert NormalizeBraind("image")({"image": image})["image"].stride() == image.stride()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 100), offset=st.floats(1, 1e3))
def test_robust_is_median_and_interquartile_range_of_the_brain(seed: int, scale: float, offset: float):
    random = np.random.default_rng(seed)
    voxels = random.gamma(2, scale, (2, 9, 8, 7)) + offset
    voxels[:, :2] = 0
    normalised = NormalizeBraind("image", robust=True)({"image": torch.tensor(voxels)})["image"].numpy()
    assert not normalised[:, :2].any()
    for channel in normalised[:, 2:]:
        low, middle, high = np.percentile(channel, (25, 50, 75))
        assert abs(middle) < 1e-2 and abs(high - low - 1.349) < 1e-2
    # A lesion that is very bright moves the bulk hardly: it counts by how many voxels it has, not by how bright it is.
    bright = voxels.copy()
    bright[:, 3, 3, 3] = 1e5
    again = NormalizeBraind("image", robust=True)({"image": torch.tensor(bright)})["image"].numpy()
    assert np.abs(again - normalised)[bright < 1e5].max() < 0.2 * np.abs(normalised).max()


def test_robust_takes_empty_and_even_channels():
    image = torch.zeros(2, 4, 4, 4)
    image[1, :2] = 7.0
    assert not NormalizeBraind("image", robust=True)({"image": image})["image"].any()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.97, 0.9999])
def test_robust_bounds_what_is_far_from_voxels_that_are_alike(share: float):
    values = torch.rand(1, 30, 30, 30) * 900 + 1
    cut = values.flatten().kthvalue(int((1 - share) * values.numel()) + 1).values  # of so many, cut off
    normalised = NormalizeBraind("image", robust=True)({"image": values.clamp(max=cut)})["image"]
    assert normalised.unique().numel() > 1
    assert normalised.abs().max() < (25 if share < 0.99 else 200)
