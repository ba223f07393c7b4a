"""Outlines are where something was found, and the slices that are shown go through it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.handlers.overlays import LEAST_PIXELS, MOST_PIXELS, TILE_PIXELS, draw_overlay, slices_through


def coloured(image: np.ndarray, mask: np.ndarray, **arguments) -> np.ndarray:
    """Where the outline is (H', W')."""
    return np.ptp(np.asarray(draw_overlay(image, mask, **arguments)).astype(int), axis=2) > 0


@given(st.lists(st.booleans(), min_size=2, max_size=40))
@example([False, *[True] * 29])
def test_at_most_five_slices_through_what_was_found(found: list[bool]):
    shown = slices_through(np.array(found)[:, None, None])
    holding = [index for index, holds in enumerate(found) if holds]
    if not holding:
        assert shown == [len(found) // 2]
        return
    assert len(shown) == len(set(shown)) == min(5, len(holding)) and shown == sorted(shown)
    assert set(shown) <= set(holding)
    places = [holding.index(index) for index in shown]
    assert max(np.diff(places), default=1) - min(np.diff(places), default=1) <= 1
    assert abs(places[0] - (len(holding) - 1 - places[-1])) <= 1


@pytest.mark.parametrize("shape", [(9, 13), (700, 500), (3000, 2000)])
def test_a_pixel_is_outlined_in_pictures_of_any_size(shape: tuple[int, int]):
    mask = np.zeros((1, *shape), bool)
    place = shape[0] // 3, shape[1] // 4
    mask[0, place[0], place[1]] = True
    outline = coloured(np.random.default_rng(0).uniform(1, 2, (1, *shape)), mask)
    assert max(outline.shape) == min(max(*shape, LEAST_PIXELS), MOST_PIXELS)
    assert outline.any()
    middle = np.argwhere(outline).mean(axis=0) / outline.shape * shape
    assert np.abs(middle - place - 0.5).max() < 2 * max(1, max(shape) / MOST_PIXELS)


def test_an_outline_is_not_filled_and_is_there_at_the_edge():
    mask = np.zeros((1, 400, 400), bool)
    mask[0, 100:200, 100:300] = True
    outline = coloured(np.ones((1, 400, 400)), mask)
    assert outline.sum() == 2 * (100 + 200) + 2 * (100 + 200) - 4  # a pixel outside and one inside
    assert not coloured(np.ones((1, 400, 400)), mask & False).any()
    everything = coloured(np.ones((1, 400, 400)), mask | True)
    assert everything[0].all() and everything[:, -1].all() and not everything[1:-1, 1:-1].any()


def test_slices_of_a_volume_stand_in_a_row_true_to_their_spacing():
    mask = np.zeros((9, 20, 30), bool)
    mask[2:5, 5:10, 10:20] = True
    image = np.random.default_rng(0).uniform(1, 2, mask.shape)
    picture = draw_overlay(image, mask, spacing=(3.0, 1.0))
    assert picture.height == TILE_PIXELS
    width = TILE_PIXELS // 2
    assert picture.width == 3 * width + 2 * 4
    outline = coloured(image, mask, spacing=(3.0, 1.0))
    assert all(outline[:, start : start + width].any() for start in (0, width + 4, 2 * (width + 4)))
    assert draw_overlay(image, mask & False, spacing=(3.0, 1.0)).width == width


@pytest.mark.parametrize("image", [np.zeros((1, 9, 9)), np.full((1, 9, 9), 5.0), np.full((1, 9, 9), -5.0)])
def test_constant_images(image: np.ndarray):
    with np.errstate(all="raise"):
        assert len(np.unique(np.asarray(draw_overlay(image, np.zeros(image.shape, bool))))) == 1


def test_outliers_do_not_darken_the_rest():
    image = np.random.default_rng(0).uniform(50, 100, (1, 400, 400))
    image[0, 0, :5] = 1e6
    greys = np.asarray(draw_overlay(image, np.zeros(image.shape, bool)))[..., 0]
    assert 100 < greys.mean() < 155
