"""Surfaces and their distances against whole-volume distance transforms, to the last bit."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from surface_distance.lookup_tables import create_table_neighbour_code_to_surface_area

from common.metrics.surfaces import nearest, surface_of, weighted_percentile

SHAPE = (9, 8, 7)
SPACINGS = [(1, 1, 1), (1, 2, 3), (0.9375, 0.9375, 1.2000000476837158), (0.1, 0.1, 0.3), (0.7, 0.7, 0.7), (0.8, 1, 0.6)]


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.01, 0.1, 0.5]),
    spacing=st.sampled_from(SPACINGS),
)
# Of equally distant targets it takes one that isn't the least, and hides one that is by rounding.
@example(622345, 0.01, (0.7, 0.7, 0.7))
@example(71, 0.1, (0.3, 0.3, 0.3))
@pytest.mark.parametrize(("near", "visits"), [(16, 10**9), (1, 10**9), (1, 0), (1e-9, 0)])
def test_nearest_is_what_a_distance_transform_finds(
    near: float, visits: int, seed: int, share: float, spacing: tuple[float, float, float]
):
    """By a tree within a bound, by a tree beyond it, and by the transform itself."""
    rng = np.random.default_rng(seed)
    targets, points = (np.argwhere(rng.random(SHAPE) < part) for part in (share, 0.5))
    if not len(targets):
        return
    mask = np.zeros(SHAPE, bool)
    mask[tuple(targets.T)] = True
    expected = ndimage.distance_transform_edt(~mask, sampling=spacing)[tuple(points.T)]
    with patch.multiple("common.metrics.surfaces", _NEAR=near, _VISITS=visits):
        distances, index = nearest(points, targets, spacing)
    np.testing.assert_array_equal(distances, expected)
    steps = (points - targets[index]) * np.array(spacing)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), expected, rtol=1e-12)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 3.0)])
def test_a_surface_point_is_where_voxels_differ(spacing: tuple[float, float, float]):
    mask = np.random.default_rng(0).random(SHAPE) < 0.5
    mask[2:6, 2:6, 2:6] = True  # Inside this there is no surface.
    labels = np.arange(1, mask.size + 1).reshape(SHAPE)
    areas = create_table_neighbour_code_to_surface_area(spacing)
    surface = surface_of(mask, labels, spacing)
    expected = {}
    padded = np.pad(mask, 1)
    for place in np.ndindex(*(size + 1 for size in SHAPE)):
        window = padded[tuple(slice(at, at + 2) for at in place)]
        if window.any() and not window.all():
            expected[place] = areas[int("".join(str(int(voxel)) for voxel in window.ravel()), 2)]
    assert dict(zip(map(tuple, surface.points.tolist()), surface.areas, strict=True)) == expected
    assert (np.diff(surface.keys) > 0).all()
    for place, owner in zip(surface.points, surface.owners, strict=True):
        voxel = np.argwhere(labels == owner)[0]
        assert mask[tuple(voxel)] and ((voxel == place) | (voxel == place - 1)).all()


def test_the_percentile_is_the_first_distance_that_reaches_it():
    distances, areas = np.array([3.0, 1.0, 2.0, 4.0]), np.array([1.0, 90.0, 5.0, 4.0])
    assert weighted_percentile(distances, areas) == 2
    assert weighted_percentile(distances, areas + np.array([1, 0, 0, 0])) == 3
    assert weighted_percentile(distances, areas, 100) == 4
    assert weighted_percentile(distances, areas, 1) == 1
    assert weighted_percentile(np.array([]), np.array([])) == np.inf
