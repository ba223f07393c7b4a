"""An evaluator's iteration that leaves out a case for which the memory is too small."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines import Evaluator

from ..data.stream import CaseStream
from ..errors import CaseError, find_memory_error

__all__ = ["CaseAttempt"]


class CaseAttempt:
    """MONAI's `iteration_update` for evaluators over a `CaseStream`: a case that is too large is one of its failures.

    The handlers of that iteration see a batch of no cases, and the next case goes on. Any other exception is raised.

    Args:
        stream: gets the failures.
    """

    def __init__(self, stream: CaseStream) -> None:
        self.stream = stream

    def __call__(self, engine: Evaluator, batch: dict[str, Any]) -> Any:
        """Evaluate one batch."""
        try:
            return engine._iteration(engine, batch)
        except Exception as error:
            if find_memory_error(error) is None:
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        shape = "×".join(map(str, batch["image"].shape[2:]))
        remedy = 'make the window smaller, such as --window_size "[128,128,128]"'
        if engine.state.device.type != "cpu":
            remedy += ", or say --device cpu"
        for case in batch["case"]:
            self.stream.fail(CaseError(case, None, f"memory ran out on its {shape} voxels", remedy))
        engine.state.batch, engine.state.output = [], []
        return engine.state.output
