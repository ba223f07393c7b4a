"""SupervisedAttention against plain loops, and what must never happen in it."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.networks.supervised_attention import SupervisedAttention, map_back, pool_prototypes


def loop_prototypes(masks: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Eq. 7, voxel by voxel."""
    batch, classes = masks.shape[:2]
    prototypes = torch.zeros(batch, classes, features.shape[1], dtype=features.dtype)
    for b, k in itertools.product(range(batch), range(classes)):
        weights = 0.0
        for position in itertools.product(*map(range, masks.shape[2:])):
            weight = masks[(b, k, *position)].item()
            prototypes[b, k] += weight * features[(b, slice(None), *position)]
            weights += weight
        if weights > 0:
            prototypes[b, k] /= weights
    return prototypes


def loop_map(masks: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Eq. 8 and the sum over the classes, voxel by voxel."""
    mapped = torch.zeros(masks.shape[0], prototypes.shape[2], *masks.shape[2:], dtype=prototypes.dtype)
    for b, k in itertools.product(range(masks.shape[0]), range(masks.shape[1])):
        for position in itertools.product(*map(range, masks.shape[2:])):
            mapped[(b, slice(None), *position)] += masks[(b, k, *position)] * prototypes[b, k]
    return mapped


def with_map(attention: SupervisedAttention, wanted: torch.Tensor) -> SupervisedAttention:
    """Replace the attention path by one that returns a given map."""

    class Fixed(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return wanted

    attention.path = Fixed()  # type: ignore[assignment]
    return attention


@pytest.mark.parametrize(("rate", "parameters"), [(8, 10_404), (4, 34_628), (2, 10_404)])
def test_path_is_three_convolutions_of_the_image(rate: int, parameters: int) -> None:
    attention = SupervisedAttention(rate=rate)
    assert sum(p.numel() for p in attention.parameters()) == parameters
    image = torch.randn(1, 4, 16, 24, 18)
    size = [-(-n // rate) for n in image.shape[2:]]
    result = attention(image, torch.randn(1, 8, *size))
    expected = image
    for convolution in attention.path:
        expected = torch.nn.functional.conv3d(
            expected, convolution.weight, convolution.bias, stride=convolution.stride, padding=1
        )
    assert list(result.attention.shape) == [1, 4, *size]
    torch.testing.assert_close(result.attention, expected)


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("update_classes", [(0, 1, 2, 3), (2,), (3, 1), ()])
def test_update_equals_a_plain_loop(hard: bool, update_classes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    wanted = torch.randn(2, 4, 3, 2, 4, dtype=torch.float64)
    features = torch.randn(2, 5, 3, 2, 4, dtype=torch.float64)
    result = with_map(SupervisedAttention(hard=hard, update_classes=update_classes), wanted)(features, features)

    masks = torch.zeros_like(wanted).scatter(1, wanted.argmax(1, keepdim=True), 1.0) if hard else wanted.softmax(1)
    prototypes = loop_prototypes(masks, features)
    chosen = list(update_classes)
    torch.testing.assert_close(result.prototypes, prototypes)
    torch.testing.assert_close(result.features, features + loop_map(masks[:, chosen], prototypes[:, chosen]))
    assert result.present.all()


def test_absent_class_has_a_zero_prototype_and_no_nan_gradient() -> None:
    wanted = torch.zeros(2, 4, 2, 2, 2)
    wanted[0, 0] = 1  # all background
    wanted[1, 2, 0] = 1  # half of class 2, half of class 0
    features = torch.randn(2, 8, 2, 2, 2, requires_grad=True)
    result = with_map(SupervisedAttention(), wanted)(features, features)
    assert result.present.tolist() == [[True, False, False, False], [True, False, True, False]]
    assert (result.prototypes[~result.present] == 0).all()
    (result.features.sum() + result.prototypes.square().sum()).backward()
    assert features.grad is not None and features.grad.isfinite().all()


def test_soft_masks_without_any_weight_give_no_nan() -> None:
    wanted = torch.tensor([0.0, -200.0, 0.0, -200.0]).view(1, 4, 1, 1, 1).repeat(1, 1, 2, 2, 2).requires_grad_()
    features = torch.randn(1, 8, 2, 2, 2, requires_grad=True)
    result = with_map(SupervisedAttention(hard=False), wanted)(features, features)
    assert result.present.tolist() == [[True, False, True, False]]
    result.features.square().sum().backward()
    for tensor in (features, wanted):
        assert tensor.grad is not None and tensor.grad.isfinite().all()


def test_pooling_in_bfloat16_sums_in_float32() -> None:
    # 4096 ones and a few large values: a bfloat16 sum would stop growing at 256.
    features = torch.ones(1, 8, 16, 16, 16, dtype=torch.bfloat16)
    features[:, :, :2] = 3.0
    with torch.autocast("cpu"):
        result = with_map(SupervisedAttention(), torch.zeros(1, 4, 16, 16, 16, dtype=torch.bfloat16))(None, features)
    assert result.prototypes.dtype == torch.float32 and result.features.dtype == torch.bfloat16
    torch.testing.assert_close(result.prototypes[0, 0], torch.full((8,), 1.25), rtol=1e-6, atol=0)


def test_hard_masks_pass_no_gradient_to_the_path_and_soft_ones_do() -> None:
    for hard in (True, False):
        attention = SupervisedAttention(hard=hard)
        features = torch.randn(1, 8, 2, 2, 2, requires_grad=True)
        attention(torch.randn(1, 4, 16, 16, 16), features).features.square().sum().backward()
        assert features.grad is not None
        assert all((p.grad is None) == hard for p in attention.parameters())


def test_gradient_of_the_update() -> None:
    torch.manual_seed(0)

    def update(wanted: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        masks = wanted.softmax(1)
        prototypes, _ = pool_prototypes(masks, features)
        return features + map_back(masks, prototypes), prototypes

    wanted = torch.randn(2, 3, 2, 1, 2, dtype=torch.float64, requires_grad=True)
    features = torch.randn(2, 4, 2, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(update, (wanted, features))


@pytest.mark.parametrize(
    "arguments", [{"rate": 3}, {"update_classes": (4,)}, {"update_classes": (-1,)}, {"update_classes": (1, 1)}]
)
def test_arguments_outside_their_range(arguments: dict) -> None:
    with pytest.raises(InputError, match="must be") as caught:
        SupervisedAttention(**arguments)
    assert "\n" not in str(caught.value)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(1, 5),
    size=st.tuples(*[st.integers(1, 4)] * 3),
    hard=st.booleans(),
)
def test_laws(seed: int, classes: int, size: tuple[int, int, int], hard: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.randn(3, classes, *size, generator=generator)
    features = torch.randn(3, 6, *size, generator=generator)
    attention = SupervisedAttention(num_classes=classes, hard=hard, update_classes=range(classes))
    masks = attention._masks(wanted).float()
    # Masks part every voxel among the classes.
    torch.testing.assert_close(masks.sum(1), torch.ones(3, *size))
    if hard:
        assert set(masks.unique().tolist()) <= {0.0, 1.0}
    # A prototype is a mean of features: between their extremes, and weighted by class it gives back the mean of all.
    prototypes, present = pool_prototypes(masks, features)
    low, high = features.flatten(2).amin(2), features.flatten(2).amax(2)
    inside = (prototypes >= low.unsqueeze(1) - 1e-5) & (prototypes <= high.unsqueeze(1) + 1e-5)
    assert inside[present].all()
    share = masks.flatten(2).mean(2)
    torch.testing.assert_close((share.unsqueeze(2) * prototypes).sum(1), features.flatten(2).mean(2))
    # Samples don't see each other.
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(pool_prototypes(masks[order], features[order])[0], prototypes[order])
