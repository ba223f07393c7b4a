"""Dice of every case under every combination of missing modalities, written when an evaluation ends."""

from __future__ import annotations

import json
from typing import Any

import torch
from monai.engines import Workflow
from monai.metrics import compute_dice

from ..atomic import write_rows, write_text
from ..data.labels import CHANNELS, REGIONS
from ..data.missing import COMBINATIONS
from ..metrics.region_scores import summarise
from .case_rows import CaseRows

__all__ = ["MissingModalityScores", "missing_table"]


class MissingModalityScores(CaseRows):
    """Collects the regions' Dice over the cases of an evaluator; at the end writes and prints them.

    Expects the cases of `common.data.missing.leave_out_each` and decollated output: `pred` and `label` as MetaTensors
    (1, D, H, W) of canonical labels in one geometry. Two empty maps have a Dice of 1. Writes
    `missing_modalities.csv` (a row a case, combination and region) and `missing_modalities.json`
    (`{"cases": [row, …], "summary": [{"missing": […], "dice": {region: {mean, std, median}}}, …]}`) into `output_dir`.
    """

    def add(self, engine: Workflow) -> None:
        """Score the cases of an iteration."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            pred, label = (_regions(output[key].as_tensor()) for key in ("pred", "label"))
            dice = compute_dice(pred, label.to(pred.device), ignore_empty=False)[0]
            self.rows += [
                {"case": item["case"], "missing": item["missing"], "region": region, "dice": value}
                for region, value in zip(REGIONS, dice.tolist(), strict=True)
            ]

    def write_files(self, engine: Workflow) -> None:
        """Write both files, each whole or not at all, and print the table."""
        summary = []
        for missing in COMBINATIONS:
            rows = [row for row in self.rows if row["missing"].split() == list(missing)]
            scores = summarise(rows, ["dice"]) if rows else {}
            summary.append({"missing": missing, "dice": {region: score["dice"] for region, score in scores.items()}})
        write_rows(self.output_dir / "missing_modalities.csv", ["case", "missing", "region", "dice"], self.rows)
        content = json.dumps({"cases": self.rows, "summary": summary}, indent=1)
        write_text(self.output_dir / "missing_modalities.json", content)
        print(missing_table(summary, cases=len({row["case"] for row in self.rows})))


def _regions(label: torch.Tensor) -> torch.Tensor:
    """One channel a region (1, C, D, H, W) of a label map (1, D, H, W)."""
    values = [torch.tensor(labels, device=label.device) for labels in REGIONS.values()]
    return torch.stack([torch.isin(label[0], value) for value in values])[None]


def missing_table(summary: list[dict[str, Any]], cases: int) -> str:
    """The summary as a table: a row a combination, a dot where the modality is there; mean±standard deviation."""
    lines = [f"Dice with some modalities missing, mean±standard deviation of {cases} case{'s' * (cases != 1)}"]
    lines.append(" ".join(CHANNELS) + "".join(f"{region:>15}" for region in REGIONS))
    for row in summary:
        dots = " ".join(f"{'·' if channel in row['missing'] else '●':^3}" for channel in CHANNELS)
        dice = [row["dice"].get(region) for region in REGIONS]
        cells = [f"{score['mean']:.3f}±{score['std']:.3f}" if score else "–" for score in dice]
        lines.append(dots + "".join(f"{cell:>15}" for cell in cells))
    return "\n".join(lines)
