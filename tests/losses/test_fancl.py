"""FANCL's loss against plain loops, its stages, and one training step of each row of Table III."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from monai.data import MetaTensor

from common.errors import InputError
from common.losses.deep_supervision import DiceCrossEntropy, supervision_weights
from common.losses.fancl import FANCLLoss
from common.networks.fancl import FANCL, FANCLOutput


def loop_dice_cross_entropy(logits: torch.Tensor, target: torch.Tensor, softmax: bool) -> float:
    """Eqs 23-25, of channel and sample each its own Dice; with softmax the first of the logits is background."""
    samples, categories = target.shape[:2]
    dice, entropy, voxels = 0.0, 0.0, 0
    for b in range(samples):
        sums = {k: [0.0, 0.0, 0.0] for k in range(categories)}
        for p in itertools.product(*map(range, target.shape[2:])):
            values = [math.exp(value) for value in logits[(b, slice(None), *p)].tolist()]
            truth = target[(b, slice(None), *p)].tolist()
            voxels += 1
            if softmax:
                predicted = [value / sum(values) for value in values]
                entropy -= math.log(predicted[truth.index(1) + 1 if 1 in truth else 0])
                predicted = predicted[1:]
            else:
                predicted = [value / (1 + value) for value in values]
                entropy -= sum(math.log(q if y else 1 - q) for q, y in zip(predicted, truth, strict=True)) / categories
            for k in range(categories):
                for i, term in enumerate((predicted[k] * truth[k], predicted[k], truth[k])):
                    sums[k][i] += term
        dice += sum(1 - (2 * both + 1e-5) / (mine + theirs + 1e-5) for both, mine, theirs in sums.values())
    return dice / samples / categories + entropy / voxels


def loop_loss(heads: list[torch.Tensor], target: torch.Tensor, softmax: bool) -> float:
    """Eq. 23 at each of three levels, against voxels 0, 1, 2 … or 1, 3, 5 … or 2, 6, 10 …"""
    total = 0.0
    for head, first, step, weight in zip(heads, (0, 1, 2), (1, 2, 4), (2 / 3, 1 / 3, 0), strict=True):
        coarse = target[:, :, first::step, first::step, first::step]
        assert coarse.shape[2:] == head.shape[2:]
        total += weight * loop_dice_cross_entropy(head, coarse, softmax)
    return total


def plain(**arguments) -> FANCL:
    """A network that says only whether there is attention, and of which kind."""
    return FANCL(**{"features": (4, 4, 4), "attention_patch": (4, 2)} | arguments)


def tiny_output(softmax: bool) -> tuple[FANCLOutput, torch.Tensor]:
    """Logits at three levels, attention of 4 × 2 on a map of 4 × 4 voxels, and a target of three categories.

    With softmax no voxel has two categories; one category is missing in one of the samples.
    """
    torch.manual_seed(0)
    heads = [torch.randn(2, 3 + softmax, *[8 // step] * 3, requires_grad=True) for step in (1, 2, 4)]
    label = torch.randint(0, 5, (2, 3, 8, 8, 8), dtype=torch.uint8)
    if softmax:
        label *= torch.nn.functional.one_hot(torch.randint(0, 4, (2, 8, 8, 8)), 4).movedim(4, 1)[:, 1:].bool()
    label[0, 1] = 0
    return FANCLOutput(heads, torch.randn(2, 3, 2, 8, requires_grad=True)), label


@pytest.mark.parametrize("softmax", [True, False])
def test_dice_and_cross_entropy_equal_a_plain_loop(softmax: bool) -> None:
    output, label = tiny_output(softmax)
    target = (label > 0).float()
    expected = loop_dice_cross_entropy(output.heads[0], target, softmax)
    assert DiceCrossEntropy(softmax)(output.heads[0], target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize(("epoch", "stage"), [(0, 1), (80, 2), (160, 3)])
def test_parts_and_total_equal_plain_loops(softmax: bool, epoch: int, stage: int) -> None:
    output, label = tiny_output(softmax)
    network = plain(out_channels=3 + softmax, softmax=softmax)
    loss = FANCLLoss(network, softmax=softmax, attention_weight=0.25)
    loss.set_epoch(epoch)
    total = loss(output, label)
    golden = network.attention.golden(label > 0)
    errors = [(output.attention[at] - golden[at]).item() ** 2 for at in itertools.product(*map(range, golden.shape))]
    expected = {
        "truth": loop_loss(output.heads, (label > 0).float(), softmax),
        "curriculum": loop_loss(output.heads, ((label > 0) & (label <= stage)).float(), softmax),
        "attention": sum(errors) / len(errors),
    }
    parts = {name: value.item() for name, value in loss.components.items()}
    assert parts == pytest.approx(expected, rel=1e-5)
    assert not any(value.requires_grad for value in loss.components.values())
    assert total.item() == pytest.approx(
        expected["truth"] + expected["curriculum"] + 0.25 * expected["attention"], rel=1e-5
    )


def test_without_curriculum_or_attention_there_is_only_the_truth() -> None:
    output, label = tiny_output(True)
    truth = loop_loss(output.heads, (label > 0).float(), True)
    alone = FANCLLoss(plain(attention=0), curriculum=False)
    assert alone(output._replace(attention=None), label).item() == pytest.approx(truth, rel=1e-5)
    assert [*alone.components] == ["truth"]
    with_curriculum = FANCLLoss(plain(attention=0))
    with_curriculum(output._replace(attention=None), label)
    assert [*with_curriculum.components] == ["truth", "curriculum"]
    with_attention = FANCLLoss(plain(), curriculum=False)
    with_attention(output, label)
    assert [*with_attention.components] == ["truth", "attention"]


def test_a_curriculum_of_everything_is_the_truth_and_of_nothing_background() -> None:
    output, label = tiny_output(True)
    loss = FANCLLoss(plain())
    loss(output, label.clamp(max=1))
    assert loss.components["curriculum"] == loss.components["truth"]
    # What is in no curriculum is in that of no stage.
    for epoch in (0, 80, 160, 499):
        loss.set_epoch(epoch)
        loss(output, 4 * (label > 0))
        expected = loop_loss(output.heads, torch.zeros(label.shape), True)
        assert loss.components["curriculum"].item() == pytest.approx(expected, rel=1e-5)


def test_attention_over_fewer_categories_has_the_last_ones_as_golden() -> None:
    output, label = tiny_output(True)
    network = plain(attention=1)
    loss = FANCLLoss(network)
    attention = network.attention.golden(label[:, 2:] > 0)
    loss(output._replace(attention=attention + 2), label)
    assert loss.components["attention"].item() == pytest.approx(4)


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ((80, 80, 340), {0: 1, 79: 1, 80: 2, 159: 2, 160: 3, 499: 3, 500: 3}),
        ((2,), {0: 1, 1: 1, 2: 1}),
        ((1, 3, 1), {0: 1, 1: 2, 3: 2, 4: 3, 5: 3}),
    ],
)
def test_the_stage_follows_from_the_epoch(stages: tuple[int, ...], expected: dict[int, int]) -> None:
    loss = FANCLLoss(plain(), stages)
    assert loss.stage == expected[0]
    stage = {}
    for epoch in reversed(expected):
        loss.set_epoch(epoch)
        stage[epoch] = loss.stage
    assert stage == expected


def test_supervision_weights() -> None:
    assert supervision_weights(1) == [1]
    assert supervision_weights(2) == [1, 0]
    assert supervision_weights(5) == [8 / 15, 4 / 15, 2 / 15, 1 / 15, 0]


@pytest.mark.parametrize("softmax", [True, False])
def test_gradients_of_the_loss(softmax: bool) -> None:
    output, label = tiny_output(softmax)
    FANCLLoss(plain(out_channels=3 + softmax, softmax=softmax), softmax=softmax)(output, label).backward()
    for head in output.heads[:2]:
        assert head.grad is not None and head.grad.isfinite().all() and (head.grad != 0).any()
    # None at all would make distributed training wait for it.
    assert output.heads[2].grad is not None and (output.heads[2].grad == 0).all()


def test_everything_is_float32_under_autocast() -> None:
    output, label = tiny_output(True)
    halved = FANCLOutput([head.bfloat16() for head in output.heads], output.attention.bfloat16())
    loss = FANCLLoss(plain())
    with torch.autocast("cpu"):
        value = loss(halved, label)
    assert value.dtype == torch.float32 and all(part.dtype == torch.float32 for part in loss.components.values())
    widened = FANCLOutput([head.float() for head in halved.heads], halved.attention.float())
    assert torch.equal(value, loss(widened, label))


def test_metadata_ends_here() -> None:
    output, label = tiny_output(True)
    loss = FANCLLoss(plain())
    value = loss(output, MetaTensor(label))
    assert type(value) is torch.Tensor and torch.equal(value, loss(output, label))


def test_the_networks_weights_are_not_the_losss() -> None:
    assert not [*FANCLLoss(plain()).parameters()]


@pytest.mark.parametrize("stages", [(), (80, -1)])
def test_wrong_stages(stages: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="stages"):
        FANCLLoss(plain(), stages)


ROWS = {  # of Table III: attention, curriculum
    "baseline": (0, False),
    "curriculum": (0, True),
    "attention": (3, False),
    "FANCL": (3, True),
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("half", [False, True])
def test_one_step_of_each_row(row: str, softmax: bool, half: bool) -> None:
    attention, curriculum = ROWS[row]
    torch.manual_seed(0)
    network = FANCL(4, 3 + softmax, (4, 8, 12, 16), attention, (4, 4), softmax=softmax)
    loss = FANCLLoss(network, curriculum=curriculum, softmax=softmax)
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True)
    image, label = torch.randn(1, 4, 16, 16, 24), torch.zeros(1, 3, 16, 16, 24, dtype=torch.uint8)
    label[:, 1, :, 4:9] = 2  # categories 0 and 2 are absent
    with torch.autocast("cpu", enabled=half):
        output = network(image)
    value = loss(output, label)
    value.backward()
    assert value.isfinite()
    lowest = {id(parameter) for parameter in network.deep_supervision_heads[-1].parameters()}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert (parameter.grad.abs().sum() > 0) != (id(parameter) in lowest), name
    optimizer.step()
    with torch.no_grad():
        assert loss(network(image), label).isfinite()


def test_nnunets_optimiser_brings_the_attention_towards_the_golden_one() -> None:
    # All-zero attention, which is no answer, has a distance of the golden one's mean square.
    torch.manual_seed(0)
    network = FANCL(4, 4, (4, 8, 12), 3)
    loss = FANCLLoss(network)
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True)
    label = torch.zeros(1, 3, 16, 32, 32, dtype=torch.uint8)
    label[:, 2, 4:12, 8:16, 8:16] = 1
    image, distances = torch.randn(1, 4, 16, 32, 32) + 2 * label.sum(1, keepdim=True), []
    golden = network.attention.golden(label.float())
    for _ in range(120):
        optimizer.zero_grad()
        loss(network(image), label).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        distances.append(loss.components["attention"].item())
    assert max(distances[-5:]) < 0.5 * golden.square().mean().item()
    assert network(image).attention[golden > 0.3].mean().item() > 0.2
