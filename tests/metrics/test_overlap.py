"""Dice, PPV and sensitivity per image and patient, against counting pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.metrics.overlap import Overlap, image_overlaps, overlap_rows


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_counts_are_those_of_a_loop(seed: int, found: float, there: float):
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.rand(3, 4, 5, generator=generator) < found
    reference = torch.rand(3, 4, 5, generator=generator) < there
    for overlap, p, r in zip(image_overlaps(prediction, reference.int()), prediction, reference, strict=True):
        pairs = [*zip(p.flatten().tolist(), r.flatten().tolist(), strict=True)]
        assert overlap == (pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True)))
        scores = overlap.scores()
        if scores["dice"] > 0 and overlap.both:
            mean = 2 / (1 / scores["ppv"] + 1 / scores["sensitivity"])  # Dice is their harmonic mean
            assert scores["dice"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ((3, 1, 2), (6 / 9, 3 / 4, 3 / 5)),
        ((0, 0, 0), (1, math.nan, math.nan)),
        ((0, 4, 0), (0, 0, math.nan)),
        ((0, 0, 4), (0, 0, 0)),
    ],
)
def test_scores(overlap: tuple[int, int, int], expected: tuple[float, float, float]):
    assert [*Overlap(*overlap).scores().values()] == pytest.approx([*expected], nan_ok=True)


def test_rows_of_images_and_patients():
    cases = {
        "sub-1_ses-a": [Overlap(0, 0, 0), Overlap(2, 0, 2), Overlap(0, 3, 0)],
        "sub-1_ses-b": [Overlap(0, 0, 0)],
        "sub-2": [Overlap(0, 0, 0), Overlap(0, 0, 0)],
    }
    rows = overlap_rows(cases)
    images = [(row["case"], row["slice"], row["dice"]) for row in rows if row["region"] == "image"]
    assert images == [("sub-1_ses-a", 2, 2 * 2 / 6), ("sub-1_ses-a", 3, 0), ("sub-1_ses-b", 1, 1)]
    of_patients = {row["case"]: row for row in rows if row["region"] == "patient"}
    assert of_patients["sub-1"]["dice"] == pytest.approx(4 / (5 + 4)) and of_patients["sub-1"]["ppv"] == 2 / 5
    assert of_patients["sub-2"]["dice"] == 1


def test_other_shapes():
    with pytest.raises(ValueError, match="shapes differ"):
        image_overlaps(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3))
