"""What FANCL's ablation makes of the scores and curricula: the paper's order, and how full the curricula are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.ablation_fancl import caution, coverage, relations, stage_epochs, verdict

ROWS = ("baseline", "+C", "+F", "FANCL")


@pytest.mark.parametrize(
    ("scores", "failed"),
    [
        ((0.1, 0.3, 0.2, 0.4), set()),
        ((0.2, 0.1, 0.3, 0.4), {"baseline < +C"}),
        ((0.2, 0.3, 0.2, 0.4), {"baseline < +F"}),  # the same is no gain
        ((0.1, 0.5, 0.2, 0.4), {"+C < FANCL"}),
        ((0.1, 0.2, 0.5, 0.4), {"+F < FANCL"}),
    ],
)
def test_order(scores: tuple[float, ...], failed: set[str]):
    found = relations(dict(zip(ROWS, scores, strict=True)))
    assert len(found) == 4 and {name for name, holds in found.items() if not holds} == failed


def test_verdict_says_in_how_many_seeds():
    always = {row: [0.1 * place, 0.2 * place] for place, row in enumerate(ROWS)}
    assert verdict("Dice", always) == "Dice: the paper's order is reproduced, in the means and in each seed (2 of 2)."
    sometimes = always | {"+C": [0.2, 0.9], "FANCL": [0.9, 0.8]}
    assert "reproduced in the means, but not in each seed: it holds in 1 of 2 seeds" in verdict("Dice", sometimes)
    never = always | {"FANCL": [0.0, 0.0]}
    told = verdict("Dice", never)
    assert "NOT reproduced at this size" in told and "+C < FANCL, +F < FANCL; it holds in 0 of 2 seeds" in told


def test_verdict_of_one_seed_promises_nothing():
    one = {row: [float(place)] for place, row in enumerate(ROWS)}
    assert "one seed" in verdict("Dice", one)


@pytest.mark.parametrize(("epochs", "stages"), [(500, [80, 80, 340]), (25, [4, 4, 17]), (3, [1, 1, 1])])
def test_stages_in_the_papers_proportions(epochs: int, stages: list[int]):
    assert stage_epochs(epochs) == stages


def test_caution_where_the_last_curriculum_is_next_to_empty():
    full, empty = {"ED": [0.1, 0.5], "ET": [0.0, 0.3]}, {"ED": [0.0, 0.1], "ET": [0.0, 0.0]}
    assert caution([full]) == ""
    assert "of ED (5.0% of the voxels), ET (0.0%" in caution([empty, empty | {"ED": [0.0, 0.0]}])
    assert caution([full, empty]) == ""  # 30% and 15% of the two together


def test_coverage_is_that_of_all_sizes(tmp_path: Path):
    lesions = {"ED": [{"mm3": 10.0, "voxels": [1, 2, 4]}, {"mm3": 900.0, "voxels": [0, 6, 6]}], "ET": [], "NCR": []}
    content = {"categories": "labels", "stages": 2, "cases": {"one": lesions}}
    (tmp_path / "curriculum.json").write_text(json.dumps(content))
    assert coverage(tmp_path) == {"NCR": [0.0, 0.0], "ED": [0.1, 0.8], "ET": [0.0, 0.0]}
