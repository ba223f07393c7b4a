"""Do two methods differ on the same cases? Paired tests, intervals, and a correction for asking often."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy import stats

__all__ = ["Comparison", "compare_methods"]

RESAMPLES = 9999


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two methods in one score on the same cases.

    Attributes:
        first, second: the methods.
        score: what is compared, such as ("WT", "dice").
        cases: how many cases have the score by both.
        difference: mean of first minus second.
        interval: 95% confidence interval of that mean by bootstrap (BCa) over cases; NaN with fewer than three cases.
        p: of Wilcoxon's signed-rank test, two-sided; NaN with fewer than two cases.
        p_corrected: p after Benjamini and Hochberg's correction for all comparisons made together.
    """

    first: str
    second: str
    score: tuple[str, str]
    cases: int
    difference: float
    interval: tuple[float, float]
    p: float
    p_corrected: float


def compare_methods(values: Mapping[tuple[str, str], Mapping[str, Sequence[float]]], seed: int = 0) -> list[Comparison]:
    """Compare every two methods in every score.

    Args:
        values: score → method → its values, NaN where it isn't defined, in the same order of cases for all methods.
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
    if tested:
        corrected = stats.false_discovery_control([found[index].p for index in tested])
        for index, p in zip(tested, corrected, strict=True):
            found[index] = dataclasses.replace(found[index], p_corrected=float(p))
    return found


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
