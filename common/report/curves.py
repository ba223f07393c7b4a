"""Learning curves from TensorBoard's event files."""

from __future__ import annotations

import math
from bisect import bisect_left
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ..data.labels import REGIONS
from ..errors import InputError
from .pictures import CHART_COLOURS, Chart, encode_chart

__all__ = ["draw_curves", "read_curves"]

MOST_POINTS = 120

_TITLES = {
    "train_loss": "Training loss",
    "dice": "Dice loss",
    "attention": "Attention loss",
    "inter": "Inter-class loss",
}


def read_curves(folder: Path | str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads all scalars below a folder of event files.

    Returns:
        for each tag, in alphabetical order, its steps and its values.

    Raises:
        InputError: no event file, or no scalar in them.
    """
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for place in sorted({file.parent for file in Path(folder).rglob("events.out.tfevents.*")}):
        accumulator = EventAccumulator(str(place), size_guidance={"scalars": 0})
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            steps: list[int] = []
            values: list[float] = []
            for event in accumulator.Scalars(tag):
                # A run that began anew in the same folder replaces what it repeats.
                kept = bisect_left(steps, event.step)
                steps[kept:], values[kept:] = [event.step], [event.value]
            curves[tag] = (np.array(steps), np.array(values))
    if not curves:
        raise InputError(f"{folder}: no TensorBoard events with scalars; give the events folder of a training, or none")
    return dict(sorted(curves.items()))


def _thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over equal pieces, so that a chart stays small however long the training was."""
    pieces = len(steps) // math.ceil(len(steps) / MOST_POINTS)
    means = [np.array([part.mean() for part in np.array_split(series, pieces)]) for series in (steps, values)]
    return means[0], means[1]


def _title(tag: str) -> str:
    return _TITLES.get(tag, tag.replace("_", " ").replace("/", ", ").capitalize())


def _score_style(tag: str) -> tuple[str, str]:
    """Colour and name of a validation Dice: a region's, or that of the mean."""
    region = next((region for region in REGIONS if tag.upper().endswith(region)), None)
    return (CHART_COLOURS["ink"], "mean") if region is None else (CHART_COLOURS[region], region)


def draw_curves(curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[Chart]:
    """Draws one chart for the Dice scores of the validation and one for each other scalar.

    The loss and its parts stand apart because their scales differ; among them is the attention loss of Fig. 5 of the
    CGA U-Net paper.

    Args:
        curves: steps and values by tag; `val…dice…` are the scores of the validation, by epoch.
    """
    scores = [tag for tag in curves if tag.startswith("val") and "dice" in tag]
    known = [tag for tag in _TITLES if tag in curves]
    others = [tag for tag in curves if tag not in scores and tag not in known]
    charts = []
    for tags in ([scores] if scores else []) + [[tag] for tag in known + others]:
        is_score = tags is scores
        title = "Validation Dice" if is_score else _title(tags[0])
        figure = Figure(figsize=(4.4, 2.7), layout="constrained")
        axes = figure.add_subplot()
        words = []
        for tag in tags:
            colour, name = _score_style(tag) if is_score else (CHART_COLOURS["line"], title)
            steps, values = _thin(*curves[tag])
            # A curve of one point would not be seen as a line.
            marker = "o" if len(steps) == 1 else None
            axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, label=name)
            first, last = curves[tag][1][[0, -1]]
            words.append(f"{name} from {first:.3g} to {last:.3g} in {len(curves[tag][1])} points")
        if is_score:
            axes.set_ylim(0, 1)
            figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=4)
        axes.set_xlabel("Epoch" if is_score else "Iteration")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.margins(x=0.02)
        charts.append(encode_chart(figure, f"{title}: " + "; ".join(words) + ".", title))
    return charts
