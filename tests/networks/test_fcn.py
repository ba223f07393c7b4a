"""FCN-8s: the sum of the last three stages' scores, and what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from common.errors import InputError
from common.networks.fcn import FCN8s


def test_scores_of_three_stages_are_added():
    torch.manual_seed(0)
    network = FCN8s(2, 3, (4, 4, 6, 8, 8)).eval()
    image = torch.randn(2, 2, 64, 96)
    maps, x = [], image
    for stage in network.stages:
        x = stage(x)
        maps.append(x)
    assert [tuple(one.shape[2:]) for one in maps] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]

    def doubled(scores: torch.Tensor) -> torch.Tensor:
        return F.interpolate(scores, scale_factor=2, mode="bilinear")

    third, fourth, fifth = network.scores
    total = doubled(doubled(fifth(network.middle(maps[4]))) + fourth(maps[3])) + third(maps[2])
    expected = F.interpolate(total, scale_factor=8, mode="bilinear")
    torch.testing.assert_close(network(image), expected)


def test_every_stage_learns():
    network = FCN8s(2, 3, (4, 4, 6, 8, 8))
    network(torch.randn(2, 2, 32, 34)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_what_it_does_not_take():
    with pytest.raises(InputError, match="give five numbers, one a stage"):
        FCN8s(features=(4, 4))


@pytest.mark.parametrize(("rows", "columns"), [(20, 40), (62, 33)])
def test_other_sizes_are_padded(rows: int, columns: int):
    network = FCN8s(2, 3, (4, 4, 4, 4, 4)).eval()
    image, padded = torch.randn(1, 2, rows, columns), torch.zeros(1, 2, 64, 64)[:, :, : 32 if rows < 32 else 64]
    padded[:, :, :rows, :columns] = image
    torch.testing.assert_close(network(image), network(padded)[:, :, :rows, :columns])
