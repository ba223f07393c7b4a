"""Spatial attention against the naive map of Eqs 1 and 2, and what it needs of memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.errors import InputError
from common.networks.position_attention import PositionAttention


def naive(layer: PositionAttention, x: torch.Tensor) -> torch.Tensor:
    """Eqs 1 and 2 with the whole map, one position after another."""
    sizes, (b0, b1, b2) = x.shape, (conv(x).flatten(2) for conv in (layer.key, layer.query, layer.value))
    result = x.flatten(2).clone()
    for j in range(result.shape[2]):
        exponents = torch.einsum("bci,bc->bi", b0, b1[:, :, j]).exp()
        s = exponents / exponents.sum(dim=1, keepdim=True)
        result[:, :, j] += layer.weight * torch.einsum("bi,bci->bc", s, b2)
    return result.view(sizes)


@pytest.fixture
def layer() -> PositionAttention:
    torch.manual_seed(0)
    layer = PositionAttention(16)
    torch.nn.init.constant_(layer.weight, 0.7)
    return layer


@pytest.mark.parametrize(("channels", "sizes"), [(16, (9, 7)), (64, (31, 33))])
def test_naive_map(channels: int, sizes: tuple[int, int]):
    torch.manual_seed(0)
    layer = PositionAttention(channels)
    torch.nn.init.constant_(layer.weight, 0.7)
    x = torch.randn(2, channels, *sizes)
    torch.testing.assert_close(layer(x), naive(layer, x), rtol=1e-5, atol=1e-5)


def test_gradients_of_the_naive_map(layer: PositionAttention):
    x = torch.randn(2, 16, 6, 5)
    weights = torch.randn(2, 16, 6, 5)
    found = []
    for form in (layer, lambda x: naive(layer, x)):
        layer.zero_grad()
        given = x.clone().requires_grad_()
        (form(given) * weights).sum().backward()
        assert given.grad is not None
        found.append([given.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)])
    assert len(found[0]) == 8
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_map_of_a_position(layer: PositionAttention):
    """Summed over with the values it is what the module adds."""
    x = torch.randn(2, 16, 5, 6)
    s = layer.map_of(x, (3, 2))
    torch.testing.assert_close(s.sum(dim=(1, 2)), torch.ones(2))
    gathered = torch.einsum("bhw,bchw->bc", s, layer.value(x))
    torch.testing.assert_close(x[:, :, 3, 2] + layer.weight * gathered, layer(x)[:, :, 3, 2], rtol=1e-5, atol=1e-5)


def test_nothing_is_added_at_first():
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(PositionAttention(8)(x), x)


def test_width_that_8_does_not_divide():
    with pytest.raises(InputError, match="attention of 12 channels: give a multiple of 8"):
        PositionAttention(12)


PEAK = """
import re, sys, torch
from pathlib import Path
from common.networks.position_attention import PositionAttention
torch.set_num_threads(2)
size, train = int(sys.argv[1]), sys.argv[2] == "train"
layer = PositionAttention(64)
torch.nn.init.constant_(layer.weight, 0.5)
torch.set_grad_enabled(train)

def mebibytes(what):
    return int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

small = layer(torch.randn(1, 64, 32, 32, requires_grad=train))
if train: small.sum().backward()
x = torch.randn(1, 64, size, size, requires_grad=train)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = mebibytes("VmRSS")
y = layer(x)
if train: y.sum().backward()
# The output, and gradients of input and output.
print(mebibytes("VmHWM") - before - x.nbytes / 2**20 * (3 if train else 1))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is told by Linux alone")
@pytest.mark.parametrize(("size", "mode", "mebibytes"), [(95, "", 30), (190, "", 60), (95, "train", 60)])
def test_the_map_is_never_in_memory(size: int, mode: str, mebibytes: float):
    """It would have 311 MiB at 95², 4.85 GiB at 190²; inputs and outputs (and their gradients) aren't counted."""
    done = subprocess.run([sys.executable, "-c", PEAK, str(size), mode], capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) <= mebibytes
