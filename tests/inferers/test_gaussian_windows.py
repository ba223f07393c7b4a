"""Windows blended by a whole Gaussian, against a plain loop over them."""

from __future__ import annotations

from math import exp, prod

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from common.inferers.gaussian_windows import GaussianWindowInferer, gaussian_weights


def test_weights_are_a_gaussian_without_floor():
    size = (6, 8, 5)
    weights = gaussian_weights(size)
    assert weights.shape == size and weights.dtype == torch.float32
    for place in [(0, 0, 0), (3, 4, 2), (5, 1, 0), (2, 7, 4)]:
        parts = [exp(-((at - (n - 1) / 2) ** 2) / (2 * (n / 8) ** 2)) for at, n in zip(place, size, strict=True)]
        assert weights[place].item() == pytest.approx(prod(parts), rel=1e-5)
    assert 0 < gaussian_weights((128, 128, 128))[0, 0, 0] < 1e-9


def place_in_window(window: torch.Tensor) -> torch.Tensor:
    """A network that gives another value for each place of its window, so that the weights show."""
    return window[:, :1] + torch.arange(window[0, 0].numel(), dtype=torch.float32).reshape(window.shape[2:])


def test_against_a_loop():
    image = torch.rand(1, 2, 12, 8, 10, generator=torch.Generator().manual_seed(0))
    found = GaussianWindowInferer((8, 8, 8), overlap=0.5)(image, place_in_window)
    weights = gaussian_weights((8, 8, 8))
    total, values = torch.zeros(2, *image.shape[2:])
    for start_d in (0, 4):
        for start_w in (0, 2):
            part = (slice(start_d, start_d + 8), slice(None), slice(start_w, start_w + 8))
            values[part] += weights * place_in_window(image[(slice(None), slice(None), *part)])[0, 0]
            total[part] += weights
    torch.testing.assert_close(found[0, 0], values / total, rtol=1e-5, atol=1e-4)
    floored = SlidingWindowInferer((8, 8, 8), overlap=0.5, mode="gaussian")(image, place_in_window)
    assert (floored - found).abs().max() > 0.1


def test_whole_axes_and_small_scans():
    image = torch.rand(1, 2, 6, 8, 10, generator=torch.Generator().manual_seed(0))
    for size in [(-1, -1, -1), (8, 8, 16), (-1, 4, 4)]:
        found = GaussianWindowInferer(size, overlap=0.5)(image, lambda window: 2 * window)
        torch.testing.assert_close(found, 2 * image, rtol=1e-5, atol=1e-6)
