"""Weights: loading them strictly, and saving the best and the last."""

from __future__ import annotations

import io
import logging
import pickle
from pathlib import Path

import torch
from ignite.engine import Events
from monai.engines import Workflow
from torch import nn

from ..atomic import check_writable, whole_file
from ..errors import InputError

__all__ = ["WeightsLoader", "WeightsSaver", "load_weights"]

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
        raise InputError(f"no weights at {path}: train first, or say where they are with --ckpt_path FILE")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds pickled objects or is damaged: it was not loaded and nothing in it was run; "
            "save the network's state dict alone"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
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


class WeightsSaver:
    """Saves a network's state dict each time its evaluator is done: the last one, and the best one by the key metric.

    Files appear only when they are whole. A metric that is not a number counts as worst.

    Args:
        network: what is saved.
        best: file of the best weights so far, none yet at the start of a run.
        last: file of the newest weights.
    """

    def __init__(self, network: nn.Module, best: str, last: str) -> None:
        self.network, self.best, self.last = network, Path(best), Path(last)
        self.best_metric = -float("inf")

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator; the folders are tried now, before any training."""
        for path in (self.best, self.last):
            check_writable(path.parent)
        engine.add_event_handler(Events.COMPLETED, self.save)

    def save(self, engine: Workflow) -> None:
        """Write the weights."""
        buffer = io.BytesIO()
        torch.save(self.network.state_dict(), buffer)
        self._write(self.last, buffer)
        name = engine.state.key_metric_name
        metric = float(engine.state.metrics[name])
        if metric > self.best_metric or not self.best.exists():
            self.best_metric = metric
            self._write(self.best, buffer)
            logger.info("%s %.4f is the best so far: %s", name, metric, self.best)

    @staticmethod
    def _write(path: Path, buffer: io.BytesIO) -> None:
        with whole_file(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
