"""Each score against a plain loop, the policy for empty regions, and laws."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.labels import REGIONS
from common.metrics.region_scores import SCORES, region_scores, summarise


def surface(mask: np.ndarray) -> list[tuple[int, ...]]:
    """Voxels of the mask with a face neighbour outside it."""
    points = []
    for index in zip(*np.nonzero(mask), strict=True):
        for axis, step in itertools.product(range(3), (-1, 1)):
            other = list(index)
            other[axis] += step
            if not 0 <= other[axis] < mask.shape[axis] or not mask[tuple(other)]:
                points.append(tuple(int(i) for i in index))
                break
    return points


def distances(a: list[tuple[int, ...]], b: list[tuple[int, ...]], spacing: tuple[float, ...]) -> list[float]:
    return [min(math.dist(np.multiply(p, spacing), np.multiply(q, spacing)) for q in b) for p in a]


def by_loops(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]) -> dict[str, dict[str, float]]:
    scores = {}
    for region, labels in REGIONS.items():
        tp = fp = fn = tn = 0
        for p, r in zip(prediction.ravel(), reference.ravel(), strict=True):
            p, r = p in labels, r in labels
            tp, fp, fn, tn = tp + (p and r), fp + (p and not r), fn + (r and not p), tn + (not p and not r)
        a, b = surface(np.isin(prediction, labels)), surface(np.isin(reference, labels))
        both = [distances(a, b, spacing), distances(b, a, spacing)]
        scores[region] = {
            "dice": 2 * tp / (2 * tp + fp + fn),
            "hd95": max(float(np.percentile(d, 95)) for d in both),
            "hd100": max(max(d) for d in both),
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "volume_prediction": (tp + fp) * math.prod(spacing),
            "volume_reference": (tp + fn) * math.prod(spacing),
        }
    return scores


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.5, 3.0)])
def test_equals_plain_loops(spacing: tuple[float, float, float]):
    generator = np.random.default_rng(3)
    prediction = generator.integers(0, 4, (6, 7, 5))
    reference = np.where(generator.random((6, 7, 5)) < 0.6, prediction, generator.integers(0, 4, (6, 7, 5)))
    expected = by_loops(prediction, reference, spacing)
    got = region_scores(torch.from_numpy(prediction), torch.from_numpy(reference), spacing)
    for region in REGIONS:
        assert got[region] == pytest.approx(expected[region], rel=1e-5), region


def label(values: list[int]) -> torch.Tensor:
    out = torch.zeros(4, 4, 4, dtype=torch.uint8)
    out.view(-1)[: len(values)] = torch.tensor(values, dtype=torch.uint8)
    return out


def test_empty_regions():
    diagonal = math.sqrt(48)
    scores = region_scores(label([2]), label([]), (1, 1, 1))
    assert (scores["WT"]["dice"], scores["WT"]["hd95"], scores["WT"]["hd100"]) == (0, *[pytest.approx(diagonal)] * 2)
    assert (scores["ET"]["dice"], scores["ET"]["hd95"], scores["ET"]["sensitivity"]) == (1, 0, 1)
    scores = region_scores(label([]), label([3]), (1, 1, 1))
    assert (scores["ET"]["dice"], scores["ET"]["hd100"], scores["ET"]["sensitivity"]) == (0, pytest.approx(diagonal), 0)


def test_distance_for_a_missed_region_is_the_challenges():
    missed = torch.zeros(240, 240, 155, dtype=torch.uint8)
    reference = missed.clone()
    reference[100, 100, 100] = 3
    assert region_scores(missed, reference, (1, 1, 1))["ET"]["hd95"] == pytest.approx(373.1287, abs=1e-4)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"prediction \(4, 4, 4\), reference \(4, 4\)"):
        region_scores(torch.zeros(4, 4, 4), torch.zeros(4, 4), (1, 1, 1))


maps = st.integers(0, 2**32 - 1).map(
    lambda seed: torch.from_numpy(np.random.default_rng(seed).integers(0, 4, (5, 4, 6)))
)


@settings(max_examples=25, deadline=None)
@given(maps)
def test_perfect_prediction(reference: torch.Tensor):
    for scores in region_scores(reference, reference, (1, 2, 3)).values():
        assert [scores[name] for name in ("dice", "hd95", "hd100", "sensitivity", "specificity")] == [1, 0, 0, 1, 1]


@settings(max_examples=25, deadline=None)
@given(maps, maps, st.permutations([0, 1, 2]), st.lists(st.sampled_from([0, 1, 2]), max_size=3, unique=True))
def test_axes_may_be_permuted_and_flipped(a: torch.Tensor, b: torch.Tensor, order: list[int], flips: list[int]):
    spacing = (1.0, 0.5, 2.0)
    moved = [x.permute(order).flip(flips) for x in (a, b)]
    expected, got = region_scores(a, b, spacing), region_scores(*moved, [spacing[axis] for axis in order])
    for region in REGIONS:
        assert got[region] == pytest.approx(expected[region], rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(maps, maps)
def test_dice_and_distances_are_symmetric(a: torch.Tensor, b: torch.Tensor):
    forth, back = region_scores(a, b, (1, 1, 1)), region_scores(b, a, (1, 1, 1))
    for region in REGIONS:
        for score in ("dice", "hd95", "hd100"):
            assert forth[region][score] == pytest.approx(back[region][score])


def test_summary():
    rows = [{"case": str(i), "region": "WT", **dict.fromkeys(SCORES, value)} for i, value in enumerate((1.0, 2.0, 6.0))]
    assert summarise(rows)["WT"]["dice"] == pytest.approx({"mean": 3, "std": math.sqrt(7), "median": 2, "cases": 3})
    assert summarise(rows[:1])["WT"]["hd95"] == {"mean": 1, "std": 0, "median": 1, "cases": 1}


def test_a_penalty_in_place_of_the_diagonal():
    found, nothing = torch.zeros(4, 4, 4, dtype=torch.int), torch.zeros(4, 4, 4, dtype=torch.int)
    found[1, 1, 1] = 3
    for maps in ((found, nothing), (nothing, found)):
        scores = region_scores(*maps, (1, 1, 1), penalty=373.1287)["ET"]
        assert (scores["dice"], scores["hd95"], scores["hd100"]) == (0, 373.1287, 373.1287)
        assert region_scores(*maps, (1, 1, 1))["ET"]["hd95"] == pytest.approx(48**0.5)
    assert region_scores(nothing, nothing, (1, 1, 1), penalty=373.1287)["ET"]["hd95"] == 0
