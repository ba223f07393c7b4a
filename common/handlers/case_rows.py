"""Rows of scores that are collected over the cases of an evaluation, for files that are written when it ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from ignite.engine import Events
from monai.engines import Workflow

from ..errors import InputError

__all__ = ["CaseRows"]


class CaseRows(ABC):
    """A handler that adds rows for each case, and writes them when the evaluator is done.

    Args:
        output_dir: folder of what is written.

    Attributes:
        rows: of the cases so far.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = Path(output_dir)
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Workflow) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self.write)

    @abstractmethod
    def add(self, engine: Workflow) -> None:
        """Score the cases of an iteration."""

    @abstractmethod
    def write_files(self, engine: Workflow) -> None:
        """Write the files, each whole or not at all, and print the table."""

    def write(self, engine: Workflow) -> None:
        """Write the rows; where all cases failed nothing, since the run ends with these.

        Raises:
            InputError: there was no case.
        """
        if self.rows:
            self.write_files(engine)
        elif not getattr(getattr(engine.data_loader, "dataset", None), "failures", None):
            raise InputError("there is no case to evaluate in this part; choose another with --evaluate_on")
