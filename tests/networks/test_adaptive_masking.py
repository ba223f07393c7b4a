"""Masked patch selection and the adaptive ratio: each step against loops, k-means against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from common.errors import InputError
from common.networks.adaptive_masking import (
    AdaptiveMasking,
    adaptive_ratio,
    choose_patches,
    lesion_patches,
    masked_count,
    two_means,
)
from common.networks.patches import patchify


def image_with_blob(seed: int, size: int = 64, edge: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """A z-scored image (1, 1, size, size), zero outside a disc, with a bright blob; which patches are mostly blob."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    disc = (x - size / 2) ** 2 + (y - size / 2) ** 2 < (0.46 * size) ** 2
    centre = size * (0.35 + 0.3 * torch.rand(2, generator=generator))
    blob = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < (0.15 * size) ** 2
    image = torch.randn(size, size, generator=generator) * 0.3 + 1 + 1.5 * blob
    image = torch.where(disc, (image - image[disc].mean()) / image[disc].std(), 0.0)
    return image[None, None], patchify((blob & disc).float()[None, None], (edge, edge)).mean(2)[0] > 0.5


@pytest.mark.parametrize(("epoch", "ratio"), [(1, 0.25), (2, 0.25 + math.log(2) / 12), (800, 0.8070510)])
def test_the_ratio_of_an_epoch(epoch: int, ratio: float) -> None:
    assert adaptive_ratio(epoch) == pytest.approx(ratio, abs=1e-6)


def test_the_ratio_is_at_most_one() -> None:
    assert adaptive_ratio(10**9) == 1
    assert adaptive_ratio(3, initial=0.5, growth=2) == 1


def lesion_by_loops(image: torch.Tensor, edge: int) -> np.ndarray:
    """Section 2.1 of one image (1, H, W), patch by patch, with scikit-learn's k-means."""
    pixels = image[0].numpy().astype(np.float64)
    rows, columns = pixels.shape[0] // edge, pixels.shape[1] // edge
    patches = [
        pixels[i * edge : (i + 1) * edge, j * edge : (j + 1) * edge] for i in range(rows) for j in range(columns)
    ]
    similarity = np.array([[(a * b).mean() for b in patches] for a in patches])
    features = np.array([np.exp(row - row.max()) / np.exp(row - row.max()).sum() for row in similarity])
    means = [patch.mean() for patch in patches]
    start = features[[int(np.argmin(means)), int(np.argmax(means))]]
    labels = KMeans(2, init=start, n_init=1, tol=0, max_iter=100).fit(features).labels_
    bright = labels == 1
    return bright if 2 * bright.sum() <= len(patches) else ~bright


def test_lesion_patches_of_a_batch_are_those_of_each_image_by_loops() -> None:
    images = torch.cat([image_with_blob(seed)[0] for seed in range(6)])
    images[3] = -images[3]  # a dark lesion
    found = lesion_patches(images, (8, 8))
    for image, lesion in zip(images, found, strict=True):
        np.testing.assert_array_equal(lesion.numpy(), lesion_by_loops(image, 8))
    assert found.any(dim=1).all() and (found.sum(dim=1) <= 32).all()


def test_a_bright_lesion_is_found() -> None:
    found = truth = both = 0
    for seed in range(20):
        image, blob = image_with_blob(seed)
        lesion = lesion_patches(image, (8, 8))[0]
        found, truth, both = found + int(lesion.sum()), truth + int(blob.sum()), both + int((lesion & blob).sum())
    assert both / truth > 0.8 and both / found > 0.6


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(4, 30), st.integers(1, 5))
def test_two_means_are_scikit_learns(seed: int, points: int, features: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randn(3, points, features, generator=generator, dtype=torch.float64)
    second = two_means(batch, batch[:, :2])
    for sample, ours in zip(batch.numpy(), second.numpy(), strict=True):
        theirs = KMeans(2, init=sample[:2], n_init=1, tol=0, max_iter=100).fit(sample)
        np.testing.assert_array_equal(ours, theirs.labels_ == 1)


def test_a_constant_image_has_no_lesion() -> None:
    """One cluster is empty; chance alone then masks as many patches as ever."""
    masking = AdaptiveMasking((8, 8))
    for value in (0.0, 2.5):
        chosen = masking(torch.full((2, 1, 32, 32), value), torch.rand(2, 16))
        assert not chosen.lesion.any() and (chosen.masked.sum(dim=1) == 4).all()


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.floats(0, 1))
def test_lesions_are_masked_first_then_the_rest_to_the_ratio(seed: int, patches: int, ratio: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(2, patches, generator=generator)
    lesion = torch.rand(2, patches, generator=generator) < 0.3
    count = masked_count(patches, ratio)
    assert count == min(max(math.floor(patches * ratio), 1), patches - 1)
    masked = choose_patches(noise, count, lesion)
    for sample in range(2):
        ranked = sorted(range(patches), key=lambda n: (not lesion[sample, n], noise[sample, n].item()))
        assert {*masked[sample].nonzero()[:, 0].tolist()} == {*ranked[:count]}


def test_epochs() -> None:
    masking = AdaptiveMasking((8, 8))
    image, _ = image_with_blob(0)
    noise = torch.rand(1, 64, generator=torch.Generator().manual_seed(1))
    shares = []
    for epoch in (0, 9, 799):
        masking.set_epoch(epoch)
        chosen = masking(image, noise)
        assert chosen.number == int(chosen.masked.sum())
        shares.append(chosen.number)
    assert shares == [16, math.floor(64 * (0.25 + math.log(10) / 12)), 51]
    assert masking.eval()(image, noise).number == 48  # of every epoch


def test_without_selection_or_growth() -> None:
    masking = AdaptiveMasking((8, 8), adaptive=False, select=False)
    masking.set_epoch(500)
    noise = torch.rand(1, 64)
    chosen = masking(image_with_blob(0)[0], noise)
    assert chosen.lesion is None
    assert torch.equal(chosen.masked[0].nonzero()[:, 0], noise[0].argsort()[:48].sort().values)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_volumes_and_channels(channels: int) -> None:
    image = torch.randn(2, channels, 4, 16, 16)
    chosen = AdaptiveMasking((2, 8, 8))(image, torch.rand(2, 8))
    assert chosen.masked.shape == (2, 8) and (chosen.masked.sum(dim=1) == 2).all()


@pytest.mark.parametrize(
    ("arguments", "size", "told"),
    [
        ({"patch": (8, 8)}, (20, 16), "patches of"),
        ({"patch": (16, 16)}, (16, 16), "divide it into two or more"),
        ({"initial_ratio": 0.0}, (16, 16), "initial_ratio 0.0: give a number above 0 and below 1"),
        ({"fixed_ratio": 1.0}, (16, 16), "mask_ratio 1.0"),
        ({"growth": 0.0}, (16, 16), "ratio_growth 0.0: give a number above zero"),
    ],
)
def test_refused(arguments: dict, size: tuple[int, int], told: str) -> None:
    with pytest.raises(InputError, match=told):
        AdaptiveMasking(**arguments)(torch.zeros(1, 1, *size), torch.rand(1, 4))
