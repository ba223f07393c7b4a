"""The page of lesion-wise scores: what was found, missed and false, and how methods compare."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ..atomic import write_text
from ..data.pairs import Pair
from ..metrics.comparison import Comparison
from ..metrics.lesion_wise import PRESETS, Policy
from .comparisons import ComparisonRow, caution, compared_rows
from .detection import SizeBin, count_by_size, draw_detection, line_style
from .lesion_pictures import FIELD_MM, Cutout, Group, cut_case, draw_cutout, lost_lesions
from .lesion_tables import (
    COLUMNS,
    HEADLINE,
    Cases,
    LesionRows,
    SummaryRow,
    case_rows,
    lesion_rows,
    statistic_rows,
    summary_rows,
)
from .page import render_template
from .pictures import Chart, Picture
from .tables import Cell

__all__ = ["write_lesion_page"]

MOST_PICTURES, MOST_SENTENCES = 60, 12


class Gallery(NamedTuple):
    """Pictures of one group of lesions, how many there are in all, and how many lie in one pictured already."""

    pictures: list[Picture]
    lesions: int
    repeated: int

    @property
    def left_out(self) -> int:
        """How many are neither pictured here nor in a wider region."""
        return self.lesions - self.repeated - len(self.pictures)


class Detection(NamedTuple):
    """The size–detection curve of a region, and its numbers: one row a size, one cell a method."""

    chart: Chart
    rows: list[tuple[str, list[str]]]


@dataclasses.dataclass(frozen=True)
class LesionPage:
    """Everything on the page."""

    title: str
    facts: list[tuple[str, str]]
    policy: Policy
    methods: list[str]
    regions: list[str]
    notes: list[str]
    unequal: bool
    summary: list[SummaryRow]
    statistics: list[tuple[str, str, str, list[Cell]]]
    cases: list[tuple[str, str, str, list[Cell]]]
    detection: list[Detection]
    galleries: dict[str, dict[str, tuple[Gallery, Gallery]]]
    problems: list[str]
    comparisons: list[ComparisonRow]
    caution: str
    lesions: LesionRows
    false: LesionRows


def _detection(scored: Mapping[str, Cases], regions: Sequence[str]) -> list[Detection]:
    def share(size: SizeBin) -> str:
        if not size.lesions:
            return "–"
        low, high = size.interval
        return f"{size.detected} of {size.lesions} ({low:.0%} to {high:.0%})"

    found = []
    for region in regions:
        methods = {method: [of[region] for of in cases.values()] for method, cases in scored.items()}
        chart = draw_detection(region, methods)
        if chart is not None:
            bins = [count_by_size(scores) for scores in methods.values()]
            rows = [
                (sizes[0].name, [share(size) for size in sizes])
                for sizes in zip(*bins, strict=True)
                if any(size.lesions for size in sizes)
            ]
            found.append(Detection(chart, rows))
    return found


def _galleries(
    scored: Mapping[str, Cases], pairs: Mapping[str, Sequence[Pair]], policy: Policy, ignore_affine: bool
) -> tuple[dict[Group, Gallery], list[str]]:
    """Pictures of the lesions that were missed and of the false ones, the largest first."""
    files: dict[str, dict[str, Pair]] = {}
    for method, of_method in pairs.items():
        for pair in of_method:
            if pair.case in scored.get(method, {}):
                files.setdefault(pair.case, {})[method] = pair

    kept: dict[Group, list[Cutout]] = {}
    repeated: Counter[Group] = Counter()
    problems = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        by_case = pool.map(
            lambda item: cut_case(
                item[1], {method: scored[method][item[0]] for method in item[1]}, policy.dilation, ignore_affine
            ),
            sorted(files.items()),
        )
        for found in by_case:
            repeated += found.repeated
            problems += [found.problem] if found.problem else []
            for cutout in found.cutouts:
                kept.setdefault(cutout.group, []).append(cutout)
            # What is too small to be pictured is dropped at once, for there may be thousands.
            for group, cutouts in kept.items():
                kept[group] = sorted(cutouts, key=lambda cutout: -cutout.lesion.volume)[:MOST_PICTURES]

    galleries = {}
    for method, cases in scored.items():
        for region in dict.fromkeys(region for of in cases.values() for region in of):
            for missed in (True, False):
                group = Group(method, region, missed)
                pictures = [draw_cutout(cutout) for cutout in kept.get(group, [])]
                lesions = sum(len(lost_lesions(of[region], missed)) for of in cases.values())
                galleries[group] = Gallery(pictures, lesions, repeated[group])
    return galleries, problems


def _notes(scored: Mapping[str, Cases], pairs: Mapping[str, Sequence[Pair]]) -> list[str]:
    """Which cases are not what they seem, by method."""
    notes = []
    for method, of_method in pairs.items():
        missing = [pair.case for pair in of_method if pair.prediction is None]
        failed = [pair.case for pair in of_method if pair.case not in scored.get(method, {})]
        if missing:
            notes.append(f"{method}: no prediction for {', '.join(missing)}; scored as predicted empty.")
        if failed:
            notes.append(f"{method}: {', '.join(failed)} couldn't be scored.")
    return notes


def write_lesion_page(
    path: Path,
    preset: str,
    scored: Mapping[str, Cases],
    pairs: Mapping[str, Sequence[Pair]],
    comparisons: Sequence[Comparison],
    *,
    ignore_affine: bool = False,
    settings: Mapping[str, float | None] | None = None,
) -> Path:
    """Write the page of lesion-wise scores, whole or not at all.

    Args:
        path: file of the page.
        preset: that was scored by.
        scored: method → case → region → scores. A method none of whose cases could be scored is left out.
        pairs: method → the files of its cases.
        comparisons: of every two methods; none for a single one.
        ignore_affine: see `Pair.read`.
        settings: dilation, threshold, penalty or tolerance in place of the preset's, None where it is the preset's.

    Returns:
        `path`.

    Raises:
        CaseError: a label map can no longer be read.
    """
    given = {key: value for key, value in (settings or {}).items() if value is not None}
    fields = {field.name for field in dataclasses.fields(Policy)}
    changes: dict[str, Any] = {key: value for key, value in given.items() if key in fields}
    policy = dataclasses.replace(PRESETS[preset], **changes)
    scored = {method: cases for method, cases in scored.items() if cases}
    regions = list(dict.fromkeys(r for cases in scored.values() for of in cases.values() for r in of))
    galleries, problems = _galleries(scored, pairs, policy, ignore_affine)
    lesions, false = lesion_rows(scored)
    names = {case for cases in scored.values() for case in cases}
    changed = ", ".join(f"{key} {value:g}" for key, value in changes.items())
    page = LesionPage(
        title="Lesion-wise scores",
        facts=[
            ("Method" if len(scored) == 1 else "Methods", ", ".join(scored)),
            ("Cases scored", str(len(names))),
            ("Scored as", f"{preset} with {changed}" if changed else preset),
            ("Surface Dice within", f"{given.get('tolerance', 1.0):g} mm"),
        ],
        policy=policy,
        methods=list(scored),
        regions=regions,
        notes=_notes(scored, pairs),
        unequal=len({frozenset(cases) for cases in scored.values()}) > 1,
        summary=summary_rows(scored, regions),
        statistics=statistic_rows(scored, regions),
        cases=case_rows(scored, regions),
        detection=_detection(scored, regions),
        galleries={
            method: {r: (galleries[Group(method, r, True)], galleries[Group(method, r, False)]) for r in regions}
            for method in scored
        },
        problems=problems,
        comparisons=compared_rows(comparisons),
        caution=caution(comparisons),
        lesions=lesions,
        false=false,
    )
    styles = [line_style(number) for number in range(len(scored))]
    text = render_template(
        "lesions.html",
        page=page,
        headline_columns=[column.heading for column in HEADLINE],
        columns=COLUMNS,
        field_mm=FIELD_MM,
        sentences=[row.sentence for row in page.comparisons if row.sentence],
        most_sentences=MOST_SENTENCES,
        keys=[
            (method, f"var(--series-{series + 1})", " ".join(f"{3 * dash:g}" for dash in dashes))
            for method, (series, dashes) in zip(scored, styles, strict=True)
        ],
    )
    write_text(path, text)
    return path
