"""The comparison of methods in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..metrics.comparison import Comparison
from .tables import Column, format_score

__all__ = ["ComparisonRow", "caution", "compared_rows"]

ALPHA = 0.05
# Below six cases the smallest p that Wilcoxon's two-sided test can give, 2 / 2^n, is above 0.05.
LEAST_CASES, FEW_CASES = 6, 20

_COLUMNS = {
    "dice": Column("dice", "lesion-wise Dice", 3),
    "hd95": Column("hd95", "lesion-wise HD95", 1),
    "lesion_f1": Column("lesion_f1", "lesion F1", 3),
}
_UNITS = {"hd95": " mm"}
_SMALLER_IS_BETTER = frozenset(("hd95",))


class ComparisonRow(NamedTuple):
    """A comparison as text; `sentence` is empty where the difference isn't beyond chance."""

    score: str
    pair: str
    difference: str
    interval: str
    p: str
    cases: int
    sentence: str


def _signed(value: float, column: Column) -> str:
    text = format_score(value, column).text.replace("-", "−")
    return f"+{text}" if value > 0 else text


def _row(one: Comparison) -> ComparisonRow:
    region, key = one.score
    column = _COLUMNS.get(key, Column(key, key, 3))
    unit = _UNITS.get(key, "")
    low, high = one.interval
    # The test asks about ranks, the interval about the mean: one extreme case can set them at odds.
    beyond = one.p_corrected < ALPHA and (low > 0 or high < 0)
    interval = "–" if math.isnan(low) else f"{_signed(low, column)} to {_signed(high, column)}"
    sentence = ""
    if beyond:
        first_better = (one.difference > 0) != (key in _SMALLER_IS_BETTER)
        better, worse = (one.first, one.second) if first_better else (one.second, one.first)
        amounts = [format_score(value, column).text for value in (abs(one.difference), *sorted(map(abs, one.interval)))]
        way = "lower" if key in _SMALLER_IS_BETTER else "higher"
        sentence = (
            f"{region}, {column.heading}: {better} is better than {worse}, on average {amounts[0]}{unit} {way} "
            f"(95% interval {amounts[1]} to {amounts[2]}{unit})."
        )
    return ComparisonRow(
        score=f"{region}, {column.heading}{',' if unit else ''}{unit}",
        pair=f"{one.first} − {one.second}",
        difference=_signed(one.difference, column),
        interval=interval,
        p="–" if math.isnan(one.p_corrected) else "< 0.001" if one.p_corrected < 0.001 else f"{one.p_corrected:.3f}",
        cases=one.cases,
        sentence=sentence,
    )


def compared_rows(comparisons: Sequence[Comparison]) -> list[ComparisonRow]:
    """One row a comparison, in the order given; those beyond chance are told in a sentence too.

    Beyond chance is a difference with a corrected p below 0.05 and a 95% interval of the mean without 0.
    """
    return [_row(one) for one in comparisons]


def caution(comparisons: Sequence[Comparison]) -> str:
    """What to mind with so few cases; empty where there are enough."""
    cases = max((one.cases for one in comparisons), default=0)
    if cases < LEAST_CASES:
        many = f"only {cases} case{'' if cases == 1 else 's'}"
        return (
            f"Caution: with {many} scored by all methods the test can't tell any difference from chance, however "
            f"large; it takes at least {LEAST_CASES}. Read the means as a description of these cases alone."
        )
    if cases < FEW_CASES:
        return (
            f"Caution: with only {cases} cases the intervals are rough, and a true difference may go unseen. No "
            "difference beyond chance doesn't mean that the methods are equal."
        )
    return ""
