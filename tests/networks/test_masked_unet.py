"""The 2D U-Net: its size, what it sees of a masked image, and its two heads."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from common.errors import InputError
from common.networks.adaptive_masking import AdaptiveMasking
from common.networks.masked_unet import MaskedUNet
from common.networks.patches import patch_mask

SMALL = (4, 6, 8, 8, 8)


def small(**arguments: object) -> MaskedUNet:
    torch.manual_seed(0)
    return MaskedUNet(features=SMALL, **arguments)


def test_the_papers_size():
    with torch.device("meta"):
        network = MaskedUNet()
    assert sum(parameter.numel() for parameter in network.parameters()) == 31_042_369


@pytest.mark.parametrize(("size", "gmac"), [(224, 36.8), (240, 42.3)])
def test_the_papers_operations(size: int, gmac: float):
    with FakeTensorMode(), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        MaskedUNet().eval()(torch.empty(1, 1, size, size))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=0.06)


def test_every_level_halves_its_channels_when_it_upsamples():
    network = small()
    widths = {name: module.upsample.deconv.out_channels for name, module in network.named_children() if "upcat" in name}
    assert widths == {"upcat_4": 4, "upcat_3": 4, "upcat_2": 4, "upcat_1": 4}
    assert network.upcat_1.convs.conv_0.conv.in_channels == 2 * SMALL[0]


def test_both_heads_have_the_same_other_layers():
    masked, plain = small(masking=AdaptiveMasking((8, 8)), in_channels=3, out_channels=3), small(in_channels=3)
    shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in (masked, plain)]
    assert shapes[0].keys() == shapes[1].keys()
    assert {name for name in shapes[0] if shapes[0][name] != shapes[1][name]} == {
        "final_conv.weight",
        "final_conv.bias",
    }
    assert plain(torch.randn(2, 3, 32, 48)).shape == (2, 1, 32, 48)


def test_masked_pixels_are_not_seen():
    network = small(masking=AdaptiveMasking((8, 8), select=False)).eval()
    image, noise = torch.randn(2, 1, 32, 32), torch.rand(2, 16)
    predicted, masked = network(image, noise)
    assert predicted.shape == image.shape and masked.shape == image.shape and masked.dtype == torch.bool
    assert torch.equal(masked, patch_mask(noise.argsort(dim=1).argsort(dim=1) < 12, (8, 8), (4, 4)))
    assert torch.equal(network(torch.where(masked, 99.0, image), noise).predicted, predicted)
    assert not torch.equal(network(torch.where(masked, image, 99.0), noise).predicted, predicted)


def test_the_ratio_of_the_epoch_is_for_training():
    network = small(masking=AdaptiveMasking((8, 8))).train()
    image, noise = torch.randn(2, 1, 32, 32), torch.rand(2, 16)
    for epoch, share in ((0, 4 / 16), (799, 12 / 16)):
        network.masking.set_epoch(epoch)
        assert network(image, noise).masked.float().mean() == share
    network.masking.set_epoch(0)
    assert network.eval()(image, noise).masked.float().mean() == 12 / 16


@pytest.mark.parametrize(
    ("arguments", "size", "line"),
    [({}, (40, 32), "multiples of 16"), ({"masking": AdaptiveMasking((16, 20))}, (32, 32), "must divide it")],
)
def test_refused_images(arguments: dict, size: tuple[int, int], line: str):
    with pytest.raises(InputError, match=line):
        small(**arguments)(torch.zeros(1, 1, *size), torch.rand(1, 4))


def test_refused_features():
    with pytest.raises(InputError, match="give five numbers"):
        MaskedUNet(features=(4, 8, 16))
