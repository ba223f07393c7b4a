"""Weights: loading them when an engine starts, and saving the best and the last."""

from __future__ import annotations

import io
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import Workflow
from torch import nn

from ..atomic import check_writable, free_name, whole_file
from ..errors import InputError
from ..weights import load_weights, read_facts, tell_origin
from .checkpoint_folder import GO_ON

__all__ = ["BestWeightsSaver", "LastWeightsSaver", "ModalityDropoutCheck", "StageWeightsSaver", "WeightsLoader"]

logger = logging.getLogger(__name__)


class WeightsLoader:
    """Loads weights into a network when an engine starts; see `common.weights`.

    Args:
        network: gets the weights.
        path: the checkpoint; an empty path loads nothing (training from the beginning).
        trained_with: settings that the weights must have been trained with; see `common.weights.read_weights`.

    Raises:
        InputError: when the engine starts: the weights can't be loaded, or were trained with other settings.
    """

    def __init__(self, network: nn.Module, path: str = "", trained_with: Mapping[str, Any] | None = None) -> None:
        self.network, self.path, self.trained_with = network, path, trained_with

    def attach(self, engine: Workflow) -> None:
        """Register with an engine."""
        if self.path:
            engine.add_event_handler(Events.STARTED, self.load)

    def load(self, engine: Workflow) -> None:
        """Load the weights."""
        load_weights(self.network, self.path, self.trained_with)
        tell_origin(self.path)


class ModalityDropoutCheck:
    """Refuses to start an engine with weights that weren't trained with modality dropout.

    Args:
        weights: the checkpoints.

    Raises:
        InputError: when the engine starts, if one of them doesn't say that it was.
    """

    def __init__(self, weights: Sequence[Path | str]) -> None:
        self.weights = weights

    def attach(self, engine: Workflow) -> None:
        """Register with an engine."""
        engine.add_event_handler(Events.STARTED, self.check)

    def check(self, engine: Workflow) -> None:
        """Read what the checkpoints say."""
        for path in self.weights:
            if not read_facts(path).get("modality_dropout"):
                raise InputError(
                    f"{path} wasn't trained with missing modalities, and would make something up for a case that lacks "
                    "one: leave --missing_modalities out, or train with --modality_dropout 0.5"
                )


def weights_file(network: nn.Module, trained_with: Mapping[str, Any] | None) -> bytes:
    """The content of a file with a network's state dict; of equal weights it is equal to the bit.

    Where it is known, the file also has what the weights were trained with; `common.weights.read_facts` gives it back.
    """
    state = network.state_dict()
    buffer = io.BytesIO()
    torch.save(state if trained_with is None else {"model": state, "trained_with": dict(trained_with)}, buffer)
    return buffer.getvalue()


def _write(content: bytes, path: Path) -> None:
    with whole_file(path, durable=True, remedy=GO_ON) as temporary:
        temporary.write_bytes(content)


def _make_ready(path: Path) -> None:
    """Try that the folder can be written to, and remove what runs left there that were killed while they wrote."""
    check_writable(path.parent)
    for leftover in path.parent.glob(f".*-{path.name}"):
        leftover.unlink(missing_ok=True)


def keep_previous(path: Path, content: bytes, folder: Path) -> None:
    """Copy other weights at `path` than `content` to `<folder>/<name>.previous-1.pt`, or the next number free.

    The same weights are this run's own, written before it was killed and went on. (Killed after it found better ones
    and before its first checkpoint, it keeps these as if they were an earlier run's.)
    """
    if path.exists() and path.read_bytes() != content:
        previous = free_name(folder / path.name)
        with whole_file(previous) as temporary:
            shutil.copyfile(path, temporary)
        logger.info("the weights of an earlier run are kept as %s", previous)


class BestWeightsSaver:
    """Saves a network's state dict where a validation's key metric is higher than in any before of this run.

    The first validation of a run always saves; what an earlier run left there is kept in another folder. A
    metric that is not a number counts as worst.

    Args:
        network: what is saved.
        path: file of the best weights.
        previous: folder that gets a copy of the best weights of an earlier run, which these replace.
        trained_with: id of a setting → value, plain ones, kept beside the weights.
    """

    def __init__(
        self, network: nn.Module, path: str, previous: str, trained_with: Mapping[str, Any] | None = None
    ) -> None:
        self.network, self.path, self.previous = network, Path(path), Path(previous)
        self.trained_with = trained_with
        self.best: float | None = None
        self.content = b""

    def state_dict(self) -> dict[str, Any]:
        """The best metric so far, and the file of its weights."""
        return {"best": self.best, "file": torch.from_numpy(np.frombuffer(self.content, np.uint8).copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, with the same weights in the file."""
        self.best, self.content = state["best"], state["file"].numpy().tobytes()
        if self.best is not None:
            _write(self.content, self.path)

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator; the folder is tried now, before any training."""
        _make_ready(self.path)
        engine.add_event_handler(Events.COMPLETED, self.save)

    def save(self, engine: Workflow) -> None:
        """Write the weights if they are the best so far."""
        name = engine.state.key_metric_name
        metric = float(engine.state.metrics[name])
        if self.best is None or metric > self.best:
            self.content = weights_file(self.network, self.trained_with)
            if self.best is None:
                keep_previous(self.path, self.content, self.previous)
            self.best = -math.inf if math.isnan(metric) else metric
            _write(self.content, self.path)
            logger.info("%s %.4f is the best so far: %s", name, metric, self.path)


class LastWeightsSaver:
    """Saves a network's state dict after each epoch; where no validation took place, as the best in the end.

    Args:
        network: what is saved.
        path: file of the last weights.
        best: file of the best weights.
        evaluator: what would have chosen the best ones.
        trained_with: id of a setting → value, plain ones, kept beside the weights.
        interval: epochs from one saving to the next, where they are many and short; the last one's are always saved.
    """

    def __init__(
        self,
        network: nn.Module,
        path: str,
        best: str,
        evaluator: Workflow,
        trained_with: Mapping[str, Any] | None = None,
        interval: int = 1,
    ) -> None:
        self.network, self.path, self.best, self.evaluator = network, Path(path), Path(best), evaluator
        self.trained_with, self.interval = trained_with, interval

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer; the folder is tried now, before any training."""
        _make_ready(self.path)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def save(self, engine: Workflow) -> None:
        """Write the weights as they are now, if it is time to."""
        if engine.state.epoch % self.interval == 0 or engine.state.epoch == engine.state.max_epochs:
            _write(weights_file(self.network, self.trained_with), self.path)

    def finish(self, engine: Workflow) -> None:
        """Write the best weights where there are none of this run."""
        if self.evaluator.state.best_metric_epoch == -1:
            content = weights_file(self.network, self.trained_with)
            keep_previous(self.best, content, self.path.parent)
            _write(content, self.best)
            logger.info("nothing was validated: the last weights are %s", self.best)


class StageWeightsSaver:
    """Saves a network's state dict at the end of each stage of a training, as `<folder>/stage<number>.pt`.

    The last stage's are those of the whole training, and are `LastWeightsSaver`'s.

    Args:
        network: what is saved.
        folder: gets the files.
        stages: epochs of each stage.
        first_stage: the one that this training begins with, counted from 1.
        trained_with: see `BestWeightsSaver`.
    """

    def __init__(
        self,
        network: nn.Module,
        folder: str,
        stages: Sequence[int],
        first_stage: int = 1,
        trained_with: Mapping[str, Any] | None = None,
    ) -> None:
        self.network, self.folder, self.trained_with = network, Path(folder), trained_with
        ends = accumulate(stages[first_stage - 1 : -1])
        self.stages = {end: stage for stage, end in enumerate(ends, first_stage)}

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, engine: Workflow) -> None:
        """Write the weights if a stage has ended."""
        if (stage := self.stages.get(engine.state.epoch)) is not None:
            path = self.folder / f"stage{stage}.pt"
            _write(weights_file(self.network, self.trained_with), path)
            logger.info("stage %d has ended: %s", stage, path)
