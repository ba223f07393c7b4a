"""Saving predictions, one file a case, in the geometry of the input."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Events
from monai.engines import Workflow

from ..atomic import check_writable
from ..data.case_files import MAP_ENDINGS
from ..data.labels import from_canonical
from ..data.missing import write_note
from ..data.writing import write_nifti

__all__ = ["PredictionSaver"]

logger = logging.getLogger(__name__)


class PredictionSaver:
    """Writes `<output_dir>/<case>.nii.gz`, a uint8 label map, for each case of an evaluator as soon as it is done.

    A file appears only when it is whole. Expects decollated output: `pred` as a MetaTensor (1, X, Y, Z) of canonical
    labels, and where probability maps are wanted `probabilities` (C, X, Y, Z), which become
    `<case>_probabilities.nii.gz`, float32, with the channel as fourth axis and all background outside the brain's box.
    A case that lacked modalities (its entry `missing`) also gets `<case>.json`, which names them; a file of that name
    which isn't such a note is left as it is.
    Where there are `entropy` or `variance` (1, X, Y, Z), they become `<case>_entropy.nii.gz`, `<case>_variance.nii.gz`.
    Maps of an earlier prediction of the case that this one doesn't have are removed.

    Args:
        output_dir: folder, made when the first case is saved.
        source_labels: write labels in the convention of the case's own files (its entry `label_convention`) instead of
            the canonical one.
    """

    def __init__(self, output_dir: str, source_labels: bool = False) -> None:
        self.output_dir = Path(output_dir)
        self.source_labels = source_labels

    def attach(self, engine: Workflow) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: check_writable(self.output_dir))
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.save)

    def start(self, engine: Workflow) -> None:
        """Note when the work on a case begins."""
        self.started = time.perf_counter()

    def save(self, engine: Workflow) -> None:
        """Write the cases of an iteration."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            path = self.save_case(item, output)
            logger.info("%s is done in %.1f s", path, time.perf_counter() - self.started)
            if item.get("missing"):
                logger.warning(
                    "case %s has no %s: zeros took its place", item["case"], item["missing"].replace(" ", ", ")
                )

    def save_case(self, item: dict[str, Any], output: dict[str, Any]) -> Path:
        """Write one case; the label map comes last, so that it stands for the whole case."""
        case, pred = str(item["case"]), output["pred"]
        affine = np.asarray(pred.affine, dtype=np.float64)
        missing = item.get("missing", "")
        if missing:
            write_note(self.output_dir, case, missing)
        if "probabilities" in output:
            probabilities = output["probabilities"].cpu().numpy().astype(np.float32)
            probabilities[0] = 1 - probabilities[1:].sum(axis=0)
            write_nifti(self.output_dir / f"{case}_probabilities.nii.gz", np.moveaxis(probabilities, 0, -1), affine)
        for name in ("entropy", "variance"):
            if name in output:
                values = output[name][0].cpu().numpy().astype(np.float32)
                write_nifti(self.output_dir / f"{case}_{name}.nii.gz", values, affine)
        label = pred[0].cpu().numpy().astype(np.uint8)
        if self.source_labels:
            label = from_canonical(label, item.get("label_convention", "canonical"))
        for ending in MAP_ENDINGS:
            stale = self.output_dir / f"{case}{ending}.nii.gz"
            if ending.removeprefix("_") not in output and stale.is_file():
                stale.unlink()
                logger.info("%s is removed: it belonged to an earlier prediction", stale)
        path = self.output_dir / f"{case}.nii.gz"
        write_nifti(path, label, affine)
        if not missing:  # only now: what an earlier prediction lacked holds until this one is there
            write_note(self.output_dir, case, "")
        return path
