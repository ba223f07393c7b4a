"""Pages as one HTML file each that asks for nothing else, and the report's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..atomic import write_text
from ..data.labels import REGIONS
from .missing import MissingSection
from .pictures import REGION_COLOURS, Chart, Picture
from .queries import QuerySection
from .tables import COLUMNS, Scores, format_score, table_rows
from .uncertainty import ErrorChart

__all__ = ["REGION_NAMES", "CaseSection", "Page", "render_page", "render_template", "write_page"]

REGION_NAMES = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}
OPEN_CASES = 3
MISSING_SCORES = Scores({}, {})


@dataclass(frozen=True)
class CaseSection:
    """What is shown of one case.

    Args:
        name: of the case.
        planes: pictures of the three planes.
        has_reference: whether a reference is drawn in them.
        dice: mean over the regions as text, empty where it isn't known.
        uncertainty: pictures of entropy, variance and errors, if any.
        attention, features: pictures of the attention map and of the feature map, if any.
        queries: what they say and paint, None where the network has none.
        scales: pictures of what each scale finds and where it looks, if any.
    """

    name: str
    planes: list[Picture]
    has_reference: bool
    dice: str = ""
    uncertainty: list[Picture] = field(default_factory=list)
    attention: list[Picture] = field(default_factory=list)
    features: list[Picture] = field(default_factory=list)
    queries: QuerySection | None = None
    scales: list[Picture] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """Everything on the page.

    Args:
        title: heading.
        facts: what was run, as pairs of term and value.
        cases: those pictured, in the order of the page.
        predicted: number of cases that have a prediction.
        scores: of the evaluation, None where there was none.
        worst: name of the worst case, None where it isn't known.
        curves: learning curves.
        confidence: the confidence histogram, with the number of cases in it.
        confidence_of_first: these cases are the first ones that the page pictures, and not all that have a reference.
        errors: errors against uncertainty.
        missing: Dice without some of the modalities.
    """

    title: str
    facts: list[tuple[str, str]]
    cases: list[CaseSection]
    predicted: int
    scores: Scores | None = None
    worst: str | None = None
    curves: list[Chart] = field(default_factory=list)
    confidence: tuple[Chart, int] | None = None
    confidence_of_first: bool = False
    errors: ErrorChart | None = None
    missing: MissingSection | None = None


def render_template(name: str, **values: Any) -> str:
    """A page as HTML, from a template of this folder and what it asks for."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(
        region_names=REGION_NAMES,
        region_colours=REGION_COLOURS,
        svg=lambda chart: Markup(chart.svg),
        **values,
    )


def render_page(page: Page) -> str:
    """The page as HTML."""
    scores = page.scores or MISSING_SCORES
    dice = COLUMNS[0]
    headline = {
        region: {name: format_score(value, dice).text for name, value in numbers.get("dice", {}).items()}
        for region, numbers in scores.summary.items()
    }
    return render_template(
        "template.html",
        page=page,
        scores=scores,
        headline=headline,
        columns=COLUMNS,
        open_cases=OPEN_CASES,
        case_rows={case: table_rows(regions) for case, regions in sorted(scores.cases.items())},
        summary_rows={
            statistic: table_rows({r: scores.summary.get(r, {}) for r in REGIONS}, statistic)
            for statistic in ("mean", "std", "median")
        },
    )


def write_page(page: Page, path: Path | str) -> Path:
    """Writes the page, whole or not at all."""
    write_text(Path(path), render_page(page))
    return Path(path)
