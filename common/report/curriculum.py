"""What curricula hold: how many voxels and lesions of each size, and pictures of how they grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgba

from ..atomic import write_text
from ..data.case_files import Case
from ..data.curriculum import CATEGORIES, Coverage, CoveredLesion, measure_curriculum, read_curriculum
from ..data.curriculum_folder import Manifest, read_manifest, with_curricula
from ..data.labels import CHANNELS
from ..data.reading import read_image, read_label
from ..metrics.lesion_records import size_name
from ..metrics.lesion_wise import SIZE_BINS
from ..transforms.crop import bounding_box
from .attention import CLASS_NAMES
from .page import OPEN_CASES, REGION_NAMES, render_template
from .pictures import Picture, encode_picture
from .planes import DETAIL_LEAST_MM, DETAIL_MARGIN_MM, MODALITY_NAMES, View, draw_tile, orient
from .tables import Cell

__all__ = [
    "CoverageRow",
    "coverage_rows",
    "coverage_table",
    "draw_curriculum",
    "stage_colours",
    "write_curriculum_page",
]

ALL_SIZES = "all sizes"
NEVER_COLOUR = "#56B4E9"


class CoverageRow(NamedTuple):
    """What the curricula have of the lesions of one category and size.

    Args:
        category: its name.
        size: such as 50–200 mm³, or `ALL_SIZES`.
        lesions, voxels: of the truth.
        touched: lesions of which C_1, C_2, … have a voxel.
        covered: voxels in C_1, C_2, ….
    """

    category: str
    size: str
    lesions: int
    voxels: int
    touched: tuple[int, ...]
    covered: tuple[int, ...]

    @property
    def shares(self) -> list[str]:
        """Of the voxels, in each curriculum."""
        return [percent(covered, self.voxels) for covered in self.covered]


class TableRow(NamedTuple):
    """A row of the page's table: for each curriculum the share of the voxels, and how many lesions are touched."""

    category: str
    size: str
    lesions: int
    voxels: int
    cells: list[tuple[Cell, int]]


class Growth(NamedTuple):
    """How the curriculum of one category of a case grows: where that is shown, a picture a stage, and the truth."""

    name: str
    place: str
    pictures: list[Picture]


class CaseGrowth(NamedTuple):
    """A pictured case, with what its last curriculum has."""

    name: str
    last: str
    categories: list[Growth]


class CurriculumPage(NamedTuple):
    """Everything on the page.

    Args:
        title: heading.
        facts: what was looked at, as pairs of term and value.
        stages: how many curricula a case has.
        headline: name of each category, shares of its voxels, and what more there is to say.
        tables: rows of each category.
        cases: those pictured.
        given: how many cases there are.
    """

    title: str
    facts: list[tuple[str, str]]
    stages: int
    headline: list[tuple[str, str, str]]
    tables: list[list[TableRow]]
    cases: list[CaseGrowth]
    given: int


def coverage_rows(cases: Mapping[str, Coverage], categories: str, stages: int) -> list[CoverageRow]:
    """For each category first all of its lesions, then those of each size that is there, of all cases together.

    Args:
        cases: what the curricula cover, by case.
        categories: a name in `CATEGORIES`.
        stages: how many curricula a case has.
    """
    rows = []
    for category in CATEGORIES[categories]:
        lesions = [lesion for of_case in cases.values() for lesion in of_case[category]]
        rows.append(_count(category, ALL_SIZES, lesions, stages))
        for low, high in pairwise(SIZE_BINS):
            inside = [lesion for lesion in lesions if low < lesion.volume <= high]
            rows += [_count(category, size_name(low, high), inside, stages)] if inside else []
    return rows


def _count(category: str, size: str, lesions: Sequence[CoveredLesion], stages: int) -> CoverageRow:
    counts = np.array([lesion.voxels for lesion in lesions], int).reshape(-1, stages + 1)
    *covered, voxels = counts.sum(axis=0).tolist()
    touched = np.count_nonzero(counts[:, :-1], axis=0).tolist()
    return CoverageRow(category, size, len(lesions), voxels, tuple(touched), tuple(covered))


def percent(part: int, whole: int, digits: int = 1) -> str:
    """Rounded down, so that 100% is all of it; a dash where there is nothing."""
    return f"{100 * 10**digits * part // whole / 10**digits:.{digits}f}%" if whole else "–"


def coverage_table(manifest: Manifest) -> str:
    """What curricula hold, as text: a row a category and size, a column a curriculum.

    Args:
        manifest: with its cases.
    """
    cases = manifest.cases or {}
    many = f"{len(cases)} case{'s' * (len(cases) != 1)}"
    header = "".join(f"{f'C{stage}':>15}" for stage in range(1, manifest.stages + 1))
    lines = [f"share of the voxels in each curriculum, and lesions that it touches, of {many}"]
    lines.append(f"{'':18}{'lesions':>8}{'voxels':>10}{header}")
    for row in coverage_rows(cases, manifest.categories, manifest.stages):
        name = row.category if row.size == ALL_SIZES else f"  {row.size}"
        cells = "".join(f"{share:>9}{count:>6}" for share, count in zip(row.shares, row.touched, strict=True))
        lines.append(f"{name:18}{row.lesions:>8}{row.voxels:>10}{cells}")
    return "\n".join(lines)


def stage_colours(stages: int) -> list[str]:
    """Of the voxels that enter with each curriculum, darker as they get harder, and of those that are in none."""
    return [*(to_hex(colormaps["plasma"](place)) for place in np.linspace(0.95, 0.5, stages)), NEVER_COLOUR]


def draw_curriculum(case: Case, stages: int, categories: str, coverage: Coverage) -> list[Growth]:
    """Draw, for each category that a case has, what each curriculum has of it in an axial slice, and last the truth.

    It is the slice in which most voxels are not in the first curriculum; where all are, that with most voxels. T1 with
    contrast is shown if there is enhancing tumour in it, else FLAIR.

    Args:
        case: with an image, a label and a curriculum.
        stages: how many curricula there are.
        categories: a name in `CATEGORIES`.
        coverage: of the case.

    Raises:
        CaseError: a file can't be used.
    """
    image, affine = read_image(case)
    label, _ = read_label(case)
    numbers, _ = orient(read_curriculum(case, label, stages, categories), affine)
    image, spacing = orient(image, affine)
    label, _ = orient(label, affine)
    colours = np.array([to_rgba("black", 0), *(to_rgba(colour, 0.75) for colour in stage_colours(stages))])
    drawn = []
    for category, number in zip(CATEGORIES[categories], numbers, strict=True):
        if not number.any():
            continue
        late = number > 1 if (number > 1).any() else number > 0
        index = int(late.sum(axis=(0, 1)).argmax())
        row = _count(category, ALL_SIZES, coverage[category], stages)
        number = number[:, :, index]
        # All that is drawn is this slice; a whole scan would be gone through for each picture.
        view = View(image[..., index : index + 1], spacing, label[..., index : index + 1])
        centre, field = _field(number, spacing)
        pictures = []
        for stage in range(1, stages + 2):
            what = f"C{stage}" if stage <= stages else "truth"
            caption = f"Truth: {row.voxels} voxels, {_lesions(row.lesions)}"
            if stage <= stages:
                caption = f"{what}: {row.shares[stage - 1]} of the voxels, "
                caption += f"{row.touched[stage - 1]} of {_lesions(row.lesions)}"
            shown = np.where(number <= stage, number, 0)
            alt = (
                f"Case {case['case']}, axial plane, {category}, {what}, {np.count_nonzero(shown)} voxels in this slice"
            )
            figure, axes = draw_tile(view, 0, CATEGORIES[categories][category])
            (width, height), (columns, rows) = spacing[:2], shown.shape
            extent = (-width / 2, (columns - 0.5) * width, (rows - 0.5) * height, -height / 2)
            axes.imshow(colours[shown.T], extent=extent, interpolation="nearest")
            axes.set_xlim(centre[0] - field / 2, centre[0] + field / 2)
            axes.set_ylim(centre[1] + field / 2, centre[1] - field / 2)
            pictures.append(encode_picture(figure, alt, caption))
        # Counted from the feet, as viewers do.
        place = f"Axial, {MODALITY_NAMES[CHANNELS[view.channel]]}, slice {label.shape[2] - index} of {label.shape[2]}"
        place += f", {field:.0f} mm × {field:.0f} mm"
        drawn.append(Growth(_full_name(category, categories), place, pictures))
    return drawn


def _field(number: np.ndarray, spacing: Sequence[float]) -> tuple[list[float], float]:
    """Centre and edge, in mm, of a square around all that a slice (X, Y) has of a category."""
    parts = list(zip(bounding_box(number[:, :, None] > 0)[:2], spacing[:2], strict=True))
    edge = max((part.stop - part.start) * size for part, size in parts)
    centre = [(part.start + part.stop - 1) / 2 * size for part, size in parts]
    return centre, max(edge + 2 * DETAIL_MARGIN_MM, DETAIL_LEAST_MM)


def _lesions(count: int) -> str:
    return f"{count} lesion{'s' * (count != 1)}"


def _full_name(category: str, categories: str) -> str:
    if categories == "labels":
        return CLASS_NAMES[category]
    return f"{REGION_NAMES[category].capitalize()} ({category})"


def write_curriculum_page(cases: Sequence[Case], folder: Path | str, out: Path | str, max_cases: int = 6) -> Path:
    """Write the page of some cases' curricula, whole or not at all.

    Args:
        cases: dictionaries of `common.data.layouts` with images and labels.
        folder: of the curricula, see `common.data.curriculum_folder.with_curricula`.
        out: file of the page.
        max_cases: how many are pictured, those whose last curriculum touches the smallest share of the lesions.

    Returns:
        the path of the page.

    Raises:
        InputError: the folder doesn't hold these cases' curricula; CaseError where one case is at fault.
    """
    categories, stages, told = read_manifest(folder)
    given = {str(case["case"]): case for case in with_curricula(cases, folder, stages, categories)}
    # One's own curricula come without a record of what they cover.
    covered = {
        name: (told or {}).get(name) or measure_curriculum(case, stages, categories) for name, case in given.items()
    }
    rows = coverage_rows(covered, categories, stages)
    totals = {name: _count("", ALL_SIZES, [*chain(*of.values())], stages) for name, of in covered.items()}
    pictured = sorted(given, key=lambda name: (*_last_shares(totals[name]), name))[:max_cases]
    page = CurriculumPage(
        title="Curricula",
        facts=[
            ("Folder", Path(folder).resolve().name),
            ("Cases", str(len(given))),
            ("Curricula of each", str(stages)),
            ("Categories", ", ".join(CATEGORIES[categories])),
        ],
        stages=stages,
        headline=[_headline(row, categories) for row in rows if row.size == ALL_SIZES],
        tables=[[_table_row(row) for row in rows if row.category == name] for name in CATEGORIES[categories]],
        cases=[
            CaseGrowth(name, _last(totals[name]), draw_curriculum(given[name], stages, categories, covered[name]))
            for name in pictured
        ],
        given=len(given),
    )
    names = [*(f"Enters with C{stage}" for stage in range(1, stages + 1)), "In no curriculum"]
    colours = list(zip(names, stage_colours(stages), strict=True))
    write_text(Path(out), render_template("curriculum.html", page=page, colours=colours, open_cases=OPEN_CASES))
    return Path(out)


def _last_shares(row: CoverageRow) -> tuple[float, float]:
    """Of the lesions and of the voxels, in the last curriculum; 1 where there are none."""
    return (row.touched[-1] / row.lesions, row.covered[-1] / row.voxels) if row.lesions else (1.0, 1.0)


def _last(row: CoverageRow) -> str:
    return f"{row.touched[-1]} of {_lesions(row.lesions)}, {row.shares[-1]} of the voxels" if row.lesions else "nothing"


def _headline(row: CoverageRow, categories: str) -> tuple[str, str, str]:
    name = _full_name(row.category, categories)
    if not row.lesions:
        return name, "–", "in no case"
    *shares, last = (percent(covered, row.voxels, 0) for covered in row.covered)
    touched = " → ".join(map(str, row.touched))
    which = f"from C1 to C{len(row.covered)}" if shares else "in C1"
    more = f"of the voxels, {which}; {touched} of {_lesions(row.lesions)} touched"
    return name, " → ".join([*(share.rstrip("%") for share in shares), last]), more


def _table_row(row: CoverageRow) -> TableRow:
    bars = [100 * covered / row.voxels if row.voxels else None for covered in row.covered]
    shares = [Cell(share, bar) for share, bar in zip(row.shares, bars, strict=True)]
    return TableRow(row.category, row.size, row.lesions, row.voxels, list(zip(shares, row.touched, strict=True)))
