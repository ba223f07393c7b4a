"""Several networks, and several views of the image, as one prediction with its variance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type
from torch import nn

from ..errors import InputError
from ..weights import load_weights, read_weights
from .members import find_members
from .views import make_views

__all__ = ["EnsembleInferer"]


class EnsembleInferer(Inferer):
    """Averages what another inferer gives over the members of an ensemble and over test-time views.

    Members are checkpoints of one and the same network: their weights are read in turn into the network that the
    inferer is called with, so one network is in memory, and in the end it has the weights of the last. All members are
    read and checked once when the inferer is made, before there is any case. Mean and variance are accumulated
    (Welford, "Note on a method for calculating corrected sums of squares and products", Technometrics 4, 1962), so that
    memory doesn't grow with their number; MONAI's MeanEnsemble and VoteEnsemble want all maps at once.

    The output is the logarithm of the averaged probabilities: softmax gives these, and argmax the label, as for logits.
    Where there is nothing to average (no members or one, no views), the output is that of the other inferer itself.

    `variance` holds, after each call, how far the probability vectors lie from their mean: the mean over members and
    views of the squared distance, which is the sum of the classes' (population) variances, (B, 1, D, H, W), from 0 to
    below 1; None where there was nothing to average.

    Args:
        inferer: what applies a network to a batch, e.g. a MixedPrecisionInferer.
        network: what the members are checked against.
        members: their paths or patterns; none means the network with the weights that it has. See `find_members`.
        draw, draw_seed: how many of the members to draw, 0 for all, and the seed of that.
        combine: "mean" of the softmax probabilities, or "vote": each member and view gives its likeliest class one
            vote, and shares of votes stand for probabilities; the first of the classes that lead wins.
        flips, rotations: the views; see `make_views`.
        trained_with: settings that the members must have been trained with; see `common.weights.read_weights`.

    Raises:
        InputError: a member is missing, damaged, of another network or trained otherwise; or `combine` is neither.
    """

    def __init__(
        self,
        inferer: Inferer,
        network: nn.Module,
        members: str | Sequence[str] = (),
        draw: int = 0,
        draw_seed: int = 0,
        combine: str = "mean",
        flips: Sequence[int] = (),
        rotations: bool = False,
        trained_with: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if combine not in ("mean", "vote"):
            raise InputError(f"combine is {combine!r}: give mean or vote")
        self.inferer = inferer
        self.combine = combine
        self.views = make_views(flips, rotations)
        self.members = find_members(members, draw, draw_seed)
        for member in self.members:
            read_weights(network, member, trained_with)
        self.variance: torch.Tensor | None = None

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Apply the members to the views of `inputs` (B, C, D, H, W); gives (B, classes, D, H, W), float32."""
        image = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        outputs = self._outputs(image, network, *args, **kwargs)
        self.variance = None
        if len(self.members) <= 1 and len(self.views) == 1:
            return _like(next(outputs), inputs)
        mean, variance = (_average if self.combine == "mean" else _count)(outputs)
        self.variance = _like(variance, inputs)
        # A class without any vote must stay finite, since resampling multiplies it by zero.
        return _like(mean.clamp_min(torch.finfo(mean.dtype).tiny).log(), inputs)

    def _outputs(
        self, image: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Iterator[torch.Tensor]:
        """What each member gives for each view, the first member's for the plain view first."""
        members: list[Path | None] = [*self.members]
        for member in members or [None]:
            if member is not None:
                assert isinstance(network, nn.Module)
                load_weights(network, member)
            for view in self.views:
                yield view.undo(self.inferer(view.apply(image), network, *args, **kwargs))


def _average(outputs: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of the softmax probabilities, and their variance."""
    mean, squares = torch.zeros(()), torch.zeros(())
    for number, logits in enumerate(outputs, start=1):
        probabilities = logits.softmax(1)
        difference = probabilities - mean
        mean = mean + difference / number
        squares = squares + (difference * (probabilities - mean)).sum(1, keepdim=True)
    return mean, squares / number


def _count(outputs: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares of the votes, and their variance. Whole numbers are summed, so that classes that tie stay equal."""
    votes = torch.zeros(())
    for logits in outputs:
        votes = votes + torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1)
    shares = votes / votes.sum(1, keepdim=True)
    return shares, 1 - shares.square().sum(1, keepdim=True)


def _like(values: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """With the metadata of the inputs where they have some: `Invertd` takes nothing without."""
    return convert_to_dst_type(values, inputs, dtype=values.dtype)[0] if isinstance(inputs, MetaTensor) else values
