"""The variance of an ensemble among an evaluator's outputs."""

from __future__ import annotations

from monai.engines import Workflow
from monai.engines.utils import IterationEvents

from ..inferers.ensemble import EnsembleInferer

__all__ = ["VarianceOutput"]


class VarianceOutput:
    """Puts an ensemble's variance into the output of each iteration, where postprocessing and handlers find it.

    The entry is `variance`, (1, D, H, W) once decollated; there is none where nothing was averaged.

    Args:
        inferer: the evaluator's.
    """

    def __init__(self, inferer: EnsembleInferer) -> None:
        self.inferer = inferer

    def attach(self, engine: Workflow) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.add)

    def add(self, engine: Workflow) -> None:
        """Add the variance of the batch."""
        if self.inferer.variance is not None:
            engine.state.output["variance"] = self.inferer.variance
