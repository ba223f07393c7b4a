"""What a training run says: beforehand what it is about to do, then how far it is."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sized

import torch
from ignite.engine import Events
from monai.engines import Workflow
from torch import nn
from tqdm import tqdm

from ..inferers.mixed_precision import has_mixed_precision

__all__ = ["ProgressBar", "StartMessage"]

logger = logging.getLogger(__name__)


class StartMessage:
    """Logs, before the first step, what a training run is about to do.

    Args:
        network: its parameters are counted.
        training: the training cases.
        validation: the validation cases.
        patches: patches a step.
        amp: whether mixed precision was asked for.
    """

    def __init__(self, network: nn.Module, training: Sized, validation: Sized, patches: int, amp: bool) -> None:
        self.network, self.training, self.validation = network, training, validation
        self.patches, self.amp = patches, amp

    def attach(self, engine: Workflow) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self.tell)

    def tell(self, engine: Workflow) -> None:
        """Log the lines."""
        state, device = engine.state, engine.state.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
        parameters = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        logger.info("training on %d cases, validating on %d", len(self.training), len(self.validation))
        logger.info(
            "%d epochs of %d steps, %d patches a step, %d steps in all",
            state.max_epochs,
            state.epoch_length,
            self.patches,
            state.max_epochs * state.epoch_length,
        )
        logger.info(
            "%s with %s parameters on %s (%s), %s",
            type(self.network).__name__,
            f"{parameters:,}",
            device,
            name,
            "mixed precision" if self.amp and has_mixed_precision(device) else "float32",
        )


class ProgressBar:
    """A bar over the whole run of a trainer, with the loss and the time still to go, on standard error.

    Where standard error is no terminal it is redrawn only every 30 seconds.
    """

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def attach(self, engine: Workflow) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)
        engine.add_event_handler(Events.COMPLETED | Events.EXCEPTION_RAISED, self.stop)

    def start(self, engine: Workflow) -> None:
        """Open the bar."""
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

    def stop(self, engine: Workflow, error: BaseException | None = None) -> None:
        """Close the bar; what stopped the engine goes on its way."""
        if self.bar is not None:
            self.bar.close()
        if error is not None:
            raise error
