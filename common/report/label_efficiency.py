"""How many labels a training needs: Dice over the share of labels, with and without pre-training."""

from __future__ import annotations

import json
import logging
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ..atomic import write_text
from ..errors import InputError
from ..metrics.overlap import OVERLAP_SCORES
from .page import render_template
from .pictures import SERIES_COLOURS, Chart, encode_chart

__all__ = ["label_efficiency", "read_runs"]

logger = logging.getLogger(__name__)

_BEGUN = {True: "pre-trained", False: "from nothing"}
_COLUMNS = [(region, score) for region in ("image", "patient") for score in OVERLAP_SCORES]

Runs = dict[tuple[float, bool], list[dict[tuple[str, str], float]]]
"""Share of labels, whether pre-trained → of each training the mean scores, by region and score."""


class Row(NamedTuple):
    """A share of labels, how the trainings began, how many there are, and their scores."""

    share: str
    begun: str
    trainings: int
    cells: list[str]


class LabelsPage(NamedTuple):
    """Everything on the page."""

    title: str
    facts: list[tuple[str, str]]
    charts: list[Chart]
    heads: list[str]
    rows: list[Row]


def label_efficiency(folder: Path | str, out: Path | str = "label_efficiency.html") -> None:
    """Draw Dice over the share of labels, of all evaluations below a folder.

    Args:
        folder: holds scores.json files that evaluate.json of mps_ams wrote, each in a folder of its own.
        out: file of the page.

    Raises:
        InputError: there is no such file, or one is of something else.
    """
    runs = read_runs(folder)
    count = sum(map(len, runs.values()))
    page = LabelsPage(
        "Label efficiency",
        [("Trainings", str(count)), ("Shares of labels", ", ".join(f"{s:g}" for s in sorted({s for s, _ in runs})))],
        [_draw(runs, region) for region in ("image", "patient")],
        [f"{OVERLAP_SCORES[score]} of {region}s" for region, score in _COLUMNS],
        [_row(share, pretrained, runs[share, pretrained]) for share, pretrained in sorted(runs)],
    )
    write_text(Path(out), render_template("label_efficiency.html", page=page))
    logger.info("%d trainings are compared in %s", count, out)
    print(out)


def read_runs(folder: Path | str) -> Runs:
    """The scores of all evaluations below a folder, by what their weights were trained with."""
    runs: Runs = defaultdict(list)
    for path in sorted(Path(folder).rglob("scores.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            facts, summary = content["trained_with"], content["summary"]
            key = float(facts["labelled_share"]), bool(facts["pretrained"])
            means = {(region, score): summary[region][score]["mean"] for region, score in _COLUMNS}
            runs[key].append({name: math.nan if mean is None else float(mean) for name, mean in means.items()})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: not the scores of mps_ams ({type(error).__name__}); give a folder of evaluations by its "
                "evaluate.json alone"
            ) from None
    if not runs:
        raise InputError(f"{folder}: holds no scores.json; evaluate trainings with different --labelled_share first")
    return dict(runs)


def _row(share: float, pretrained: bool, trainings: list[dict[tuple[str, str], float]]) -> Row:
    cells = []
    for column in _COLUMNS:
        values = [training[column] for training in trainings]
        spread = f"±{statistics.stdev(values):.3f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.3f}{spread}")
    return Row(f"{share:.0%}", _BEGUN[pretrained], len(trainings), cells)


def _draw(runs: Runs, region: str) -> Chart:
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.subplots()
    words = []
    for pretrained, colour in zip((True, False), SERIES_COLOURS, strict=False):
        points = {s: [t[region, "dice"] for t in runs[s, p]] for s, p in sorted(runs) if p == pretrained}
        if not points:
            continue
        means = [statistics.mean(values) for values in points.values()]
        style: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 4}
        axes.plot([*points], means, **style, linewidth=1.8, label=_BEGUN[pretrained])
        for share, values in points.items():
            axes.plot([share] * len(values), values, **style, linestyle="", alpha=0.45)
        told = ", ".join(f"{share:.0%} {mean:.2f}" for share, mean in zip(points, means, strict=True))
        words.append(f"{_BEGUN[pretrained]}: {told}")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted({share for share, _ in runs})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    axes.set_xlabel("Labelled training patients")
    axes.set_ylabel(f"Mean DSC of {region}s")
    axes.set_ylim(0, 1)
    figure.legend(frameon=False, fontsize=9, loc="outside upper center", ncols=2)
    caption = f"Mean DSC of {region}s by the share of labels"
    return encode_chart(figure, f"{caption}. {'; '.join(words)}.", caption)
