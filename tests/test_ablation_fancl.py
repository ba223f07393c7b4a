"""What the ablation's benchmark makes of the scores: the paper's order, and the tables' numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.ablation_fancl import caution, coverage, read_scores, relations, spread, stage_epochs, verdict

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


def test_reads_what_an_evaluation_wrote(tmp_path: Path):
    dice = {"WT": 0.8, "TC": 0.5, "ET": 0.2}
    sizes = [{"above": 0, "up_to": 50, "detected": 1, "lesions": 4}, {"above": 50, "up_to": None, "detected": 0}]
    volumes = {region: {"dice": {"mean": value}} for region, value in dice.items()}
    lesions = {
        region: {"dice": {"mean": value / 2}, "lesions": {"by_size": [one | {"lesions": 4} for one in sizes]}}
        for region, value in dice.items()
    }
    (tmp_path / "scores.json").write_text(json.dumps({"summary": volumes}))
    (tmp_path / "lesions.json").write_text(json.dumps({"summary": lesions}))
    scores, by_size = read_scores(tmp_path)
    assert scores["Dice ET"] == 0.2 and scores["Dice mean"] == pytest.approx(0.5)
    assert scores["lesion-wise WT"] == 0.4 and scores["lesion-wise mean"] == pytest.approx(0.25)
    assert by_size == {"0–50 mm³": (1, 4), "above 50 mm³": (0, 4)}


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


def test_spread_is_that_of_a_sample():
    assert spread([0.1, 0.3]) == "0.200±0.141"
    assert spread([0.1]) == "0.100"
