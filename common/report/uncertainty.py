"""Where a prediction is unsure, and whether that is where it is wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from ..data.labels import REGIONS
from .pictures import CHART_COLOURS, Chart, Picture, encode_chart, encode_picture
from .planes import View, choose_axial_slice, draw_tile, orient, show_slice

__all__ = ["ErrorChart", "chart_errors", "count_errors", "draw_uncertainty", "error_auc", "share_of_errors"]

INTERVALS = 10
# Of the counts, for the area under the curve and the share of errors; the chart merges them. A sure network's voxels
# nearly all lie at the small end, right ones and wrong ones at different powers of ten, so there each power of ten has
# 50 intervals. The maps are float32, and so are the edges: 0.7 there is a little less than 0.7.
EDGES = np.concatenate([[0], np.geomspace(1e-12, 0.1, 550, endpoint=False), np.arange(100, 1001) / 1000])
EDGES = EDGES.astype(np.float32)
MOST_UNCERTAIN = 0.01
# Members that are sure, half of one class and half of another, have 0.5; most of what is seen is far below.
LARGEST_VARIANCE = 0.25


class ErrorChart(NamedTuple):
    """Errors against uncertainty.

    Args:
        chart: the rate of errors in intervals of entropy.
        cases: how many are in it.
        auc: see `error_auc`.
        found: share of the errors among the 1% of the voxels with the highest entropy.
    """

    chart: Chart
    cases: int
    auc: float
    found: float


def count_errors(entropy: np.ndarray, prediction: np.ndarray, reference: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Count the voxels of the brain by their entropy.

    Args:
        entropy: from 0 to 1, (X, Y, Z).
        prediction, reference: label maps (X, Y, Z).
        brain: mask (X, Y, Z).

    Returns:
        (2, 1451): in the intervals between `EDGES`, how many voxels are labelled rightly, and how many wrongly.
    """
    wrong = prediction != reference
    values = np.clip(entropy, 0, 1).astype(np.float32, copy=False)
    return np.stack([np.histogram(values[brain & mask], EDGES)[0] for mask in (~wrong, wrong)])


def error_auc(counts: np.ndarray) -> float:
    """Area under the ROC curve of entropy as a test for errors, from `count_errors`.

    It is the probability that a wrong voxel has a higher entropy than a right one; voxels of one interval count half.
    NaN where nothing is wrong or nothing right.
    """
    right, wrong = counts.astype(np.float64)
    if not right.any() or not wrong.any():
        return float("nan")
    below = np.cumsum(right) - right
    return float((wrong * (below + right / 2)).sum() / (wrong.sum() * right.sum()))


def share_of_errors(counts: np.ndarray, most_uncertain: float) -> float:
    """The share of the errors that lies among this share of the voxels, those with the highest entropy; or NaN."""
    voxels, wrong = (np.concatenate([[0], np.cumsum(row[::-1])]) for row in (counts.sum(0), counts[1]))
    if not wrong[-1]:
        return float("nan")
    return float(np.interp(most_uncertain, voxels / voxels[-1], wrong / wrong[-1]))


def chart_errors(counts: list[np.ndarray]) -> ErrorChart | None:
    """Draw the rate of errors against the entropy, over the counts of all cases; None where nothing is right or wrong.

    Args:
        counts: of each case, from `count_errors`.
    """
    total = np.sum(counts, axis=0) if counts else np.zeros((2, len(EDGES) - 1))
    auc = error_auc(total)
    if np.isnan(auc):
        return None
    starts = np.searchsorted(EDGES, (np.arange(INTERVALS) / INTERVALS).astype(EDGES.dtype))
    right, wrong = np.add.reduceat(total, starts, axis=1)
    voxels = right + wrong
    rates = np.divide(wrong * 100, voxels, out=np.zeros(INTERVALS), where=voxels > 0)
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(range(INTERVALS), rates, 0.8, color=CHART_COLOURS["line"])
    for place in np.flatnonzero(voxels).tolist():
        axes.text(place, rates[place] + 1, _percent(rates[place]), ha="center", va="bottom", fontsize=8)
    amounts = [EngFormatter(sep="")(float(f"{n:.2g}")) for n in voxels]
    names = [f"{n / INTERVALS:g}–{(n + 1) / INTERVALS:g}" for n in range(INTERVALS)]
    axes.set_xticks(range(INTERVALS), [f"{name}\n{amount}" for name, amount in zip(names, amounts, strict=True)])
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 25))
    axes.set_xlabel("Entropy, and number of voxels")
    axes.set_ylabel("Wrong voxels, %")
    words = ", ".join(
        f"{_percent(rate)}% of {amount} at {name}"
        for name, rate, amount in zip(names, rates, amounts, strict=True)
        if amount != "0"
    )
    chart = encode_chart(figure, f"Share of wrong voxels by entropy: {words}.", "Errors by entropy")
    return ErrorChart(chart, len(counts), auc, share_of_errors(total, MOST_UNCERTAIN))


def _percent(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


def draw_uncertainty(
    case: str,
    image: np.ndarray,
    affine: np.ndarray,
    reference: np.ndarray | None,
    prediction: np.ndarray,
    entropy: np.ndarray,
    variance: np.ndarray | None,
) -> list[Picture]:
    """Draw, over an axial slice through the lesion, the entropy, the variance, and what is wrong.

    Args:
        case: name, for the pictures' descriptions.
        image: (4, X, Y, Z), channels in canonical order.
        affine: of all arrays.
        reference, prediction: label maps (X, Y, Z), canonical; without a reference no errors are drawn.
        entropy, variance: (X, Y, Z); no variance where there was one pass only.
    """
    view = View.turned(image, affine, reference, prediction)
    index = choose_axial_slice(view)
    shown: list[tuple[str, np.ndarray, float, str | Colormap]] = [("Entropy", entropy, 1.0, "magma")]
    if variance is not None:
        shown.append(("Variance", variance, LARGEST_VARIANCE, "magma"))
    if reference is not None:
        shown.append(("Wrong voxels", (prediction != reference).astype(np.float32), 1.0, _FLAG))
    pictures = []
    for name, values, largest, colours in shown:
        heat = orient(values, affine)[0][:, :, index].T
        figure, axes = draw_tile(view, index, REGIONS["WT"])
        show_slice(axes, heat, view.spacing[:2], (0.0, largest), colours, alpha=np.clip(heat / largest, 0, 1) ** 0.3)
        alt = f"Case {case}, axial plane, {name.lower()}"
        alt += f", {int(heat.sum())} of them" if colours is _FLAG else f", up to {heat.max():.2f}"
        pictures.append(encode_picture(figure, alt, name))
    return pictures


_FLAG = ListedColormap(["#D55E00"])
