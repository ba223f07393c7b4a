"""Voxel-level curricula: which voxels of the truth are learnt from which stage on, in a file a case."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cc3d
import numpy as np
from tqdm import tqdm

from ..atomic import check_writable, write_text
from ..errors import CaseError, InputError
from .case_files import Case
from .json_layouts import read_json
from .labels import LABEL_NAMES, REGIONS
from .nifti_file import NiftiFile, geometry_of, times
from .pairs import find_label_maps
from .reading import read_label
from .writing import write_nifti

__all__ = [
    "CATEGORIES",
    "MANIFEST",
    "Coverage",
    "CoveredLesion",
    "Manifest",
    "category_masks",
    "check_destination",
    "check_manifest",
    "curricula_digest",
    "entry_stages",
    "measure_curriculum",
    "read_curriculum",
    "read_manifest",
    "warn_of_absent",
    "with_curricula",
    "write_curricula",
]

logger = logging.getLogger(__name__)

MANIFEST = "curriculum.json"

CATEGORIES: dict[str, dict[str, tuple[int, ...]]] = {
    "labels": {name: (label,) for label, name in LABEL_NAMES.items() if label},
    "regions": REGIONS,
}
"""What a network's categories are made of, with the labels of each: the labels themselves, NCR, ED and ET, which
exclude one another, or the regions WT, TC and ET, which hold one another."""

_MINE = "mine one with the workflow mine_curriculum"
_MOST_STAGES = 254  # a voxel's number is a byte, and one more than the last stage where no network found it
_MOST_THREADS = 8  # each takes some 300 MB at BraTS's size


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


class Manifest(NamedTuple):
    """What a folder of curricula says of them.

    Args:
        categories: a name in `CATEGORIES`.
        stages: how many curricula each case has.
        cases: what they cover, by case; None where the file doesn't tell, as that of one's own curricula.
    """

    categories: str
    stages: int
    cases: dict[str, Coverage] | None = None


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
    return np.stack([np.isin(label, values) for values in _labels_of(categories).values()])


def _labels_of(categories: str) -> dict[str, tuple[int, ...]]:
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


def write_curricula(
    cases: Sequence[Case],
    predictions: Sequence[Path | str],
    out: Path | str,
    categories: str = "labels",
    convention: str = "canonical",
) -> Manifest:
    """Write the curriculum of each case, check each as it is on the disk, and write the manifest when all are there.

    It takes seconds a case, so all are done again when some are there already.

    Args:
        cases: dictionaries of `common.data.layouts` with labels.
        predictions: for each stage the folder of its mining networks' label maps, `<case>.nii.gz`, of each case by a
            network that hasn't seen it. Those of other cases are left alone.
        out: folder that gets `<case>.nii.gz`, uint8 (X, Y, Z, K) as of `entry_stages` in the geometry of the label, and
            the manifest: categories, number of stages, and of each case what `measure_curriculum` tells.
        categories: a name in `CATEGORIES`.
        convention: of the predictions' labels, see `common.data.labels`.

    Returns:
        the manifest.

    Raises:
        InputError: there are no predictions of these cases, or `out` is where label maps lie; or cases lack a
            prediction, or have files that can't be used or don't fit each other: a line for each.
    """
    out, folders = Path(out), [Path(folder) for folder in predictions]
    if not cases or not 0 < len(folders) <= _MOST_STAGES:
        raise InputError(
            f"{len(cases)} cases with predictions for {len(folders)} stages: give some cases, and a folder a stage"
        )
    check_destination(out, cases, folders)
    found = [_files_of(folder, [str(case["case"]) for case in cases]) for folder in folders]
    check_writable(out)
    # Without a manifest it is no curriculum: what is left half done isn't taken for one.
    (out / MANIFEST).unlink(missing_ok=True)

    def write(case: Case) -> Coverage | CaseError:
        name = str(case["case"])
        path = out / f"{name}.nii.gz"
        entry = {"case": name, "label_convention": convention, "image": case["label"]}
        try:
            truth, affine = read_label(case)
            outputs = [read_label({**entry, "label": str(files[name])})[0] for files in found]
            write_nifti(path, np.moveaxis(entry_stages(outputs, truth, categories), 0, -1), affine)
            return measure_curriculum({**case, "curriculum": str(path)}, len(folders), categories)
        except CaseError as error:
            return error

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        covered = list(tqdm(pool.map(write, cases), "curricula", len(cases), unit="case", leave=False))
    if failed := [str(one) for one in covered if isinstance(one, CaseError)]:
        raise InputError(*failed)
    by_case = {str(c["case"]): one for c, one in zip(cases, covered, strict=True) if not isinstance(one, CaseError)}
    manifest = Manifest(categories, len(folders), by_case)
    write_text(out / MANIFEST, json.dumps(_to_json(manifest), indent=1) + "\n")
    warn_of_absent(cases, categories)
    return manifest


def check_destination(out: Path | str, cases: Sequence[Case], folders: Sequence[Path] = ()) -> None:
    """Refuse to write curricula where label maps lie.

    Args:
        out: folder that would get them.
        cases: dictionaries of `common.data.layouts` with labels.
        folders: of other label maps.

    Raises:
        InputError: it is the folder of a label, or one of the others.
    """
    taken = {folder.resolve() for folder in folders} | {Path(case["label"]).resolve().parent for case in cases}
    if Path(out).resolve() in taken:
        raise InputError(f"{out}: holds label maps, which the curricula would replace; choose another folder for these")


def _files_of(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The label map of each case.

    Raises:
        InputError: cases have none, a line for each, or one line where none has.
    """
    files = find_label_maps(folder)
    missing = [name for name in names if name not in files]
    if len(missing) == len(names):
        raise InputError(
            f"{folder}: holds predictions of none of the {len(names)} cases, such as {missing[0]}.nii.gz; "
            "give those of this data set"
        )
    if missing:
        remedy = "predict it too, or leave the case out"
        raise InputError(*(str(CaseError(name, folder, "no prediction of it is here", remedy)) for name in missing))
    return files


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
            _MINE,
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


def _to_json(manifest: Manifest) -> dict[str, Any]:
    cases = {
        case: {name: [{"mm3": one.volume, "voxels": one.voxels} for one in lesions] for name, lesions in of.items()}
        for case, of in (manifest.cases or {}).items()
    }
    return {"categories": manifest.categories, "stages": manifest.stages, "cases": cases}


def _from_json(lesions: Mapping[str, Any], categories: str) -> Coverage:
    return {
        name: [CoveredLesion(float(one["mm3"]), tuple(map(int, one["voxels"]))) for one in lesions[name]]
        for name in CATEGORIES[categories]
    }


def read_manifest(folder: Path | str) -> Manifest:
    """What `curriculum.json` says of the curricula in a folder; of one's own it has just categories and stages.

    Raises:
        InputError: there is no such file, or it is something else.
    """
    file = Path(folder) / MANIFEST
    if not file.is_file():
        raise InputError(f"no curriculum at {file}: {_MINE}, or give the folder of one")
    content = read_json(file)
    facts = content if isinstance(content, dict) else {}
    categories, stages, cases = (facts.get(name) for name in ("categories", "stages", "cases"))
    if (
        not isinstance(categories, str)
        or categories not in CATEGORIES
        or type(stages) is not int
        or not 0 < stages <= _MOST_STAGES
    ):
        raise InputError(
            f'{file}: give "categories", one of {", ".join(CATEGORIES)}, and "stages", a number from 1 to '
            f"{_MOST_STAGES}, where it has {categories!r} and {stages!r}"
        )
    try:
        covered = {case: _from_json(of, categories) for case, of in (cases or {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f'{file}: "cases" is not what was written there; {_MINE}, or take "cases" out') from None
    return Manifest(categories, stages, covered or None)


def with_curricula(cases: Sequence[Case], folder: Path | str, stages: int, categories: str) -> list[Case]:
    """Cases with their curricula's files, as the entry `curriculum`; their content is checked when they are loaded.

    A category that none of the cases has is told in a warning.

    Args:
        cases: dictionaries of `common.data.layouts` with labels, those that are trained on.
        folder: what `write_curricula` wrote, or one's own curricula in such files, with a manifest. Empty for a
            training without: the cases come back as they are.
        stages: how many the training has.
        categories: what the network's categories are made of, a name in `CATEGORIES`.

    Raises:
        InputError: the manifest is missing or says otherwise, or it is the curriculum of other cases; or cases have no
            curriculum, a line for each.
    """
    warn_of_absent(cases, categories)
    if not str(folder):
        return list(cases)
    folder = Path(folder)
    check_manifest(folder, stages, categories)
    given = [{**case, "curriculum": str(folder / f"{case['case']}.nii.gz")} for case in cases]
    missing = [case for case in given if not Path(case["curriculum"]).is_file()]
    if len(missing) == len(given):
        raise InputError(
            f"{folder}: holds the curriculum of none of the {len(given)} cases, such as {given[0]['case']}.nii.gz, "
            f"but that of another data set; {_MINE} of this one"
        )
    if missing:
        remedy = "mine it too, or leave the case out"
        problems = [CaseError(str(c["case"]), c["curriculum"], "has no curriculum", remedy) for c in missing]
        raise InputError(*map(str, problems))
    return given


def check_manifest(folder: Path | str, stages: int, categories: str) -> None:
    """Check that a folder's curricula are for a training.

    Args:
        folder: of the curricula.
        stages: how many the training has.
        categories: what the network's categories are made of, a name in `CATEGORIES`.

    Raises:
        InputError: the manifest is missing or damaged, or says otherwise.
    """
    manifest = read_manifest(folder)
    for name, said, wanted in (("categories", manifest.categories, categories), ("stages", manifest.stages, stages)):
        if said != wanted:
            raise InputError(
                f"{Path(folder) / MANIFEST}: {name} {said} where the training has {wanted}; {_MINE} anew, or change "
                "that"
            )


def curricula_digest(cases: Sequence[Case]) -> str:
    """SHA-256 of the curricula of cases, by which a training that goes on knows them; of none the digest of nothing.

    Args:
        cases: what `with_curricula` gives.
    """
    digest = hashlib.sha256()
    for case in cases:
        if "curriculum" in case:
            digest.update(hashlib.sha256(Path(case["curriculum"]).read_bytes()).digest())
    return digest.hexdigest()


def warn_of_absent(cases: Sequence[Case], categories: str, which: str = "") -> None:
    """Tell which categories none of the cases has. As a rule one or two label maps are read, and all have been seen.

    Args:
        cases: dictionaries of `common.data.layouts` with labels.
        categories: a name in `CATEGORIES`.
        which: what the message says before "none of the … cases".
    """
    absent = _labels_of(categories)
    for case in cases:
        try:
            present = set(np.flatnonzero(np.bincount(read_label(case)[0].ravel())).tolist())
        except CaseError:
            continue  # told when the case is loaded
        absent = {name: labels for name, labels in absent.items() if not present & set(labels)}
        if not absent:
            return
    names = ", ".join(absent)
    logger.warning("%snone of the %d cases has %s, which a network can't learn from them", which, len(cases), names)
