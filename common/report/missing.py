"""What a network does without some of the modalities: Dice under each combination of those that are there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from ..data.labels import CHANNELS, REGIONS
from ..data.missing import COMBINATIONS
from ..errors import InputError
from .pictures import CHART_COLOURS, Chart, encode_chart
from .tables import COLUMNS, Cell, format_score

__all__ = ["MissingRow", "MissingSection", "read_missing"]

_GIVE = "give a missing_modalities.json that evaluate_missing wrote"
_COUNTS = ("all", "three", "two", "one")


class MissingRow(NamedTuple):
    """One combination: the modalities that are there, and each region's mean Dice with its standard deviation."""

    present: str
    dice: dict[str, tuple[Cell, str]]


class MissingSection(NamedTuple):
    """Dice over the combinations, as a chart and as a table, and the number of cases that it is the mean of."""

    chart: Chart
    rows: list[MissingRow]
    cases: int


def read_missing(path: Path | str) -> MissingSection:
    """Reads missing_modalities.json as the evaluation writes it, and draws it.

    Raises:
        InputError: not such a file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        cases = {row["case"] for row in content["cases"]}
        found = {tuple(row["missing"]): row["dice"] for row in content["summary"]}
        dice = {m: {region: _statistics(found[m].get(region)) for region in REGIONS} for m in COMBINATIONS}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; {_GIVE}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the scores of an evaluation with missing modalities; {_GIVE}") from error
    rows = [
        MissingRow(
            _present(missing),
            {region: (format_score(mean, COLUMNS[0]), f"{std:.3f}") for region, (mean, std) in values.items()},
        )
        for missing, values in dice.items()
    ]
    return MissingSection(_draw(dice), rows, len(cases))


def _present(missing: tuple[str, ...]) -> str:
    return " ".join(channel for channel in CHANNELS if channel not in missing)


def _statistics(score: dict[str, Any] | None) -> tuple[float, float]:
    return (float(score["mean"]), float(score["std"])) if score else (math.nan, math.nan)


def _draw(dice: dict[tuple[str, ...], dict[str, tuple[float, float]]]) -> Chart:
    """Lines of the mean Dice over the combinations; below, as dots, which modalities are there."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    lines, dots = figure.subplots(2, sharex=True, height_ratios=(2.4, 1))
    for region in REGIONS:
        means = [values[region][0] for values in dice.values()]
        style = {"color": CHART_COLOURS[region], "linewidth": 1.6, "marker": "o", "markersize": 4}
        lines.plot(means, **style, label=region, clip_on=False)
    lines.set_ylim(0, 1)
    lines.set_ylabel("Mean Dice")
    places = [(x, y, c in missing) for x, missing in enumerate(dice) for y, c in enumerate(reversed(CHANNELS))]
    for is_missing, size in ((False, 42), (True, 6)):
        x, y = zip(*((x, y) for x, y, one in places if one == is_missing), strict=True)
        dots.scatter(x, y, size, CHART_COLOURS["ink"], linewidths=0)
    dots.set_yticks(range(len(CHANNELS)), CHANNELS[::-1])
    dots.set_ylim(-0.6, len(CHANNELS) - 0.4)
    counts = [len(missing) for missing in dice]
    ends = [counts.index(count) - 0.5 for count in range(1, len(CHANNELS))]
    for axes in (lines, dots):
        for end in ends:
            axes.axvline(end, color=CHART_COLOURS["ink"], linewidth=0.5, linestyle=(0, (2, 3)))
    middles = [(counts.index(n) + len(counts) - 1 - counts[::-1].index(n)) / 2 for n in range(len(CHANNELS))]
    dots.set_xticks(middles, _COUNTS)
    dots.set_xlabel("Modalities that are there")
    figure.legend(frameon=False, fontsize=9, loc="outside upper center", ncols=3)
    words = "; ".join(
        f"{_present(missing)}: " + ", ".join(f"{region} {mean:.2f}" for region, (mean, _) in values.items())
        for missing, values in dice.items()
    )
    return encode_chart(figure, f"Mean Dice by the modalities that are there. {words}.", "Dice by modalities")
