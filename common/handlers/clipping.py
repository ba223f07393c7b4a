"""Bounding the gradients of a training step."""

from __future__ import annotations

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents

__all__ = ["GradientClipping"]


class GradientClipping:
    """Scales the gradients down to a norm before each step of the optimiser, as `torch.nn.utils.clip_grad_norm_`.

    Where gradients are accumulated over several iterations, the sum is what is bounded; where they are scaled for mixed
    precision, what they are without the scale.

    Args:
        norm: the greatest 2-norm of all gradients together.
    """

    def __init__(self, norm: float) -> None:
        self.norm = norm

    def attach(self, engine: SupervisedTrainer) -> None:
        """Register with the trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.clip)

    def clip(self, engine: SupervisedTrainer) -> None:
        """Clip, if the optimiser's step follows."""
        iteration = (engine.state.iteration - 1) % engine.state.epoch_length + 1
        if iteration % engine.accumulation_steps and iteration < engine.state.epoch_length:
            return
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        parameters = [weight for group in engine.optimizer.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.norm)
