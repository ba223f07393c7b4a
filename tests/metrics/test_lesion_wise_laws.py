"""Laws that the lesion-wise scores obey, whatever the maps."""

from __future__ import annotations

import dataclasses
import math
import warnings
from itertools import permutations, product
from typing import Any

import cc3d
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from monai.metrics.utils import get_edge_surface_distance

from common.data.labels import REGIONS
from common.metrics import lesion_table
from common.metrics.lesion_wise import PRESETS, Lesion, RegionScores, lesion_wise_scores

UNIT = (1.0, 1.0, 1.0)
fast = settings(deadline=None, max_examples=100)


def plain(scores: dict[str, RegionScores], *without: str) -> dict[str, dict[str, Any]]:
    """All fields, comparable: NaN equals itself."""
    return {
        region: {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in dataclasses.asdict(one).items()
            if name not in without
        }
        for region, one in scores.items()
    }


def assert_alike(scores: dict[str, RegionScores], others: dict[str, RegionScores]) -> None:
    """Equal but for places: lesions to the bit, sums over lesions and surfaces but for the last bits."""
    sums, lists = ("dice", "hd95", "surface_dice"), ("lesions", "false_positives")
    assert plain(scores, *sums, *lists) == plain(others, *sums, *lists)
    for one, other in zip(scores.values(), others.values(), strict=True):
        for name in sums:
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-12, nan_ok=True)
        for name in lists:
            assert unplaced(getattr(one, name)) == unplaced(getattr(other, name))


def unplaced(lesions: list[Lesion]) -> list[tuple[float, ...]]:
    return sorted(
        (lesion.volume, lesion.dice, lesion.hd95, lesion.detected, lesion.scored, len(lesion.matched_components))
        for lesion in lesions
    )


@fast
@given(data=st.data(), preset=st.sampled_from(sorted(PRESETS)), spacing=st.sampled_from([UNIT, (0.7, 1.3, 4.0)]))
def test_a_prediction_like_the_reference_is_perfect(
    pairs: SearchStrategy, data: st.DataObject, preset: str, spacing: tuple[float, float, float]
):
    _, reference = data.draw(pairs)
    for scores in lesion_wise_scores(reference, reference, spacing, preset).values():
        perfect = (scores.dice, scores.volume_dice, scores.sensitivity, scores.specificity)
        assert (perfect, scores.hd95, scores.volume_hd95) == ((1, 1, 1, 1), 0, 0)
        assert (scores.fp, scores.fn, scores.false_positives, scores.volume_error) == (0, 0, [], 0)
        assert all((lesion.dice, lesion.hd95, lesion.detected) == (1, 0, True) for lesion in scores.lesions)
        assert scores.lesion_f1 == scores.panoptic_quality == 1 or not scores.tp


@fast
@given(data=st.data(), preset=st.sampled_from(["brats2023-met", "brats2023-gli"]), size=st.integers(1, 3))
def test_a_far_false_positive_counts_as_the_formula_says(
    pairs: SearchStrategy, data: st.DataObject, preset: str, size: int
):
    prediction, reference = (np.pad(label_map, ((0, 14), (0, 0), (0, 0))) for label_map in data.draw(pairs))
    before = lesion_wise_scores(prediction, reference, UNIT, preset)
    prediction[-size:, -size:, -size:] = 3
    after = lesion_wise_scores(prediction, reference, UNIT, preset)
    for old, new in zip(before.values(), after.values(), strict=True):
        count = old.tp + old.fn + old.fp
        sums = (old.dice * count, old.hd95 * count + 374) if count else (0, 374)
        assert (new.dice, new.hd95) == pytest.approx([total / (count + 1) for total in sums], rel=1e-12)
        assert (new.tp, new.fn, new.fp, new.lesions) == (old.tp, old.fn, old.fp + 1, old.lesions)
        far = [lesion for lesion in new.false_positives if lesion not in old.false_positives]
        assert [(lesion.volume, lesion.scored) for lesion in far] == [(size**3, True)]


@fast
@given(
    data=st.data(),
    axes=st.sampled_from(list(permutations(range(3)))),
    flipped=st.sampled_from(list(product((False, True), repeat=3))),
    spacing=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_turning_the_image_changes_nothing(
    pairs: SearchStrategy, data: st.DataObject, axes: tuple[int, ...], flipped: tuple[bool, ...], spacing: float
):
    maps = data.draw(pairs)
    turned = [np.flip(label_map.transpose(axes), np.flatnonzero(flipped)) for label_map in maps]
    before, after = (lesion_wise_scores(*both, [spacing] * 3) for both in (maps, turned))
    assert_alike(after, before)


@fast
@given(data=st.data(), margins=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=3))
def test_a_larger_image_moves_lesions_and_changes_no_score(
    pairs: SearchStrategy, data: st.DataObject, margins: list[tuple[int, int]]
):
    maps = data.draw(pairs)
    before, after = (lesion_wise_scores(*both, UNIT) for both in (maps, [np.pad(one, margins) for one in maps]))
    for one in (before, after):
        one.update({region: dataclasses.replace(scores, specificity=0) for region, scores in one.items()})
    assert_alike(after, before)
    shift = np.array(margins)[:, 0]
    for old, new in zip(before.values(), after.values(), strict=True):
        for name in ("lesions", "false_positives"):
            moved = [(*(lesion.first_voxel + shift), *(lesion.centroid + shift)) for lesion in getattr(old, name)]
            found = [(*lesion.first_voxel, *lesion.centroid) for lesion in getattr(new, name)]
            assert np.array(sorted(found)) == pytest.approx(np.array(sorted(moved)))


@fast
@given(
    data=st.data(),
    spacing=st.sampled_from([UNIT, (1.0, 1.0, 3.0), (0.9, 0.7, 1.25)]),
    factor=st.sampled_from([0.25, 2]),
)
def test_scaling_the_spacing_scales_distances_and_volumes(
    pairs: SearchStrategy, data: st.DataObject, spacing: tuple[float, float, float], factor: float
):
    maps = data.draw(pairs)
    before = lesion_wise_scores(*maps, spacing, threshold=8.0, penalty=100.0, tolerance=1.0)
    scaled = [factor * value for value in spacing]
    policy = {"threshold": 8 * factor**3, "penalty": 100 * factor, "tolerance": factor}
    after = lesion_wise_scores(*maps, scaled, **policy)
    for old, new in zip(before.values(), after.values(), strict=True):
        # A power of two, so that nothing is rounded.
        assert (new.hd95, new.volume_hd95) == (factor * old.hd95, factor * old.volume_hd95)
        assert (new.dice, new.tp, new.fn, new.fp) == (old.dice, old.tp, old.fn, old.fp)
        assert new.prediction_volume == factor**3 * old.prediction_volume
        assert [lesion.hd95 for lesion in new.lesions] == [factor * lesion.hd95 for lesion in old.lesions]
        assert new.surface_dice == old.surface_dice or math.isnan(old.surface_dice)


@fast
@given(data=st.data(), seed=st.integers(0, 1000))
def test_numbering_is_of_no_account(pairs: SearchStrategy, data: st.DataObject, seed: int):
    maps = data.draw(pairs)
    label, rng = cc3d.connected_components, np.random.default_rng(seed)

    def label_at_random(mask: np.ndarray, connectivity: int) -> np.ndarray:
        if not mask.size:
            return label(mask, connectivity=connectivity)
        labels = label(mask, connectivity=connectivity)
        order = np.append(0, 1 + rng.permutation(int(labels.max(initial=0))))
        return order.astype(labels.dtype)[labels]

    before = lesion_wise_scores(*maps, UNIT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesion_table.cc3d, "connected_components", label_at_random)
        after = lesion_wise_scores(*maps, UNIT)
    assert_alike(after, before)


@fast
@given(data=st.data(), dtype=st.sampled_from(["int8", "uint16", "int64", ">i2"]))
def test_memory_and_type_are_of_no_account(pairs: SearchStrategy, data: st.DataObject, dtype: str):
    prediction, reference = data.draw(pairs)
    expected = plain(lesion_wise_scores(prediction, reference, UNIT))
    others = np.asfortranarray(prediction.astype(dtype)), np.repeat(reference, 2, axis=1)[:, ::2]
    assert plain(lesion_wise_scores(*others, UNIT)) == expected
    read_only = prediction.copy()
    read_only.setflags(write=False)
    assert plain(lesion_wise_scores(read_only, reference, UNIT)) == expected


@fast
@given(data=st.data(), spacing=st.sampled_from([UNIT, (1.0, 1.0, 3.0), (1.5, 0.5, 2.0)]))
def test_whole_volume_as_monai_measures_it(
    pairs: SearchStrategy, data: st.DataObject, spacing: tuple[float, float, float]
):
    maps = data.draw(pairs)
    for region, scores in lesion_wise_scores(*maps, spacing).items():
        masks = [torch.from_numpy(np.isin(label_map, REGIONS[region])) for label_map in maps]
        if not all(mask.any() for mask in masks):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            edges, distances, areas = get_edge_surface_distance(
                *masks, spacing=list(spacing), use_subvoxels=True, symmetric=True
            )
        percentiles = []
        for edge, distance, area in zip(edges, distances, areas, strict=True):
            order = torch.argsort(distance)
            shares = torch.cumsum(area[edge][order].double(), 0) / area[edge].double().sum()
            # MONAI's areas are of single precision.
            percentiles.append([float(distance[order][shares >= 0.95 + slack][0]) for slack in (-1e-6, 1e-6)])
        low, high = (max(pair[n] for pair in percentiles) for n in (0, 1))
        assert low * (1 - 1e-6) <= scores.volume_hd95 <= high * (1 + 1e-6)
