"""The page of lesion-wise scores: what was found, missed and false, and how methods compare."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..atomic import write_text
from ..data.pairs import Pair
from ..metrics.comparison import Comparison, count_tests
from ..metrics.lesion_records import summarise_lesions
from ..metrics.lesion_wise import PRESETS, Policy
from .comparisons import ComparisonRow, caution, compared_rows, differences
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

MOST_PICTURES = 60
# Of one region.
MOST_SENTENCES = 6


class Gallery(NamedTuple):
    """Pictures of one group of lesions, how many there are in all, and how many lie in one pictured already."""

    pictures: list[Picture]
    lesions: int
    repeated: int

    @property
    def left_out(self) -> int:
        """How many are neither pictured here nor in a wider region."""
        return self.lesions - self.repeated - len(self.pictures)


class Note(NamedTuple):
    """Which cases are not what they seem, with a line for each of them where there is more to say."""

    text: str
    lines: Sequence[str] = ()


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
    given: int
    notes: list[Note]
    unequal: bool
    summary: list[SummaryRow]
    statistics: list[tuple[str, str, str, list[Cell]]]
    cases: list[tuple[str, str, str, list[Cell]]]
    detection: list[Detection]
    galleries: dict[str, dict[str, tuple[Gallery, Gallery]]]
    problems: list[str]
    comparisons: list[ComparisonRow]
    compared: int
    tests: int
    differences: dict[str, list[str]]
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


def _notes(missing: Mapping[str, Sequence[str]], failed: Mapping[str, Sequence[str]]) -> list[Note]:
    notes = [
        Note(f"{method}: no prediction for {', '.join(cases)}; scored as predicted empty.")
        for method, cases in missing.items()
        if cases
    ]
    for method, messages in failed.items():
        if messages:
            many = "1 case" if len(messages) == 1 else f"{len(messages)} cases"
            notes.append(Note(f"{method}: {many} couldn't be scored; its numbers are over the others:", messages))
    return notes


def _scored_as(preset: str, policy: Policy) -> str:
    """The preset, and what differs from it."""
    usual = dataclasses.asdict(PRESETS[preset])
    changed = [f"{key} {value:g}" for key, value in dataclasses.asdict(policy).items() if value != usual[key]]
    return f"{preset} with {', '.join(changed)}" if changed else preset


def write_lesion_page(
    path: Path,
    preset: str,
    policy: Policy,
    scored: Mapping[str, Cases],
    pairs: Mapping[str, Sequence[Pair]],
    comparisons: Sequence[Comparison],
    *,
    missing: Mapping[str, Sequence[str]],
    failed: Mapping[str, Sequence[str]],
    ignore_affine: bool = False,
) -> Path:
    """Write the page of lesion-wise scores, whole or not at all.

    Args:
        path: file of the page.
        preset: whose policy was scored by, or one that differs from it.
        policy: that was scored by.
        scored: method → case → region → scores. A method none of whose cases could be scored is left out.
        pairs: method → the files of its cases.
        comparisons: of every two methods; none for a single one.
        missing: method → cases without prediction, scored as predicted empty.
        failed: method → what was wrong with each case that couldn't be scored.
        ignore_affine: see `Pair.read`.

    Returns:
        `path`.

    Raises:
        CaseError: a label map can no longer be read.
    """
    scored = {method: cases for method, cases in scored.items() if cases}
    regions = list(dict.fromkeys(r for cases in scored.values() for of in cases.values() for r in of))
    galleries, problems = _galleries(scored, pairs, policy, ignore_affine)
    lesions, false = lesion_rows(scored)
    summaries = {method: summarise_lesions(cases) for method, cases in scored.items()}
    names = {case for cases in scored.values() for case in cases}
    given = {pair.case for of_method in pairs.values() for pair in of_method}
    page = LesionPage(
        title="Lesion-wise scores",
        facts=[
            ("Method" if len(scored) == 1 else "Methods", ", ".join(scored)),
            ("Cases scored", str(len(names)) if len(names) == len(given) else f"{len(names)} of {len(given)}"),
            ("Scored as", _scored_as(preset, policy)),
            ("Surface Dice within", f"{policy.tolerance:g} mm"),
        ],
        policy=policy,
        methods=list(scored),
        regions=regions,
        given=len(given),
        notes=_notes(missing, failed),
        unequal=len({frozenset(cases) for cases in scored.values()}) > 1,
        summary=summary_rows(scored, summaries, regions),
        statistics=statistic_rows(summaries, regions),
        cases=case_rows(scored, regions),
        detection=_detection(scored, regions),
        galleries={
            method: {r: (galleries[Group(method, r, True)], galleries[Group(method, r, False)]) for r in regions}
            for method in scored
        },
        problems=problems,
        comparisons=compared_rows(comparisons),
        compared=max((one.cases for one in comparisons), default=0),
        tests=count_tests(comparisons),
        differences=differences(comparisons),
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
        most_sentences=MOST_SENTENCES,
        keys=[
            (method, f"var(--series-{series + 1})", " ".join(f"{3 * dash:g}" for dash in dashes))
            for method, (series, dashes) in zip(scored, styles, strict=True)
        ],
    )
    write_text(path, text)
    return path
