"""The tables of the page of lesion-wise scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..data.labels import REGIONS
from ..metrics.lesion_wise import Lesion, RegionScores
from .lesion_pictures import diameter
from .tables import Cell, Column, format_score

__all__ = [
    "COLUMNS",
    "HEADLINE",
    "Cases",
    "LesionRow",
    "LesionRows",
    "SummaryRow",
    "case_rows",
    "lesion_rows",
    "statistic_rows",
    "summary_rows",
]

MOST_ROWS = 2000

HEADLINE = (
    Column("dice", "Dice", 3, bar=True),
    Column("hd95", "HD95, mm", 1),
    Column("lesion_f1", "Lesion F1", 3),
)
COLUMNS = (
    *HEADLINE,
    Column("lesion_sensitivity", "Lesion sensitivity", 3),
    Column("lesion_precision", "Lesion precision", 3),
    Column("tp", "Found", 2),
    Column("fn", "Missed", 2),
    Column("fp", "False", 2),
    Column("panoptic_quality", "Panoptic quality", 3),
    Column("segmentation_quality", "Overlap (IoU) of found", 3),
    Column("volume_dice", "Whole-region Dice", 3),
    Column("volume_hd95", "Whole-region HD95, mm", 1),
    Column("surface_dice", "Surface Dice", 3),
    Column("sensitivity", "Voxel sensitivity", 3),
    Column("specificity", "Voxel specificity", 4),
    Column("prediction_volume", "Predicted, ml", 2, factor=1e-3),
    Column("reference_volume", "Reference, ml", 2, factor=1e-3),
)

Cases = Mapping[str, Mapping[str, RegionScores]]
Summary = Mapping[str, Mapping[str, Any]]
"""Of `common.metrics.lesion_records.summarise_lesions`."""


class SummaryRow(NamedTuple):
    """A region by one method: means with standard deviations, and lesions counted over all cases."""

    region: str
    method: str
    cases: int
    cells: list[Cell]
    found: int
    missed: int
    false: int
    small: int


class LesionRow(NamedTuple):
    """A lesion of a reference, with the outcome by each method; `cells` of a false one is its method alone."""

    case: str
    region: str
    volume: str
    diameter: str
    place: str
    cells: list[str]


class LesionRows(NamedTuple):
    """The largest lesions by case, MOST_ROWS at most, and how many there are in all."""

    rows: list[LesionRow]
    lesions: int


def summary_rows(
    scored: Mapping[str, Cases], summaries: Mapping[str, Summary], regions: Sequence[str]
) -> list[SummaryRow]:
    """Regions first, so that methods are neighbours; a mean over fewer cases than there are says over how many."""
    rows = []
    for region in regions:
        for method, cases in scored.items():
            numbers = summaries[method][region]
            cells = []
            for column in HEADLINE:
                mean, std = (format_score(numbers[column.key][key], column) for key in ("mean", "std"))
                defined = numbers[column.key]["cases"]
                text = f"{mean.text} ± {std.text}" + (f" (n = {defined})" if defined < len(cases) else "")
                cells.append(mean if mean.text == "–" else Cell(text, mean.percent))
            lesions = numbers["lesions"]
            small = sum(not lesion.scored for of in cases.values() for lesion in of[region].lesions)
            rows.append(
                SummaryRow(region, method, len(cases), cells, lesions["tp"], lesions["fn"], lesions["fp"], small)
            )
    return rows


def statistic_rows(summaries: Mapping[str, Summary], regions: Sequence[str]) -> list[tuple[str, str, str, list[Cell]]]:
    """Mean, standard deviation and median of all COLUMNS, and over how many cases: region, method, statistic, cells."""
    rows = []
    for region in regions:
        for method, summary in summaries.items():
            numbers = [(summary[region][column.key], column) for column in COLUMNS]
            for key, name in (("mean", "mean"), ("std", "standard deviation"), ("median", "median")):
                cells = [format_score(number[key], column)._replace(percent=None) for number, column in numbers]
                rows.append((region, method, name, cells))
            rows.append((region, method, "cases", [Cell(str(number["cases"])) for number, _ in numbers]))
    return rows


def case_rows(scored: Mapping[str, Cases], regions: Sequence[str]) -> list[tuple[str, str, str, list[Cell]]]:
    """All COLUMNS of every case: case, region, method, cells."""
    names = dict.fromkeys(case for cases in scored.values() for case in cases)
    digits = {column: column._replace(digits=0) for column in COLUMNS if column.key in ("tp", "fn", "fp")}
    return [
        (case, region, method, [format_score(getattr(cases[case][region], c.key), digits.get(c, c)) for c in COLUMNS])
        for case in sorted(names)
        for region in regions
        for method, cases in scored.items()
        if case in cases
    ]


def _lesion_row(case: str, region: str, lesion: Lesion, cells: list[str]) -> LesionRow:
    place = ", ".join(f"{value:.0f}" for value in lesion.centroid)
    return LesionRow(case, region, f"{lesion.volume:.1f}", f"{diameter(lesion.volume):.1f}", place, cells)


def _outcome(lesion: Lesion | None) -> str:
    if lesion is None:
        return "–"
    outcome = f"{lesion.dice:.3f}, {lesion.hd95:.1f} mm" if lesion.detected else "missed"
    return outcome if lesion.scored else f"({outcome})"


def lesion_rows(scored: Mapping[str, Cases]) -> tuple[LesionRows, LesionRows]:
    """The lesions of the references, with a cell a method, and the false ones, with their method."""
    order = list(REGIONS)
    outcomes: dict[tuple[str, int, tuple[int, int, int]], dict[str, Lesion]] = {}
    false = []
    for method, cases in scored.items():
        for case, regions in cases.items():
            for region, one in regions.items():
                for lesion in one.lesions:
                    outcomes.setdefault((case, order.index(region), lesion.first_voxel), {})[method] = lesion
                false += [(lesion, case, order.index(region), method) for lesion in one.false_positives]
    true = [(next(iter(of.values())), case, region, of) for (case, region, _), of in outcomes.items()]
    true.sort(key=lambda item: -item[0].volume)
    false.sort(key=lambda item: -item[0].volume)
    rows = [
        _lesion_row(case, order[region], lesion, [_outcome(of.get(method)) for method in scored])
        for lesion, case, region, of in sorted(true[:MOST_ROWS], key=lambda item: item[1:3])
    ]
    false_rows = [
        _lesion_row(case, order[region], lesion, [method])
        for lesion, case, region, method in sorted(false[:MOST_ROWS], key=lambda item: item[1:3])
    ]
    return LesionRows(rows, len(true)), LesionRows(false_rows, len(false))
