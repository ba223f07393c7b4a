"""Volumes by a network of slices: against slice after slice, votes of planes, and what is left out."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from common.errors import InputError
from common.inferers.slices import FilledSlicesInferer, axes_of


class Network(torch.nn.Module):
    """Two classes from two channels; counts slices and calls."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(2, 2, 3, padding=1)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(slices.shape))
        return self.conv(slices)


@pytest.fixture
def volume() -> torch.Tensor:
    """(1, 2, 7, 8, 6), of which slices 0, 3 and 6 are empty, and the last row."""
    torch.manual_seed(1)
    volume = torch.randn(1, 2, 7, 8, 6)
    volume[:, :, [0, 3, 6]] = 0
    volume[:, :, :, 7] = 0
    return volume


@torch.no_grad()
def test_slice_after_slice(volume: torch.Tensor):
    network = Network()
    found = FilledSlicesInferer((8, 6), slices=3)(volume, network)
    assert network.shapes == [(3, 2, 8, 6), (1, 2, 8, 6)]
    for index in (1, 2, 4, 5):
        torch.testing.assert_close(found[:, :, index], network.conv(volume[:, :, index]))
    for index in (0, 3, 6):
        assert (found[:, :, index].softmax(dim=1)[:, 0] > 1 - 1e-7).all()


def test_window():
    """As little is padded as a network allows that takes the window's full size."""
    assert FilledSlicesInferer((190, 190)).window((162, 129)) == [162, 130]
    assert FilledSlicesInferer((190, 190)).window((240, 1)) == [190, 2]
    assert FilledSlicesInferer((192, 160)).window((60, 65)) == [64, 96]


@torch.no_grad()
def test_slices_that_are_padded():
    network = Network()
    volume = torch.randn(1, 2, 2, 7, 5)
    found = FilledSlicesInferer((12, 12))(volume, network)
    assert network.shapes == [(2, 2, 8, 8)] and found.shape == (1, 2, 2, 7, 5)
    padded = torch.nn.functional.pad(volume[:, :, 0], (1, 2, 0, 1))
    torch.testing.assert_close(found[:, :, 0], network.conv(padded)[:, :, :7, 1:6])


@torch.no_grad()
def test_planes_vote(volume: torch.Tensor):
    network = Network()
    found = FilledSlicesInferer((8, 8), planes=("axial", "coronal", "sagittal"))(volume, network)
    mean = torch.zeros(1, 2, 7, 8, 6)
    for axis in range(3):
        for index in range(volume.shape[axis + 2]):
            one = volume.select(axis + 2, index)
            rows, columns = one.shape[2:]
            padded = torch.nn.functional.pad(one, (0, 8 - columns, 0, 8 - rows))
            # Windows pad on both sides, half and half.
            top, left = (8 - rows) // 2, (8 - columns) // 2
            padded = padded.roll((top, left), dims=(2, 3))
            logits = network.conv(padded)[:, :, top : top + rows, left : left + columns]
            empty = torch.tensor([20.0, 0.0]).view(1, 2, 1, 1).expand_as(logits)
            mean.select(axis + 2, index).add_((logits if one.any() else empty).softmax(dim=1) / 3)
    torch.testing.assert_close(found.softmax(dim=1), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(1, 7, 8, 6))


@torch.no_grad()
def test_windows_slide_over_what_is_larger():
    network = Network()
    found = FilledSlicesInferer((4, 6))(torch.randn(1, 2, 2, 8, 6), network)
    assert found.shape == (1, 2, 2, 8, 6) and {shape[2:] for shape in network.shapes} == {(4, 6)}


@torch.no_grad()
def test_nothing_at_all():
    found = FilledSlicesInferer((4, 4), planes=("sagittal", "axial"))(torch.zeros(1, 2, 3, 4, 5), Network())
    assert found.shape == (1, 2, 3, 4, 5) and (found.argmax(dim=1) == 0).all()


@torch.no_grad()
def test_volumes_with_metadata(volume: torch.Tensor):
    plain = FilledSlicesInferer((8, 6))(volume, Network())
    assert torch.equal(torch.as_tensor(FilledSlicesInferer((8, 6))(MetaTensor(volume), Network())), plain)


@pytest.mark.parametrize("planes", [(), ("oblique",), ("axial", "axial")])
def test_planes_that_there_are_not(planes: tuple[str, ...]):
    with pytest.raises(InputError, match="give one or more of axial, coronal, sagittal, each once"):
        axes_of(planes)
    assert axes_of(("sagittal", "axial")) == [2, 0]
