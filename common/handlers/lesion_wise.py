"""Lesion-wise scores of every case of an evaluation, written when it ends."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ignite.engine import Events
from monai.engines import Workflow

from ..metrics.lesion_records import lesion_wise_table, write_records
from ..metrics.lesion_wise import policy_of
from ..metrics.lesion_wise_metric import LesionWiseMetric

__all__ = ["LesionWiseHandler"]


class LesionWiseHandler:
    """A `LesionWiseMetric` over the cases of an evaluator, that writes and prints them at the end.

    Expects decollated output: `pred` and `label` as MetaTensors (1, D, H, W) of labels or one-hot (C, D, H, W), in one
    geometry, and the case's name in the batch's `case`. Writes `lesions.csv` (a row a case and region) and
    `lesions.json` (every lesion) into `output_dir`; puts the means into `engine.state.metrics` as
    `lesion_dice_<region>` and `lesion_hd95_<region>`.

    Args:
        output_dir: folder of both files.
        preset: see `lesion_wise_scores`.
        policy: dilation, threshold, penalty or tolerance in place of the preset's.

    Raises:
        InputError: the preset is unknown, or a value of the policy means nothing.
    """

    def __init__(self, output_dir: str, preset: str = "brats2023-met", **policy: Any) -> None:
        self.output_dir, self.preset = Path(output_dir), preset
        self.metric = LesionWiseMetric(policy_of(preset, **policy))
        self.names: list[str] = []

    def attach(self, engine: Workflow) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Workflow) -> None:
        """Forget the cases of an earlier run."""
        self.metric.reset()
        self.names.clear()

    def add(self, engine: Workflow) -> None:
        """Score the cases of an iteration."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            self.metric([output["pred"]], [output["label"]])
            self.names.append(item["case"])

    def write(self, engine: Workflow) -> None:
        """Write both files, each whole or not at all, and print the table; where there was no case, nothing."""
        if not self.names:
            return
        cases = dict(zip(self.names, self.metric.cases, strict=True))
        facts = {"preset": self.preset, "policy": asdict(self.metric.policy)}
        summary = write_records(self.output_dir, cases, facts)["summary"]
        for region, scores in summary.items():
            engine.state.metrics.update({f"lesion_{key}_{region}": scores[key]["mean"] for key in ("dice", "hd95")})
        print(f"\nlesion by lesion ({self.preset}), {lesion_wise_table(summary, len(cases))}")
