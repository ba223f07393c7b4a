"""Scores of every case, written as CSV and JSON when an evaluation ends."""

from __future__ import annotations

import json

from monai.engines import Workflow

from ..atomic import write_rows, write_text
from ..metrics.region_scores import SCORES, region_scores, summarise
from .case_rows import CaseRows

__all__ = ["RegionScoresHandler", "scores_table"]


class RegionScoresHandler(CaseRows):
    """Collects `region_scores` over the cases of an evaluator; at the end writes and prints them.

    Expects decollated output: `pred` and `label` as MetaTensors (1, D, H, W) of canonical labels in one geometry, and
    the case's name in the batch's `case`. Writes `scores.csv` (a row a case and region) and `scores.json`
    (`{"cases": [row, …], "summary": {region: {score: {mean, std, median, cases}}}}`) into `output_dir`; puts the mean
    Dice of each region into `engine.state.metrics` as `dice_<region>`.

    Args:
        output_dir: folder of the files.
        penalty: see `region_scores`.
    """

    def __init__(self, output_dir: str, penalty: float | None = None) -> None:
        super().__init__(output_dir)
        self.penalty = penalty

    def add(self, engine: Workflow) -> None:
        """Score the cases of an iteration."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            label = output["label"]
            maps = output["pred"][0].as_tensor(), label[0].as_tensor()
            scores = region_scores(*maps, label.pixdim.tolist(), penalty=self.penalty)
            self.rows += [{"case": item["case"], "region": region, **values} for region, values in scores.items()]

    def write_files(self, engine: Workflow) -> None:
        """Write both files, each whole or not at all, and print the table."""
        summary = summarise(self.rows)
        write_rows(self.output_dir / "scores.csv", ["case", "region", *SCORES], self.rows)
        write_text(self.output_dir / "scores.json", json.dumps({"cases": self.rows, "summary": summary}, indent=1))
        engine.state.metrics.update({f"dice_{region}": scores["dice"]["mean"] for region, scores in summary.items()})
        print(scores_table(summary, cases=len({row["case"] for row in self.rows})))


_ROWS = {
    "dice": ("Dice", 1.0, 3),
    "hd95": ("HD95 (mm)", 1.0, 1),
    "hd100": ("HD100 (mm)", 1.0, 1),
    "sensitivity": ("sensitivity", 1.0, 3),
    "specificity": ("specificity", 1.0, 3),
    "volume_prediction": ("volume (ml)", 1e-3, 1),
    "volume_reference": ("reference (ml)", 1e-3, 1),
}


def scores_table(summary: dict[str, dict[str, dict[str, float]]], cases: int) -> str:
    """The summary as a table of 78 columns: a row a score, a column a region; mean±standard deviation (median)."""
    lines = [f"mean±standard deviation (median) of {cases} case{'s' * (cases != 1)}"]
    lines.append(" " * 15 + "".join(f"{region:>21}" for region in summary))
    for score, (name, scale, digits) in _ROWS.items():
        cells = []
        for scores in summary.values():
            mean, std, median = (f"{scores[score][key] * scale:.{digits}f}" for key in ("mean", "std", "median"))
            cells.append(f"{mean}±{std} ({median})")
        lines.append(f"{name:15}" + "".join(f" {cell:>20}" for cell in cells))
    return "\n".join(lines)
