"""The whole network: its size, each box of Fig. 6 against loops, what its options leave out, and what it refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.errors import InputError
from common.networks.msconvlstm_att import MSConvLSTMAtt, MultiScaleFusion, PatchSequence, double
from common.networks.position_attention import PositionAttention

SMALL = {"features": (4, 8, 12), "width": 16}


def network(**arguments: object) -> MSConvLSTMAtt:
    """A small one in evaluation, with batch statistics that aren't 0 and 1 and attention that adds something."""
    torch.manual_seed(0)
    made = MSConvLSTMAtt(**{**SMALL, **arguments})  # type: ignore[arg-type]
    for module in made.modules():
        if isinstance(module, PositionAttention):
            nn.init.constant_(module.weight, 0.5)
    for _ in range(3):
        made(torch.randn(2, made.in_channels, 16, 24) + 1)
    return made.eval()


def test_size_of_the_papers_network():
    assert sum(parameter.numel() for parameter in MSConvLSTMAtt().parameters()) == 1_534_383


def test_quarters_are_a_sequence():
    torch.manual_seed(0)
    step, image = PatchSequence(5), torch.randn(2, 1, 8, 12)
    found = step(image)
    order = [(0, 0), (0, 6), (4, 0), (4, 6)]
    quarters = torch.stack([image[:, :, y : y + 4, x : x + 6] for y, x in order], dim=1)
    read = step.lstm(quarters)
    for number, (y, x) in enumerate(order):
        torch.testing.assert_close(found[:, :, y : y + 4, x : x + 6], read[:, number])
    assert found.shape == (2, 5, 8, 12)


def around_every_second(x: torch.Tensor) -> torch.Tensor:
    """The mean of the three by three about every second pixel, as far as there are such."""
    rows, columns = x.shape[2:]
    result = torch.empty(*x.shape[:2], (rows + 1) // 2, (columns + 1) // 2)
    for i in range(result.shape[2]):
        for j in range(result.shape[3]):
            about = x[:, :, max(0, 2 * i - 1) : 2 * i + 2, max(0, 2 * j - 1) : 2 * j + 2]
            result[:, :, i, j] = about.mean(dim=(2, 3))
    return result


def between(coarse: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A map whose cell i is at cell 2i: odd cells are the mean of their neighbours, or the last one again."""
    for dimension, length in zip((2, 3), size, strict=True):
        cells = []
        for place in range(length):
            low = coarse.select(dimension, place // 2)
            high = coarse.select(dimension, min(place // 2 + place % 2, coarse.shape[dimension] - 1))
            cells.append((low + high) / 2)
        coarse = torch.stack(cells, dim=dimension)
    return coarse


@pytest.mark.parametrize("average", [True, False])
def test_figure_6_box_by_box(average: bool):
    """Modality by modality, scale by scale."""
    whole = network(average=average)
    image = torch.randn(2, 4, 16, 24)
    of_modalities = []
    for modality, (first, second, third) in enumerate(whole.branches):
        sequence = first(image[:, modality : modality + 1])
        inception = second(sequence)
        of_modalities.append((sequence, inception, third(inception)))
    of_scales = [torch.cat(maps, dim=1) for maps in zip(*of_modalities, strict=True)]
    assert [tuple(one.shape[1:]) for one in of_scales] == [(16, 16, 24), (32, 8, 12), (48, 4, 6)]
    single, multi = whole.fusion.single, whole.fusion.multi
    singles = [single[0](around_every_second(of_scales[0])), single[1](of_scales[1])]
    singles += [between(single[2](of_scales[2]), (8, 12))]
    joined = multi(torch.cat(singles, dim=1))
    assert [*whole.heads] == (["1", "2", "3"] if average else ["3"])
    predictions = []
    for name, head in whole.heads.items():
        refined = head.refine(torch.cat([singles[int(name) - 1], joined], dim=1))
        predictions.append(head.predict(head.attention(refined)))
    expected = between(sum(predictions) / len(predictions), (16, 24))
    torch.testing.assert_close(whole(image), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 12), (95, 7), (48, 9)])
def test_enlarged_maps_lie_where_strides_saw_them(size: tuple[int, int]):
    torch.manual_seed(0)
    coarse = torch.randn(1, 2, (size[0] + 1) // 2, (size[1] + 1) // 2)
    found = double(coarse, size)
    torch.testing.assert_close(found[:, :, ::2, ::2], coarse)
    torch.testing.assert_close(found, between(coarse, size))


def test_an_impulse_stays_in_its_place():
    """Through all scales: its row and column are those of the middle of what each scale makes of it."""
    fusion = MultiScaleFusion([1, 1, 1], 1).eval()
    for conv in (one[0] for one in fusion.single):
        torch.nn.init.constant_(conv.weight, 1)
    image = torch.zeros(1, 1, 38, 38)
    image[0, 0, 16, 24] = 1
    blur = torch.ones(1, 1, 3, 3)
    half = F.conv2d(image, blur, stride=2, padding=1)
    quarter = F.conv2d(half, blur, stride=2, padding=1)
    singles, _ = fusion([image, half, quarter])
    for single in singles:
        weights = single[0, 0] / single.sum()
        rows, columns = torch.meshgrid(torch.arange(19.0), torch.arange(19.0), indexing="ij")
        assert (weights * rows).sum().item() == pytest.approx(8) and (weights * columns).sum().item() == pytest.approx(
            12
        )


def test_modalities_do_not_meet_before_the_single_scale_features():
    whole, image = network(), torch.randn(1, 4, 16, 16)
    changed = image.clone()
    changed[:, 2] += 1
    for x, y in zip(whole.modality_features(image), whole.modality_features(changed), strict=True):
        same = (x == y).unflatten(1, (4, -1)).flatten(2).all(dim=2)[0]
        assert same.tolist() == [True, True, False, True]


def test_shared_weights_are_equal_branches():
    shared, apart = network(share_weights=True), network()
    state = shared.state_dict()
    apart.load_state_dict({name: state[re.sub(r"^branches\.\d", "branches.0", name)] for name in apart.state_dict()})
    image = torch.randn(2, 4, 16, 24)
    torch.testing.assert_close(shared(image), apart(image), rtol=1e-5, atol=1e-5)
    sizes = [sum(p.numel() for p in one.branches.parameters()) for one in (shared, apart)]
    assert sizes[1] == 4 * sizes[0]


def test_what_the_options_leave_out():
    def kinds(**arguments: object) -> dict[str, int]:
        made = [type(module).__name__ for module in network(**arguments).modules()]
        names = ("ConvLSTM", "ChannelSELayer", "SEInception", "SEResNet", "PositionAttention", "ScaleHead")
        return {name: made.count(name) for name in names}

    whole = kinds()
    assert whole == {
        **{"ConvLSTM": 4, "ChannelSELayer": 8, "SEInception": 4},
        **{"SEResNet": 4, "PositionAttention": 3, "ScaleHead": 3},
    }
    assert kinds(conv_lstm=False) == {**whole, "ConvLSTM": 0}
    assert kinds(squeeze=False) == {**whole, "ChannelSELayer": 0}
    assert kinds(attention_depth=0) == {**whole, "PositionAttention": 0}
    assert kinds(attention_depth=2) == {**whole, "PositionAttention": 6}
    one = {"ChannelSELayer": 0, "SEInception": 0, "SEResNet": 0, "PositionAttention": 1, "ScaleHead": 1}
    assert kinds(features=(8,)) == {**whole, **one}
    assert any(name.endswith("peephole") for name, _ in network(peephole=True).named_parameters())
    for arguments in ({"conv_lstm": False}, {"features": (8,)}, {"features": (8, 8)}, {"attention_depth": 0}):
        assert network(**arguments)(torch.randn(1, 4, 16, 18)).shape == (1, 4, 16, 18)


@pytest.mark.parametrize("size", [2, 6, 8, 10, 38, 190])
def test_even_sizes(size: int):
    small = MSConvLSTMAtt(features=(4, 4, 4), width=8, attention_depth=0).eval()
    assert small(torch.randn(1, 4, size, 16)).shape == (1, 4, size, 16)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((1, 4, 15, 16), "give even sizes"),
        ((1, 4, 16, 7), "give even sizes"),
        ((1, 3, 16, 16), "takes .batch, 4 channels, H, W."),
        ((1, 4, 16, 16, 16), "takes .batch, 4 channels, H, W."),
    ],
)
def test_images_that_it_does_not_take(shape: tuple[int, ...], told: str):
    with pytest.raises(InputError, match=told):
        network()(torch.randn(shape))


@pytest.mark.parametrize("features", [(), (4, 4, 4, 4), (4, 6), (0,)])
def test_features_that_it_does_not_take(features: tuple[int, ...]):
    with pytest.raises(InputError, match="give a list of one to three multiples of 4, one a scale"):
        MSConvLSTMAtt(features=features)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"features": 32}, "features 32: give a list of one to three"),
        ({"features": [4.0]}, "features .4.0.: give a list of one to three"),
        ({"width": 12}, "width 12, attention_depth 1: give a multiple of 8"),
        ({"width": 0}, "width 0"),
        ({"attention_depth": -1}, "attention_depth -1"),
        ({"width": "abc"}, "width abc"),
        ({"attention_depth": 1.5}, "attention_depth 1.5"),
        ({"squeeze": "false"}, "squeeze 'false': give True or False"),
        ({"conv_lstm": 0}, "conv_lstm 0: give True or False"),
        ({"conv_lstm": False, "peephole": True}, "there is no ConvLSTM to have peepholes"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, object], told: str):
    with pytest.raises(InputError, match=told):
        MSConvLSTMAtt(**{**SMALL, **arguments})  # type: ignore[arg-type]


def test_every_weight_learns():
    made = network(features=(8, 32, 64)).train()
    made(torch.randn(8, 4, 16, 16)).square().mean().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_half_precision_is_near():
    whole, image = network(), torch.randn(1, 4, 32, 32)
    for head in whole.heads.values():
        nn.init.normal_(head.predict.weight, std=60)
    with torch.autocast("cpu"):
        half = whole(image)
    exact = whole(image)
    assert half.dtype == torch.float32
    assert (half - exact).abs().mean() < 0.03 * exact.std()


_STEPS = """
import torch
from common.networks.msconvlstm_att import MSConvLSTMAtt
torch.set_num_threads(2)
torch.manual_seed(0)
network = MSConvLSTMAtt(features=(8, 16, 32), width=16)
for _ in range(8):
    network.zero_grad()
    network(torch.randn(16, 4, 64, 64)).square().mean().backward()
"""


def test_steps_in_two_threads(repository: Path):
    """Torch's strided convolutions of 1×1 write beyond their gradients where channels are last in memory."""
    subprocess.run([sys.executable, "-c", _STEPS], cwd=repository, check=True)
