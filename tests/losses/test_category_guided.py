"""CategoryGuidedLoss against plain loops, its stages, and one training step of each ablation of the paper."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.losses.category_guided import (
    CategoryGuidedLoss,
    attention_loss,
    inter_class_distance,
    inter_class_loss,
)
from common.networks.cga_unet import CGAOutput, CGAUNet


def loop_dice(logits: torch.Tensor, label: torch.Tensor) -> float:
    """Soft Dice loss on the softmax, of the batch as a whole, summed over the foreground classes."""
    total = 0.0
    for k in range(1, logits.shape[1]):
        overlap = predicted = reference = 0.0
        for position in itertools.product(range(logits.shape[0]), *map(range, logits.shape[2:])):
            values = [math.exp(logits[(position[0], c, *position[1:])]) for c in range(logits.shape[1])]
            p = values[k] / sum(values)
            t = float(label[(position[0], 0, *position[1:])] == k)
            overlap, predicted, reference = overlap + p * t, predicted + p, reference + t
        total += 1 - (2 * overlap + 1e-5) / (predicted + reference + 1e-5)
    return total


def loop_attention(attention: torch.Tensor, label: torch.Tensor, rate: int) -> float:
    """Squared error against the one-hot label at every `rate`-th voxel."""
    errors = [
        (attention[(b, k, *p)].item() - float(label[(b, 0, *(rate * i for i in p))] == k)) ** 2
        for b, k, *p in itertools.product(*map(range, attention.shape))
    ]
    return sum(errors) / len(errors)


def loop_distance(prototypes: torch.Tensor, present: torch.Tensor) -> list[float]:
    """Eq. 9."""
    return [
        sum(
            math.dist(prototypes[b, i].tolist(), prototypes[b, j].tolist())
            for i, j in itertools.product(range(prototypes.shape[1]), repeat=2)
            if present[b, i] and present[b, j]
        )
        for b in range(prototypes.shape[0])
    ]


def tiny_output() -> tuple[CGAOutput, torch.Tensor]:
    torch.manual_seed(0)
    label = torch.randint(0, 4, (2, 1, 4, 6, 4))
    output = CGAOutput(
        torch.randn(2, 4, 4, 6, 4),
        torch.randn(2, 4, 2, 3, 2),
        torch.randn(2, 4, 5),
        torch.tensor([[True, True, True, True], [True, False, True, False]]),
    )
    return output, label


def test_parts_and_total_equal_plain_loops() -> None:
    output, label = tiny_output()
    loss = CategoryGuidedLoss(dice_weight=0.5, attention_weight=2.0, inter_weight=0.25, inter_start=20)
    dice, attention = loop_dice(output.logits, label), loop_attention(output.attention, label, 2)
    inter = sum(math.log(1 / (1 + d)) for d in loop_distance(output.prototypes, output.present)) / 2

    assert loss(output, label).item() == pytest.approx(0.5 * dice + 2 * attention, rel=1e-5)
    parts = {name: value.item() for name, value in loss.components.items()}
    assert parts == pytest.approx({"dice": dice, "attention": attention, "inter": inter}, rel=1e-5)
    loss.set_epoch(19)
    assert loss(output, label).item() == pytest.approx(0.5 * dice + 2 * attention, rel=1e-5)
    loss.set_epoch(20)
    assert loss(output, label).item() == pytest.approx(0.5 * dice + 2 * attention + 0.25 * inter, rel=1e-5)


def test_bounded_form_equals_a_plain_loop_and_is_bounded() -> None:
    output, _ = tiny_output()
    distances = loop_distance(output.prototypes, output.present)
    expected = sum(math.log(1 + 100 / d) for d in distances) / 2
    assert inter_class_loss(output.prototypes, output.present, "bounded").item() == pytest.approx(expected, rel=1e-5)
    together = torch.zeros(1, 4, 5, requires_grad=True)
    held = inter_class_loss(together, torch.ones(1, 4, dtype=torch.bool), "bounded")
    held.backward()
    assert held.item() == pytest.approx(math.log(1 + 100 / 1e-3))
    assert together.grad is not None and together.grad.isfinite().all()


@pytest.mark.parametrize("form", ["log", "bounded"])
def test_fewer_than_two_classes_give_zero_and_no_gradient(form: str) -> None:
    prototypes = torch.randn(2, 4, 5, requires_grad=True)
    present = torch.tensor([[True, False, False, False], [False] * 4])
    value = inter_class_loss(prototypes, present, form)
    value.backward()
    assert value.item() == 0 and prototypes.grad is not None and (prototypes.grad == 0).all()


@pytest.mark.parametrize("form", ["log", "bounded"])
def test_gradient_of_the_inter_class_loss(form: str) -> None:
    torch.manual_seed(0)
    prototypes = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    present = torch.tensor([[True, True, False, True], [True] * 4])
    assert torch.autograd.gradcheck(lambda p: inter_class_loss(p, present, form), (prototypes,))


@pytest.mark.parametrize("form", ["log", "bounded"])
@pytest.mark.parametrize("huge", [1e20, 3e38, math.inf])
def test_runaway_prototypes_leave_loss_and_gradient_finite(huge: float, form: str) -> None:
    torch.manual_seed(0)
    prototypes = torch.randn(1, 4, 128)
    prototypes[0, 1], prototypes[0, 2], prototypes[0, 3, 0] = huge, -huge, huge
    prototypes.requires_grad_()
    value = inter_class_loss(prototypes, torch.ones(1, 4, dtype=torch.bool), form)
    value.backward()
    assert value.isfinite() and prototypes.grad is not None and prototypes.grad.isfinite().all()


def test_equal_prototypes_have_a_finite_gradient() -> None:
    prototypes = torch.ones(1, 4, 5, requires_grad=True)
    inter_class_loss(prototypes, torch.ones(1, 4, dtype=torch.bool)).backward()
    assert prototypes.grad is not None and prototypes.grad.isfinite().all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10), present=st.lists(st.booleans(), min_size=4, max_size=4))
def test_laws_of_the_distance(seed: int, scale: float, present: list[bool]) -> None:
    prototypes = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(seed))
    there = torch.tensor([present])
    distance = inter_class_distance(prototypes, there)
    order = torch.tensor([3, 1, 0, 2])
    torch.testing.assert_close(inter_class_distance(prototypes[:, order], there[:, order]), distance)
    torch.testing.assert_close(inter_class_distance(prototypes + 5.0, there), distance, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(inter_class_distance(scale * prototypes, there), scale * distance)
    assert inter_class_loss(2 * prototypes, there) <= inter_class_loss(prototypes, there)


def test_attention_loss_at_sizes_the_rate_does_not_divide() -> None:
    torch.manual_seed(0)
    for rate, small in ((8, (3, 6, 2)), (4, (5, 12, 3)), (2, (10, 23, 5))):
        label = torch.randint(0, 4, (1, 1, 19, 45, 9), dtype=torch.uint8)
        attention = torch.randn(1, 4, *small)
        expected = loop_attention(attention, label, rate)
        assert attention_loss(attention, label).item() == pytest.approx(expected, rel=1e-5)
    # One voxel is left of each axis.
    attention, label = torch.randn(1, 4, 1, 1, 1), torch.randint(0, 4, (1, 1, 5, 8, 3))
    assert attention_loss(attention, label).item() == pytest.approx(loop_attention(attention, label, 8), rel=1e-5)


def test_everything_is_float32_under_autocast() -> None:
    output, label = tiny_output()
    halved = CGAOutput(output.logits.bfloat16(), output.attention.bfloat16(), *output[2:])
    loss = CategoryGuidedLoss(inter_start=0)
    with torch.autocast("cpu"):
        value = loss(halved, label)
    assert value.dtype == torch.float32 and all(part.dtype == torch.float32 for part in loss.components.values())
    widened = CGAOutput(halved.logits.float(), halved.attention.float(), *output[2:])
    assert torch.equal(value, loss(widened, label))


def test_unknown_form() -> None:
    with pytest.raises(InputError, match="log, bounded"):
        CategoryGuidedLoss(inter_form="square")


ABLATIONS = {
    "baseline": ({"attention_rate": 0}, {}),
    "baseline + intra": ({}, {"inter_weight": 0.0}),
    "baseline + intra (class 1)": ({"update_classes": (1,)}, {"inter_weight": 0.0}),
    "baseline + intra (class 2)": ({"update_classes": (2,)}, {"inter_weight": 0.0}),
    "baseline + intra (class 4)": ({"update_classes": (3,)}, {"inter_weight": 0.0}),
    "baseline + inter": ({"update_classes": ()}, {}),
    "baseline - inter": ({"update_classes": ()}, {"inter_weight": -0.01}),
    "baseline + intra + inter": ({}, {}),
    "rate 4": ({"attention_rate": 4}, {}),
    "rate 2": ({"attention_rate": 2}, {}),
    "soft": ({"hard_attention": False}, {}),
    "bounded": ({}, {"inter_form": "bounded"}),
}


@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.parametrize("epoch", [0, 20])
@pytest.mark.parametrize("half", [False, True])
def test_one_step_of_each_ablation(name: str, epoch: int, half: bool) -> None:
    network_arguments, loss_arguments = ABLATIONS[name]
    torch.manual_seed(0)
    network = CGAUNet(features=(8, 8, 16, 16), blocks=(1, 1, 1, 2), **network_arguments)
    loss = CategoryGuidedLoss(**loss_arguments)
    loss.set_epoch(epoch)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    image, label = torch.randn(1, 4, 24, 16, 20), torch.zeros(1, 1, 24, 16, 20)
    label[..., :12, :, :] = 2  # classes 1 and 3 are absent
    with torch.autocast("cpu", enabled=half):
        output = network(image)
    value = loss(output, label)
    value.backward()
    assert value.isfinite()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name
    optimizer.step()
    with torch.no_grad():
        assert loss(network(image), label).isfinite()


def test_inter_class_loss_moves_the_prototypes_apart_and_its_negative_together() -> None:
    distances = {}
    for weight in (0.5, 0.0, -0.5):
        torch.manual_seed(0)
        network = CGAUNet(features=(8, 8, 16, 16), blocks=(1, 1, 1, 1), update_classes=(), dropout=0.0)
        loss = CategoryGuidedLoss(inter_weight=weight, inter_start=0)
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        image, label = torch.randn(1, 4, 32, 32, 32), torch.randint(0, 4, (1, 1, 32, 32, 32))
        for _ in range(5):
            optimizer.zero_grad()
            output = network(image)
            loss(output, label).backward()
            optimizer.step()
        distances[weight] = inter_class_distance(output.prototypes, output.present).item()
    assert distances[0.5] > distances[0.0] > distances[-0.5]


def test_cross_entropy_is_there_only_with_a_weight() -> None:
    output, label = tiny_output()
    plain, with_it = CategoryGuidedLoss(), CategoryGuidedLoss(cross_entropy_weight=0.5)
    difference = with_it(output, label) - plain(output, label)
    log_softmax = output.logits.double().log_softmax(dim=1)
    expected = -sum(
        log_softmax[(b, int(label[(b, 0, *p)]), *p)].item()
        for b, *p in itertools.product(range(label.shape[0]), *map(range, label.shape[2:]))
    )
    assert difference.item() == pytest.approx(0.5 * expected / label.numel(), rel=1e-4)
    assert "cross_entropy" not in plain.components
