"""The learning rate over stages."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, PolynomialLR

from common.errors import InputError
from common.optimizers.stage_decay import poly_decay


def rates(scheduler: torch.optim.lr_scheduler.LRScheduler, epochs: int) -> list[float]:
    found = []
    for _ in range(epochs):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.01)


def test_over_all_stages_it_is_the_plain_decay():
    staged = rates(LambdaLR(optimizer(), poly_decay([3, 2, 5], 0.9)), 10)
    assert staged == pytest.approx(rates(PolynomialLR(optimizer(), 10, 0.9), 10))
    assert poly_decay([3, 2, 5])(10) == 0


def test_a_later_stage_goes_on_where_the_one_before_it_was():
    whole = rates(LambdaLR(optimizer(), poly_decay([3, 2, 5], 0.9)), 10)
    assert rates(LambdaLR(optimizer(), poly_decay([3, 2, 5], 0.9, first_stage=2)), 7) == whole[3:]


@pytest.mark.parametrize("first", [1, 2])
def test_restarted_each_stage_has_a_decay_of_its_own(first: int):
    expected = [(1 - epoch / length) ** 0.9 for length in (3, 2, 5)[first - 1 :] for epoch in range(length)]
    factor = poly_decay([3, 2, 5], 0.9, restart=True, first_stage=first)
    assert [factor(epoch) for epoch in range(len(expected))] == pytest.approx(expected)
    assert factor(len(expected)) == 0


@pytest.mark.parametrize("first", [0, 4])
def test_stage_that_is_not_there(first: int):
    with pytest.raises(InputError, match=rf"first_stage {first}: stages \[3, 2, 5\] are counted from 1 to 3"):
        poly_decay([3, 2, 5], first_stage=first)
