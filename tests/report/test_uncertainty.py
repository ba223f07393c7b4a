"""Errors against uncertainty, and where the pictures show what."""

from __future__ import annotations

import io
from bisect import bisect_right
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.metrics import compute_roc_auc
from PIL import Image
from scipy.stats import mannwhitneyu

from common.errors import CaseError
from common.report.build import build_report
from common.report.uncertainty import (
    EDGES,
    chart_errors,
    count_errors,
    draw_uncertainty,
    error_auc,
    share_of_errors,
)

NAME = "BraTS-GLI-00001-000"


def counts_of(entropy: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """As if all of one row of voxels were brain."""
    return count_errors(entropy, wrong.astype(np.uint8), np.zeros_like(wrong, np.uint8), np.ones_like(wrong, bool))


def test_counts_against_a_loop():
    generator = np.random.default_rng(0)
    entropy = (10 ** -generator.uniform(0, 14, (6, 5, 4))).astype(np.float32)
    prediction, reference = generator.integers(0, 4, (2, 6, 5, 4))
    brain = generator.random((6, 5, 4)) < 0.7
    expected, edges = np.zeros((2, 1451), int), EDGES.tolist()
    for place in np.ndindex(entropy.shape):
        if brain[place]:
            expected[int(prediction[place] != reference[place]), bisect_right(edges, entropy[place]) - 1] += 1
    np.testing.assert_array_equal(count_errors(entropy, prediction, reference, brain), expected)


def test_both_ends_are_counted():
    counts = counts_of(np.array([0.0, 1.0, 1.0000001, -1e-9]), np.array([0, 1, 1, 0]))
    assert counts[0, 0] == 2 and counts[1, -1] == 2 and counts.sum() == 4


voxels = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=60)


@given(voxels)
def test_auc_is_monais(pairs: list[tuple[int, bool]]):
    """Entropies in the middles of intervals, so that nothing is lost to the counting."""
    level, wrong = (np.array(column) for column in zip(*pairs, strict=True))
    found = error_auc(counts_of((level + 0.05) / 10, wrong))
    if wrong.all() or not wrong.any():
        assert np.isnan(found)
    else:
        expected = compute_roc_auc(torch.from_numpy(level).double(), torch.from_numpy(wrong).long())
        assert found == pytest.approx(expected)


@given(voxels, st.sampled_from([0.01, 0.1, 0.5, 1.0]))
def test_share_of_errors_against_a_sorted_list(pairs: list[tuple[int, bool]], share: float):
    """Within an interval errors are spread evenly, so each of its voxels counts with the interval's rate of errors."""
    level, wrong = (np.array(column) for column in zip(*pairs, strict=True))
    found = share_of_errors(counts_of((level + 0.05) / 10, wrong), share)
    if not wrong.any():
        assert np.isnan(found)
        return
    rate = np.array([wrong[level == each].mean() for each in level])
    amount, errors = share * len(level), 0.0
    for each in rate[np.argsort(-level, kind="stable")]:
        errors += each * min(1.0, max(0.0, amount))
        amount -= 1
    assert found == pytest.approx(errors / wrong.sum())


@pytest.mark.parametrize("spread", [0.3, 0.8, 2.0])
@pytest.mark.parametrize(("right", "wrong"), [(-5, -3.5), (-8, -7.5), (-4, -1), (-2, -2.5), (-0.7, -0.5)])
def test_a_sure_networks_voxels_are_told_apart(right: float, wrong: float, spread: float):
    """Log-normal entropies, nearly all of them small: area and share are those of the single voxels."""
    generator = np.random.default_rng(0)
    is_wrong = np.arange(100_000) % 20 == 0
    entropy = np.minimum(10 ** generator.normal(np.where(is_wrong, wrong, right), spread), 1).astype(np.float32)
    counts = counts_of(entropy, is_wrong)
    exact = mannwhitneyu(entropy[is_wrong], entropy[~is_wrong]).statistic / (is_wrong.sum() * (~is_wrong).sum())
    assert error_auc(counts) == pytest.approx(exact, abs=0.002)
    found = is_wrong[np.argsort(-entropy, kind="stable")[:1000]].sum() / is_wrong.sum()
    if (entropy == 1).sum() < 1000:  # else the order of those that tie decides
        assert share_of_errors(counts, 0.01) == pytest.approx(found, abs=0.01)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_bars_begin_at_tenths(kind: type):
    """A map is float32, in which 0.7 is a little less; such a voxel still belongs to the bar from 0.7."""
    tenths = np.arange(11) / 10
    low = counts_of(np.array([0, 1e-13, 1e-9, 1e-3, 0.0999], kind), np.zeros(5))
    drawn = chart_errors([low, counts_of(tenths.astype(kind), np.ones(11))])
    assert drawn is not None
    bars = [f"100% of 1 at {n / 10:g}–{(n + 1) / 10:g}" for n in range(1, 9)]
    assert ", ".join(["17% of 6 at 0–0.1", *bars, "100% of 2 at 0.9–1."]) in drawn.chart.alt


def test_chart_says_the_rates_over_all_cases():
    right = counts_of(np.full(30, 0.05), np.zeros(30))
    half = counts_of(np.full(10, 0.95), np.arange(10) % 2)
    drawn = chart_errors([right, half])
    assert drawn is not None and drawn.cases == 2
    all_wrong = chart_errors([right, counts_of(np.full(1234, 0.5), np.ones(1234))])
    assert all_wrong is not None and "100% of 1.2k at 0.5–0.6" in all_wrong.chart.alt
    assert "0% of 30 at 0–0.1, 50% of 10 at 0.9–1." in drawn.chart.alt and "0.1–0.2" not in drawn.chart.alt
    assert drawn.auc == pytest.approx((30 + 2.5) / 35) and drawn.found == pytest.approx(0.04)
    assert chart_errors([right]) is None and chart_errors([]) is None


def brightest(picture: Any) -> tuple[float, float]:
    """Where a picture is most unlike grey: column and row, as parts of its size."""
    pixels = np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB")).astype(int)
    colour = pixels.max(2) - pixels.min(2)
    rows, columns = np.nonzero(colour > colour.max() / 2)
    return columns.mean() / pixels.shape[1], rows.mean() / pixels.shape[0]


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR"])
def test_pictures_show_the_place_in_the_patient(scan: Any, axes: str):
    """What is unsure and wrong lies in the patient's left front: right and above, however the scan is stored."""
    place = np.zeros_like(scan.label)
    place[7:10, 38:42] = 1
    turned, there = scan.turned(axes), scan._replace(label=place).turned(axes).label
    unsure = there.astype(np.float32)
    prediction = np.where(there == 1, 3, turned.label).astype(np.uint8)
    pictures = draw_uncertainty("a", turned.image, turned.affine, turned.label, prediction, unsure, unsure / 4)
    assert [picture.caption for picture in pictures] == ["Entropy", "Variance", "Wrong voxels"]
    assert "up to 1.00" in pictures[0].alt and "up to 0.25" in pictures[1].alt and "12 of them" in pictures[2].alt
    for picture in pictures:
        column, row = brightest(picture)
        assert column == pytest.approx(1 - 8.5 / 40, abs=0.06) and row == pytest.approx(1 - 40 / 48, abs=0.06)
    # Without reference and with one pass there is only the entropy.
    only = draw_uncertainty("a", turned.image, turned.affine, None, turned.label, unsure, None)
    assert [picture.caption for picture in only] == ["Entropy"]


def test_damaged_maps_are_told(folders: tuple[Path, Path], scan: Any, tmp_path: Path):
    file = folders[1] / f"{NAME}_variance.nii.gz"
    scan.save(file, np.zeros((4, 4, 4), np.float32))
    with pytest.raises(CaseError, match=rf"case {NAME}, .*_variance.nii.gz: variance of shape \(4, 4, 4\) where"):
        build_report(*folders, tmp_path / "report.html")
    file.write_bytes(b"nothing")
    with pytest.raises(CaseError, match=r"variance can't be read; remove the file, or run the inference again"):
        build_report(*folders, tmp_path / "report.html")
