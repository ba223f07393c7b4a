"""Lesion-wise scores of every case of an evaluation, written when it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ignite.engine import Events
from monai.engines import Workflow

from ..metrics.lesion_records import lesion_wise_table, write_records
from ..metrics.lesion_wise import RegionScores, lesion_wise_scores
from ..metrics.lesion_wise_metric import label_map_of, spacing_of

__all__ = ["LesionWiseHandler"]


class LesionWiseHandler:
    """Collects `lesion_wise_scores` over the cases of an evaluator; at the end writes and prints them.

    Expects decollated output: `pred` and `label` as MetaTensors (1, D, H, W) of labels or one-hot (C, D, H, W), in one
    geometry, and the case's name in the batch's `case`. Writes `lesions.csv` (a row a case and region) and
    `lesions.json` (every lesion) into `output_dir`; puts the means into `engine.state.metrics` as
    `lesion_dice_<region>` and `lesion_hd95_<region>`.

    Args:
        output_dir: folder of both files.
        preset: see `lesion_wise_scores`.
        policy: dilation, threshold, penalty, tolerance or regions in place of the preset's.
    """

    def __init__(self, output_dir: str, preset: str = "brats2023-met", **policy: Any) -> None:
        self.output_dir, self.preset, self.policy = Path(output_dir), preset, policy
        self.cases: dict[str, dict[str, RegionScores]] = {}

    def attach(self, engine: Workflow) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: self.cases.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def add(self, engine: Workflow) -> None:
        """Score the cases of an iteration."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            prediction, reference = (label_map_of(output[key]).numpy() for key in ("pred", "label"))
            self.cases[item["case"]] = lesion_wise_scores(
                prediction, reference, spacing_of(output["pred"]), self.preset, **self.policy
            )

    def write(self, engine: Workflow) -> None:
        """Write both files, each whole or not at all, and print the table; where there was no case, nothing."""
        if not self.cases:
            return
        summary = write_records(self.output_dir, self.cases, {"preset": self.preset})["summary"]
        for region, scores in summary.items():
            engine.state.metrics.update({f"lesion_{key}_{region}": scores[key]["mean"] for key in ("dice", "hd95")})
        print(f"\nlesion by lesion ({self.preset}), {lesion_wise_table(summary, len(self.cases))}")
