"""The size–detection curve: its shares, intervals and ticks."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from common.metrics.lesion_wise import Lesion, RegionScores
from common.report import detection
from common.report.detection import SizeBin, count_by_size, draw_detection


def scores_of(*found: tuple[float, bool]) -> RegionScores:
    """Of one region with lesions of these volumes, found or not."""
    lesions = [Lesion((n, 0, 0), (n, 0.0, 0.0), volume, 0.5, 1.0, hit) for n, (volume, hit) in enumerate(found)]
    tp = sum(hit for _, hit in found)
    return RegionScores(0.5, 1.0, tp, 0, len(found) - tp, 0.5, 1.0, 0.5, 1.0, 1.0, lesions, [], 1.0, 0.5)


def test_counts_by_size_and_wilsons_interval() -> None:
    bins = count_by_size([scores_of((10, True), (50, False), (51, True)), scores_of((6000, True)), scores_of()])
    assert [one[:4] for one in bins if one.lesions] == [(0, 50, 1, 2), (50, 200, 1, 1), (5000, math.inf, 1, 1)]
    assert bins[0].volume == pytest.approx(math.sqrt(500)) and bins[0].name == "0–50 mm³"
    assert math.isnan(bins[2].volume) and bins[-1].name == "above 5000 mm³"
    z = 1.959963984540054
    for k, n in ((0, 4), (3, 4), (7, 7), (1, 9)):
        p, q = k / n, 1 + z**2 / n
        middle, half = (p + z**2 / (2 * n)) / q, z / q * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        low, high = SizeBin(0, 50, k, n, 1.0).interval
        assert (low, high) == pytest.approx((max(0, middle - half), min(1, middle + half)))


def test_the_curve_and_its_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lesion is a tick at its volume, above 100% if found and below 0% if missed, one row a method."""
    figures: list[Figure] = []
    encode = detection.encode_chart
    monkeypatch.setattr(
        detection, "encode_chart", lambda figure, *words: figures.append(figure) or encode(figure, *words)
    )
    generator = np.random.default_rng(0)
    volumes = 10 ** generator.uniform(1, 4, 200)
    methods = {
        "a": [scores_of(*((v, bool(v > 100)) for v in volumes[:100])), scores_of(*((v, True) for v in volumes[100:]))],
        "$b$": [scores_of(*((v, False) for v in volumes))],
    }
    chart = draw_detection("WT", methods)
    assert (
        chart is not None and "$b$: 0 of" in chart.alt and "var(--series-2)" in chart.svg and "#0103" not in chart.svg
    )
    axes = figures[0].axes[0]
    assert axes.get_xscale() == "log"
    rows: dict[tuple[str, bool], list[float]] = {}
    for line in axes.lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        if len(x) and np.isnan(y).any():
            assert (y[0::3] > 1).all() == (y[1::3] > 1).all() and ((y[0::3] > 1) | (y[1::3] < 0)).all()
            rows[str(line.get_color()), bool(y[0] > 1)] = sorted(x[0::3])
    found = sorted([*volumes[:100][volumes[:100] > 100], *volumes[100:]])
    a, b = detection.SERIES_COLOURS[:2]
    assert rows[a, True] == pytest.approx(found)
    assert rows[a, False] == pytest.approx(sorted(volumes[:100][volumes[:100] <= 100]))
    assert rows[b, False] == pytest.approx(sorted(volumes)) and (b, True) not in rows
    # Lines with gaps are one path each, in which no tick is lost.
    assert max(path.count("M") for path in re.findall(r' d="([^"]*)"', chart.svg)) == 200
    expected = [one.detected / one.lesions for one in count_by_size(methods["a"]) if one.lesions]
    curves = [list(line.get_ydata()) for line in axes.lines if line.get_color() == a and line.get_linestyle() == "-"]
    assert expected in curves


@pytest.mark.parametrize("volumes", [[3.0], [1.0], [0.2, 900000.0], [10.0, 1000.0], [99.9, 100.1]])
def test_the_volume_axis_has_powers_of_ten(monkeypatch: pytest.MonkeyPatch, volumes: list[float]) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(detection, "encode_chart", lambda figure, *words: figures.append(figure))
    draw_detection("ET", {"a": [scores_of(*((volume, True) for volume in volumes))]})
    axes = figures[0].axes[0]
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert len(ticks) >= 2 and low < min(volumes) and high > max(volumes)
    assert np.log10(ticks) == pytest.approx(np.round(np.log10(ticks)))


def test_no_lesion_no_curve() -> None:
    assert draw_detection("WT", {"a": [scores_of()], "b": []}) is None
