"""Dice, PPV and sensitivity of every image and patient, written as CSV and JSON when an evaluation ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import torch
from monai.data import MetaTensor
from monai.engines import Workflow

from ..atomic import write_rows, write_text
from ..metrics.overlap import OVERLAP_SCORES, Overlap, image_overlaps, overlap_rows
from ..metrics.region_scores import summarise
from ..weights import read_facts
from .case_rows import CaseRows

__all__ = ["OverlapScoresHandler"]


class OverlapScoresHandler(CaseRows):
    """Collects the overlaps of the cases of an evaluator; at the end writes and prints their scores.

    Expects decollated output: `pred` and `label` as MetaTensors (1, X, Y, Z) of 0 and 1 in one geometry, whose slices
    are axial, and the case's name in the batch's `case`. Writes `scores.csv` (a row an image and a patient, see
    `common.metrics.overlap`) and `scores.json` (`{"cases": rows, "summary": {"image": …, "patient": {score: {mean, std,
    median, cases}}}, "trained_with": …}`) into `output_dir`; puts the mean scores into `engine.state.metrics`.

    Args:
        output_dir: folder of the files.
        weights: checkpoint that is evaluated; what it says of its training goes into `scores.json`.
    """

    def __init__(self, output_dir: str, weights: Path | str) -> None:
        super().__init__(output_dir)
        self.weights = weights

    def add(self, engine: Workflow) -> None:
        """Count the pixels of the cases of an iteration."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            maps = axial_slices(output["pred"]), axial_slices(output["label"])
            self.rows.append({"case": str(item["case"]), "overlaps": image_overlaps(*maps)})

    def write_files(self, engine: Workflow) -> None:
        """Write both files, each whole or not at all, and print the table."""
        overlaps: dict[str, list[Overlap]] = {row["case"]: row["overlaps"] for row in self.rows}
        rows = overlap_rows(overlaps)
        summary = summarise(rows, [*OVERLAP_SCORES])
        shown = [_without_nan(row) for row in rows]
        of_regions = {
            region: {score: _without_nan(values) for score, values in scores.items()}
            for region, scores in summary.items()
        }
        content = {"cases": shown, "summary": of_regions, "trained_with": read_facts(self.weights)}
        write_rows(self.output_dir / "scores.csv", ["region", "case", "slice", *OVERLAP_SCORES], shown)
        write_text(self.output_dir / "scores.json", json.dumps(content, indent=1))
        for region, scores in summary.items():
            engine.state.metrics.update({f"{score}_{region}": scores[score]["mean"] for score in OVERLAP_SCORES})
        print(overlap_table(summary, rows))


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """What isn't defined as None, since JSON has no NaN."""
    return {key: None if value != value else value for key, value in values.items()}


def axial_slices(volume: MetaTensor) -> torch.Tensor:
    """The slices (S, …) of a volume (1, X, Y, Z), whichever of its axes goes from feet to head."""
    axes = nibabel.io_orientation(volume.affine.numpy())[:, 0]
    return volume.as_tensor()[0].movedim(int((axes == 2).argmax()), 0)


def overlap_table(summary: dict[str, dict[str, dict[str, float]]], rows: list[dict[str, Any]]) -> str:
    """The summary as a table: a row a score, a column each for images and patients; mean±standard deviation."""
    counts = {region: sum(row["region"] == region for row in rows) for region in ("image", "patient")}
    heads = [f"{count} {region}{'s' * (count != 1)}" for region, count in counts.items()]
    lines = [f"{'mean±std of':14}" + "".join(f"{head:>18}" for head in heads)]
    for score, name in OVERLAP_SCORES.items():
        cells = []
        for region in counts:
            values = summary.get(region, {}).get(score)
            cells.append(f"{values['mean']:.3f}±{values['std']:.3f}" if values else "")
        lines.append(f"{name:14}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)
