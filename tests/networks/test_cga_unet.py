"""CGAUNet: the published counts, any size and precision, what it keeps for backward."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from common.errors import InputError
from common.networks.cga_unet import CGAOutput, CGAUNet, ConcatConv


def small(**arguments: object) -> CGAUNet:
    """A network small enough for tests, with all parts of the large one."""
    torch.manual_seed(0)
    return CGAUNet(**{"features": (8, 8, 16, 16), "blocks": (1, 1, 1, 2), **arguments})  # type: ignore[arg-type]


def gmac(**arguments: object) -> dict[str, float]:
    """Billions of multiply-accumulates of the convolutions at 4×128³, by module; shapes only, nothing is computed."""
    with FakeTensorMode(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        CGAUNet(**arguments).eval()(torch.empty(1, 4, 128, 128, 128))  # type: ignore[arg-type]
    return {
        module: flops[torch.ops.aten.convolution] / 2e9
        for module, flops in counter.get_flop_counts().items()
        if torch.ops.aten.convolution in flops
    }


@pytest.mark.parametrize(
    ("rate", "parameters", "whole", "path"),
    [
        (8, 4_768_616, 151.55, 0.687),
        (4, 4_792_840, 152.79, 1.925),
        (2, 4_768_616, 153.58, 2.718),
        (0, 4_758_212, 150.86, 0),
    ],
)
def test_counts(rate: int, parameters: int, whole: float, path: float) -> None:
    assert sum(p.numel() for p in CGAUNet(attention_rate=rate).parameters()) == parameters
    counts = gmac(attention_rate=rate)
    assert counts["Global"] == pytest.approx(whole, abs=0.005)
    assert counts.get("CGAUNet.attention", 0) == pytest.approx(path, abs=0.0005)


def test_counts_by_hooks_on_modules_agree() -> None:
    counted = 0

    def count(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal counted
        transposed = isinstance(module, torch.nn.ConvTranspose3d)
        counted += module.weight.numel() * (inputs[0] if transposed else output)[0, 0].numel()  # type: ignore[operator,union-attr]

    with FakeTensorMode(), torch.no_grad():
        network = CGAUNet().eval()
        for module in network.modules():
            if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
                module.register_forward_hook(count)
        network(torch.empty(1, 4, 128, 128, 128))
    assert counted / 1e9 == pytest.approx(151.55, abs=0.005)


def test_training_returns_everything_and_evaluation_only_logits() -> None:
    network, image = small(), torch.randn(2, 4, 16, 16, 16)
    output = network(image)
    assert isinstance(output, CGAOutput)
    assert output.logits.shape == (2, 4, 16, 16, 16) and output.attention.shape == (2, 4, 2, 2, 2)
    assert output.prototypes.shape == (2, 4, 16) and output.present.shape == (2, 4)
    assert small(attention_rate=0)(image)[1:] == (None, None, None)
    assert isinstance(network.eval()(image), torch.Tensor)


def test_dropout_is_off_in_evaluation_and_on_in_training() -> None:
    network, image = small(), torch.randn(1, 4, 16, 16, 16)
    assert not torch.equal(network(image).logits, network(image).logits)
    network.eval()
    assert torch.equal(network(image), network(image))


@pytest.mark.parametrize("rate", [8, 4, 2, 0])
@pytest.mark.parametrize("size", [(8, 8, 8), (40, 48, 24), (17, 21, 30)])
@pytest.mark.parametrize("half", [False, True])
def test_any_size_and_precision_is_finite(rate: int, size: tuple[int, int, int], half: bool) -> None:
    network, image = small(attention_rate=rate, hard_attention=half), torch.randn(1, 4, *size)
    with torch.autocast("cpu", enabled=half):
        output = network(image)
    assert output.logits.shape == (1, 4, *size)
    sum(part.float().square().sum() for part in output[:3] if part is not None).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("rate", [8, 4, 2])
def test_update_acts_at_its_rate_and_can_be_watched(rate: int) -> None:
    network, seen = small(attention_rate=rate).eval(), {}
    assert network.attention is not None
    network.attention.register_forward_hook(lambda module, inputs, output: seen.update(before=inputs[1], after=output))
    image = torch.randn(1, 4, 32, 16, 24)
    logits = network(image)
    before, after = seen["before"], seen["after"]
    assert before.shape == after.features.shape and before.shape[2:] == (32 // rate, 16 // rate, 24 // rate)
    assert not torch.equal(before, after.features)
    unchanged = small(attention_rate=rate, update_classes=()).eval()
    unchanged.load_state_dict(network.state_dict())
    assert not torch.equal(unchanged(image), logits)


def test_convolution_of_a_concatenation() -> None:
    torch.manual_seed(0)
    convolution = ConcatConv(5, 4, kernel_size=1)
    first, second = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 2, 4, 5, 6)
    expected = torch.nn.functional.conv3d(torch.cat((first, second), 1), convolution.weight, convolution.bias)
    torch.testing.assert_close(convolution(first, second), expected)


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    network, image = small().eval(), torch.randn(3, 4, 16, 16, 16)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(network(image[order]), network(image)[order])


def test_metadata_survives() -> None:
    image = MetaTensor(torch.randn(1, 4, 16, 16, 16))
    assert small()(image).logits.shape == (1, 4, 16, 16, 16)


def kept_channels(network: CGAUNet, image: torch.Tensor) -> int:
    """How many full-resolution channels the graph keeps for backward, each stored tensor counted once."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape[2:] == image.shape[2:]:
            kept[tensor.untyped_storage().data_ptr()] = tensor.shape[1]
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(image)
    del output
    return sum(kept.values())


@pytest.mark.parametrize("half", [False, True])
def test_no_more_of_full_resolution_is_kept_than_backward_needs(half: bool) -> None:
    # The image, and eleven feature maps: inputs of two norms and outputs of two ReLUs in EnBlock1 and in DeBlock1,
    # both blocks' results, and the upsampled map. With attention not one more.
    image = torch.randn(1, 4, 16, 16, 16)
    for rate in (8, 4, 2, 0):
        network = CGAUNet(features=(16, 16, 16, 16), attention_rate=rate)
        with torch.autocast("cpu", enabled=half):
            assert kept_channels(network, image) == 4 + 11 * 16


@pytest.mark.parametrize(
    ("shape", "words"),
    [((1, 3, 16, 16, 16), "4 channels"), ((4, 16, 16, 16), "4 channels"), ((1, 4, 16, 7, 16), "at least 8")],
)
def test_wrong_images(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        small()(torch.zeros(shape))


def test_one_value_a_group() -> None:
    network = small(features=(8, 8, 8, 8))
    with pytest.raises(InputError, match="8 channels at the coarsest level"):
        network(torch.zeros(1, 4, 8, 8, 8))
    assert network(torch.zeros(2, 4, 8, 8, 8)).logits.isfinite().all()
    assert network(torch.zeros(1, 4, 8, 8, 9)).logits.isfinite().all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"attention_rate": 3},
        {"attention_rate": 8, "features": (8, 8), "blocks": (1, 1)},
        {"update_classes": (4,)},
        {"features": (8, 12), "blocks": (1, 1), "attention_rate": 2},
        {"blocks": (1, 1)},
    ],
)
def test_arguments_outside_their_range(arguments: dict) -> None:
    with pytest.raises(InputError) as caught:
        small(**arguments)
    assert "\n" not in str(caught.value)
