"""Say what a folder of cases holds and what is wrong with it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from tqdm import tqdm

from ..errors import CaseError
from .case_files import Case, Layout
from .labels import LABEL_NAMES, source_values
from .layouts import LAYOUTS, recognise
from .partition import patient_of
from .reading import read_image, read_label

__all__ = ["Description", "data", "describe"]


@dataclass(frozen=True)
class Description:
    """What a folder holds.

    Args:
        layout: the layout with its cases.
        shapes: (X, Y, Z) -> number of cases.
        spacings: (x, y, z) in mm, rounded to 0.001 -> number of cases.
        values: (label value in the source, what it means) -> number of cases that have it.
        problems: one error for each case that can't be used, or twice where both image and label are at fault.
    """

    layout: Layout
    shapes: Counter[tuple[int, ...]]
    spacings: Counter[tuple[float, ...]]
    values: Counter[tuple[int, str]]
    problems: list[CaseError]

    def __str__(self) -> str:
        cases = self.layout.cases
        names = [case["case"] for case in cases] + [problem.case for problem in self.layout.problems]
        labelled = sum("label" in case for case in cases)
        spacings = (("×".join(f"{s:g}" for s in spacing) + " mm", n) for spacing, n in self.spacings.most_common())
        lines = [
            f"layout     {LAYOUTS[self.layout.name]}",
            f"cases      {len(names)}, of {len({patient_of(name) for name in names})} patients",
            f"labels     {labelled} with, {len(cases) - labelled} without; convention {self.layout.convention}",
            f"values     {_counted((f'{value} ({name})', n) for (value, name), n in sorted(self.values.items()))}",
            f"shapes     {_counted(('×'.join(map(str, shape)), n) for shape, n in self.shapes.most_common())}",
            f"spacings   {_counted(spacings)}",
            f"problems   {len(self.problems) or 'none'}",
        ]
        return "\n".join([*lines, *(f"  {problem}" for problem in self.problems)])


def _counted(items: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{what} in {count}" for what, count in items) or "-"


@dataclass(frozen=True)
class _Found:
    shape: tuple[int, ...] | None
    spacing: tuple[float, ...] | None
    values: list[tuple[int, str]]
    problems: list[CaseError]


def _look_at(case: Case) -> _Found:
    """Read a case's files whole; the voxels are dropped at once."""
    shape = spacing = None
    values: list[tuple[int, str]] = []
    problems = []
    try:
        image, affine = read_image(case)
        shape = image.shape[1:]
        spacing = tuple(float(s) for s in np.round(nibabel.affines.voxel_sizes(affine), 3))
        del image
    except CaseError as problem:
        problems.append(problem)
    if "label" in case:
        try:
            label, _ = read_label({key: case[key] for key in case if key != "image" or not problems})
            present = np.flatnonzero(np.bincount(label.ravel(order="K")))
            meanings = source_values(case["label_convention"])
            values = [(value, LABEL_NAMES[meaning]) for value, meaning in meanings.items() if meaning in present]
        except CaseError as problem:
            problems.append(problem)
    return _Found(shape, spacing, values, problems)


def describe(folder: Path | str) -> Description:
    """Read every file of a folder of cases, in parallel, with a progress bar on stderr.

    Raises:
        InputError: the folder's layout isn't recognised; problems of single cases are in what is returned.
    """
    layout = recognise(folder)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # each holds a scan: about 200 MB in BraTS space
        found = list(tqdm(pool.map(_look_at, layout.cases), "reading", len(layout.cases), unit="case", leave=False))
    return Description(
        layout=layout,
        shapes=Counter(one.shape for one in found if one.shape is not None),
        spacings=Counter(one.spacing for one in found if one.spacing is not None),
        values=Counter(value for one in found for value in one.values),
        problems=[*layout.problems, *(problem for one in found for problem in one.problems)],
    )


def data(folder: str) -> None:
    """Show what a folder of cases holds: layout, cases, patients, labels, shapes, spacings, and every problem.

    All files are read. The exit status is 1 where there is a problem.

    Args:
        folder: folder in any of the known layouts, or the JSON file of a MONAI datalist.
    """
    description = describe(folder)
    print(description)
    if description.problems:
        raise SystemExit(1)
