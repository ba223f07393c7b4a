"""The size–detection curve: which share of the lesions was found, by their volume."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy import stats

from ..metrics.lesion_records import found_by_size, size_name
from ..metrics.lesion_wise import Lesion, RegionScores
from .lesion_pictures import diameter
from .page import REGION_NAMES
from .pictures import CHART_COLOURS, SERIES_COLOURS, Chart, encode_chart

__all__ = ["SizeBin", "count_by_size", "draw_detection", "line_style"]

_DASHES: tuple[tuple[float, ...], ...] = ((), (4, 2), (1.2, 1.4), (5, 1.5, 1.2, 1.5))
# Rows of ticks above 1 and below 0: where the first is, and how far apart they are.
_FIRST_ROW, _ROW = 0.1, 0.05


class SizeBin(NamedTuple):
    """Lesions of one size.

    Args:
        low, high: volumes in mm³: more than, at most.
        detected, lesions: how many were found, and how many there are.
        volume: geometric mean of theirs; NaN where there is none.
    """

    low: float
    high: float
    detected: int
    lesions: int
    volume: float

    @property
    def name(self) -> str:
        """Such as 50–200 mm³."""
        return size_name(self.low, self.high)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% confidence interval of the share; of a bin with lesions."""
        interval = stats.binomtest(self.detected, self.lesions).proportion_ci(method="wilson")
        return float(interval.low), float(interval.high)


def line_style(number: int) -> tuple[int, tuple[float, ...]]:
    """Number of the colour and dashes (in widths of the line) of a method's curve."""
    return number % len(SERIES_COLOURS), _DASHES[number % len(_DASHES)]


def count_by_size(scores: Sequence[RegionScores]) -> list[SizeBin]:
    """The lesions that count, of one region in all cases, by size; all the metric's sizes, the empty ones too."""
    volumes = [lesion.volume for lesion in _counted(scores)]
    bins = []
    for (low, high), (detected, lesions) in found_by_size(scores).items():
        inside = [math.log(volume) for volume in volumes if low < volume <= high]
        mean = math.exp(math.fsum(inside) / len(inside)) if inside else math.nan
        bins.append(SizeBin(low, high, detected, lesions, mean))
    return bins


def _counted(scores: Sequence[RegionScores]) -> list[Lesion]:
    return [lesion for one in scores for lesion in one.lesions if lesion.scored]


def draw_detection(region: str, methods: Mapping[str, Sequence[RegionScores]]) -> Chart | None:
    """Draws the curve of each method with Wilson's 95% intervals, and each lesion as a tick: found above, missed below.

    Args:
        region: which.
        methods: scores of that region in all cases, by method.

    Returns:
        the chart; None where no lesion counts.
    """
    volumes = [lesion.volume for scores in methods.values() for lesion in _counted(scores)]
    if not volumes:
        return None
    low, high = _limits(volumes)
    figure = Figure(figsize=(4.2, 2.9 + 0.12 * len(methods)), layout="constrained")
    axes = figure.add_subplot()
    words = []
    for number, (name, scores) in enumerate(methods.items()):
        series, dashes = line_style(number)
        colour = SERIES_COLOURS[series]
        bins = [one for one in count_by_size(scores) if one.lesions]
        # Side by side, so that no interval hides another.
        shift = (high / low) ** (0.02 * (number - (len(methods) - 1) / 2))
        x = [one.volume * shift for one in bins]
        share = np.array([one.detected / one.lesions for one in bins])
        bounds = np.array([one.interval for one in bins]).reshape(-1, 2)
        reach = np.abs(np.stack([share - bounds[:, 0], bounds[:, 1] - share]))
        axes.errorbar(x, share, yerr=reach, fmt="o", color=colour, markersize=4.5, linewidth=1, capsize=2.5)
        axes.plot(x, share, color=colour, linewidth=1.6, linestyle=(0, dashes) if dashes else "-")
        row = _FIRST_ROW + _ROW * number
        _draw_ticks(axes, [one.volume for one in _counted(scores) if one.detected], 1 + row, colour)
        _draw_ticks(axes, [one.volume for one in _counted(scores) if not one.detected], -row, colour)
        counts = ", ".join(f"{one.detected} of {one.lesions} found of {one.name}" for one in bins)
        words.append(f"{name}: {counts or 'no lesion'}")
    middle, last = _FIRST_ROW + _ROW * (len(methods) - 1) / 2, _FIRST_ROW + _ROW * len(methods)
    axes.set_ylim(-last, 1 + last)
    axes.set_yticks(np.linspace(0, 1, 5), [f"{share:.0%}" for share in np.linspace(0, 1, 5)])
    for y, text in ((1 + middle, "found"), (-middle, "missed")):
        axes.text(-0.02, y, text, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=9)
    for share_line in (0, 1):
        axes.axhline(share_line, color=CHART_COLOURS["ink"], linewidth=0.6)
    _scale_volumes(axes, low, high)
    title = f"{REGION_NAMES[region].capitalize()} ({region})"
    return encode_chart(figure, f"Lesions found by volume, {title}. " + "; ".join(words) + ".", title)


def _draw_ticks(axes: Axes, volumes: Sequence[float], row: float, colour: str) -> None:
    """As one line with gaps, which keeps the page small."""
    x = np.repeat(sorted(volumes), 3)
    y = np.tile([row - _ROW * 0.42, row + _ROW * 0.42, math.nan], len(volumes))
    axes.plot(x, y, color=colour, linewidth=0.9, solid_capstyle="butt")


def _scale_volumes(axes: Axes, low: float, high: float) -> None:
    """Powers of ten, each with the diameter."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    decades = _decades(low, high)
    axes.set_xticks(decades, [f"{_spaced(volume)}\n({diameter(volume):.1f})" for volume in decades])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Volume, mm³ (diameter of such a ball, mm)")


def _decades(low: float, high: float) -> list[float]:
    return [10.0**n for n in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]


def _limits(volumes: Sequence[float]) -> tuple[float, float]:
    """A little more than the range of the volumes, so much that two powers of ten lie in it."""
    low, high = min(volumes) / 1.5, max(volumes) * 1.5
    if len(_decades(low, high)) < 2:
        low, high = 10.0 ** math.floor(math.log10(low)) / 1.1, 10.0 ** math.ceil(math.log10(high)) * 1.1
    return low, high


def _spaced(number: float) -> str:
    """With thin spaces between thousands."""
    return f"{number:,.0f}".replace(",", "\N{THIN SPACE}") if number >= 1 else f"{number:g}"
