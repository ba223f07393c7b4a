"""Weights: loading them strictly, and saving the best and the last."""

from __future__ import annotations

import io
import logging
import math
import pickle
import shutil
from itertools import count
from pathlib import Path

import torch
from ignite.engine import Events
from monai.engines import Workflow
from torch import nn

from ..atomic import check_writable, whole_file
from ..errors import InputError

__all__ = ["BestWeightsSaver", "LastWeightsSaver", "WeightsLoader", "load_weights", "save_weights"]

logger = logging.getLogger(__name__)


def load_weights(network: nn.Module, path: Path | str) -> None:
    """Load a checkpoint into a network; every tensor must fit and nothing pickled is executed.

    Args:
        network: gets the weights, on the device where it is.
        path: a state dict, or `{"model": state dict}`, written by `torch.save`.

    Raises:
        InputError: the file is missing, damaged, holds other objects than tensors, or is of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no weights at {path}: train first, or give the path of the file that has them")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds pickled objects or is damaged: it was not loaded and nothing in it was run; "
            "save the network's state dict alone"
        ) from error
    except Exception as error:  # damaged files make torch raise almost anything
        raise InputError(f"{path} is damaged or no checkpoint: get it again, or train again") from error
    state = state.get("model", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} holds no weights: expected a state dict, or one under the key 'model'")
    own = network.state_dict()
    wrong = sorted(own.keys() ^ state.keys())
    wrong += [key for key in own if key in state and own[key].shape != state[key].shape]
    if wrong:
        raise InputError(
            f"{path} is of another network: {len(wrong)} of {len(own)} tensors differ, such as {wrong[0]}; use the "
            "weights trained with this network_def"
        )
    network.load_state_dict(state)


class WeightsLoader:
    """Loads weights into a network when an engine starts; see `load_weights`.

    Args:
        network: gets the weights.
        path: the checkpoint; an empty path loads nothing (training from the beginning).
    """

    def __init__(self, network: nn.Module, path: str = "") -> None:
        self.network, self.path = network, path

    def attach(self, engine: Workflow) -> None:
        """Register with an engine."""
        if self.path:
            engine.add_event_handler(Events.STARTED, lambda _: load_weights(self.network, self.path))


def save_weights(network: nn.Module, *paths: Path) -> None:
    """Write a network's state dict to files that are whole or not there."""
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    for path in paths:
        with whole_file(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())


def keep_previous(path: Path, folder: Path) -> None:
    """Copy the weights of an earlier run at `path` to `<folder>/<name>.previous-1.pt`, or the next number free."""
    if path.exists():
        numbered = (folder / f"{path.stem}.previous-{number}.pt" for number in count(1))
        previous = next(file for file in numbered if not file.exists())
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
    """

    def __init__(self, network: nn.Module, path: str, previous: str) -> None:
        self.network, self.path, self.previous = network, Path(path), Path(previous)
        self.best: float | None = None

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator; the folder is tried now, before any training."""
        check_writable(self.path.parent)
        engine.add_event_handler(Events.COMPLETED, self.save)

    def save(self, engine: Workflow) -> None:
        """Write the weights if they are the best so far."""
        name = engine.state.key_metric_name
        metric = float(engine.state.metrics[name])
        if self.best is None:
            keep_previous(self.path, self.previous)
        if self.best is None or metric > self.best:
            self.best = -math.inf if math.isnan(metric) else metric
            save_weights(self.network, self.path)
            logger.info("%s %.4f is the best so far: %s", name, metric, self.path)


class LastWeightsSaver:
    """Saves a network's state dict after each epoch; where no validation took place, as the best in the end.

    Args:
        network: what is saved.
        path: file of the last weights.
        best: file of the best weights.
        evaluator: what would have chosen the best ones.
    """

    def __init__(self, network: nn.Module, path: str, best: str, evaluator: Workflow) -> None:
        self.network, self.path, self.best, self.evaluator = network, Path(path), Path(best), evaluator

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer; the folder is tried now, before any training."""
        check_writable(self.path.parent)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: save_weights(self.network, self.path))
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def finish(self, engine: Workflow) -> None:
        """Write the best weights where there are none of this run."""
        if not self.evaluator.state.iteration:
            keep_previous(self.best, self.path.parent)
            save_weights(self.network, self.best)
            logger.info("nothing was validated: the last weights are %s", self.best)
