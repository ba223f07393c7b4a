"""Scoring folders of label maps lesion by lesion, and comparing them."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .atomic import check_writable, write_text
from .checks import check_arguments
from .data.labels import source_values
from .data.pairs import Pair, find_references, pair_label_maps
from .errors import CaseError, InputError
from .metrics.comparison import Comparison, compare_methods
from .metrics.lesion_records import lesion_wise_table, summarise_lesions, write_records
from .metrics.lesion_wise import PRESETS, RegionScores, lesion_wise_scores
from .report.lesions import write_lesion_page

__all__ = ["score", "score_pairs"]

COMPARED = ("dice", "hd95", "lesion_f1")
Cases = dict[str, dict[str, RegionScores]]


def score_pairs(
    pairs: Sequence[Pair], preset: str, ignore_affine: bool = False, **policy: Any
) -> tuple[Cases, list[CaseError]]:
    """Lesion-wise scores of pairs of label maps, on all cores.

    Args:
        pairs: from `common.data.pairs`.
        preset: see `lesion_wise_scores`.
        ignore_affine: see `Pair.read`.
        policy: dilation, threshold, penalty or tolerance in place of the preset's.

    Returns:
        case → region → scores, and one error for each case that can't be scored.
    """

    def score_pair(pair: Pair) -> dict[str, RegionScores] | CaseError:
        try:
            maps = pair.read(ignore_affine)
        except CaseError as error:
            return error
        return lesion_wise_scores(maps.prediction, maps.reference, maps.spacing, preset, **policy)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(score_pair, pairs))
    scored = {pair.case: r for pair, r in zip(pairs, results, strict=True) if not isinstance(r, CaseError)}
    return scored, [result for result in results if isinstance(result, CaseError)]


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
    tolerance: float = 1.0,
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
        prediction_convention: label values of the predictions: brats (ET is 3 or 4, of any year), canonical (ET is 3),
            brats2018 (ET is 4) or decathlon.
        reference_convention: of the references, in place of what their layout says.
        allow_missing: a case without prediction counts as predicted empty, a prediction without reference is left out.
        ignore_affine: compare voxel by voxel, whatever the affines of both files say.
        dilation: steps by which a reference is dilated to join and match lesions, in place of the preset's.
        threshold: lesions of at most this volume (mm³) aren't scored, in place of the preset's.
        penalty: HD95 (mm) of a missed or false lesion, in place of the preset's.
        tolerance: of the surface Dice, in mm.
    """
    if len(folders) < 2:
        raise InputError("give at least two folders: one or more of predictions, and that of the references last")
    policy = {"dilation": dilation, "threshold": threshold, "penalty": penalty, "tolerance": tolerance}
    check_arguments(allow_missing=allow_missing, ignore_affine=ignore_affine, **policy)
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r} is unknown; use one of {', '.join(PRESETS)}")
    for convention in filter(None, (prediction_convention, reference_convention)):
        source_values(str(convention))
    *methods, references_dir = (Path(str(folder)) for folder in folders)
    names = _names(methods)
    references = find_references(references_dir, reference_convention)
    if out is not None:
        check_writable(Path(str(out)))
    pairs: dict[str, list[Pair]] = {}
    for name, folder in zip(names, methods, strict=True):
        pairs[name], missing, surplus = pair_label_maps(folder, references, prediction_convention, allow_missing)
        if missing:
            print(f"{name}: no prediction for {', '.join(missing)}, which count as predicted empty")
        if surplus:
            print(f"{name}: no reference for {', '.join(surplus)}, which are left out")
    scored: dict[str, Cases] = {}
    failures: list[str] = []
    for name in names:
        scored[name], failed = score_pairs(pairs[name], preset, ignore_affine, **policy)
        failures += map(str, failed)
        if not scored[name]:
            continue
        print(f"\n{name}, {preset}, {lesion_wise_table(summarise_lesions(scored[name]), len(scored[name]))}")
        if out is not None:
            folder = Path(str(out)) / name if len(names) > 1 else Path(str(out))
            write_records(folder, scored[name], {"method": name, "preset": preset, "settings": policy})
    comparisons = compare({name: of for name, of in scored.items() if of})
    if comparisons:
        print("\n" + comparison_table(comparisons))
    if out is not None and any(scored.values()):
        if comparisons:
            write_text(Path(str(out)) / "comparison.csv", comparison_csv(comparisons))
        page = write_lesion_page(
            Path(str(out)) / "lesions.html",
            preset,
            scored,
            pairs,
            comparisons,
            ignore_affine=ignore_affine,
            settings=policy,
        )
        print(f"\nreport: {page}")
    if failures:
        raise InputError(f"{len(failures)} label maps can't be scored: {' | '.join(failures)}")


def _names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, or with the one above it where that isn't enough."""
    for parts in (1, 2):
        names = ["-".join(folder.resolve().parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    raise InputError(f"the same predictions twice among {', '.join(map(str, folders))}; give each folder once")


def compare(scored: Mapping[str, Cases]) -> list[Comparison]:
    """Every two methods in lesion-wise Dice, HD95 and lesion F1 of each region, over the cases that all have."""
    first = next(iter(scored.values()), {})
    cases = [case for case in first if all(case in of_method for of_method in scored.values())]
    regions = list(dict.fromkeys(region for of in scored.values() for case in cases for region in of[case]))
    values = {
        (region, key): {name: [getattr(of[case][region], key) for case in cases] for name, of in scored.items()}
        for region in regions
        for key in COMPARED
    }
    return compare_methods(values)


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """One line a comparison: the mean difference with its interval, and Wilcoxon's p, corrected."""
    lines = [f"differences of the means, with 95% intervals; p of Wilcoxon's test, corrected for {len(comparisons)}"]
    for one in comparisons:
        interval = "{:+.3f} to {:+.3f}".format(*one.interval) if math.isfinite(one.interval[0]) else "too few cases"
        p = f"{one.p_corrected:.3g}" if math.isfinite(one.p) else "–"
        lines.append(
            f"{one.score[0]} {one.score[1]:10}{one.first} − {one.second}: {one.difference:+.3f} ({interval}), p = {p}, "
            f"{one.cases} cases"
        )
    return "\n".join(lines)


def comparison_csv(comparisons: Sequence[Comparison]) -> str:
    """The comparisons as CSV, one row each."""
    text = io.StringIO()
    rows = [dataclasses.asdict(one) for one in comparisons]
    for row in rows:
        row["region"], row["score"] = row["score"]
        row["low"], row["high"] = row.pop("interval")
    columns = ["region", "score", "first", "second", "cases", "difference", "low", "high", "p", "p_corrected"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
