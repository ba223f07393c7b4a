"""Convolutional LSTM."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

__all__ = ["ConvLSTM", "LSTMState"]


class LSTMState(NamedTuple):
    """What a ConvLSTM carries from one step to the next.

    Attributes:
        hidden: H, its output, (B, channels, H, W), float32.
        cell: C, its memory, of the same shape, float32.
    """

    hidden: torch.Tensor
    cell: torch.Tensor


class ConvLSTM(nn.Module):
    """A layer of convolutional LSTM over a sequence of maps, which begins with a state of zeros.

    Based on: Shi et al., "Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting"
    (2015), Eq. 3:

        i = σ(Wxi * X + Whi * H + Wci ∘ C + bi)
        f = σ(Wxf * X + Whf * H + Wcf ∘ C + bf)
        C' = f ∘ C + i ∘ tanh(Wxc * X + Whc * H + bc)
        o = σ(Wxo * X + Who * H + Wco ∘ C' + bo)
        H' = o ∘ tanh(C')

    The four gates are one convolution. That of the inputs doesn't wait for the state, so it is done for all steps at
    once, and each step convolves the state alone; the first one's is zero and takes none. Under autocast the
    convolutions are in half precision, gates and states in float32.

    The bias of the forget gate begins at 1, so that a new layer remembers.

    Args:
        in_channels: of a map.
        channels: of the state.
        kernel_size: of the convolutions, odd.
        peephole: whether the gates see the cell (Wc). The paper's weights are one for each place; here they are one for
            each channel, so that maps may have any size.
    """

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 3, peephole: bool = False) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.of_input = nn.Conv2d(in_channels, 4 * channels, kernel_size, padding=padding)
        self.of_state = nn.Conv2d(channels, 4 * channels, kernel_size, padding=padding, bias=False)
        assert self.of_input.bias is not None
        with torch.no_grad():
            self.of_input.bias[channels : 2 * channels] += 1
        self.peephole = nn.Parameter(torch.zeros(3, channels, 1, 1)) if peephole else None

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Read a sequence.

        Args:
            sequence: (B, T, in_channels, H, W).

        Returns:
            The state H after each step, (B, T, channels, H, W), in the precision of the convolutions.
        """
        steps = sequence.shape[1]
        of_input = self.of_input(sequence.flatten(0, 1)).unflatten(0, (-1, steps))
        state: LSTMState | None = None
        outputs = []
        for step in range(steps):
            state = self.step(of_input[:, step], state)
            outputs.append(state.hidden.to(of_input.dtype))
        return torch.stack(outputs, dim=1)

    def step(self, of_input: torch.Tensor, state: LSTMState | None) -> LSTMState:
        """The next state.

        Args:
            of_input: the input's part of the gates, Wx * X + b, (B, 4 · channels, H, W).
            state: the one before; None for zeros.
        """
        gates = of_input.float()
        if state is not None:
            gates = gates + self.of_state(state.hidden)
        i, f, c, o = gates.chunk(4, dim=1)
        if self.peephole is not None and state is not None:
            i, f = i + self.peephole[0] * state.cell, f + self.peephole[1] * state.cell
        cell = torch.sigmoid(i) * torch.tanh(c)
        if state is not None:
            cell = cell + torch.sigmoid(f) * state.cell
        if self.peephole is not None:
            o = o + self.peephole[2] * cell
        return LSTMState(torch.sigmoid(o) * torch.tanh(cell), cell)
