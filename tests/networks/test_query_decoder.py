"""The queries' decoder: its equations by plain computations, and the combination of what the queries say."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.errors import InputError
from common.networks import query_decoder
from common.networks.query_decoder import (
    CrossAttention,
    QueryDecoder,
    QueryLayer,
    QueryPrediction,
    combine_queries,
    mask_logits,
)
from common.networks.vision_transformer import sine_cosine_positions

WIDTH = 32


def shaken(module: nn.Module) -> nn.Module:
    """All of its parameters drawn anew, so that none is zero or one."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module


def small(**arguments: object) -> QueryDecoder:
    plan = {"channels": (6, 4), "steps": (4, 2), "mask_channels": 5, "classes": 3, "queries": 7}
    return shaken(QueryDecoder(**{**plan, "width": WIDTH, "heads": 4, "mlp": 24, **arguments}))


def prediction_of(classes: int = 3, queries: int = 7, batch: int = 2, seed: int = 0) -> QueryPrediction:
    draw = torch.Generator().manual_seed(seed)
    shapes = [(batch, queries, classes + 1), (batch, queries, 5), (batch, queries)]
    return QueryPrediction(*(2 * torch.randn(shape, generator=draw) for shape in shapes))


@pytest.mark.parametrize("heads", [1, 4])
def test_cross_attention_is_equation_4(heads: int) -> None:
    layer = shaken(CrossAttention(WIDTH, heads))
    queries, keys, values = torch.randn(2, 7, WIDTH), torch.randn(2, WIDTH, 60), torch.randn(2, WIDTH, 60)
    q = torch.einsum("bqc,dc->bqd", queries, layer.query.weight) + layer.query.bias
    k = torch.einsum("bcn,dc->bnd", keys, layer.key.weight)
    v = torch.einsum("bcn,dc->bnd", values, layer.value.weight) + layer.value.bias
    each = WIDTH // heads
    seen = []
    for head in range(heads):
        part = slice(head * each, (head + 1) * each)
        attention = (torch.einsum("bqd,bnd->bqn", q[..., part], k[..., part]) / each**0.5).softmax(2)
        seen.append(torch.einsum("bqn,bnd->bqd", attention, v[..., part]))
    expected = torch.cat(seen, dim=2) @ layer.out.weight.T + layer.out.bias
    torch.testing.assert_close(layer(queries, keys, values), expected)


def test_cross_attention_is_torchs_with_the_same_weights() -> None:
    layer, torchs = shaken(CrossAttention(WIDTH, 4)), nn.MultiheadAttention(WIDTH, 4, batch_first=True)
    with torch.no_grad():
        torchs.in_proj_weight.copy_(torch.cat([layer.query.weight, layer.key.weight, layer.value.weight]))
        # Of the keys any: it changes nothing.
        torchs.in_proj_bias.copy_(torch.cat([layer.query.bias, torch.randn(WIDTH), layer.value.bias]))
        torchs.out_proj.weight.copy_(layer.out.weight)
        torchs.out_proj.bias.copy_(layer.out.bias)
    queries, keys, values = torch.randn(2, 7, WIDTH), torch.randn(2, WIDTH, 60), torch.randn(2, WIDTH, 60)
    expected = torchs(queries, keys.transpose(1, 2), values.transpose(1, 2))[0]
    torch.testing.assert_close(layer(queries, keys, values), expected)


def test_a_layer_is_post_norm() -> None:
    layer = shaken(QueryLayer(6, 4, WIDTH, 4, 24))
    queries, features = torch.randn(2, 7, WIDTH), torch.randn(2, 6, 2, 3, 4)

    def norm(x: torch.Tensor, of: nn.LayerNorm) -> torch.Tensor:
        x = (x - x.mean(2, keepdim=True)) / (x.var(2, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return x * of.weight + of.bias

    convolution, grouped = layer.projection
    projected = torch.einsum("bcdhw,oc->bodhw", features, convolution.weight[..., 0, 0, 0])
    projected = projected + convolution.bias.reshape(-1, 1, 1, 1)
    groups = projected.reshape(2, 32, -1)
    groups = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, keepdim=True, unbiased=False) + 1e-5).sqrt()
    values = groups.reshape(2, WIDTH, -1) * grouped.weight[:, None] + grouped.bias[:, None]
    keys = values + sine_cosine_positions((2, 3, 4), WIDTH, 4).T
    x = norm(queries + layer.cross_attention(queries, keys, values), layer.norm1)
    x = norm(x + layer.self_attention(x, x, x)[0], layer.norm2)
    hidden = F.relu(x @ layer.mlp.linear1.weight.T + layer.mlp.linear1.bias)
    x = norm(x + hidden @ layer.mlp.linear2.weight.T + layer.mlp.linear2.bias, layer.norm3)
    torch.testing.assert_close(layer(queries, features), x, rtol=1e-4, atol=1e-5)


def test_folded_mask_logits_are_equation_5() -> None:
    decoder = small()
    queries, features = torch.randn(2, 7, WIDTH), torch.randn(2, 5, 4, 2, 6)
    prediction = decoder.predict(queries)
    normed = decoder.norm(queries)
    unfolded = torch.einsum("bqc,bcdhw->bqdhw", decoder.mask_embedding(normed), decoder.mask_projection(features))
    found = mask_logits(prediction, features)
    assert unfolded.abs().max() > 1
    assert (found - unfolded).abs().max() < 1e-5 * unfolded.abs().max()
    torch.testing.assert_close(prediction.classes, decoder.classes(normed))
    assert prediction.classes.shape == (2, 7, 4) and prediction.weights.shape == (2, 7, 5)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    size=st.tuples(*[st.integers(1, 5)] * 3),
    classes=st.integers(1, 4),
    piece=st.sampled_from([1, 7, 30, 2**18]),
)
def test_combination_is_the_sum_over_queries(seed: int, size: tuple, classes: int, piece: int) -> None:
    prediction = prediction_of(classes, seed=seed)
    features = torch.randn(2, 5, *size, generator=torch.Generator().manual_seed(seed))
    probabilities, expected = prediction.classes.softmax(2), torch.zeros(2, classes, *size)
    for sample in range(2):
        for query in range(7):
            logits = prediction.bias[sample, query] + sum(
                prediction.weights[sample, query, channel] * features[sample, channel] for channel in range(5)
            )
            for k in range(classes):
                expected[sample, k] += probabilities[sample, query, k] * logits.sigmoid()
    with patch.object(query_decoder, "PIECE", piece):
        found = combine_queries(prediction, features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sigmoid(), expected.clamp(1e-6, 1 - 1e-6), rtol=1e-4, atol=1e-6)


def test_masks_of_all_queries_are_never_held_whole() -> None:
    sizes = []
    with (
        patch.object(query_decoder, "PIECE", 64),
        patch.object(
            query_decoder, "mask_logits", lambda *given: sizes.append(given[1].shape[2:]) or mask_logits(*given)
        ),
    ):
        combine_queries(prediction_of(), torch.randn(2, 5, 5, 4, 4))
    assert sizes == [(2, 4, 4), (2, 4, 4), (1, 4, 4)]


def test_certain_sums_stay_finite() -> None:
    prediction = QueryPrediction(
        torch.tensor([100.0, 0, 0]).expand(1, 7, 3), torch.zeros(1, 7, 5), torch.full((1, 7), 100.0)
    )
    found = combine_queries(prediction, torch.zeros(1, 5, 1, 1, 1))
    assert found[0, 0].item() == pytest.approx(13.8, abs=0.1) and found[0, 1].item() == pytest.approx(-13.8, abs=0.1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99))
def test_order_of_the_queries_does_not_matter(seed: int) -> None:
    decoder, draw = small(), torch.Generator().manual_seed(seed)
    maps = [torch.randn(2, 6, 2, 1, 3, generator=draw), torch.randn(2, 4, 4, 2, 6, generator=draw)]
    features, order = torch.randn(2, 5, 8, 4, 12, generator=draw), torch.randperm(7, generator=draw)
    results = []
    for initial in (decoder.initial.clone(), decoder.initial[order]):
        decoder.initial.data = initial.detach()
        queries = decoder.start(2)
        for layer, x in zip(decoder.layers, maps, strict=True):
            queries = layer(queries, x)
        results.append((queries, combine_queries(decoder.predict(queries), features)))
    torch.testing.assert_close(results[0][0][:, order], results[1][0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-3)


def test_predictions_stay_in_float32() -> None:
    decoder = small()
    queries, features = torch.randn(2, 7, WIDTH), torch.randn(2, 6, 4, 3, 4)
    single = decoder.layers[0](queries, features)
    with torch.autocast("cpu"):
        half = decoder.layers[0](queries, features)
        prediction = decoder.predict(half.bfloat16())
        masks = mask_logits(prediction, torch.randn(2, 5, 4, 4, 4).bfloat16())
        combined = combine_queries(prediction, torch.randn(2, 5, 4, 4, 4).bfloat16())
    assert {x.dtype for x in (*prediction, masks, combined)} == {torch.float32}
    assert 0 < (half - single).norm() < 0.05 * single.norm()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"queries": 2}, "at least as many as there are classes, 3"), ({"width": 48}, "32"), ({"heads": 5}, "5 heads")],
)
def test_arguments_outside_their_range(arguments: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        small(**arguments)
    assert "\n" not in str(caught.value)
