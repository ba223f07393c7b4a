"""FANCL's network: its size, its heads, equality with nnU-Net's network, and where the attention acts."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from benchmarks.nnunet import nnunet_of
from common.errors import InputError
from common.networks.fancl import FANCL

FEATURES = (4, 8, 12, 16)


def small(**arguments) -> FANCL:
    """A network of four stages, which multiples of 8 suit."""
    torch.manual_seed(0)
    return FANCL(**{"features": FEATURES, "attention_patch": (4, 4)} | arguments)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_size() -> None:
    assert parameters(FANCL(4, 3, attention=0, softmax=False)) == 31_194_351
    assert parameters(FANCL(4, 3, attention=3, softmax=False)) == 31_194_351 + 89_705


def test_each_weight_is_in_the_state_dict_once() -> None:
    network = small()
    state = network.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state) == len([*network.parameters()])
    assert sum(tensor.numel() for tensor in state.values()) == parameters(network)


@pytest.mark.parametrize("attention", [0, 3])
def test_heads_in_training_and_one_tensor_in_evaluation(attention: int) -> None:
    network, image = small(attention=attention), torch.randn(2, 4, 16, 32, 24)
    output = network(image)
    assert [tuple(head.shape) for head in output.heads] == [
        (2, 4, 16, 32, 24),
        (2, 4, 8, 16, 12),
        (2, 4, 4, 8, 6),
    ]
    if attention:
        # A map of 16 × 12 voxels, features of 32 × 24, in strips of 4 × 4.
        assert output.attention.shape == (2, 3, 4 * 3, 8 * 6)
    else:
        assert output.attention is None
    logits = network.eval()(image)
    assert type(logits) is torch.Tensor
    torch.testing.assert_close(logits, output.heads[0])


@pytest.mark.parametrize("bias", [False, True])
def test_backbone_equals_nnunets_network(bias: bool) -> None:
    network = FANCL(4, 3, (8, 16, 24, 32, 40, 40), attention=0, softmax=False)
    with torch.no_grad():
        for parameter in network.parameters():  # those of normalisations, too, aren't 0 and 1 then
            parameter.add_(0.05 * torch.randn_like(parameter))
    nnunet = nnunet_of(network, bias, deep_supervision=True)
    assert bias or parameters(network) == parameters(nnunet)
    image = torch.randn(1, 4, 32, 64, 32)
    expected = nnunet(image)
    for mine, theirs in zip(network(image).heads, expected, strict=True):
        assert theirs.abs().max() > 0.1
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-6)
    nnunet.decoder.deep_supervision = False
    torch.testing.assert_close(network.eval()(image), nnunet.eval()(image), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("softmax", "categories"), [(True, 3), (True, 1), (False, 4), (False, 2)])
def test_only_the_logits_of_categories_are_corrected(softmax: bool, categories: int) -> None:
    network, seen = small(softmax=softmax, attention=categories).eval(), {}
    network.output_block.register_forward_hook(lambda module, inputs, output: seen.update(plain=output))
    network.attention.register_forward_hook(lambda module, inputs, output: seen.update(attention=output))
    logits, plain = network(torch.randn(1, 4, 16, 16, 24)), seen["plain"]
    probabilities = plain.softmax(1) if softmax else plain.sigmoid()
    correction = network.attention.adjust(seen["attention"], probabilities[:, -categories:])
    assert torch.equal(logits[:, :-categories], plain[:, :-categories])
    torch.testing.assert_close(logits[:, -categories:], plain[:, -categories:] + correction)
    assert (correction.flatten(2).std(2) > 0).all()


@pytest.mark.parametrize("stage", range(4))
def test_features_of_any_stage_can_guide(stage: int) -> None:
    network, seen = small(attention_stage=stage, attention_patch=(2, 1)), {}
    network.attention.register_forward_hook(lambda module, inputs, output: seen.update(features=inputs[1]))
    encoder = [network.input_block, *network.downsamples, network.bottleneck]
    encoder[stage].register_forward_hook(lambda module, inputs, output: seen.update(encoded=output))
    image = torch.randn(1, 4, 16, 32, 24)
    output = network(image)
    assert seen["features"] is seen["encoded"] and seen["features"].shape[1] == FEATURES[stage]
    step, other = 2**stage, max(2, 2**stage)
    assert output.attention.shape == (1, 3, 32 // other // 2 * (24 // other), 32 // step // 2 * (24 // step))
    assert network.attention.golden(torch.ones(1, 3, 16, 32, 24)).shape == output.attention.shape
    assert output.heads[0].shape == image.shape


def test_stride_patches_and_normalisation_of_the_attention_are_arguments() -> None:
    image, attention = torch.randn(1, 4, 8, 16, 16), {}
    for name in ("sqrt", "none"):
        network = small(attention_stride=1, attention_patch=(8, 4), attention_normalisation=name)
        attention[name] = network(image).attention
    assert attention["none"].shape == (1, 3, 2 * 4, 2 * 4)
    torch.testing.assert_close(attention["none"], 16 * attention["sqrt"])  # of strips of 8 × 8 × 4 voxels
    assert small()(image).attention.abs().max() <= 1 + 1e-5  # the cosine
    # Neither the stride nor the patches divide the image.
    assert small(attention_stride=3, attention_patch=(5, 7))(image).heads[0].shape == image.shape


def test_an_image_of_another_size_than_trained_with() -> None:
    network = small()
    network(torch.randn(1, 4, 16, 16, 16)).heads[0].mean().backward()
    for size in ((8, 8, 16), (24, 16, 40), (8, 64, 8)):
        assert network.eval()(torch.randn(1, 4, *size)).shape == (1, 4, *size)


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    network, image = small().eval(), torch.randn(3, 4, 16, 16, 16)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(network(image[order]), network(image)[order])


def test_bfloat16_is_close_to_float32() -> None:
    network, image = small(), torch.randn(1, 4, 16, 32, 32)
    expected = network(image)
    with torch.autocast("cpu"):
        output = network(image)
    assert output.attention.dtype == output.heads[0].dtype == torch.float32
    assert output.heads[1].dtype == torch.bfloat16
    pairs = [(output.attention, expected.attention), *zip(output.heads, expected.heads, strict=True)]
    for half, single in pairs:
        assert 0 < (half - single).norm() < 0.03 * single.norm()


def test_gradients_in_bfloat16_of_maps_of_two_slices() -> None:
    # With a plain convolution they are random, and often infinite, in torch 2.13.0 with AVX-512 bfloat16.
    network, image = FANCL(features=(8, 16, 32, 32), attention_patch=(4, 4)), torch.randn(1, 4, 16, 32, 32)
    gradients = []
    for half in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", enabled=half):
            output = network(image)
        sum(head.float().square().mean() for head in output.heads).backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in network.named_parameters()})
    for name, single in gradients[0].items():
        if name.endswith("conv.weight"):
            assert (gradients[1][name] - single).norm() < 0.3 * single.norm(), name


def test_metadata_survives() -> None:
    assert small()(MetaTensor(torch.randn(1, 4, 16, 16, 16))).heads[0].shape == (1, 4, 16, 16, 16)


@pytest.mark.parametrize("training", [False, True])
def test_compiled_in_one_graph(training: bool) -> None:
    network, image = small().train(training), torch.randn(1, 4, 16, 16, 24)
    compiled, expected = torch.compile(network, backend="eager", fullgraph=True)(image), network(image)
    torch.testing.assert_close(compiled, expected)
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3, 16, 16, 16), "4 channels"),
        ((4, 16, 16, 16), "4 channels"),
        ((1, 4, 16, 12, 16), "multiples of 8"),
        ((2, 4, 8, 8, 8), "not 8 along all three"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_wrong_images(shape: tuple[int, ...], words: str, training: bool) -> None:
    with pytest.raises(InputError, match=words) as caught:
        small().train(training)(torch.zeros(shape))
    assert "\n" not in str(caught.value)
    assert small().train(training)(torch.zeros(1, 4, 8, 8, 16)) is not None


@pytest.mark.parametrize(
    "arguments",
    [
        {"features": (4, 8)},
        {"attention": 4},
        {"attention": 5, "softmax": False},
        {"attention": -1},
        {"attention_stage": 4},
        {"attention_stage": -1},
        {"attention_stride": 0},
        {"attention_patch": (4, 0)},
        {"attention_normalisation": "l2"},
    ],
)
def test_arguments_outside_their_range(arguments: dict) -> None:
    with pytest.raises(InputError) as caught:
        small(**arguments)
    assert "\n" not in str(caught.value)
