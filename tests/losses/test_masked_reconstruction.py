"""The loss of masked patches against a plain loop over their pixels."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from monai.data import MetaTensor

from common.losses.masked_reconstruction import MaskedReconstructionLoss, standardise
from common.networks.masked_autoencoder import Reconstruction

SHAPE, PATCH, GRID = (4, 4, 6), (2, 2, 3), (2, 2, 2)
PIXELS = 12
CHANNELS = 3


def pixels_of(image: torch.Tensor, token: int) -> list[tuple[int, float]]:
    """Channel and value of each pixel of a token, counted along the grid's last axis first."""
    places = [*itertools.product(*map(range, GRID))][token]
    starts = [place * edge for place, edge in zip(places, PATCH, strict=True)]
    inside = itertools.product(range(CHANNELS), *map(range, PATCH))
    return [(c, float(image[c, starts[0] + z, starts[1] + y, starts[2] + x])) for c, z, y, x in inside]


def loop_loss(predicted: torch.Tensor, masked: torch.Tensor, image: torch.Tensor, normalise: bool) -> float:
    total, count = 0.0, 0
    for sample, one in enumerate(image):
        there = [bool(one[c].any()) for c in range(CHANNELS)]
        for place, token in enumerate(masked[sample].tolist()):
            pixels = pixels_of(one, token)
            values = [value for c, value in pixels if there[c]]
            mean, deviation = 0.0, 1.0
            if normalise and values:
                mean = sum(values) / len(values)
                deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values) + 1e-6)
            for index, (c, value) in enumerate(pixels):
                if there[c]:
                    total += (float(predicted[sample, place, index].detach()) - (value - mean) / deviation) ** 2
                    count += 1
    return total / count


def example(seed: int = 0, missing: bool = False) -> tuple[Reconstruction, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, CHANNELS, *SHAPE, generator=generator)
    image[0, 1, :2] = 0.25  # patches of which one modality has one value
    if missing:
        image[1, 2] = 0
    masked = torch.tensor([[0, 3, 5], [1, 2, 7]])
    predicted = torch.randn(2, 3, CHANNELS * PIXELS, generator=generator, requires_grad=True)
    return Reconstruction(predicted, masked), image


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("missing", [True, False])
def test_it_is_the_plain_loop(normalise: bool, missing: bool):
    output, image = example(missing=missing)
    loss = MaskedReconstructionLoss(PATCH, normalise)(output, MetaTensor(image))
    assert float(loss.detach()) == pytest.approx(loop_loss(output.predicted, output.masked, image, normalise), rel=1e-5)


@pytest.mark.parametrize("normalise", [True, False])
def test_only_masked_patches_count(normalise: bool):
    output, image = example()
    loss = MaskedReconstructionLoss(PATCH, normalise)
    before = loss(output, image)
    changed = image.clone()
    changed[0, :, 2:, 2:, 3:] += 9  # the last token, which isn't masked in the first sample
    assert torch.equal(loss(output, changed), before)
    changed[1, :, 2:, 2:, 3:] *= -3  # and is in the second
    assert not torch.equal(loss(output, changed), before)


def test_a_missing_modality_counts_for_nothing():
    output, image = example(missing=True)
    MaskedReconstructionLoss(PATCH)(output, image).backward()
    gradient = output.predicted.grad.reshape(2, 3, CHANNELS, PIXELS)
    assert not gradient[1, :, 2].any()
    assert gradient[0].all() and gradient[1, :, :2].all()


def test_patches_of_one_value():
    """Background is such a patch: its target is zeros, and nothing is divided by zero."""
    image = torch.full((1, CHANNELS, *SHAPE), 0.3)
    predicted = torch.zeros(1, 2, CHANNELS * PIXELS, requires_grad=True)
    loss = MaskedReconstructionLoss(PATCH)(Reconstruction(predicted, torch.tensor([[0, 1]])), image)
    loss.backward()
    assert float(loss.detach()) < 1e-6 and predicted.grad.isfinite().all()


def test_nothing_but_background():
    predicted = torch.ones(1, 2, CHANNELS * PIXELS, requires_grad=True)
    image = torch.zeros(1, CHANNELS, *SHAPE)
    loss = MaskedReconstructionLoss(PATCH)(Reconstruction(predicted, torch.tensor([[0, 1]])), image)
    loss.backward()
    assert float(loss.detach()) == 0 and not predicted.grad.any()


def test_normalised_patches_have_mean_0_and_deviation_1_and_come_back():
    patches = torch.randn(2, 5, 40) * 7 + 3
    weights = torch.ones(2, 1, 40)
    weights[1, 0, 10:] = 0
    made, mean, deviation = standardise(patches, weights)
    for sample, counted in ((0, 40), (1, 10)):
        torch.testing.assert_close(made[sample, :, :counted].mean(-1), torch.zeros(5), atol=1e-5, rtol=0)
        torch.testing.assert_close(made[sample, :, :counted].std(-1, correction=0), torch.ones(5))
    torch.testing.assert_close(made * deviation + mean, patches)


def test_in_float32_under_autocast():
    output, image = example()
    loss = MaskedReconstructionLoss(PATCH)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(output, image)
    assert inside.dtype == torch.float32 and torch.equal(inside, loss(output, image))
