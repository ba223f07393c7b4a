"""Divide cases into training, validation and test, by patient, once, and keep to it."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import write_text
from ..errors import InputError
from .case_files import Case
from .json_layouts import read_json

__all__ = ["PARTS", "Parts", "cases_by_name", "names_of", "partition_cases", "patient_of", "read_drawing", "read_folds"]

logger = logging.getLogger(__name__)

PARTS = ("training", "validation", "test")

Parts = dict[str, list[str]]
"""Part (see `PARTS`) → names of its cases, sorted."""

_REMEDY = "mend it, or divide anew into another file"


def patient_of(case: str) -> str:
    """The patient that a case's name tells; the name itself where it tells none.

    BraTS 2023 and later: `BraTS-MET-00110-000` is a time point of `BraTS-MET-00110`. BIDS: `sub-01_ses-02` is a session
    of `sub-01`.
    """
    if match := re.fullmatch(r"(BraTS-[A-Za-z]+-\d+)-\d+|(sub-[^_]+)_ses-.+", case):
        return match[1] or match[2]
    return case


def _draw(patients: list[str], fractions: Sequence[float], seed: int) -> dict[str, set[str]]:
    """Patients of each part; see `partition_cases` for collections of one or two."""
    shuffled = [patients[index] for index in np.random.default_rng(seed).permutation(len(patients))]
    wanted = [name for name, fraction in zip(PARTS, fractions, strict=True) if fraction > 0]
    if len(shuffled) < len(wanted):
        warnings.warn(
            f"{len(shuffled)} patient(s) for {', '.join(wanted)}: parts share them, so scores aren't of unseen ones",
            stacklevel=3,
        )
        return {name: {shuffled[0 if name == "training" else -1]} if name in wanted else set() for name in PARTS}
    held_back = {
        name: max(1, round(fraction * len(shuffled))) if fraction > 0 else 0
        for name, fraction in zip(PARTS[1:], fractions[1:], strict=True)
    }
    # Rounding up both in a small collection must leave somebody to train on.
    while sum(held_back.values()) >= len(shuffled):
        held_back[max(held_back, key=lambda name: held_back[name])] -= 1
    validation, test = held_back["validation"], held_back["test"]
    return {
        "training": set(shuffled[validation + test :]),
        "validation": set(shuffled[:validation]),
        "test": set(shuffled[validation : validation + test]),
    }


def partition_cases(
    cases: Sequence[Case],
    file: Path | str,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    must_exist: bool = False,
    fold: int = -1,
) -> dict[str, list[Case]]:
    """Divide cases by patient, at random; or as the file says, where it exists.

    All cases of a patient are in the same part. A part whose fraction isn't 0 has at least one patient. With fewer
    patients than such parts (a warning tells) the first trains and the last is in all the others: a single case is in
    every part, as for a test that a network can learn it at all.

    Args:
        cases: dictionaries of `common.data.layouts`; their order doesn't matter.
        file: JSON file, written where it doesn't exist: seed, fractions and the names of the cases in each part. One
            with nothing but the names, made elsewhere, is used as it is.
        fractions: of patients for training, validation and test; they add up to 1.
        seed: of the drawing.
        must_exist: draw nothing: an evaluation has to leave aside just what the training did, whatever `fractions` and
            `seed` are.
        fold: which of the folds in `file` (from `common.data.folds`, which says all that `fractions` and `seed` would
            else), counted from 0; -1 where the file holds one partition.

    Returns:
        "training", "validation" and "test", each a list of cases sorted by name.

    Raises:
        InputError: bad fractions, no cases, or a file that isn't of these cases, this seed or these fractions, that
            has a patient in two parts where there are enough for each to have its own, or that lacks the fold.
    """
    if len(fractions) != 3 or not all(0 <= f <= 1 for f in fractions) or fractions[0] == 0:
        raise InputError(f"fractions {list(fractions)}: give three numbers from 0 to 1, that of training above 0")
    if abs(sum(fractions) - 1) > 1e-6:
        raise InputError(f"fractions {list(fractions)} add up to {sum(fractions):g}; make it 1")
    file, by_name = Path(file), cases_by_name(cases)
    if fold >= 0:
        folds = read_folds(file, set(by_name))
        if fold >= len(folds):
            raise InputError(f"{file}: has no fold {fold}; give --fold a number from 0 to {len(folds) - 1}")
        parts = folds[fold]
    elif file.exists():
        drawn_with = {} if must_exist else {"seed": seed, "fractions": list(fractions)}
        parts = _read_partition(file, set(by_name), drawn_with)
    elif must_exist:
        raise InputError(f"no partition at {file}: give the one that the training wrote, with --partition_file")
    else:
        drawn = _draw(sorted({patient_of(name) for name in by_name}), fractions, seed)
        parts = {part: names_of(drawn[part], by_name) for part in PARTS}
        content = {"seed": seed, "fractions": list(fractions), "parts": parts}
        write_text(file, json.dumps(content, indent=1) + "\n")
    logger.info("%s cases; %s", ", ".join(f"{len(parts[part])} {part}" for part in PARTS), file)
    return {part: [by_name[name] for name in sorted(names)] for part, names in parts.items()}


def names_of(patients: Collection[str], names: Iterable[str]) -> list[str]:
    """The cases, among those of `names`, of some patients."""
    return sorted(name for name in names if patient_of(name) in patients)


def cases_by_name(cases: Sequence[Case]) -> dict[str, Case]:
    """Name → case.

    Raises:
        InputError: there are no cases, or two have the same name.
    """
    if not cases:
        raise InputError("there are no cases to divide; name a folder that holds some")
    by_name = {str(case["case"]): case for case in cases}
    if len(by_name) < len(cases):
        raise InputError("two cases have the same name; name them apart")
    return by_name


def read_drawing(file: Path, drawn_with: Mapping[str, Any]) -> dict[str, Any]:
    """Read what was drawn into a JSON file, and check that it was with these settings, where the file says which.

    Raises:
        InputError: it is no JSON object, or was drawn with other settings.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: holds neither a partition nor folds; {_REMEDY}")
    for key, wanted in drawn_with.items():
        if content.get(key, wanted) != wanted:
            raise InputError(
                f"{file}: was drawn with {key} {content[key]} and not {wanted}; "
                f"leave --{key} as it was, or divide anew into another file"
            )
    return content


def _read_partition(file: Path, names: set[str], drawn_with: Mapping[str, Any]) -> Parts:
    content = read_drawing(file, drawn_with)
    if "folds" in content:
        raise InputError(f"{file}: holds folds; say which one with --fold")
    return _checked(content.get("parts"), str(file), names)


def read_folds(file: Path, names: set[str]) -> list[Parts]:
    """The partition of each fold in a file that `common.data.folds` wrote, or one made elsewhere with just `folds`.

    Args:
        file: JSON; `{"folds": [{"training": [name, …], "validation": […], "test": […]}, …]}`, and how it was drawn.
        names: of all cases.

    Raises:
        InputError: the file is missing or damaged, isn't of these cases, has a patient in two parts of a fold, or a
            case in the test part of two folds or of none.
    """
    if not file.exists():
        raise InputError(f"no folds at {file}: draw them with python -m common folds DATASET_DIR --out {file}")
    folds = read_drawing(file, {}).get("folds")
    if not isinstance(folds, list) or not folds:
        raise InputError(f"{file}: holds no folds; leave --fold out where it holds one partition, else {_REMEDY}")
    folds = [_checked(parts, f"{file}, fold {index}", names) for index, parts in enumerate(folds)]
    tested = Counter(name for parts in folds for name in parts["test"])
    for name in sorted(names):
        if tested[name] != 1:
            raise InputError(f"{file}: {name} is in the test part of {tested[name]} folds, not of one; {_REMEDY}")
    return folds


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _checked(parts: Any, source: str, names: set[str]) -> Parts:
    """A partition as `source` has it, once it is sure to be one, of these cases, by patient."""
    if not isinstance(parts, dict) or set(parts) != set(PARTS) or not all(map(_are_names, parts.values())):
        raise InputError(f"{source}: is no partition (lists of names as {', '.join(PARTS)}); {_REMEDY}")
    for part, listed_names in parts.items():
        if len(set(listed_names)) < len(listed_names):
            raise InputError(f"{source}: lists a case twice in {part}; {_REMEDY}")
    listed = {name for part in parts.values() for name in part}
    for reason, differing in (("does not list", names - listed), ("lists", listed - names)):
        if differing:
            shown = ", ".join(sorted(differing)[:5]) + (f" and {len(differing) - 5} more" if len(differing) > 5 else "")
            which = "which the data set has" if reason == "does not list" else "which the data set lacks"
            raise InputError(f"{source}: {reason} {shown}, {which}; {_REMEDY}")
    used = [part for part in PARTS if parts[part]]
    patients = {part: {patient_of(name) for name in parts[part]} for part in used}
    if len(set().union(*patients.values())) >= len(used):
        for first, second in combinations(used, 2):
            if shared := patients[first] & patients[second]:
                raise InputError(f"{source}: patient {min(shared)} is in {first} and in {second}; {_REMEDY}")
    return {part: parts[part] for part in PARTS}
