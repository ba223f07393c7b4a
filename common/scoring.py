"""Scoring folders of label maps lesion by lesion, and comparing them."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .atomic import check_writable, write_text
from .checks import check_arguments
from .data.pairs import Pair, find_references, pair_label_maps
from .errors import CaseError, InputError
from .metrics.comparison import Comparison, compare, comparison_csv, comparison_table
from .metrics.lesion_records import lesion_wise_table, summarise_lesions, write_records
from .metrics.lesion_wise import Policy, RegionScores, lesion_wise_scores, policy_of
from .report.lesions import write_lesion_page

__all__ = ["score", "score_pairs"]

Cases = dict[str, dict[str, RegionScores]]


def score_pairs(pairs: Sequence[Pair], policy: Policy, ignore_affine: bool = False) -> tuple[Cases, dict[str, str]]:
    """Lesion-wise scores of pairs of label maps, on all cores.

    Args:
        pairs: from `common.data.pairs`.
        policy: see `lesion_wise_scores`.
        ignore_affine: see `Pair.read`.

    Returns:
        case → region → scores; and case → what is wrong, for each that can't be scored.
    """

    def score_pair(pair: Pair) -> dict[str, RegionScores] | CaseError:
        try:
            maps = pair.read(ignore_affine)
        except CaseError as error:
            return error
        return lesion_wise_scores(maps.prediction, maps.reference, maps.spacing, policy)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip([pair.case for pair in pairs], pool.map(score_pair, pairs), strict=True))
    scored = {case: result for case, result in results.items() if not isinstance(result, CaseError)}
    return scored, {case: str(result) for case, result in results.items() if isinstance(result, CaseError)}


def score(
    *folders: str,
    preset: str = "brats2023-met",
    out: str | None = None,
    prediction_convention: str = "brats",
    reference_convention: str | None = None,
    allow_missing: bool = False,
    ignore_affine: bool = False,
    dilation: int | None = None,
    threshold: float | None = None,
    penalty: float | None = None,
    tolerance: float | None = None,
    **unknown: Any,
) -> None:
    """Score label maps lesion by lesion against references, as the BraTS 2023 challenges do; compare methods.

    Give one folder of predictions, or several that are compared with one another, and the references last. Predictions
    are files <case>.nii.gz; references are a data set in any known layout, or such files too.

    Examples:
        lesion-bundles score predictions data/phantoms
        lesion-bundles score runs/a runs/b data/test --preset brats2023-gli --out scores

    Args:
        folders: of predictions, one a method; then that of the references.
        preset: brats2023-met, -men, -gli, -ssa, -ped, or fancl.
        out: folder for lesions.csv (case × region), lesions.json (every lesion) and the page lesions.html; with several
            methods a folder each for the files, and comparison.csv. Without it the tables are only printed.
        prediction_convention: label values of the predictions: brats (ET is 3 or 4), canonical (ET is 3), brats2018 (ET
            is 4), decathlon, or spelled out, such as "1=NCR,2=ED,3=NCR,4=ET".
        reference_convention: of the references, in place of what their layout says.
        allow_missing: a case without prediction counts as predicted empty, a prediction without reference is left out.
        ignore_affine: compare voxel by voxel, whatever the affines of both files say.
        dilation: steps by which a reference is dilated to join and match lesions, in place of the preset's.
        threshold: lesions of at most this volume (mm³) aren't scored, in place of the preset's.
        penalty: HD95 (mm) of a missed or false lesion, in place of the preset's.
        tolerance: of the surface Dice, in mm, in place of the preset's.
        unknown: nothing; what is misspelt ends up here.
    """
    if unknown:
        options = [name for name in inspect.signature(score).parameters if name not in ("folders", "unknown")]
        like = get_close_matches(min(unknown), options, n=1)
        hint = f"did you mean --{like[0]}?" if like else f"there are {', '.join(options)}"
        raise InputError(f"unknown option --{min(unknown)}: {hint}")
    if len(folders) < 2:
        raise InputError("give at least two folders: one or more of predictions, and that of the references last")
    policy = policy_of(preset, dilation=dilation, threshold=threshold, penalty=penalty, tolerance=tolerance)
    check_arguments(
        out=out,
        allow_missing=allow_missing,
        ignore_affine=ignore_affine,
        prediction_convention=prediction_convention,
        reference_convention=reference_convention,
    )
    *methods, references_dir = map(Path, folders)
    names = _names(methods)
    references = find_references(references_dir, reference_convention)
    if out is not None:
        check_writable(Path(out))
    pairs: dict[str, list[Pair]] = {}
    missing: dict[str, list[str]] = {}
    for name, folder in zip(names, methods, strict=True):
        pairs[name], missing[name], surplus = pair_label_maps(folder, references, prediction_convention, allow_missing)
        if missing[name]:
            print(f"{name}: no prediction for {', '.join(missing[name])}: scored as predicted empty")
        if surplus:
            print(f"{name}: no reference for {', '.join(surplus)}: left out")
    scored: dict[str, Cases] = {}
    failed: dict[str, dict[str, str]] = {}
    for name in names:
        scored[name], failed[name] = score_pairs(pairs[name], policy, ignore_affine)
        if scored[name]:
            print(f"\n{name}, {preset}, {lesion_wise_table(summarise_lesions(scored[name]), len(scored[name]))}")
    comparisons = compare({name: cases for name, cases in scored.items() if cases})
    if comparisons:
        print("\n" + comparison_table(comparisons))
    if out is not None and any(scored.values()):
        for name in names:
            folder = Path(out) / name if len(names) > 1 else Path(out)
            facts = {"method": name, "preset": preset, "policy": asdict(policy), "failed": failed[name]}
            write_records(folder, scored[name], facts, missing[name])
        _write_comparisons(Path(out) / "comparison.csv", comparisons)
        page = write_lesion_page(
            Path(out) / "lesions.html",
            preset,
            policy,
            scored,
            pairs,
            comparisons,
            missing=missing,
            failed={name: list(messages.values()) for name, messages in failed.items()},
            ignore_affine=ignore_affine,
        )
        print(f"\nreport: {page}")
    messages = [message for of_method in failed.values() for message in of_method.values()]
    for message in messages:
        print(f"error: {message}", file=sys.stderr)
    if messages:
        total = sum(map(len, pairs.values()))
        raise InputError(f"{len(messages)} of {total} label maps can't be scored, each named above")


def _write_comparisons(file: Path, comparisons: Sequence[Comparison]) -> None:
    """Write them; where there are none, those of an earlier run mustn't stand beside new results."""
    if comparisons:
        write_text(file, comparison_csv(comparisons))
    else:
        file.unlink(missing_ok=True)


def _names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, or with the one above it where that isn't enough."""
    for parts in (1, 2):
        names = ["-".join(folder.resolve().parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    raise InputError(f"the same predictions twice among {', '.join(map(str, folders))}; give each folder once")
