"""What has too few voxels becomes another class, or background; what has enough stays."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.transforms.small_regions import RemoveSmallComponentsd, ReplaceSmallClassd


@pytest.mark.parametrize(("minimum", "replaced"), [(0, False), (5, False), (6, True)])
def test_replaces_below_the_minimum_only(minimum: int, replaced: bool):
    label = torch.tensor([0, 1, 2, 2, 3, 3, 3, 3, 3], dtype=torch.uint8).reshape(1, 3, 3, 1)
    out = ReplaceSmallClassd("pred", minimum=minimum)({"pred": label.clone()})["pred"]
    expected = torch.where(label == 3, torch.tensor(1, dtype=torch.uint8), label) if replaced else label
    assert torch.equal(out, expected)
    assert out.dtype == torch.uint8


def test_absent_class():
    label = torch.zeros(1, 2, 2, 2)
    assert torch.equal(ReplaceSmallClassd("pred", minimum=500)({"pred": label})["pred"], label)


@pytest.mark.parametrize(
    ("minimum", "kept"), [(0, {"large", "small", "corner"}), (17, {"large"}), (16, {"large", "small"})]
)
def test_small_components_become_background(minimum: float, kept: set[str]):
    """Voxels of 2 mm³; labels that touch are one component, at a corner too."""
    there = {"large": torch.zeros(1, 6, 6, 9, dtype=torch.uint8)}
    there["large"][0, 0:2, 0:2, 0:2] = torch.tensor([1, 3], dtype=torch.uint8)
    there["large"][0, 2, 2, 2] = 2
    there["small"] = torch.zeros_like(there["large"])
    there["small"][0, 4:6, 4:6, 4:6] = 2
    there["corner"] = torch.zeros_like(there["large"])
    there["corner"][0, 0, 0, 8] = 1
    affine = torch.diag(torch.tensor([1.0, -1.0, 2.0, 1.0], dtype=torch.float64))
    label = MetaTensor(sum(there.values()), affine=affine)
    out = RemoveSmallComponentsd("pred", minimum)({"pred": label})["pred"]
    np.testing.assert_array_equal(out.numpy(), sum(there[name] for name in kept).numpy())
    assert out.dtype == torch.uint8 and torch.equal(out.affine, affine)


def test_a_component_as_large_as_the_minimum_stays_in_oblique_scans():
    angle = 0.3
    affine = torch.eye(4, dtype=torch.float64)
    affine[:2, :2] = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    label = torch.zeros(1, 5, 5, 5, dtype=torch.uint8)
    label[0, 1:3, 1:3, 1:3] = 1
    label = MetaTensor(label, affine=affine.float().double() * (1 - 1e-7))
    assert torch.equal(RemoveSmallComponentsd("pred", 8)({"pred": label})["pred"], label)


def test_no_components():
    label = MetaTensor(torch.zeros(1, 3, 3, 3, dtype=torch.uint8))
    assert not RemoveSmallComponentsd("pred", 10)({"pred": label})["pred"].any()
