"""Scores of a cross-validation: each fold's, and their spread over folds and over cases."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic import write_rows, write_text
from .lesion_records import finite
from .region_scores import summarise

__all__ = ["fold_rows", "fold_scores_table", "summarise_folds", "write_fold_scores"]

SCORES = ("dice", "hd95", "lesion_dice", "lesion_hd95", "lesion_f1")
Rows = list[dict[str, Any]]


def fold_rows(fold: int, folder: Path) -> Rows:
    """One row a case and region of a fold's evaluation: `fold`, `case`, `region` and `SCORES`.

    Args:
        fold: its number.
        folder: has `scores.json` and `lesions.json`, as the handlers of an evaluation write them. A score that isn't
            there or isn't defined is NaN.
    """
    whole = json.loads((folder / "scores.json").read_text())["cases"]
    lesions = json.loads((folder / "lesions.json").read_text())["cases"]
    lesion_wise = {(row["case"], row["region"]): row for row in lesions}
    rows = []
    for row in whole:
        by_lesion = lesion_wise.get((row["case"], row["region"]), {})
        values = {"dice": row["dice"], "hd95": row["hd95"], "lesion_f1": by_lesion.get("lesion_f1")}
        values |= {f"lesion_{name}": by_lesion.get(name) for name in ("dice", "hd95")}
        numbers = {name: math.nan if values[name] is None else float(values[name]) for name in SCORES}
        rows.append({"fold": fold, "case": row["case"], "region": row["region"], **numbers})
    return rows


def summarise_folds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Statistics of each score, by region.

    Returns:
        "folds": fold → region → score → {"mean", "std", "median"} over its cases; "over_folds": region → score → the
        same of the folds' means, each fold counting alike; "over_cases": the same over all cases of all folds.
        Deviations are with n − 1.
    """
    folds = {
        fold: summarise([row for row in rows if row["fold"] == fold], SCORES)
        for fold in sorted({int(row["fold"]) for row in rows})
    }
    means = [
        {"region": region, **{score: scores[score]["mean"] for score in SCORES}}
        for summary in folds.values()
        for region, scores in summary.items()
    ]
    return {"folds": folds, "over_folds": summarise(means, SCORES), "over_cases": summarise(rows, SCORES)}


def write_fold_scores(folder: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write `scores.csv` (a row a case and region) and `scores.json` (facts, rows, summary), each whole or not at all.

    What isn't defined is empty in the CSV and null in the JSON.

    Returns:
        what `summarise_folds` does.
    """
    summary = summarise_folds(rows)
    cells = ({key: "" if value != value else value for key, value in row.items()} for row in rows)
    write_rows(folder / "scores.csv", ["fold", "case", "region", *SCORES], cells)
    content = finite({**facts, "cases": list(rows), "summary": summary})
    write_text(folder / "scores.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    return summary


_ROWS = {
    "dice": ("Dice", 3),
    "hd95": ("HD95 (mm)", 1),
    "lesion_dice": ("lesion-wise Dice", 3),
    "lesion_hd95": ("lesion-wise HD95", 1),
    "lesion_f1": ("lesion F1", 3),
}


def fold_scores_table(summary: Mapping[str, Any]) -> str:
    """The summary as a table: a row a score and region, a column a fold with its mean, then both spreads."""
    folds, over_folds, over_cases = summary["folds"], summary["over_folds"], summary["over_cases"]
    header = "".join(f"{f'fold {fold}':>8}" for fold in folds)
    lines = ["mean of each fold; mean±standard deviation of these; mean±standard deviation (median) of all cases"]
    lines.append(f"{'':21}{header}{'over folds':>14}{'over cases':>22}")
    for score, (name, digits) in _ROWS.items():
        for region in over_cases:
            row = [
                _number(of_fold.get(region, {}).get(score, {}).get("mean", math.nan), digits)
                for of_fold in folds.values()
            ]
            spread = _spread(over_folds[region][score], digits)
            cases = over_cases[region][score]
            both = f"{_spread(cases, digits)} ({_number(cases['median'], digits)})"
            lines.append(f"{name:17}{region:4}" + "".join(f"{cell:>8}" for cell in row) + f"{spread:>14}{both:>22}")
    return "\n".join(lines)


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _spread(statistics: Mapping[str, float], digits: int) -> str:
    return f"{_number(statistics['mean'], digits)}±{_number(statistics['std'], digits)}"
