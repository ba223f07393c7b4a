"""Gradients are bounded once before each step of the optimiser, whatever was done to them before."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from monai.engines import SupervisedTrainer

from common.handlers.clipping import GradientClipping


def changes(norm: float, accumulation: int, steps: int = 5) -> list[float]:
    """How far each step of SGD at rate 1 moves the weights; the gradient of each iteration is 3, that of a bias 4."""
    network = torch.nn.Linear(1, 1).double()
    torch.nn.init.zeros_(network.weight), torch.nn.init.zeros_(network.bias)
    optimizer = torch.optim.SGD(network.parameters(), lr=1)
    places = [torch.zeros(2)]
    optimizer.register_step_post_hook(
        lambda *_: places.append(torch.cat([network.weight.detach().flatten(), network.bias.detach()]))
    )
    data = [{"image": torch.full((1, 1), 3 / 4).double(), "label": torch.zeros(1)}] * steps
    trainer = SupervisedTrainer(
        torch.device("cpu"),
        1,
        data,
        network,
        optimizer,
        lambda prediction, label: 4 * prediction,
        train_handlers=[GradientClipping(norm)],
        accumulation_steps=accumulation,
        decollate=False,
        optim_set_to_none=True,
    )
    trainer.run()
    return [float((b - a).norm()) for a, b in pairwise(places)]


@pytest.mark.parametrize(
    ("norm", "accumulation", "expected"),
    [
        (1, 1, [1] * 5),
        (2.5, 1, [2.5] * 5),
        (9, 1, [5] * 5),
        (1, 2, [1, 1, 1]),
        (9, 2, [5, 5, 2.5]),
        (3, 2, [3, 3, 2.5]),
    ],
)
def test_each_step_is_at_most_as_long(norm: float, accumulation: int, expected: list[float]):
    assert changes(norm, accumulation) == pytest.approx(expected, rel=1e-5)


def test_scaled_gradients_are_bounded_without_the_scale():
    network = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(network(torch.ones(1, 1)).sum() * 3).backward()
    assert network.weight.grad.item() == 3 * 1024
    state = SimpleNamespace(iteration=1, epoch_length=1)
    engine = SimpleNamespace(state=state, accumulation_steps=1, scaler=scaler, optimizer=optimizer)
    GradientClipping(2).clip(engine)
    assert network.weight.grad.item() == pytest.approx(2, rel=1e-5)
    before = network.weight.item()
    scaler.step(optimizer)
    assert before - network.weight.item() == pytest.approx(2, rel=1e-5)
