"""A folder of curricula: a file a case, and a manifest that says what they are."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ..atomic import check_writable, write_text
from ..errors import CaseError, InputError
from .case_files import Case
from .curriculum import CATEGORIES, MINE, Coverage, CoveredLesion, category_labels, entry_stages, measure_curriculum
from .json_layouts import read_json
from .pairs import find_label_maps
from .reading import read_label
from .writing import write_nifti

__all__ = [
    "MANIFEST",
    "Manifest",
    "check_destination",
    "check_manifest",
    "curricula_digest",
    "read_manifest",
    "warn_of_absent",
    "with_curricula",
    "write_curricula",
]

logger = logging.getLogger(__name__)

MANIFEST = "curriculum.json"

_MOST_STAGES = 254  # a voxel's number is a byte, and one more than the last stage where no network found it
_MOST_THREADS = 8  # each takes some 300 MB at BraTS's size


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
        raise InputError(f"no curriculum at {file}: {MINE}, or give the folder of one")
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
        raise InputError(f'{file}: "cases" is not what was written there; {MINE}, or take "cases" out') from None
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
            f"but that of another data set; {MINE} of this one"
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
                f"{Path(folder) / MANIFEST}: {name} {said} where the training has {wanted}; {MINE} anew, or change that"
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
    absent = category_labels(categories)
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
