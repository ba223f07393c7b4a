"""Do methods differ on the same cases? Paired tests, intervals, and a correction for asking often."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy import stats

from .lesion_wise import RegionScores

__all__ = ["Comparison", "compare", "compare_methods", "comparison_csv", "comparison_table", "count_tests"]

COMPARED = ("dice", "hd95", "lesion_f1")
RESAMPLES = 9999


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two methods in one score on the same cases.

    Attributes:
        first, second: the methods.
        score: what is compared, such as ("WT", "dice").
        cases: how many cases have the score by both.
        difference: mean of first minus second.
        interval: 95% confidence interval of that mean by bootstrap (BCa) over cases, of this comparison alone and not
            corrected for the others; NaN with fewer than three cases.
        p: of Wilcoxon's signed-rank test, two-sided; NaN with fewer than two cases.
        p_corrected: p after Holm's correction for all tests made together.
    """

    first: str
    second: str
    score: tuple[str, str]
    cases: int
    difference: float
    interval: tuple[float, float]
    p: float
    p_corrected: float


def compare(scored: Mapping[str, Mapping[str, Mapping[str, RegionScores]]]) -> list[Comparison]:
    """Compare every two methods in lesion-wise Dice, HD95 and lesion F1 of each region.

    Args:
        scored: method → case → region → scores. Only the cases that all methods have are compared.
    """
    first = next(iter(scored.values()), {})
    cases = [case for case in first if all(case in of_method for of_method in scored.values())]
    regions = list(dict.fromkeys(region for of in scored.values() for case in cases for region in of[case]))
    values = {
        (region, key): {name: [getattr(of[case][region], key) for case in cases] for name, of in scored.items()}
        for region in regions
        for key in COMPARED
    }
    return compare_methods(values)


def compare_methods(values: Mapping[tuple[str, str], Mapping[str, Sequence[float]]], seed: int = 0) -> list[Comparison]:
    """Compare every two methods in every score.

    Args:
        values: score → method → its values, in the same order of cases for all methods. A case in which one of two
            methods has NaN is left out of their comparison, so a score must not be NaN because of what was predicted.
        seed: of the bootstrap.

    Returns:
        one comparison for each score and two methods, in the order given.
    """
    found = []
    for score, by_method in values.items():
        for first, second in combinations(by_method, 2):
            pairs = np.array([by_method[first], by_method[second]], dtype=np.float64)
            a, b = pairs[:, ~np.isnan(pairs).any(axis=0)]
            differences = a - b
            mean = float(differences.mean()) if len(differences) else math.nan
            interval = _interval(differences, np.random.default_rng(seed))
            p = _signed_rank(differences)
            found.append(Comparison(first, second, score, len(differences), mean, interval, p, math.nan))
    tested = [index for index, one in enumerate(found) if not math.isnan(one.p)]
    for index, p in zip(tested, _holm([found[index].p for index in tested]), strict=True):
        found[index] = dataclasses.replace(found[index], p_corrected=p)
    return found


def count_tests(comparisons: Sequence[Comparison]) -> int:
    """How many of them have a p: what each p is corrected for."""
    return sum(not math.isnan(one.p) for one in comparisons)


def _signed_rank(differences: np.ndarray) -> float:
    if len(differences) < 2:
        return math.nan
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="pratt").pvalue)


def _interval(differences: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    if len(differences) < 3:
        return math.nan, math.nan
    if np.allclose(differences, differences[0], rtol=1e-9, atol=1e-12):
        return float(differences[0]), float(differences[0])  # Alike but for rounding, which BCa would divide by.
    interval = stats.bootstrap((differences,), np.mean, n_resamples=RESAMPLES, rng=rng).confidence_interval
    return float(interval.low), float(interval.high)


def _holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): holds the chance of any false finding, whatever the tests share."""
    order = np.argsort(p)
    steps = np.array(p)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in corrected]


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """One line a comparison: the mean difference with its interval, and Wilcoxon's p, corrected."""
    tests = count_tests(comparisons)
    made = f"corrected for {tests} test{'s' * (tests != 1)} (Holm)" if tests else "which needs two cases"
    lines = [
        f"differences of the means, each with its own 95% interval, not corrected; p of Wilcoxon's test, {made}",
    ]
    for one in comparisons:
        interval = "{:+.3f} to {:+.3f}".format(*one.interval) if math.isfinite(one.interval[0]) else "too few cases"
        difference = f"{one.difference:+.3f} ({interval})" if one.cases else "–"
        p = f"{one.p_corrected:.3g}" if math.isfinite(one.p) else "–"
        lines.append(
            f"{one.score[0]} {one.score[1]:10}{one.first} − {one.second}: {difference}, p = {p}, "
            f"{one.cases} case{'s' * (one.cases != 1)}"
        )
    return "\n".join(lines)


def comparison_csv(comparisons: Sequence[Comparison]) -> str:
    """The comparisons as CSV, one row each; what isn't defined is empty."""
    text = io.StringIO()
    columns = ["region", "score", "first", "second", "cases", "difference", "low", "high", "p", "p_corrected"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for one in comparisons:
        numbers = (one.difference, *one.interval, one.p, one.p_corrected)
        defined = ("" if math.isnan(number) else number for number in numbers)
        writer.writerow([*one.score, one.first, one.second, one.cases, *defined])
    return text.getvalue()
