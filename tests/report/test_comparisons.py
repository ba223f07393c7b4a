"""The comparison of methods in plain words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from common.metrics.comparison import Comparison, compare_methods
from common.report.comparisons import caution, compared_rows, differences


def compared(
    key: str, difference: float, interval: tuple[float, float], p: float, cases: int = 30, region: str = "WT"
) -> Comparison:
    return Comparison("a", "b", (region, key), cases, difference, interval, p / 2, p)


MADE = [
    compared("dice", -0.125, (-0.2, -0.05), 0.01),
    compared("hd95", 12.34, (5, 20), 0.0001),
    compared("lesion_f1", 0.125, (0.05, 0.2), 0.02),
    compared("dice", 0.125, (-0.05, 0.2), 0.01, region="TC"),
    compared("hd95", 0.125, (0.05, 0.2), 0.06, region="TC"),
    compared("lesion_f1", math.nan, (math.nan, math.nan), math.nan, 0, region="TC"),
    compared("hd95", -1e-9, (-0.2, -0.1), 0.01, region="ET"),
]


def test_differences_beyond_chance_in_words() -> None:
    """A sentence for each region and which of the two is better, with all scores in which it is."""
    assert differences(MADE) == {
        "WT": [
            "b scored better than a: Dice higher by 0.125 (0.050 to 0.200); HD95 lower by 12.3 mm (5.0 to 20.0 mm).",
            "a scored better than b: lesion F1 higher by 0.125 (0.050 to 0.200).",
        ],
        "ET": ["a scored better than b: HD95 lower by 0.0 mm (0.1 to 0.2 mm)."],
    }
    assert differences(MADE[3:6]) == differences([]) == {}


def test_rows() -> None:
    rows = compared_rows(MADE)
    assert rows[1] == ("WT, HD95, mm", "a − b", "+12.3", "+5.0 to +20.0", "< 0.001", 30, True)
    assert rows[0] == ("WT, Dice", "a − b", "−0.125", "−0.200 to −0.050", "0.010", 30, True)
    assert rows[5] == ("TC, lesion F1", "a − b", "–", "–", "–", 0, False)
    assert rows[6].difference == "0.0" and [row.beyond for row in rows[3:5]] == [False, False]


@pytest.mark.parametrize("tests", [1, 9, 90])
def test_caution_with_few_cases(tests: int) -> None:
    """With how many cases so many tests can call any difference beyond chance: six for a single one."""
    for cases in range(2, 25):
        words = caution([compared("dice", 0.1, (0.05, 0.2), 0.01, cases)] * tests)
        smallest = stats.wilcoxon(np.arange(1, cases + 1) / 7).pvalue
        assert ("can be told from chance" in words) == (smallest * tests >= 0.05)
        assert bool(words) == (cases < 20)
        if tests * smallest >= 0.05:
            assert f"it takes at least {({1: 6, 9: 9, 90: 12})[tests]}." in words
    assert "only 0 cases" in caution([])


def test_caution_counts_only_what_was_tested() -> None:
    """Seven cases are enough for a single test, however many comparisons lack one."""
    untested = [compared("dice", math.nan, (math.nan, math.nan), math.nan, 0)] * 50
    assert "the intervals are rough" in caution([compared("dice", 0.1, (0.05, 0.2), 0.03, 7), *untested])


def test_as_many_cases_as_the_caution_asks_for_can_do() -> None:
    """Twelve cases in which one method is always better are told from chance even in ninety tests."""
    b = np.random.default_rng(0).random(12)
    values = {(f"region {n}", "dice"): {"a": b + 0.1 + 0.01 * b, "b": b} for n in range(90)}
    assert max(one.p_corrected for one in compare_methods(values)) < 0.05
    fewer = {score: {name: of[:11] for name, of in by_method.items()} for score, by_method in values.items()}
    assert min(one.p_corrected for one in compare_methods(fewer)) >= 0.05
