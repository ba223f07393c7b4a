"""Every number against a slow way, written from the definitions: whole masks, loops over lesions, no shared work."""

from __future__ import annotations

import dataclasses
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import surface_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from scipy import ndimage

from common.data.labels import REGIONS
from common.metrics.lesion_wise import Lesion, RegionScores, lesion_wise_scores

# Isotropic, with thick slices, and float32 values from a header.
SPACINGS = [
    (1.0, 1.0, 1.0),
    (1.0, 1.0, 3.0),
    (0.9375, 0.9375, 1.2000000476837158),
    (1.5, 0.800000011920929, 2.0),
    (0.7, 0.7, 0.7),
]
TOUCHING = np.ones((3, 3, 3))


def grown(mask: np.ndarray) -> np.ndarray:
    """With all neighbours that share a face or an edge."""
    padded = np.pad(mask, 1)
    steps = [step for step in product((-1, 0, 1), repeat=3) if np.abs(step).sum() <= 2]
    return np.logical_or.reduce([np.roll(padded, step, (0, 1, 2))[1:-1, 1:-1, 1:-1] for step in steps])


def distances(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]) -> dict[str, np.ndarray]:
    """By distance transforms of the whole volume."""
    return surface_distance.compute_surface_distances(reference, prediction, spacing)


def hd95(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]) -> float:
    if not (prediction.any() and reference.any()):
        return math.inf
    return surface_distance.compute_robust_hausdorff(distances(prediction, reference, spacing), 95)


def describe(mask: np.ndarray, voxel: float) -> dict[str, Any]:
    where = np.argwhere(mask)
    return {
        "first_voxel": min(map(tuple, where.tolist())),
        "centroid": tuple(where.mean(axis=0)),
        "volume": len(where) * voxel,
    }


def slow_scores(
    p: np.ndarray,
    r: np.ndarray,
    spacing: tuple[float, ...],
    dilation: int,
    threshold: float,
    penalty: float,
    tolerance: float,
) -> dict[str, Any]:
    """All fields and properties of `RegionScores` for a region's two masks."""
    voxel = spacing[0] * spacing[1] * spacing[2]
    found, components = ndimage.label(p, TOUCHING)
    first = {n: describe(found == n, voxel)["first_voxel"] for n in range(1, components + 1)}
    dilated = r
    for _ in range(dilation):
        dilated = grown(dilated)
    joined, count = ndimage.label(dilated, TOUCHING)

    lesions, used = [], set()
    for number in range(1, count + 1):
        lesion = r & (joined == number)
        matched = set(found[joined == number].tolist()) - {0}
        used |= matched
        union = np.isin(found, list(matched)) & p
        shared = (lesion & union).sum()
        volume = lesion.sum() * voxel
        lesions.append(
            describe(lesion, voxel)
            | {
                "dice": 2 * shared / (lesion.sum() + union.sum()),
                "iou": shared / (lesion | union).sum(),
                "hd95": hd95(union, lesion, spacing) if matched else math.inf,
                "detected": bool(matched),
                "matched_components": {first[n] for n in matched},
                "scored": bool(volume > threshold),
            }
        )
    false = [describe(found == n, voxel) for n in range(1, components + 1) if n not in used]
    nothing = {"dice": 0, "iou": 0, "hd95": math.inf, "detected": False, "matched_components": set(), "scored": True}

    tp = fn = 0
    dices, hd95s, ious, sizes = [], [], [], []
    for row in lesions:
        if row["scored"]:
            tp, fn = tp + row["detected"], fn + (not row["detected"])
            dices.append(row["dice"])
            hd95s.append(row["hd95"] if row["detected"] else penalty)
            sizes.append((row["volume"], row["detected"]))
            if row["detected"]:
                ious.append(row["iou"])
    fp = len(false)
    scored = len(dices) + fp
    either, both = p.any() or r.any(), p.any() and r.any()
    whole = hd95(p, r, spacing)
    quality = np.mean(ious) if ious else math.nan
    surface_dice = both and surface_distance.compute_surface_dice_at_tolerance(distances(p, r, spacing), tolerance)
    f1 = tp / (tp + 0.5 * fp + 0.5 * fn) if tp + fp + fn else 1
    return {
        "dice": sum(dices) / scored if scored else 1,
        "hd95": sum(hd95s + fp * [penalty]) / scored if scored else 0,
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "volume_dice": 2 * (p & r).sum() / (p.sum() + r.sum()) if either else 1,
        "volume_hd95": 0 if not either else whole if math.isfinite(whole) else penalty,
        "sensitivity": (p & r).sum() / r.sum() if r.any() else float(not p.any()),
        "specificity": (~p & ~r).sum() / (~r).sum(),
        "reference_volume": r.sum() * voxel,
        "prediction_volume": p.sum() * voxel,
        "surface_dice": surface_dice if both else 0 if either else math.nan,
        "lesion_sensitivity": tp / (tp + fn) if tp + fn else math.nan,
        "lesion_precision": tp / (tp + fp) if tp + fp else math.nan,
        "lesion_f1": f1,
        "segmentation_quality": quality,
        "panoptic_quality": quality * f1 if tp else f1,
        "volume_error": (p.sum() - r.sum()) * voxel,
        "absolute_volume_error": abs((p.sum() - r.sum()) * voxel),
        "relative_volume_error": (p.sum() - r.sum()) / r.sum() if r.any() else math.nan,
        "lesions": {row["first_voxel"]: row for row in lesions},
        "false_positives": {row["first_voxel"]: row | nothing for row in false},
        "sizes": sizes,
    }


def by_first_voxel(lesions: list[Lesion]) -> dict[tuple[int, int, int], dict[str, Any]]:
    return {
        lesion.first_voxel: dataclasses.asdict(lesion)
        | {"matched_components": set(lesion.matched_components), "iou": lesion.iou}
        for lesion in lesions
    }


def assert_equal(scores: RegionScores, expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if name in ("lesions", "false_positives"):
            ours = by_first_voxel(getattr(scores, name))
            assert ours.keys() == value.keys()
            for first_voxel, row in value.items():
                found = ours[first_voxel]
                assert found.keys() == row.keys()
                exact = row.keys() - {"centroid", "volume", "iou"}
                assert {key: found[key] for key in exact} == {key: row[key] for key in exact}
                for key in ("centroid", "volume", "iou"):
                    assert found[key] == pytest.approx(row[key], rel=1e-12), (name, first_voxel, key)
        elif name == "sizes":
            bins = {
                (low, high): [detected for volume, detected in value if low < volume <= high]
                for low, high in ((0, 20), (20, 60), (60, math.inf))
            }
            ours = scores.sensitivity_by_size((0, 20, 60, math.inf))
            assert ours == {bounds: (sum(inside), len(inside)) for bounds, inside in bins.items()}
        else:
            assert getattr(scores, name) == pytest.approx(value, rel=1e-12, nan_ok=True), name
    named = {field.name for field in dataclasses.fields(RegionScores)}
    named |= {name for name, value in vars(RegionScores).items() if isinstance(value, property)}
    assert named == expected.keys() - {"sizes"}, "a number that nothing here compares"


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(),
    spacing=st.sampled_from(SPACINGS),
    dilation=st.integers(0, 3),
    threshold=st.sampled_from([0, 2, 10, 50]),
    tolerance=st.sampled_from([0.5, 1.0, 2.5]),
)
def test_as_the_slow_way(
    pairs: SearchStrategy,
    data: st.DataObject,
    spacing: tuple[float, ...],
    dilation: int,
    threshold: float,
    tolerance: float,
):
    prediction, reference = data.draw(pairs)
    policy = {"dilation": dilation, "threshold": threshold, "penalty": 100.0, "tolerance": tolerance}
    scores = lesion_wise_scores(prediction, reference, spacing, **policy)
    for name, labels in REGIONS.items():
        p, r = np.isin(prediction, labels), np.isin(reference, labels)
        assert_equal(scores[name], slow_scores(p, r, spacing, **policy))
