"""3D-TransUNet: the sizes of its variants, what it returns, and that only what segments is computed in evaluation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch import nn

from common.errors import InputError
from common.networks.plain_unet import PlainUNet
from common.networks.query_decoder import combine_queries, mask_logits
from common.networks.transunet3d import TransUNet3D

FEATURES = (4, 8, 12, 16)
VARIANTS = {"encoder": (2, 0), "decoder": (0, 2), "both": (1, 2), "none": (0, 0)}


def small(variant: str = "both", **arguments: object) -> TransUNet3D:
    """A network of four stages, which multiples of 8 suit."""
    torch.manual_seed(0)
    layers = dict(zip(("encoder_layers", "decoder_layers"), VARIANTS[variant], strict=True))
    widths = {"encoder_width": 24, "encoder_heads": 3, "encoder_mlp": 48, "decoder_width": 32, "decoder_mlp": 24}
    plan = {"in_channels": 2, "features": FEATURES, "queries": 6, "positions": (2, 2, 2), "decoder_heads": 4}
    return TransUNet3D(**{**plan, **layers, **widths, **arguments})


@pytest.mark.parametrize(
    ("encoder_layers", "decoder_layers", "published", "ours"),
    [
        (12, 0, 116.8e6, 116_792_111),
        (0, 3, 34.1e6, 34_071_475),
        (1, 3, 41.7e6, 41_702_643),
        (0, 0, 31.2e6, 31_194_351),
    ],
)
def test_the_papers_sizes(encoder_layers: int, decoder_layers: int, published: float, ours: int) -> None:
    with torch.device("meta"):
        network = TransUNet3D(encoder_layers=encoder_layers, decoder_layers=decoder_layers)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters == ours and abs(parameters - published) < 0.01 * published
    assert f"{ours:,}" in str(TransUNet3D.__doc__)


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_returns_what_supervises(variant: str) -> None:
    network = small(variant)
    heads, predictions, features = network(torch.randn(2, 2, 16, 8, 24))
    assert [tuple(head.shape) for head in heads] == [(2, 3, 16, 8, 24), (2, 3, 8, 4, 12), (2, 3, 4, 2, 6)]
    if not VARIANTS[variant][1]:
        assert predictions == [] and features is None
        return
    assert len(predictions) == 3 and features.shape == (2, 4, 16, 8, 24)
    for prediction in predictions:
        assert [tuple(x.shape) for x in prediction] == [(2, 6, 4), (2, 6, 4), (2, 6)]
    initial = network.query_decoder.predict(network.query_decoder.start(2))
    assert torch.equal(initial.classes, predictions[0].classes)


@pytest.mark.parametrize("variant", ["encoder", "none"])
def test_without_queries_the_finest_head_segments(variant: str) -> None:
    network, image = small(variant, dropout=0.0), torch.randn(1, 2, 16, 8, 24)
    head = network(image).heads[0]
    logits = network.eval()(image)
    assert type(logits) is torch.Tensor
    torch.testing.assert_close(logits, head)


def test_without_transformers_it_is_the_plain_network() -> None:
    network = small("none")
    torch.manual_seed(0)
    plain, image = PlainUNet(2, 3, FEATURES), torch.randn(1, 2, 16, 8, 24)
    for mine, other in zip(network(image).heads, plain(image), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("variant", ["decoder", "both"])
def test_with_queries_their_last_prediction_segments(variant: str) -> None:
    network, image = small(variant, dropout=0.0), torch.randn(2, 2, 16, 8, 24)
    output = network(image)
    expected = combine_queries(output.predictions[-1], output.mask_features)
    logits = network.eval()(image)
    assert type(logits) is torch.Tensor and logits.shape == (2, 3, 16, 8, 24) and logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected)
    assert not torch.allclose(logits, combine_queries(output.predictions[1], output.mask_features))


def test_layers_look_at_coarse_levels_first() -> None:
    network, seen = small("decoder"), {}
    for number, layer in enumerate(network.query_decoder.layers):
        layer.register_forward_hook(lambda module, inputs, output, number=number: seen.update({number: inputs[1]}))
    image = torch.randn(1, 2, 16, 8, 24)
    output = network(image)
    decoded = dict(network.decode(network.encode(image)))
    assert torch.equal(seen[0], decoded[2]) and torch.equal(seen[1], decoded[1])
    assert torch.equal(output.mask_features, decoded[0])
    assert [layer.step for layer in network.query_decoder.layers] == [4, 2]


@pytest.mark.parametrize("variant", VARIANTS)
def test_evaluation_computes_only_what_segments(variant: str) -> None:
    network, calls = small(variant).eval(), []
    blocks = {"finest head": network.output_block}
    blocks |= {f"head {number}": block for number, block in enumerate(network.deep_supervision_heads, 1)}
    if network.query_decoder is not None:
        blocks["classes"] = network.query_decoder.classes
    for name, block in blocks.items():
        block.register_forward_hook(lambda module, inputs, output, name=name: calls.append(name))
    network(torch.randn(1, 2, 16, 8, 8))
    assert calls == (["classes"] if VARIANTS[variant][1] else ["finest head"])


@torch.no_grad()
def test_layers_are_done_before_the_finest_level() -> None:
    network, order = small("decoder").eval(), []
    for name, module in [*network.query_decoder.layers.named_children(), ("finest", network.upsamples[-1])]:
        module.register_forward_pre_hook(lambda module, inputs, name=name: order.append(name))
    network(torch.randn(1, 2, 16, 8, 8))
    assert order == ["0", "1", "finest"]


def test_queries_for_a_report() -> None:
    network, image = small(dropout=0.0), torch.randn(2, 2, 16, 8, 24)
    output = network(image)
    network.eval()
    probabilities, masks = network.queries(image)
    assert probabilities.shape == (2, 6, 4) and masks.shape == (2, 6, 16, 8, 24)
    torch.testing.assert_close(probabilities, output.predictions[-1].classes.softmax(2))
    torch.testing.assert_close(masks, mask_logits(output.predictions[-1], output.mask_features).sigmoid())
    summed = torch.einsum("bqk,bqdhw->bkdhw", probabilities[..., :3], masks).clamp(1e-6, 1 - 1e-6)
    torch.testing.assert_close(network(image).sigmoid(), summed, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="no queries"):
        small("encoder").eval().queries(image)


@torch.no_grad()
def test_order_of_the_queries_does_not_matter() -> None:
    network, image = small("decoder").eval(), torch.randn(1, 2, 16, 16, 8)
    before = network(image)
    network.query_decoder.initial.copy_(network.query_decoder.initial[torch.randperm(6)])
    torch.testing.assert_close(network(image), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_all_parameters(variant: str) -> None:
    network = small(variant)
    output = network(torch.randn(2, 2, 16, 16, 24))
    losses = [head.square().mean() for head in output.heads]
    for prediction in output.predictions:
        losses += [prediction.classes.square().mean(), mask_logits(prediction, output.mask_features).square().mean()]
    sum(losses).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@settings(max_examples=15, deadline=None)
@given(
    size=st.tuples(*[st.integers(1, 4)] * 3).filter(lambda size: max(size) > 1), variant=st.sampled_from([*VARIANTS])
)
def test_sizes_that_the_strides_divide(size: tuple, variant: str) -> None:
    sizes = [8 * edge for edge in size]
    with torch.no_grad():
        assert small(variant).eval()(torch.randn(1, 2, *sizes)).shape == (1, 3, *sizes)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3, 16, 16, 16), "2 channels"),
        ((1, 2, 16, 12, 16), "multiples of 8"),
        ((2, 2, 8, 8, 8), "not 8 along all three"),
    ],
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_wrong_images(shape: tuple[int, ...], words: str, variant: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        small(variant)(torch.zeros(shape))
    assert "\n" not in str(caught.value)


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    network, image = small().eval(), torch.randn(3, 2, 16, 8, 16)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(network(image[order]), network(image)[order], rtol=1e-3, atol=1e-4)


def test_bfloat16() -> None:
    network, image = small(dropout=0.0), torch.randn(2, 2, 16, 16, 32)
    expected = network(image)
    with torch.autocast("cpu"):
        output = network(image)
        segmentation = network.eval()(image)
    assert segmentation.dtype == torch.float32 and segmentation.isfinite().all()
    pairs = [*zip(output.heads, expected.heads, strict=True), (output.mask_features, expected.mask_features)]
    pairs += [
        (mine.classes, other.classes) for mine, other in zip(output.predictions, expected.predictions, strict=True)
    ]
    for half, single in pairs:
        assert 0 <= (half - single).norm() < 0.05 * single.norm()
    losses = [x.float().square().mean() for x in (*output.heads, output.predictions[-1].weights)]
    sum(losses).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("training", [False, True])
def test_compiled_in_one_graph(training: bool) -> None:
    network, image = small(dropout=0.0).train(training), torch.randn(1, 2, 16, 16, 24)
    compiled, expected = torch.compile(network, backend="eager", fullgraph=True)(image), network(image)
    torch.testing.assert_close(compiled, expected)
    torch.compiler.reset()


def test_metadata_does_no_harm() -> None:
    network, image = small(dropout=0.0).eval(), torch.randn(1, 2, 16, 16, 8)
    assert torch.equal(torch.Tensor(network(MetaTensor(image))), network(image))


def test_each_weight_is_in_the_state_dict_once() -> None:
    network: nn.Module = small()
    state = network.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state) == len([*network.parameters()])
    assert "transformer.encoder.blocks.0.linear1.weight" in state and "transformer.encoder.norm.weight" in state


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"decoder_layers": 3}, "0 to 2"),
        ({"decoder_layers": -1}, "0 to 2"),
        ({"encoder_layers": -1}, "0 for none"),
        ({"queries": 2}, "at least as many as there are classes, 3"),
        ({"features": (4, 8), "decoder_layers": 0}, "three stages"),
        ({"encoder_heads": 5}, "5 heads"),
        ({"positions": (2, 2)}, "three whole numbers"),
    ],
)
def test_arguments_outside_their_range(arguments: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        small(**arguments)
    assert "\n" not in str(caught.value)
