"""Folds for cross-validation: by patient, alike in lesion load, written once and shared by all workflows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..atomic import write_text
from ..errors import CaseError, InputError
from .case_files import Case
from .partition import Parts, cases_by_name, names_of, patient_of, read_drawing, read_folds
from .reading import read_label

__all__ = ["draw_folds", "fold_cases", "folds_table", "lesion_volumes"]


def lesion_volumes(cases: Sequence[Case]) -> dict[str, float]:
    """Volume in ml of all that is labelled, by case; the label maps are read on all cores.

    Raises:
        InputError: label maps that can't be used, all of them named.
    """

    def measure(case: Case) -> float | CaseError:
        try:
            label, affine = read_label(case)
        except CaseError as error:
            return error
        return float(np.count_nonzero(label) * abs(np.linalg.det(affine[:3, :3])) / 1000)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        measured = list(pool.map(measure, cases))
    if failed := [str(volume) for volume in measured if isinstance(volume, CaseError)]:
        raise InputError(*failed)
    return {case["case"]: volume for case, volume in zip(cases, measured, strict=True) if isinstance(volume, float)}


def draw_folds(
    volumes: Mapping[str, float], folds: int = 5, seed: int = 0, validation_share: float = 0.1
) -> list[Parts]:
    """Draw the partition of each fold.

    Patients are ordered by lesion volume (the mean of their scans) and go, in runs of as many as there are folds, one
    to each fold at random. So among the patients below any volume the folds' shares differ by one at most. The patients
    of a fold are its test part. Of the others, ordered and cut into runs likewise, one of each run is in its validation
    part and the rest in its training part: a network is never chosen on the cases that it is scored on.

    Args:
        volumes: name of each case → lesion volume.
        folds: how many, at least 2.
        seed: of the drawing.
        validation_share: of the patients outside the test part, above 0 and below 1; one patient at least.

    Returns:
        for each fold "training", "validation" and "test", lists of names, sorted.

    Raises:
        InputError: too few patients for a fold to have all three parts.
    """
    scans: dict[str, list[float]] = {}
    for name, volume in volumes.items():
        scans.setdefault(patient_of(name), []).append(volume)
    ordered = sorted(scans, key=lambda patient: (np.mean(scans[patient]), patient))
    if len(ordered) < folds or len(ordered) - -(-len(ordered) // folds) < 2:
        raise InputError(
            f"{len(ordered)} patients are too few for {folds} folds: each fold tests on at least one, trains on one and"
            " chooses on one; give more scans, or make fewer folds"
        )
    rng = np.random.default_rng(seed)
    # monai.data.partition_dataset_classes would shuffle every run by the same seed: one fold got the largest of each.
    fold_of: dict[str, int] = {}
    for start in range(0, len(ordered), folds):
        fold_of |= zip(ordered[start : start + folds], rng.permutation(folds).tolist(), strict=False)
    return [_parts_of(fold, fold_of, validation_share, sorted(volumes), rng) for fold in range(folds)]


def _parts_of(
    fold: int, fold_of: Mapping[str, int], validation_share: float, names: Sequence[str], rng: np.random.Generator
) -> Parts:
    """The parts of a fold; `fold_of` has the patients in the order of their lesion volume."""
    others = [patient for patient in fold_of if fold_of[patient] != fold]
    count = min(max(1, round(validation_share * len(others))), len(others) - 1)
    validation = {str(rng.choice(run)) for run in np.array_split(np.array(others), count)}
    return {
        "training": names_of(set(others) - validation, names),
        "validation": names_of(validation, names),
        "test": names_of(fold_of.keys() - set(others), names),
    }


def fold_cases(
    cases: Sequence[Case], file: Path | str, folds: int = 5, seed: int = 0, validation_share: float = 0.1
) -> list[Parts]:
    """Draw folds (see `draw_folds`) and write them to a file; or read them, where it exists.

    Args:
        cases: dictionaries of `common.data.layouts` with labels; their order doesn't matter.
        file: JSON file: the arguments below, the lesion volume in ml of each case, and the names of the cases in each
            part of each fold. One with nothing but `folds`, made elsewhere, is used as it is.
        folds: how many.
        seed: of the drawing.
        validation_share: of the patients outside the test part.

    Raises:
        InputError: what `draw_folds` and `lesion_volumes` raise, or a file that isn't of these cases and arguments.
    """
    file, names = Path(file), set(cases_by_name(cases))
    drawn_with = {"seed": seed, "validation_share": validation_share}
    if file.exists():
        read_drawing(file, drawn_with)
        drawn = read_folds(file, names)
        if len(drawn) != folds:
            raise InputError(f"{file}: holds {len(drawn)} folds and not {folds}; leave --folds as it was")
    else:
        volumes = lesion_volumes(cases)
        drawn = draw_folds(volumes, folds, seed, validation_share)
        shown = {name: round(volumes[name], 3) for name in sorted(names)}
        write_text(file, json.dumps({**drawn_with, "lesion_ml": shown, "folds": drawn}, indent=1) + "\n")
    return drawn


def folds_table(file: Path, drawn: Sequence[Parts]) -> str:
    """One line a fold: cases in each part, and the lesion volume of the test part where the file has it."""
    volumes = read_drawing(file, {}).get("lesion_ml", {})
    lines = [f"{file}: {len(drawn)} folds of {sum(len(parts['test']) for parts in drawn)} cases"]
    for index, parts in enumerate(drawn):
        counts = ", ".join(f"{len(names)} {part}" for part, names in parts.items())
        known = [volumes[name] for name in parts["test"] if name in volumes]
        load = f"; median lesion volume in test {np.median(known):.3g} ml" if known else ""
        lines.append(f"fold {index}: {counts}{load}")
    return "\n".join(lines)
