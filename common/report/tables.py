"""Scores as the page shows them: numbers as text, with the length of a bar beside those that lie between 0 and 1."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from ..data.labels import REGIONS
from ..errors import InputError

__all__ = ["COLUMNS", "Cell", "Scores", "format_score", "mean_dice", "read_scores", "table_rows"]


class Column(NamedTuple):
    """A score: key in scores.json, heading, digits after the point, what it is multiplied by, whether it has a bar."""

    key: str
    heading: str
    digits: int
    factor: float = 1.0
    bar: bool = False


COLUMNS = (
    Column("dice", "Dice", 3, bar=True),
    Column("hd95", "HD95, mm", 1),
    Column("hd100", "HD100, mm", 1),
    Column("sensitivity", "Sensitivity", 3),
    Column("specificity", "Specificity", 4),
    Column("volume_prediction", "Predicted, ml", 1, factor=1e-3),
    Column("volume_reference", "Reference, ml", 1, factor=1e-3),
)


class Cell(NamedTuple):
    """A number as text; `percent` is the length of its bar, None where it has none."""

    text: str
    percent: float | None = None


class Scores(NamedTuple):
    """What the evaluation wrote.

    Args:
        cases: score by name, by case and region.
        summary: number by statistic (mean, std, median), by region and score.
    """

    cases: dict[str, dict[str, dict[str, Any]]]
    summary: dict[str, dict[str, dict[str, Any]]]


def read_scores(path: Path | str) -> Scores:
    """Reads scores.json as the evaluation writes it, or the cross-validation.

    Of the latter, the summary is that over all cases of all folds.

    Raises:
        InputError: not such a file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        cases: dict[str, dict[str, dict[str, Any]]] = {}
        for row in content["cases"]:
            cases.setdefault(str(row["case"]), {})[str(row["region"])] = dict(row)
        summary = content["summary"].get("over_cases", content["summary"])
        return Scores(cases, {str(region): dict(numbers) for region, numbers in summary.items()})
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give a scores.json that the evaluation wrote") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not the scores of an evaluation; give a scores.json that the evaluation wrote"
        ) from error


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def format_score(value: Any, column: Column) -> Cell:
    """A number as text: a dash where it isn't defined, the sign of infinity where it has no bound."""
    number = _number(value) * column.factor
    if math.isnan(number):
        return Cell("–")
    if math.isinf(number):
        return Cell("∞" if number > 0 else "−∞")
    return Cell(f"{number:.{column.digits}f}", 100 * min(max(number, 0.0), 1.0) if column.bar else None)


def mean_dice(regions: dict[str, dict[str, Any]]) -> float:
    """The mean Dice over a case's regions, leaving out those without one; NaN where none has one."""
    values = [v for v in (_number(regions.get(region, {}).get("dice")) for region in REGIONS) if not math.isnan(v)]
    return sum(values) / len(values) if values else math.nan


def table_rows(regions: dict[str, dict[str, Any]], statistic: str | None = None) -> dict[str, list[Cell]]:
    """One row of cells a region, in the order of COLUMNS: of a case, or of one statistic of the summary."""
    rows = {}
    for region in REGIONS:
        found = {
            key: value[statistic] if statistic and isinstance(value, dict) and statistic in value else value
            for key, value in regions.get(region, {}).items()
        }
        # A standard deviation is no place on the scale from 0 to 1, so it gets no bar.
        cells = [format_score(found.get(column.key), column) for column in COLUMNS]
        rows[region] = [cell._replace(percent=None) for cell in cells] if statistic == "std" else cells
    return rows
