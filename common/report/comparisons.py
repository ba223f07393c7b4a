"""The comparison of methods in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..metrics.comparison import Comparison, count_tests
from .tables import Column, format_score

__all__ = ["ComparisonRow", "caution", "compared_rows", "differences"]

ALPHA = 0.05
# Fewer cases than this make a bootstrap interval rough.
FEW_CASES = 20

_COLUMNS = {
    "dice": Column("dice", "Dice", 3),
    "hd95": Column("hd95", "HD95", 1),
    "lesion_f1": Column("lesion_f1", "lesion F1", 3),
}
_UNITS = {"hd95": " mm"}
_SMALLER_IS_BETTER = frozenset(("hd95",))


class ComparisonRow(NamedTuple):
    """A comparison as text, and whether its difference is beyond chance."""

    score: str
    pair: str
    difference: str
    interval: str
    p: str
    cases: int
    beyond: bool


def _signed(value: float, column: Column) -> str:
    text = format_score(value, column).text
    if not math.isfinite(value) or not float(text):
        return text.removeprefix("-")
    return f"+{text}" if value > 0 else text.replace("-", "−")


def _beyond(one: Comparison) -> bool:
    low, high = one.interval
    # The test asks about ranks, the interval about the mean: one extreme case can set them at odds.
    return one.p_corrected < ALPHA and (low > 0 or high < 0)


def compared_rows(comparisons: Sequence[Comparison]) -> list[ComparisonRow]:
    """One row a comparison, in the order given.

    Beyond chance is a difference with a corrected p below 0.05 and a 95% interval of the mean without 0.
    """
    rows = []
    for one in comparisons:
        region, key = one.score
        column, unit = _COLUMNS[key], _UNITS.get(key, "")
        low, high = one.interval
        rows.append(
            ComparisonRow(
                score=f"{region}, {column.heading}{',' if unit else ''}{unit}",
                pair=f"{one.first} − {one.second}",
                difference=_signed(one.difference, column),
                interval="–" if math.isnan(low) else f"{_signed(low, column)} to {_signed(high, column)}",
                p=_probability(one.p_corrected),
                cases=one.cases,
                beyond=_beyond(one),
            )
        )
    return rows


def _probability(p: float) -> str:
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def differences(comparisons: Sequence[Comparison]) -> dict[str, list[str]]:
    """The differences beyond chance, by region: a sentence for each two methods of which one is better in something.

    Amounts are means, with their 95% intervals.
    """
    parts: dict[str, dict[tuple[str, str], list[str]]] = {}
    for one in filter(_beyond, comparisons):
        region, key = one.score
        column, unit = _COLUMNS[key], _UNITS.get(key, "")
        first_better = (one.difference > 0) != (key in _SMALLER_IS_BETTER)
        better, worse = (one.first, one.second) if first_better else (one.second, one.first)
        amount, low, high = (
            format_score(value, column).text for value in (abs(one.difference), *sorted(map(abs, one.interval)))
        )
        way = "lower" if key in _SMALLER_IS_BETTER else "higher"
        parts.setdefault(region, {}).setdefault((better, worse), []).append(
            f"{column.heading} {way} by {amount}{unit} ({low} to {high}{unit})"
        )
    return {
        region: [f"{better} scored better than {worse}: {'; '.join(told)}." for (better, worse), told in pairs.items()]
        for region, pairs in parts.items()
    }


def caution(comparisons: Sequence[Comparison]) -> str:
    """What to mind with so few cases; empty where there are enough."""
    cases = max((one.cases for one in comparisons), default=0)
    tests = max(1, count_tests(comparisons))
    # Wilcoxon's two-sided test gives no p below 2 / 2^n, which Holm's correction multiplies by the number of tests.
    least = next(n for n in range(1, 1000) if tests * 2.0 ** (1 - n) < ALPHA)
    if cases < least:
        many = f"only {cases} case{'' if cases == 1 else 's'}"
        asked = f" in {tests} tests" if tests > 1 else ""
        return (
            f"Caution: with {many} scored by all methods, no difference{asked} can be told from chance, however large; "
            f"it takes at least {least}. Read the means as a description of these cases alone."
        )
    if cases < FEW_CASES:
        return (
            f"Caution: with only {cases} cases the intervals are rough, and a true difference may go unseen. No "
            "difference beyond chance doesn't mean that the methods are equal."
        )
    return ""
