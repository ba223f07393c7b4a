"""A class of too few voxels becomes another one; a class of enough stays."""

import pytest
import torch

from common.transforms.small_regions import ReplaceSmallClassd


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
