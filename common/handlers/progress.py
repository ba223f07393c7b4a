"""What a training run says: beforehand what it is about to do, then how far it is."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import Workflow
from torch import nn
from tqdm import tqdm

from ..inferers.mixed_precision import has_mixed_precision
from .ending import at_end

__all__ = ["ProgressBar", "announce_training"]

logger = logging.getLogger(__name__)


def announce_training(
    network: nn.Module,
    data: Mapping[str, Sequence[Any]],
    epochs: int,
    batch_size: int,
    patches_per_case: int,
    device: str | torch.device,
    amp: bool,
    processes: int = 1,
    steps_per_epoch: int = 0,
    samples: str = "cases",
) -> None:
    """Log what a training run is about to do.

    Args:
        network: its parameters are counted.
        data: "training" and "validation" → cases.
        epochs: how often each case is gone through.
        batch_size: cases a step and process.
        patches_per_case: patches that are drawn of a case.
        device: where the network runs.
        amp: whether mixed precision was asked for.
        processes: how many train together.
        steps_per_epoch: where that isn't as many as go through all cases once.
        samples: what those are called that are trained on.
    """
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    cases = math.ceil(len(data["training"]) / processes)
    steps = steps_per_epoch or math.ceil(cases / batch_size)
    logger.info("training on %d %s, validating on %d cases", len(data["training"]), samples, len(data["validation"]))
    logger.info(
        "%d epochs of %d steps, %d %s a step, %d steps in all",
        epochs,
        steps,
        (batch_size if steps_per_epoch else min(batch_size, cases)) * patches_per_case * processes,
        "patches" if samples == "cases" else samples,
        epochs * steps,
    )
    logger.info(
        "%s with %s parameters on %s (%s), %s",
        type(network).__name__,
        f"{parameters:,}",
        device if processes == 1 else f"{processes} × {device.type}",
        name,
        "mixed precision" if amp and has_mixed_precision(device) else "float32",
    )


class ProgressBar:
    """A bar over the whole run of a trainer, with the loss and the time still to go, on standard error.

    Where standard error is no terminal it is redrawn only every 30 seconds.
    """

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def attach(self, engine: Workflow) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)
        at_end(engine, self.stop)

    def start(self, engine: Workflow) -> None:
        """Open the bar, at the first epoch of this run: by then a training that goes on knows where it was."""
        if self.bar is not None:
            return
        state = engine.state
        self.bar = tqdm(
            total=state.max_epochs * state.epoch_length,
            initial=state.iteration,
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 30,
            dynamic_ncols=True,
        )

    def step(self, engine: Workflow) -> None:
        """Move on by one iteration."""
        assert self.bar is not None
        output = engine.state.output
        loss = (output[0] if isinstance(output, list) else output)["loss"]
        self.bar.set_description(f"epoch {engine.state.epoch}/{engine.state.max_epochs}", refresh=False)
        self.bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
        self.bar.update()

    def stop(self) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
