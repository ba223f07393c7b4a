"""Voxel-level curricula: which voxels of the truth are learnt from which stage on, in a file a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cc3d
import numpy as np

from ..errors import InputError
from .labels import LABEL_NAMES, REGIONS
from .nifti_file import NiftiFile, geometry_of, times
from .reading import read_label

__all__ = [
    "CATEGORIES",
    "MINE",
    "Coverage",
    "CoveredLesion",
    "category_labels",
    "category_masks",
    "entry_stages",
    "measure_curriculum",
    "read_curriculum",
]

CATEGORIES: dict[str, dict[str, tuple[int, ...]]] = {
    "labels": {name: (label,) for label, name in LABEL_NAMES.items() if label},
    "regions": REGIONS,
}
"""What a network's categories are made of, with the labels of each: the labels themselves, NCR, ED and ET, which
exclude one another, or the regions WT, TC and ET, which hold one another."""

MINE = "mine one with the workflow mine_curriculum"
"""What to do where a curriculum is missing or can't be used."""


class CoveredLesion(NamedTuple):
    """A lesion of a category (a 26-connected part of it), and how much of it each curriculum has.

    Args:
        volume: mm³.
        voxels: how many of it are in C_1, C_2, …, and at last in all.
    """

    volume: float
    voxels: tuple[int, ...]


Coverage = dict[str, list[CoveredLesion]]
"""The lesions of a case by category."""


def category_masks(label: np.ndarray, categories: str) -> np.ndarray:
    """Where each category is.

    Args:
        label: canonical labels (X, Y, Z).
        categories: a name in `CATEGORIES`.

    Returns:
        boolean (K, X, Y, Z).

    Raises:
        InputError: the name is unknown.
    """
    return np.stack([np.isin(label, values) for values in category_labels(categories).values()])


def category_labels(categories: str) -> dict[str, tuple[int, ...]]:
    """The labels of each category, by the name of the categories, see `CATEGORIES`.

    Raises:
        InputError: the name is unknown.
    """
    if categories not in CATEGORIES:
        raise InputError(f"categories {categories!r} are unknown; use one of {', '.join(CATEGORIES)}")
    return CATEGORIES[categories]


def entry_stages(outputs: Sequence[np.ndarray], truth: np.ndarray, categories: str) -> np.ndarray:
    """The stage from which on each voxel of the truth belongs to the curriculum, by category.

    C_1 = O_1 ∩ GT and C_t = (O_t ∩ GT) ∪ C_(t-1) (Eqs 20 and 21 of the FANCL paper), where O_t is what the t-th mining
    network found: a voxel enters with the first that found it. So C_1 ⊆ C_2 ⊆ … ⊆ GT, whatever they found.

    Args:
        outputs: label maps (X, Y, Z) of the mining networks, in the order of the stages.
        truth: the reference's label map (X, Y, Z).
        categories: a name in `CATEGORIES`.

    Returns:
        uint8 (K, X, Y, Z): 0 outside the truth, t in C_t and not in C_(t-1), and one more than there are outputs where
        no network found it.
    """
    masks = category_masks(truth, categories)
    stages = np.where(masks, np.uint8(len(outputs) + 1), np.uint8(0))
    for number in range(len(outputs), 0, -1):
        stages[masks & category_masks(outputs[number - 1], categories)] = number
    return stages


def read_curriculum(case: Mapping[str, Any], label: np.ndarray, stages: int, categories: str) -> np.ndarray:
    """Read the curriculum of a case, checked against its label.

    Args:
        case: has "case", "curriculum" (a path), and "label": a path, or the label map already loaded as a MetaTensor.
        label: canonical labels (X, Y, Z).
        stages: how many there are.
        categories: a name in `CATEGORIES`.

    Returns:
        uint8 (K, X, Y, Z) as of `entry_stages`.

    Raises:
        CaseError: the file is missing or damaged, of another geometry than the label's or another number of categories,
            holds something else than whole numbers up to one more than the stages, or has a number outside the truth or
            none within it. So C_1 ⊆ C_2 ⊆ … ⊆ GT in whatever is read.
    """
    file = NiftiFile(str(case["case"]), case["curriculum"])
    geometry = geometry_of(file.case, case["label"])
    masks = category_masks(label, categories)
    names = list(CATEGORIES[categories])
    voxels, affine, _ = file.read()
    if voxels.ndim != 4 or voxels.shape[3] != len(names):
        file.fail(
            f"is {voxels.ndim}D ({times(voxels.shape)}) where 4D with {', '.join(names)} as fourth axis is expected",
            MINE,
        )
    file.expect_geometry(voxels.shape[:3], affine, geometry)
    if voxels.dtype.kind == "f" and not np.array_equal(voxels, np.rint(voxels)):
        file.fail("holds values that are not whole numbers", "give the number of a stage, or 0, for each voxel")
    for value in (voxels.min(), voxels.max()):
        if not 0 <= value <= stages + 1:
            file.fail(
                f"holds {value:g} where {stages} stages give 0 to {stages + 1}",
                "mine it for as many stages as the training has",
            )
    numbers = np.moveaxis(voxels, 3, 0).astype(np.uint8)
    for name, number, mask in zip(names, numbers, masks, strict=True):
        outside, without = np.count_nonzero(number[~mask]), np.count_nonzero(number[mask] == 0)
        if outside or without:
            file.fail(
                f"{name} is another than in {geometry.path} ({outside} voxels outside it, {without} of it without a "
                "stage)",
                "mine it anew with this label",
            )
    return numbers


def measure_curriculum(case: Mapping[str, Any], stages: int, categories: str) -> Coverage:
    """How much of each lesion of a case the curricula have, as they are on the disk.

    Args:
        case: dictionary of `common.data.layouts` with a label and the path of its curriculum.
        stages: how many there are.
        categories: a name in `CATEGORIES`.

    Raises:
        CaseError: what `read_label` and `read_curriculum` raise.
    """
    label, affine = read_label(case)
    numbers = read_curriculum(case, label, stages, categories)
    voxel = float(abs(np.linalg.det(affine[:3, :3])))
    return {name: _lesions(of, stages, voxel) for name, of in zip(CATEGORIES[categories], numbers, strict=True)}


def _lesions(numbers: np.ndarray, stages: int, voxel: float) -> list[CoveredLesion]:
    """The lesions of a category (X, Y, Z), for a voxel of so many mm³."""
    inside = numbers > 0
    # Padded, since cc3d fails on lines of voxels.
    lesions = cc3d.connected_components(np.pad(inside, 1), connectivity=26)[1:-1, 1:-1, 1:-1][inside].astype(np.intp)
    counts = np.bincount(lesions * (stages + 2) + numbers[inside], minlength=stages + 2)
    covered = np.pad(counts, (0, -len(counts) % (stages + 2))).reshape(-1, stages + 2)[1:, 1:].cumsum(axis=1)
    # Rounded, since a determinant is off in the last digits, and sizes are told apart at whole numbers.
    return [CoveredLesion(round(row[-1] * voxel, 6), tuple(row)) for row in covered.tolist()]
