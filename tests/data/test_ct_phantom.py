"""Generated CT of the neck: that a record can be replayed, and what the images show."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from common.data.ct_phantom import EXTENT, NeckCT, airway, draw_ct
from common.data.ct_rendering import ct_affine, render_ct

SHAPE = (64, 64, 12)


@pytest.fixture(scope="module")
def necks() -> list[tuple[NeckCT, np.ndarray, np.ndarray]]:
    return [(phantom, *render_ct(phantom, SHAPE)) for phantom in (draw_ct(11, index) for index in range(12))]


def test_ct_record_survives_json_and_replays_to_the_bit():
    phantom = next(one for one in (draw_ct(5, index) for index in range(20)) if one.metal)
    again = NeckCT.from_dict(json.loads(json.dumps(phantom.to_dict())))
    assert again == phantom == draw_ct(5, phantom.index) and hash(again) == hash(phantom)
    for first, second in zip(render_ct(phantom, SHAPE), render_ct(again, SHAPE), strict=True):
        assert first.dtype == second.dtype and first.shape == SHAPE
        np.testing.assert_array_equal(first, second)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**40), index=st.integers(0, 10**6))
def test_every_tumour_touches_the_airway_and_ends_in_the_image(seed: int, index: int):
    phantom = draw_ct(seed, index)
    tumour = phantom.tumour
    reach = 1.3 * tumour.radius * tumour.stretch[2]
    assert abs(tumour.centre[2]) + reach < EXTENT[2] / 2
    front, wide, deep = airway(phantom.neck, tumour.centre[2])
    x, y = tumour.centre[0] / wide, (tumour.centre[1] - front) / deep
    nearest = tumour.centre[:2] - np.array([x * wide, y * deep]) * (1 - 1 / np.hypot(x, y))
    assert np.linalg.norm(nearest - tumour.centre[:2]) < tumour.radius


def test_tissues_have_their_hounsfield_units(necks: list[tuple[NeckCT, np.ndarray, np.ndarray]]):
    for phantom, image, _ in necks:
        assert image.min() >= -1024 and image.max() > 600
        # Air outside (in the corners in front, the table being behind), fat, muscle, the airway.
        assert abs(image[[0, 1, -2, -1], -8:].mean() + 1000) < 5
        body = ndimage.binary_fill_holes(image > -300)
        assert 0.12 < body.mean() < 0.6
        histogram = ndimage.gaussian_filter1d(np.histogram(image[body], np.arange(-150.5, 150))[0].astype(float), 5)
        values = np.arange(-150, 150)
        fat, muscle = (values[np.where(part, histogram, -1).argmax()] for part in (values < -50, values > 10))
        assert abs(fat - phantom.levels.fat) < 12 and abs(muscle - phantom.levels.muscle) < 12
        inner = ndimage.binary_fill_holes(ndimage.binary_closing(image > -300, iterations=2))
        assert (inner & (image < -700)).sum() > 30


def test_tumours_are_a_little_brighter_than_muscle(necks: list[tuple[NeckCT, np.ndarray, np.ndarray]]):
    whole = [one for one in necks if not one[0].tumour.necrosis]
    contrasts = []
    for phantom, image, tumour in whole:
        core = ndimage.binary_erosion(tumour)
        assert core.any()
        contrasts.append(image[core].mean() - phantom.levels.muscle)
        assert 5 < contrasts[-1] < 60
    assert len(whole) > 6 and 15 < np.median(contrasts) < 45


def test_tumours_are_on_some_slices_only_and_nowhere_in_bone(necks: list[tuple[NeckCT, np.ndarray, np.ndarray]]):
    for _, image, tumour in necks:
        assert set(np.unique(tumour)) == {0, 1}
        slices = tumour.any(axis=(0, 1))
        assert 1 <= slices.sum() <= 9 and not slices[[0, -1]].any()
        assert (image[tumour > 0] > 350).mean() < 0.02
        x, y, _ = np.argwhere(tumour).mean(axis=0) - (np.array(SHAPE) - 1) / 2
        assert np.hypot(x, y) < SHAPE[0] / 4


def test_a_node_looks_like_a_tumour_and_is_not_labelled():
    phantom = draw_ct(1, 0)
    node = dataclasses.replace(phantom.nodes[0], centre=(38.0, -5.0, 20.0), radius=(6.0, 6.0, 8.0), contrast=30.0)
    without, _ = render_ct(dataclasses.replace(phantom, nodes=()), SHAPE)
    image, tumour = render_ct(dataclasses.replace(phantom, nodes=(node,)), SHAPE)
    changed = np.abs(image.astype(int) - without) > 15
    assert changed.sum() > 5 and not (changed & (tumour > 0)).any()


def test_no_threshold_finds_the_tumour(necks: list[tuple[NeckCT, np.ndarray, np.ndarray]]):
    best = max(
        np.mean([dice(image >= threshold, tumour > 0) for _, image, tumour in necks])
        for threshold in range(-200, 300, 10)
    )
    assert best < 0.3


def test_slices_are_further_apart_than_pixels():
    spacing = np.diag(ct_affine((128, 128, 24)))[:3]
    np.testing.assert_allclose(spacing, [1.640625, 1.640625, 3.0])
    np.testing.assert_allclose(ct_affine(SHAPE) @ [*((np.array(SHAPE) - 1) / 2), 1], [0, 0, 0, 1], atol=1e-9)


def test_one_neck_at_two_image_sizes():
    phantom = draw_ct(4, 1)
    fine, coarse = (render_ct(phantom, shape)[1] for shape in ((128, 128, 24), SHAPE))
    blocks = fine.reshape(64, 2, 64, 2, 12, 2).mean(axis=(1, 3, 5)) > 0.5
    assert dice(blocks, coarse > 0) > 0.8


def dice(found: np.ndarray, wanted: np.ndarray) -> float:
    return 2 * (found & wanted).sum() / max(found.sum() + wanted.sum(), 1)
