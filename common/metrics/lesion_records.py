"""Lesion-wise scores of many cases as files and tables: rows, every lesion, a summary."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic import write_rows, write_text
from .lesion_wise import NUMBERS, RegionScores
from .region_scores import summarise

__all__ = [
    "case_rows",
    "finite",
    "found_by_size",
    "lesion_wise_table",
    "records",
    "size_name",
    "summarise_lesions",
    "write_records",
]


def case_rows(cases: Mapping[str, Mapping[str, RegionScores]]) -> list[dict[str, Any]]:
    """One row a case and region: `case`, `region` and every number of `RegionScores`."""
    return [
        {"case": case, "region": region, **{name: getattr(scores, name) for name in NUMBERS}}
        for case, regions in cases.items()
        for region, scores in regions.items()
    ]


def found_by_size(scores: Sequence[RegionScores]) -> dict[tuple[float, float], tuple[int, int]]:
    """Detected and all scored lesions of a region in several cases, by size: (more than, at most) in mm³ → both."""
    found: dict[tuple[float, float], tuple[int, int]] = {}
    for one in scores:
        for bounds, (detected, lesions) in one.sensitivity_by_size().items():
            before = found.get(bounds, (0, 0))
            found[bounds] = (before[0] + detected, before[1] + lesions)
    return found


def size_name(above: float, up_to: float | None) -> str:
    """Such as 50–200 mm³; `up_to` is infinite, or None as in JSON, where there is no bound."""
    bounded = up_to is not None and math.isfinite(up_to)
    return f"{above:g}–{up_to:g} mm³" if bounded else f"above {above:g} mm³"


def summarise_lesions(cases: Mapping[str, Mapping[str, RegionScores]]) -> dict[str, dict[str, Any]]:
    """For each region: mean, standard deviation and median of every number over the cases in which it is defined, and
    how many lesions were found, missed and false in all cases together, by size too.

    Returns:
        region → number → {"mean", "std", "median"}; and "lesions" → {"tp", "fn", "fp", "by_size"}, the last a list of
        {"above", "up_to" (mm³), "detected", "lesions"}.
    """
    summary: dict[str, dict[str, Any]] = {}
    for region, numbers in summarise(case_rows(cases), NUMBERS).items():
        scores = [regions[region] for regions in cases.values()]
        by_size = [
            {"above": low, "up_to": high, "detected": detected, "lesions": lesions}
            for (low, high), (detected, lesions) in found_by_size(scores).items()
        ]
        totals = {name: sum(getattr(one, name) for one in scores) for name in ("tp", "fn", "fp")}
        summary[region] = {**numbers, "lesions": {**totals, "by_size": by_size}}
    return summary


def records(cases: Mapping[str, Mapping[str, RegionScores]], facts: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known, as it goes into a JSON file: `facts`, then `cases` with every lesion, then `summary`."""
    rows = case_rows(cases)
    for row in rows:
        scores = cases[row["case"]][row["region"]]
        for name in ("lesions", "false_positives"):
            row[name] = [dataclasses.asdict(lesion) for lesion in getattr(scores, name)]
    return {**facts, "cases": rows, "summary": summarise_lesions(cases)}


def finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def write_records(
    folder: Path,
    cases: Mapping[str, Mapping[str, RegionScores]],
    facts: Mapping[str, Any],
    missing: Collection[str] = (),
) -> dict[str, Any]:
    """Write `lesions.csv` (a row a case and region) and `lesions.json` (see `records`), each whole or not at all.

    Values that aren't defined are empty in the CSV and null in the JSON, as is the distance of what nothing matches.

    Args:
        folder: is made where it isn't there.
        cases: case → region → scores.
        facts: what was scored and how, for the JSON's beginning.
        missing: cases without prediction, scored as predicted empty; `missing` is 1 in their rows of the CSV, else 0.

    Returns:
        the content of the JSON file.
    """
    cells = (
        {key: "" if value != value else value for key, value in row.items()} | {"missing": int(row["case"] in missing)}
        for row in case_rows(cases)
    )
    content = finite(records(cases, {**facts, "missing": sorted(missing)}))
    write_rows(folder / "lesions.csv", ["case", "region", *NUMBERS, "missing"], cells)
    write_text(folder / "lesions.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    return content


_ROWS = {
    "dice": ("lesion-wise Dice", 3),
    "hd95": ("lesion-wise HD95 (mm)", 1),
    "lesion_f1": ("lesion F1", 3),
    "lesion_sensitivity": ("lesion sensitivity", 3),
    "lesion_precision": ("lesion precision", 3),
    "fp": ("false lesions a scan", 2),
    "panoptic_quality": ("panoptic quality", 3),
    "surface_dice": ("surface Dice", 3),
}


def lesion_wise_table(summary: Mapping[str, Mapping[str, Any]], cases: int) -> str:
    """The summary as a table of 100 columns: a row a score, a column a region; then lesions found by size.

    A mean over fewer cases than all says over how many.
    """
    lines = [f"mean±standard deviation (median) of {cases} case{'s' * (cases != 1)}"]
    lines.append(" " * 22 + "".join(f"{region:>26}" for region in summary))
    for score, (name, digits) in _ROWS.items():
        cells = [_cell(scores[score], digits, cases) for scores in summary.values()]
        lines.append(f"{name:22}" + "".join(f"{cell:>26}" for cell in cells))
    counts = [scores["lesions"] for scores in summary.values()]
    cells = [f"{count['tp']} / {count['fn']} / {count['fp']}" for count in counts]
    lines.append(f"{'found / missed / false':22}" + "".join(f"{cell:>26}" for cell in cells))
    for index, size in enumerate(counts[0]["by_size"] if counts else ()):
        bins = [count["by_size"][index] for count in counts]
        if not any(one["lesions"] for one in bins):
            continue
        name = f"  {size_name(size['above'], size['up_to'])}"
        cells = [f"{size['detected']} of {size['lesions']}" for size in bins]
        lines.append(f"{name:22}" + "".join(f"{cell:>26}" for cell in cells))
    return "\n".join(lines)


def _cell(statistics: Mapping[str, float | None], digits: int, cases: int) -> str:
    mean, std, median = (statistics[key] for key in ("mean", "std", "median"))
    if mean is None or std is None or median is None or math.isnan(mean):
        return "–"
    fewer = f" of {statistics['cases']}" if statistics["cases"] != cases else ""
    return f"{mean:.{digits}f}±{std:.{digits}f} ({median:.{digits}f}){fewer}"
