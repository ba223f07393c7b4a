"""Feature-guided attention: each equation against a plain loop, and the laws of its strips."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.errors import InputError
from common.networks.feature_guided_attention import (
    DIVISORS,
    NORMALISATIONS,
    FeatureGuidedAttention,
    LinearConvolutions,
    correlation,
    golden_attention,
    merge_strips,
    split_strips,
)

STRIDES = [(1, 2, 2), (1, 1, 1), (1, 3, 3), (2, 2, 2), (2, 3, 3), (4, 4, 4), (8, 8, 8)]


def loop_strips(x: torch.Tensor, a: int, b: int) -> list[list[float]]:
    """φ of one map (D, H, W), voxel by voxel: a list of strips, which are zero beyond the map's end."""
    depth, height, width = x.shape
    return [
        [
            x[d, top + i, left + j].item() if top + i < height and left + j < width else 0.0
            for d, i, j in itertools.product(range(depth), range(a), range(b))
        ]
        for top, left in itertools.product(range(0, height, a), range(0, width, b))
    ]


def loop_correlation(of: list[list[float]], to: list[list[float]], normalisation: str) -> torch.Tensor:
    """Eqs 6 and 18 of one category, strip by strip."""

    def product(s: list[float], t: list[float]) -> float:
        dot = sum(x * y for x, y in zip(s, t, strict=True))
        if normalisation == "none":
            return dot
        if normalisation == "sqrt":
            return dot / math.sqrt(len(s))
        norms = math.hypot(*s) * math.hypot(*t)
        return dot / norms if norms else 0.0

    return torch.tensor([[product(s, t) for t in to] for s in of])


def loop_average(x: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    """Mean of each cell of `stride` voxels of (D, H, W); a cell that the end cuts has the mean of what it has."""
    sizes = [math.ceil(n / step) for n, step in zip(x.shape, stride, strict=True)]
    pooled = torch.zeros(sizes)
    for place in itertools.product(*map(range, sizes)):
        values = [
            x[voxel].item()
            for voxel in itertools.product(
                *(range(p * step, min(n, (p + 1) * step)) for p, step, n in zip(place, stride, x.shape, strict=True))
            )
        ]
        pooled[place] = sum(values) / len(values)
    return pooled


def test_strips_equal_a_plain_loop_where_a_and_b_do_not_divide() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 7, 5)
    strips = split_strips(x, (3, 2))
    assert strips.shape == (2, 3, 4 * 3 * 2, 3 * 3)
    for sample, k in itertools.product(range(2), range(3)):
        torch.testing.assert_close(strips[sample, k].T, torch.tensor(loop_strips(x[sample, k], 3, 2)))


@settings(max_examples=50, deadline=None)
@given(size=st.tuples(*[st.integers(1, 9)] * 3), patch=st.tuples(*[st.integers(1, 12)] * 2))
def test_merging_strips_undoes_splitting(size: tuple[int, int, int], patch: tuple[int, int]) -> None:
    x = torch.arange(2.0 * 3 * math.prod(size)).reshape(2, 3, *size) + 1
    strips = split_strips(x, patch)
    assert strips.shape == (
        2,
        3,
        size[0] * math.prod(patch),
        math.ceil(size[1] / patch[0]) * math.ceil(size[2] / patch[1]),
    )
    assert torch.equal(merge_strips(strips, size, patch), x)
    # Beside the voxels there is only the padding.
    assert strips.sum() == x.sum() and (strips > 0).sum() == x.numel()
    assert torch.equal(split_strips(merge_strips(strips, size, patch), patch), strips)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_correlation_equals_a_plain_loop(normalisation: str) -> None:
    torch.manual_seed(0)
    of, to = torch.randn(2, 1, 6, 4), torch.randn(2, 3, 6, 5)
    of[0, 0, :, 1] = 0  # background
    result = correlation(of, to, normalisation)
    assert result.shape == (2, 3, 4, 5)
    for sample, k in itertools.product(range(2), range(3)):
        expected = loop_correlation(of[sample, 0].T.tolist(), to[sample, k].T.tolist(), normalisation)
        torch.testing.assert_close(result[sample, k], expected)


def test_a_cosine_of_nothing_has_no_gradient() -> None:
    of, to = torch.zeros(1, 1, 6, 4, requires_grad=True), torch.randn(1, 3, 6, 5, requires_grad=True)
    correlation(of, to, "cosine").sum().backward()
    assert of.grad is not None and (of.grad == 0).all() and to.grad is not None and (to.grad == 0).all()


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("size", [(8, 16, 16), (5, 9, 7), (1, 2, 3)])
def test_linear_convolutions_equal_the_two_in_a_row(stride: tuple[int, int, int], size: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    module = LinearConvolutions(2, 5, stride).double()
    image = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    padding = [side for step in reversed(stride) for side in (3 + step, 3 + step)]
    expected = module.second(module.first(F.pad(image, padding)))
    result = module(image)
    assert result.shape == (2, 1, *(math.ceil(n / step) for n, step in zip(size, stride, strict=True)))
    torch.testing.assert_close(result, expected)
    along, inputs = torch.randn_like(expected), [image, *module.parameters()]
    assert len(inputs) == 5
    for one, other in zip(
        torch.autograd.grad(result, inputs, along), torch.autograd.grad(expected, inputs, along), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_linear_convolutions_equal_a_plain_loop() -> None:
    torch.manual_seed(0)
    module, image = LinearConvolutions(2, 3, (1, 2, 2)), torch.randn(1, 2, 3, 5, 4)
    first, second, result = module.first, module.second, module(image)
    padded = F.pad(image, (5, 5, 5, 5, 4, 4))[0]
    for place in itertools.product(range(3), range(3), range(2)):
        expected = second.bias.item()
        for f, *j in itertools.product(range(3), *[range(3)] * 3):
            d, h, w = ((p + q) * step for p, q, step in zip(place, j, (1, 2, 2), strict=True))
            seen = padded[:, d : d + 7, h : h + 7, w : w + 7]
            filtered = (first.weight[f] * seen).sum().item() + first.bias[f].item()
            expected += second.weight[(0, f, *j)].item() * filtered
        assert result[(0, 0, *place)].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("feature_stride", [1, 2])
def test_attention_equals_a_plain_loop(feature_stride: int, normalisation: str) -> None:
    # Neither strides nor patches divide the sizes.
    torch.manual_seed(0)
    module = FeatureGuidedAttention(2, 4, 3, (2, 3), feature_stride, 2, normalisation)
    image, small = torch.randn(2, 2, 3, 7, 9), [math.ceil(n / feature_stride) for n in (3, 7, 9)]
    features = torch.randn(2, 4, *small)
    attention = module(image, features)
    map_of_image = module.conv_image(image)
    assert map_of_image.shape == (2, 1, small[0], 4, 5)
    assert attention.shape == (2, 3, 2 * 2, math.ceil(small[1] / 2) * math.ceil(small[2] / 3))
    for sample, k in itertools.product(range(2), range(3)):
        of_category = torch.zeros(small)  # Eq. 2
        for place in itertools.product(*map(range, small)):
            weights = module.conv_features.weight[k, :, 0, 0, 0]
            value = sum(weights[c].item() * features[(sample, c, *place)].item() for c in range(4))
            of_category[place] = value + module.conv_features.bias[k].item()
        expected = loop_correlation(
            loop_strips(map_of_image[sample, 0], 2, 3), loop_strips(of_category, 2, 3), normalisation
        )
        torch.testing.assert_close(attention[sample, k], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize(("feature_stride", "image_stride"), [(1, 2), (2, 1), (2, 3)])
def test_correction_equals_a_plain_loop(feature_stride: int, image_stride: int, divisor: str) -> None:
    torch.manual_seed(0)
    module = FeatureGuidedAttention(2, 4, 3, (2, 3), feature_stride, image_stride, divisor=divisor)
    size, stride = (3, 7, 9), module.stride
    assert stride == (feature_stride, *[max(feature_stride, image_stride)] * 2)
    small = tuple(math.ceil(n / step) for n, step in zip(size, stride, strict=True))
    probabilities = torch.rand(2, 3, *size)
    in_image = math.ceil(small[1] / 2) * math.ceil(small[2] / 3)
    in_features = math.prod(math.ceil(math.ceil(n / feature_stride) / p) for n, p in ((7, 2), (9, 3)))
    attention = torch.randn(2, 3, in_image, in_features)
    correction = module.adjust(attention, probabilities)
    assert correction.shape == probabilities.shape
    weight, bias = module.transposed.weight[0, 0], module.transposed.bias.item()
    for sample, k in itertools.product(range(2), range(3)):
        strips = loop_strips(loop_average(probabilities[sample, k], (feature_stride,) * 3), 2, 3)  # Eqs 8, 9
        for d, h, w in itertools.product(*map(range, size)):
            at = d // stride[0], h // stride[1], w // stride[2]
            place = at[1] // 2 * math.ceil(small[2] / 3) + at[2] // 3
            voxel = (at[0] * 2 + at[1] % 2) * 3 + at[2] % 3
            guided = sum(  # Eq. 11
                strip[voxel] * attention[sample, k, place, other].item() for other, strip in enumerate(strips)
            )
            kernel = weight[d % stride[0], h % stride[1], w % stride[2]].item()  # Eq. 13
            weight_of_all = 1 + sum(abs(value) for value in attention[sample, k, place].tolist())
            expected = guided / (weight_of_all if divisor == "attention" else in_features) * kernel + bias
            assert correction[sample, k, d, h, w].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_small_lesion_is_corrected_in_a_large_crop() -> None:
    """With the attention that the truth asks for; the divisor that counts strips leaves nothing of it."""
    truth = torch.zeros(1, 1, 16, 128, 128)
    truth[..., 5:11, 60:66, 60:66] = 1
    inside = {}
    for divisor in DIVISORS:
        module = FeatureGuidedAttention(1, 1, 1, divisor=divisor)
        nn.init.ones_(module.transposed.weight)
        nn.init.zeros_(module.transposed.bias)
        golden = module.golden(truth)
        assert golden.shape[3] == 256
        inside[divisor] = module.adjust(golden, truth)[truth > 0].mean().item()
    assert inside["attention"] > 0.1 and inside["strips"] < 0.01


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("feature_stride", [1, 2])
def test_golden_attention_equals_a_plain_loop(feature_stride: int, normalisation: str) -> None:
    torch.manual_seed(0)
    module = FeatureGuidedAttention(2, 4, 3, (2, 3), feature_stride, 2, normalisation)
    truth = torch.randint(0, 2, (2, 3, 3, 7, 9), dtype=torch.uint8)
    golden = module.golden(truth)
    assert torch.equal(
        golden, golden_attention(truth, (2, 3), (feature_stride, 2, 2), (feature_stride,) * 3, normalisation)
    )
    for sample, k in itertools.product(range(2), range(3)):
        of = loop_strips(loop_average(truth[sample, k], (feature_stride, 2, 2)), 2, 3)  # Eq. 16
        to = loop_strips(loop_average(truth[sample, k], (feature_stride,) * 3), 2, 3)  # Eq. 17
        torch.testing.assert_close(golden[sample, k], loop_correlation(of, to, normalisation))


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_golden_attention_of_nothing_is_zero(normalisation: str) -> None:
    truth = torch.zeros(1, 3, 4, 8, 8)
    truth[:, 1, :, 2:5, 2:5] = 1
    golden = golden_attention(truth, (4, 4), (1, 2, 2), (1, 1, 1), normalisation)
    assert (golden[:, [0, 2]] == 0).all() and golden[:, 1].max() > 0


def test_golden_attention_has_the_attentions_shape_and_no_gradient() -> None:
    for feature_stride, size in itertools.product((1, 2, 4), ((4, 16, 12), (5, 9, 7))):
        module = FeatureGuidedAttention(2, 4, 3, (4, 2), feature_stride)
        features = torch.randn(1, 4, *(math.ceil(n / feature_stride) for n in size))
        truth = torch.rand(1, 3, *size, requires_grad=True)
        with torch.autocast("cpu"):
            attention, golden = module(torch.randn(1, 2, *size), features), module.golden(truth.bfloat16())
        assert attention.shape == golden.shape and not golden.requires_grad
        assert attention.dtype == golden.dtype == torch.float32


def test_where_nothing_is_predicted_nothing_is_corrected_but_for_the_bias() -> None:
    module = FeatureGuidedAttention(2, 4, 3, (2, 3))
    correction = module.adjust(torch.randn(1, 3, 4, 9), torch.zeros(1, 3, 2, 6, 9))
    assert torch.equal(correction, module.transposed.bias.expand_as(correction))


def test_patches_larger_than_the_map_make_it_a_single_strip() -> None:
    torch.manual_seed(0)
    module = FeatureGuidedAttention(2, 4, 3, (20, 9), normalisation="none")
    image, features, probabilities = torch.randn(1, 2, 3, 6, 6), torch.randn(1, 4, 3, 6, 6), torch.rand(1, 3, 3, 6, 6)
    attention = module(image, features)
    assert attention.shape == (1, 3, 1, 1)
    # Image's and features' maps lie in the same corner of their strips.
    of, to = module.conv_image(image)[0, 0], module.conv_features(features)[0]
    torch.testing.assert_close(attention[0, :, 0, 0], (of * to[:, :, :3, :3]).sum(dim=(1, 2, 3)), rtol=1e-4, atol=1e-4)
    assert module.adjust(attention, probabilities).shape == probabilities.shape
    assert module.golden(probabilities).shape == attention.shape


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(*[st.integers(1, 12)] * 3),
    patch=st.tuples(*[st.integers(1, 6)] * 2),
    feature_stride=st.integers(1, 3),
    image_stride=st.integers(1, 3),
    normalisation=st.sampled_from(NORMALISATIONS),
)
def test_laws(
    seed: int,
    size: tuple[int, int, int],
    patch: tuple[int, int],
    feature_stride: int,
    image_stride: int,
    normalisation: str,
) -> None:
    torch.manual_seed(seed)
    module = FeatureGuidedAttention(2, 3, 2, patch, feature_stride, image_stride, normalisation)
    image, probabilities = torch.randn(3, 2, *size), torch.rand(3, 2, *size)
    features = torch.randn(3, 3, *(math.ceil(n / feature_stride) for n in size))
    attention = module(image, features)
    correction = module.adjust(attention, probabilities)
    assert correction.shape == probabilities.shape and attention.shape == module.golden(probabilities).shape
    assert correction.isfinite().all()
    # Samples don't see each other.
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(module(image[order], features[order]), attention[order])
    torch.testing.assert_close(module.adjust(attention[order], probabilities[order]), correction[order])
    if normalisation == "cosine":
        assert attention.abs().max() <= 1 + 1e-5


def test_bfloat16_is_close_to_float32_and_sums_in_float32() -> None:
    torch.manual_seed(0)
    module = FeatureGuidedAttention(4, 8, 3)
    image, features, probabilities = (
        torch.randn(1, 4, 8, 32, 32),
        torch.randn(1, 8, 8, 32, 32),
        torch.rand(1, 3, 8, 32, 32),
    )
    expected = module(image, features)
    with torch.autocast("cpu"):
        attention = module(image.bfloat16(), features.bfloat16())
        correction = module.adjust(attention, probabilities.bfloat16())
        maps = module.conv_image(image.bfloat16()), module.conv_features(features.bfloat16())
    assert attention.dtype == correction.dtype == torch.float32
    assert (attention - expected).norm() < 0.01 * expected.norm()
    assert maps[0].dtype == torch.float32  # a sum, of slices in bfloat16
    torch.testing.assert_close(attention, correlation(*(split_strips(one.float(), (8, 8)) for one in maps)))
    torch.testing.assert_close(correction, module.adjust(attention, probabilities.bfloat16().float()))


@pytest.mark.parametrize(
    "arguments",
    [
        {"normalisation": "softmax"},
        {"patch_size": (8,)},
        {"patch_size": (8, 0)},
        {"feature_stride": 0},
        {"image_stride": 0},
    ],
)
def test_arguments_outside_their_range(arguments: dict) -> None:
    with pytest.raises(InputError) as caught:
        FeatureGuidedAttention(4, 32, 3, **arguments)
    assert "\n" not in str(caught.value)
