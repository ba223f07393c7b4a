"""The plain U-Net: its maps and heads, and that nothing is kept longer than it is needed."""

from __future__ import annotations

import weakref

import pytest
import torch
from monai.data import MetaTensor

from common.errors import InputError
from common.networks.conv3 import Conv3
from common.networks.fancl import FANCL
from common.networks.plain_unet import PlainUNet

FEATURES = (4, 6, 8, 10)


def small() -> PlainUNet:
    torch.manual_seed(0)
    return PlainUNet(2, 3, FEATURES)


def test_the_papers_size() -> None:
    with torch.device("meta"):
        network = PlainUNet()
    assert sum(parameter.numel() for parameter in network.parameters()) == 31_194_351


def test_it_is_fancls_backbone() -> None:
    torch.manual_seed(0)
    fancl, network = FANCL(2, 3, FEATURES, attention=0), small()
    state = network.state_dict()
    assert list(state) == list(fancl.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in fancl.state_dict().items())
    image = torch.randn(1, 2, 16, 8, 24)
    for mine, other in zip(network(image), fancl(image).heads, strict=True):
        assert torch.equal(mine, other)


def test_maps_of_each_level() -> None:
    network = small()
    encoded = network.encode(torch.randn(1, 2, 16, 8, 24))
    assert [tuple(x.shape) for x in encoded] == [
        (1, count, 16 // 2**level, 8 // 2**level, 24 // 2**level) for level, count in enumerate(FEATURES)
    ]
    sizes = [x.shape for x in encoded]
    decoded = list(network.decode(encoded))
    assert [level for level, _ in decoded] == [2, 1, 0] and encoded == []
    assert [x.shape for _, x in decoded] == sizes[2::-1]


def test_heads_are_those_of_their_levels() -> None:
    network, image = small(), torch.randn(1, 2, 16, 8, 24)
    decoded = dict(network.decode(network.encode(image)))
    logits = network(image)
    blocks = [network.output_block, *network.deep_supervision_heads]
    assert len(logits) == len(blocks) == 3
    for level, (head, block) in enumerate(zip(logits, blocks, strict=True)):
        assert network.head(level) is block
        assert torch.equal(head, block(decoded[level]))
    segmentation = network.eval()(image)
    assert type(segmentation) is torch.Tensor
    assert torch.equal(segmentation, logits[0])


@torch.no_grad()
def test_skips_are_let_go() -> None:
    network = small().eval()
    encoded = network.encode(torch.randn(1, 2, 16, 8, 24))
    alive = [weakref.ref(x) for x in encoded]
    for level, _ in network.decode(encoded):
        assert [reference() is not None for reference in alive] == [number < level for number in range(4)]


def test_convolutions_are_those_that_train_two_slices() -> None:
    convolutions = [module for module in small().modules() if getattr(module, "kernel_size", None) == (3, 3, 3)]
    assert len(convolutions) == 2 * 7 and all(type(module) is Conv3 for module in convolutions)


def test_metadata_survives() -> None:
    assert small().eval()(MetaTensor(torch.randn(1, 2, 16, 16, 8))).shape == (1, 3, 16, 16, 8)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3, 16, 16, 16), "2 channels"),
        ((2, 16, 16, 16), "2 channels"),
        ((1, 2, 16, 12, 16), "multiples of 8"),
        ((2, 2, 8, 8, 8), "not 8 along all three"),
    ],
)
def test_wrong_images(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        small()(torch.zeros(shape))
    assert "\n" not in str(caught.value)
    assert small()(torch.zeros(1, 2, 8, 8, 16)) is not None


def test_too_few_stages() -> None:
    with pytest.raises(InputError, match="at least three stages"):
        PlainUNet(features=(4, 8))
