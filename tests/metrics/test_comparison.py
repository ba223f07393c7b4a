"""Paired comparisons against scipy, and against what is worked out by hand."""

from __future__ import annotations

import csv
import io
import math
import warnings
from itertools import product

import numpy as np
import pytest
from scipy import stats

from common.metrics.comparison import (
    Comparison,
    compare,
    compare_methods,
    comparison_csv,
    comparison_table,
    count_tests,
)
from common.metrics.lesion_wise import RegionScores, lesion_wise_scores

DICE = ("WT", "dice")


def samples(seed: int, cases: int = 25, methods: str = "abc") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    difficulty = rng.random(cases)
    return {name: difficulty + 0.05 * n + 0.1 * rng.random(cases) for n, name in enumerate(methods)}


def test_every_two_methods_in_every_score():
    found = compare_methods({DICE: samples(0), ("ET", "hd95"): samples(1, methods="ab")})
    assert [(one.score, one.first, one.second) for one in found] == [
        (DICE, "a", "b"),
        (DICE, "a", "c"),
        (DICE, "b", "c"),
        (("ET", "hd95"), "a", "b"),
    ]
    for one in found[:3]:
        a, b = (samples(0)[name] for name in (one.first, one.second))
        assert one.p == stats.wilcoxon(a, b).pvalue
        assert one.difference == pytest.approx((a - b).mean())
        interval = stats.bootstrap((a - b,), np.mean, n_resamples=9999, rng=np.random.default_rng(0))
        assert one.interval == tuple(interval.confidence_interval)
        assert one.interval[0] < one.difference < one.interval[1]
        assert one.cases == 25


def test_the_signed_rank_test_over_all_signs():
    """Pratt's way with zeros: they are ranked with the others and then left out; p is exact for so few."""
    differences = np.array([0.0, -0.3, 0.1, 0.5, 0.2, 0.7])
    ranks = np.array([0, 4, 2, 5, 3, 6])

    def statistic(signs: tuple[int, ...]) -> float:
        return sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign > 0)

    observed = statistic(tuple(np.sign(differences).astype(int)))
    all_signs = [statistic((0, *signs)) for signs in product((-1, 1), repeat=5)]
    larger, smaller = (np.mean([sign * (s - observed) >= 0 for s in all_signs]) for sign in (1, -1))
    (found,) = compare_methods({DICE: {"a": differences, "b": np.zeros(6)}})
    assert found.p == pytest.approx(min(1, 2 * min(larger, smaller)))


def test_correction_of_holm():
    """p times the number of tests left, from the smallest on, never falling; what has no p isn't counted."""
    values = {(f"region {n}", "dice"): samples(n, cases=8 + n, methods="ab") for n in range(6)}
    values["none", "dice"] = {"a": [math.nan], "b": [0.5]}
    found = compare_methods(values)
    tested = sorted((one for one in found if not math.isnan(one.p)), key=lambda one: one.p)
    assert len(tested) == count_tests(found) == 6 and math.isnan(found[-1].p_corrected)
    for rank, one in enumerate(tested):
        assert one.p_corrected == min(1, max(other.p * (6 - before) for before, other in enumerate(tested[: rank + 1])))
    assert any(one.p_corrected > one.p for one in tested)


def test_the_correction_of_known_ps(monkeypatch: pytest.MonkeyPatch):
    """Of a textbook: 0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02."""
    ps = iter([0.01, 0.04, 0.03, 0.005])
    monkeypatch.setattr("common.metrics.comparison._signed_rank", lambda _: next(ps))
    found = compare_methods({(f"region {n}", "dice"): samples(n, methods="ab") for n in range(4)})
    assert [one.p_corrected for one in found] == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_the_seed_decides():
    first, same, other = (compare_methods({DICE: samples(0)}, seed) for seed in (0, 0, 1))
    assert first == same
    assert first[0].interval != other[0].interval and first[0].p == other[0].p


def test_cases_that_one_method_lacks_are_left_out():
    whole, lacking = samples(0, methods="ab"), samples(0, methods="ab")
    lacking["a"][3] = lacking["b"][7] = math.nan
    kept = {name: np.delete(values, [3, 7]) for name, values in whole.items()}
    assert compare_methods({DICE: lacking}) == compare_methods({DICE: kept})
    assert compare_methods({DICE: lacking})[0].cases == 23


def swapped(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(reversed(values.items()))


def test_swapping_the_methods_turns_the_difference():
    (one,), (other,) = (
        compare_methods({DICE: samples(2, methods="ab")}),
        compare_methods({DICE: swapped(samples(2, methods="ab"))}),
    )
    assert (other.difference, other.p) == (-one.difference, one.p)


@pytest.mark.parametrize(
    ("a", "b", "cases", "difference", "interval", "p"),
    [
        ([], [], 0, math.nan, (math.nan, math.nan), math.nan),
        ([math.nan, 1.0], [1.0, math.nan], 0, math.nan, (math.nan, math.nan), math.nan),
        ([0.5], [0.25], 1, 0.25, (math.nan, math.nan), math.nan),
        ([0.5, 0.5], [0.25, 0.5], 2, 0.125, (math.nan, math.nan), 1.0),
        ([0.5, 0.25, 1.0], [0.5, 0.25, 1.0], 3, 0.0, (0.0, 0.0), 1.0),
        ([0.5, 0.25, 1.0], [0.25, 0.0, 0.75], 3, 0.25, (0.25, 0.25), 0.25),
    ],
)
def test_too_few_or_too_alike(a, b, cases, difference, interval, p):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = compare_methods({DICE: {"a": a, "b": b}})
    assert found.cases == cases
    assert [found.difference, *found.interval, found.p] == pytest.approx([difference, *interval, p], nan_ok=True)
    assert found.p_corrected == pytest.approx(p, nan_ok=True)


@pytest.mark.parametrize("seed", range(5))
def test_differences_alike_but_for_rounding(seed: int):
    b = np.random.default_rng(seed).random(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = compare_methods({DICE: {"a": b + 0.1, "b": b}})
    assert found.interval == pytest.approx((0.1, 0.1))


def test_one_case_that_differs_gives_an_interval():
    values = {"a": np.zeros(6), "b": np.array([0, 0, 0, 0, 0, 0.5])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = compare_methods({DICE: values})
    low, high = found.interval
    assert -0.5 <= low < found.difference < 0 <= high + 1e-12
    assert found.p == found.p_corrected == 1.0  # as likely as the same difference the other way


def scores_of(prediction: np.ndarray, reference: np.ndarray) -> dict[str, RegionScores]:
    return lesion_wise_scores(prediction.astype(np.uint8), reference.astype(np.uint8), (1, 1, 1))


def test_a_false_lesion_where_there_is_none_counts():
    """Were lesion F1 undefined without any lesion, the case would be lost just where one method is wrong."""
    nothing, lesion = np.zeros((12, 12, 12)), np.zeros((12, 12, 12))
    lesion[2:6, 2:6, 2:6] = 3
    right = {"healthy": scores_of(nothing, nothing), "ill": scores_of(lesion, lesion)}
    wrong = right | {"healthy": scores_of(lesion, nothing)}
    found = {one.score: one for one in compare({"right": right, "wrong": wrong})}
    assert len(found) == 9
    for region in ("WT", "TC", "ET"):
        assert found[region, "lesion_f1"].cases == 2
        assert found[region, "lesion_f1"].difference == found[region, "dice"].difference == 0.5


def test_only_cases_that_all_methods_have_are_compared():
    same = scores_of(np.ones((6, 6, 6)), np.ones((6, 6, 6)))
    found = compare({"a": {"1": same, "2": same}, "b": {"2": same, "3": same}, "c": {"1": same, "2": same}})
    assert [one.cases for one in found] == [1] * 27  # three pairs, regions and scores
    assert compare({"a": {"1": same}, "b": {"2": same}}) == compare({"a": {"1": same}}) == []


MADE = [
    Comparison("a", "b", ("WT", "dice"), 7, 0.25, (0.125, 0.5), 0.015625, 0.03125),
    Comparison("a", "b", ("TC", "dice"), 2, -0.5, (math.nan, math.nan), 0.5, 0.5),
    Comparison("a", "b", ("ET", "lesion_f1"), 1, 0.0, (math.nan, math.nan), math.nan, math.nan),
    Comparison("a", "b", ("ET", "hd95"), 0, math.nan, (math.nan, math.nan), math.nan, math.nan),
]


def test_table_in_the_terminal():
    heading, *lines = comparison_table(MADE).splitlines()
    assert "each with its own 95% interval, not corrected" in heading and "corrected for 2 tests (Holm)" in heading
    assert lines == [
        "WT dice      a − b: +0.250 (+0.125 to +0.500), p = 0.0312, 7 cases",
        "TC dice      a − b: -0.500 (too few cases), p = 0.5, 2 cases",
        "ET lesion_f1 a − b: +0.000 (too few cases), p = –, 1 case",
        "ET hd95      a − b: –, p = –, 0 cases",
    ]
    assert "corrected for 1 test (Holm)" in comparison_table(MADE[:1])
    assert "corrected" not in comparison_table(MADE[2:]).replace("not corrected", "")


def test_csv_leaves_empty_what_is_not_defined():
    rows = list(csv.DictReader(io.StringIO(comparison_csv(MADE))))
    assert list(rows[0].values()) == ["WT", "dice", "a", "b", "7", "0.25", "0.125", "0.5", "0.015625", "0.03125"]
    assert {key: value for key, value in rows[2].items() if value} == {
        "region": "ET",
        "score": "lesion_f1",
        "first": "a",
        "second": "b",
        "cases": "1",
        "difference": "0.0",
    }
    assert rows[3]["difference"] == "" and rows[1]["p"] == "0.5" and rows[1]["low"] == ""
