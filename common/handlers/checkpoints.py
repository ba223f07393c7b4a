"""Trainings that are killed and go on as if nothing had happened."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from itertools import accumulate
from types import FrameType
from typing import Any

import monai
import numpy as np
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer, Workflow

from ..data.order import EpochBatches
from ..errors import InputError
from ..fingerprint import Facts, differences, fingerprint
from ..processes import gather, greatest, rank
from .checkpoint_folder import CheckpointFolder
from .ending import at_end

__all__ = ["MAY_CHANGE", "TrainingCheckpoints", "checked_configuration"]

logger = logging.getLogger(__name__)

MAY_CHANGE = frozenset(
    (
        *(
            "cache_dir",
            "cache_gib",
            "checkpoint_epochs",
            "checkpoint_minutes",
            "ckpt_dir",
            "weights",
            "curriculum_dir",
        ),
        *("dataset_dir", "mlflow_uri", "num_workers", "output_dir", "partition_file", "pretrained", "resume"),
    )
)
"""Settings that a training may go on with though it began with others: they change nothing about the result."""


class _Stopped(SystemExit):
    """Ends the process with its status; ignite logs the text."""

    def __str__(self) -> str:
        return "asked to stop"


def checked_configuration(
    checkpoints: CheckpointFolder, settings: Mapping[str, Any], parts: Mapping[str, Any]
) -> Facts:
    """Describe a training by all that decides its result and is known before its cases are prepared.

    Args:
        checkpoints: what the training goes on from.
        settings: the plain settings of the configuration; those that change nothing about the result, such as paths and
            the number of a GPU, don't count.
        parts: id → what else must be as it was: network, loss, transforms, cases; see `common.fingerprint`.

    Raises:
        InputError: the training that is to go on began with another configuration.
    """
    fixed = {name: value for name, value in settings.items() if name not in MAY_CHANGE}
    if "device" in fixed:
        fixed["device"] = torch.device(fixed["device"]).type
    configuration = fingerprint({**fixed, **parts})
    if checkpoints.newest is not None:
        _refuse(checkpoints, differences(checkpoints.newest["configuration"], configuration))
    return configuration


def _refuse(checkpoints: CheckpointFolder, changed: list[str]) -> None:
    if changed:
        raise InputError(
            f"the training in {checkpoints.folder} can't go on with another configuration: leave it as it was, or "
            "start anew, without --resume; what differs:",
            *changed,
        )


class TrainingCheckpoints:
    """Saves all that a training is, again and again, and lets one that was killed go on from there, to the bit.

    A checkpoint holds the objects, the iteration inside the epoch, the random states of Python, numpy and torch in each
    process, the gradient scaler, and the best metric so far. The order of the cases and what is random about each
    follow from the iteration (`EpochBatches`), so that processes that load data hold no state. For the same bits the
    trainer also wants `optim_set_to_none` (a gradient that is zero is not one that is absent) and data loaders with
    generators of their own.

    Saved is every `minutes`, at the end, and when SIGINT or SIGTERM asks for the training to stop, which it does after
    the iteration with status 130; a SIGINT after that stops it at once. An iteration that ends an epoch is done only
    when all that follows the epoch is done: validation, learning rate, last weights. So this handler comes last. In
    several processes the first one writes.

    Args:
        checkpoints: the files, and what to go on from.
        minutes: between two checkpoints; 0 saves after each iteration. Where gradients are accumulated only iterations
            that end with a step of the optimiser count.
        objects: what has a `state_dict` and a `load_state_dict`, by name. None stands for what another process has.
        evaluator: the trainer's, which knows the best metric.
        batches: of the training's data loader.
        configuration: what the training is described by before its cases are prepared; a training goes on only with
            that which it began with.
        handlers: id → a handler of the trainer or the evaluator that decides the result, and so must be as it was, too.
            None where it is left out.
        stages: epochs of each stage, where the training has several: saved is at the end of each, too.
    """

    def __init__(
        self,
        checkpoints: CheckpointFolder,
        minutes: float,
        objects: Mapping[str, Any],
        evaluator: Workflow,
        batches: EpochBatches,
        configuration: Facts,
        handlers: Mapping[str, Any],
        stages: Sequence[int] = (),
    ) -> None:
        self.checkpoints, self.seconds, self.ends = checkpoints, 60 * minutes, {*accumulate(stages)}
        self.names = sorted(objects)
        self.objects = {name: held for name, held in objects.items() if held is not None}
        self.evaluator, self.batches = evaluator, batches
        self.configuration, self.handlers = configuration, handlers
        self.engines: Facts = {}
        self.saved_at = 0.0
        self.stop = False
        self.stopped_at = ""
        self._handlers_before: dict[int, Any] = {}
        self._process = 0

    def attach(self, engine: SupervisedTrainer) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.after_iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.after_epoch)
        at_end(engine, self._end)

    def start(self, engine: SupervisedTrainer) -> None:
        """Restore what the newest checkpoint holds, if the training is to go on.

        Raises:
            InputError: it is of another training, or not all processes see it.
        """
        iterations = gather(self.checkpoints.iteration)
        if len(set(iterations)) > 1:
            raise InputError(
                f"{self.checkpoints.folder}: not all processes find the same checkpoint there; "
                "give an --output_dir that all machines share"
            )
        if rank() == 0:
            self.checkpoints.begin()
        self.engines = self._describe(engine)
        if self.checkpoints.newest is not None:
            self._restore(engine, self.checkpoints.newest)
            self.checkpoints.newest = None  # frees the memory
        self.saved_at = time.monotonic()
        self._watch_signals()

    def _describe(self, engine: SupervisedTrainer) -> Facts:
        trainer = {
            name: getattr(engine, name) for name in ("accumulation_steps", "amp", "amp_kwargs", "optim_set_to_none")
        }
        trainer |= {name: getattr(engine.state, name) for name in ("max_epochs", "epoch_length")}
        batches = {
            name: getattr(self.batches, name)
            for name in ("cases", "batch_size", "seed", "processes", "steps", "foreground")
        }
        own = {"train": {"trainer": trainer, "batches": batches}, "objects": self.names}
        return fingerprint(own) | fingerprint(self.handlers)

    def after_iteration(self, engine: SupervisedTrainer) -> None:
        """Save if it is time to, but for an epoch's last iteration, and if gradients aren't half accumulated."""
        iteration = engine.state.iteration % engine.state.epoch_length
        if iteration and iteration % engine.accumulation_steps == 0:
            self._save_or_stop(engine)

    def after_epoch(self, engine: SupervisedTrainer) -> None:
        """Save if it is time to, or if this was the last epoch, of the training or of a stage."""
        ends = {engine.state.max_epochs, *self.ends}
        self._save_or_stop(engine, bool(engine.should_terminate) or engine.state.epoch in ends)

    def _save_or_stop(self, engine: SupervisedTrainer, at_once: bool = False) -> None:
        is_time = at_once or time.monotonic() - self.saved_at >= self.seconds
        # The processes have clocks and signals of their own; what one wants all do.
        wanted = greatest(2 if self.stop else int(is_time), engine.state.device)
        if wanted:
            self._save(engine)
        if wanted == 2:
            total = engine.state.max_epochs * engine.state.epoch_length
            self.stopped_at = f"iteration {engine.state.iteration} of {total}"
            raise _Stopped(130)  # what a shell reports of a command that Ctrl-C ended

    def _save(self, engine: SupervisedTrainer) -> None:
        state, best = engine.state, self.evaluator.state
        random_states = gather(_random_state(state.device))
        if rank() == 0:
            content = {
                "iteration": state.iteration,
                "epoch": state.iteration // state.epoch_length,
                "terminated": bool(engine.should_terminate),
                "objects": {name: held.state_dict() for name, held in self.objects.items()},
                "scaler": engine.scaler.state_dict() if engine.scaler is not None else None,
                "best_metric": float(best.best_metric),
                "best_metric_epoch": best.best_metric_epoch,
                "random": random_states,
                "configuration": self.configuration,
                "engines": self.engines,
                "surroundings": _surroundings(state.device),
            }
            path = self.checkpoints.save(content)
            logger.info("saved as %s", path)
        self.saved_at = time.monotonic()

    def _restore(self, engine: SupervisedTrainer, saved: dict[str, Any]) -> None:
        # Other processes leave handlers out that only write files.
        _refuse(self.checkpoints, gather(differences(saved["engines"], self.engines))[0])
        state, best = engine.state, self.evaluator.state
        for name, held in self.objects.items():
            held.load_state_dict(saved["objects"][name])
        if engine.scaler is not None and saved["scaler"] is not None:
            engine.scaler.load_state_dict(saved["scaler"])
        best.best_metric, best.best_metric_epoch = saved["best_metric"], saved["best_metric_epoch"]
        state.iteration, state.epoch = saved["iteration"], saved["epoch"]
        self.batches.epoch, self.batches.start = divmod(state.iteration, state.epoch_length)
        if saved["terminated"]:
            engine.terminate()
        logger.info("going on after iteration %d of %d", state.iteration, state.max_epochs * state.epoch_length)
        then, now = saved["surroundings"], _surroundings(state.device)
        if changed := [f"{name} {then[name]} then, {now[name]} now" for name in now if then[name] != now[name]]:
            logger.warning("the result may differ in the last bits from one in one go: %s", ", ".join(changed))
        # Last: whatever is drawn before has been drawn in the first run too.
        _set_random_state(saved["random"][rank()], state.device)

    def _watch_signals(self) -> None:
        self._process = os.getpid()
        if threading.current_thread() is not threading.main_thread():
            return  # only there Python allows it
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers_before[number] = signal.signal(number, self._ask_to_stop)

    def _leave_signals(self) -> None:
        for number in [*self._handlers_before]:
            self._leave_signal(number)

    def _leave_signal(self, number: int) -> None:
        handler = self._handlers_before.pop(number)
        signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a process that loads data: Ctrl-C reaches it too, and the iteration still needs it
        if self.stop:
            return  # timeout(1) sends SIGTERM twice, and a scheduler to all processes
        self.stop = True
        self._leave_signal(signal.SIGINT)
        # print may be what the signal interrupted.
        os.write(2, b"stopping after this iteration, or the validation that is on its way; Ctrl-C stops at once\n")

    def _end(self) -> None:
        self._leave_signals()
        self.checkpoints.end()
        if self.stopped_at and rank() == 0:
            print(
                f"stopped after {self.stopped_at}, saved in {self.checkpoints.folder}; to go on, type the same command "
                "again with --resume True",
                file=sys.stderr,
            )


def _random_state(device: torch.device) -> dict[str, Any]:
    version, words, gauss = random.getstate()
    of_numpy = np.random.get_state(legacy=False)
    key = torch.from_numpy(of_numpy["state"].pop("key").astype(np.int64))
    return {
        "python": [version, torch.tensor(words), gauss],
        "numpy": {**of_numpy, "key": key},
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def _set_random_state(saved: dict[str, Any], device: torch.device) -> None:
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    of_numpy = saved["numpy"]
    key = of_numpy["key"].numpy().astype(np.uint32)
    np.random.set_state({**of_numpy, "state": {**of_numpy["state"], "key": key}})
    torch.set_rng_state(saved["torch"])
    if saved["device"] is not None:
        torch.cuda.set_rng_state(saved["device"], device)


def _surroundings(device: torch.device) -> dict[str, str]:
    """What isn't the configuration's, and yet changes the last bits of a sum."""
    return {
        "torch": str(torch.__version__),
        "monai": monai.__version__,
        "numpy": np.__version__,
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }
