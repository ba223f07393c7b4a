"""The ConvLSTM against its equations, gate by gate, and what half precision means."""

from __future__ import annotations

from math import exp, tanh

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from common.networks.conv_lstm import ConvLSTM


def gate_by_gate(layer: ConvLSTM, sequence: torch.Tensor) -> torch.Tensor:
    """Shi et al., Eq. 3, one gate and one step after another."""
    channels = layer.of_state.in_channels
    of_input, bias = layer.of_input.weight, layer.of_input.bias
    of_state = layer.of_state.weight
    assert bias is not None
    names = ("i", "f", "c", "o")
    x_weights = dict(zip(names, of_input.split(channels), strict=True))
    h_weights = dict(zip(names, of_state.split(channels), strict=True))
    biases = dict(zip(names, bias.split(channels), strict=True))
    peephole = layer.peephole
    looks = {"i": 0.0, "f": 0.0, "o": 0.0} if peephole is None else dict(zip("ifo", peephole, strict=True))
    padding = layer.of_input.padding[0]
    hidden = cell = torch.zeros(len(sequence), channels, *sequence.shape[-2:])
    outputs = []
    for step in range(sequence.shape[1]):
        x = sequence[:, step]

        def of(name: str, x: torch.Tensor = x, hidden: torch.Tensor = hidden) -> torch.Tensor:
            from_input = F.conv2d(x, x_weights[name], biases[name], padding=padding)
            return from_input + F.conv2d(hidden, h_weights[name], padding=padding)

        i = torch.sigmoid(of("i") + looks["i"] * cell)
        f = torch.sigmoid(of("f") + looks["f"] * cell)
        cell = f * cell + i * torch.tanh(of("c"))
        o = torch.sigmoid(of("o") + looks["o"] * cell)
        hidden = o * torch.tanh(cell)
        outputs.append(hidden)
    return torch.stack(outputs, dim=1)


def drawn(layer: ConvLSTM) -> ConvLSTM:
    """Its weights at random, peepholes too."""
    torch.manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_gate_by_gate(peephole: bool, kernel_size: int):
    layer = drawn(ConvLSTM(3, 5, kernel_size, peephole=peephole))
    sequence = torch.randn(2, 4, 3, 7, 6)
    torch.testing.assert_close(layer(sequence), gate_by_gate(layer, sequence), rtol=1e-5, atol=1e-6)


def test_scalars_by_the_equations():
    """One pixel, one channel, two steps, written out in numbers."""
    layer = ConvLSTM(1, 1, kernel_size=1, peephole=True)
    with torch.no_grad():
        layer.of_input.weight.copy_(torch.tensor([0.5, -0.3, 0.8, 0.2]).view(4, 1, 1, 1))
        layer.of_input.bias.copy_(torch.tensor([0.1, 1.0, -0.2, 0.3]))
        layer.of_state.weight.copy_(torch.tensor([0.4, 0.6, -0.7, 0.9]).view(4, 1, 1, 1))
        layer.peephole.copy_(torch.tensor([0.2, -0.5, 0.7]).view(3, 1, 1, 1))

    def sigmoid(value: float) -> float:
        return 1 / (1 + exp(-value))

    hidden = cell = 0.0
    for x in (1.5, -2.0):
        i = sigmoid(0.5 * x + 0.4 * hidden + 0.2 * cell + 0.1)
        f = sigmoid(-0.3 * x + 0.6 * hidden - 0.5 * cell + 1.0)
        cell = f * cell + i * tanh(0.8 * x - 0.7 * hidden - 0.2)
        o = sigmoid(0.2 * x + 0.9 * hidden + 0.7 * cell + 0.3)
        hidden = o * tanh(cell)
    found = layer(torch.tensor([1.5, -2.0]).view(1, 2, 1, 1, 1))
    assert found[0, -1].item() == pytest.approx(hidden, abs=1e-6)


def test_forget_gates_begin_open():
    torch.manual_seed(0)
    bias = ConvLSTM(1, 64).of_input.bias
    assert bias is not None
    means = bias.view(4, 64).mean(dim=1)
    assert means[1] > 0.9 and (means[[0, 2, 3]].abs() < 0.1).all()


def test_states_are_float32_in_half_precision():
    """A memory that fades by the thousandth is kept: in bfloat16 the sum of so small steps would stand still."""
    layer = ConvLSTM(1, 1, kernel_size=1)
    with torch.no_grad():
        layer.of_input.weight.zero_()
        layer.of_state.weight.zero_()
        layer.of_input.bias.copy_(torch.tensor([-6.0, 20.0, 3.0, 20.0]))  # a little in, nothing forgotten
    sequence = torch.zeros(1, 600, 1, 2, 2)
    whole = layer(sequence)
    with torch.autocast("cpu"):
        half = layer(sequence)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half[:, -1].float(), whole[:, -1], rtol=1e-2, atol=0)
    state = layer.step(torch.zeros(1, 4, 2, 2, dtype=torch.bfloat16), None)
    assert state.hidden.dtype == state.cell.dtype == torch.float32


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4))
def test_later_inputs_change_nothing_before_them(steps: int, at: int):
    at = min(at, steps)
    layer = drawn(ConvLSTM(1, 2))
    sequence = torch.randn(1, steps, 1, 4, 4)
    changed = sequence.clone()
    changed[:, at:] += 1
    torch.testing.assert_close(layer(sequence)[:, :at], layer(changed)[:, :at])


def test_gradients_reach_every_weight():
    layer = drawn(ConvLSTM(1, 2, peephole=True))
    layer(torch.randn(1, 3, 1, 3, 3)).sum().backward()
    assert all(
        p.grad is not None and bool(p.grad.flatten(1).any(dim=1).all()) for p in layer.parameters() if p.ndim > 1
    )
