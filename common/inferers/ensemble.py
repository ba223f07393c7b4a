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
from ..weights import load_weights, read_weights, tell_origin
from .members import check_alike, find_members
from .views import make_views

__all__ = ["COMBINATIONS", "EnsembleInferer", "first_member"]


class EnsembleInferer(Inferer):
    """Averages what another inferer gives over the members of an ensemble and over test-time views.

    Members are checkpoints of one and the same network: their weights are read in turn into the network that the
    inferer is called with, so one network is in memory, and in the end it has the weights of the last. All members are
    read and checked once when the inferer is made, before there is any case. Mean and variance are accumulated
    (Welford, "Note on a method for calculating corrected sums of squares and products", Technometrics 4, 1962), so that
    memory doesn't grow with their number; MONAI's MeanEnsemble and VoteEnsemble want all maps at once.

    The output are logits: softmax gives the averaged probabilities, and argmax the label. Of a network whose channels
    have a sigmoid each, sigmoid gives them.
    Where there is nothing to average (no members or one, no views), the output is that of the other inferer itself.

    `variance` holds, after each call, how far the probability vectors lie from their mean: the mean over members and
    views of the squared distance, which is the sum of the classes' (population) variances, (B, 1, D, H, W), from 0 to
    below 1; None where there was nothing to average.

    Args:
        inferer: what applies a network to a batch, e.g. a MixedPrecisionInferer.
        network: what the members are checked against.
        members: their paths or patterns; none means the network with the weights that it has. See `find_members`.
        draw, draw_seed: how many of the members to draw, 0 for all, and the seed of that.
        combine: "mean" of the probabilities; or of the "logits", as nnU-Net has it (of probabilities that is their
            geometric mean); or "vote": each member and view gives its likeliest class one vote, and shares of votes
            stand for probabilities; the first of the classes that lead wins.
        flips, rotations, axes: the views; see `make_views`.
        sigmoid: the network's channels don't exclude one another. A vote is then taken channel by channel.
        trained_with: settings that the members must have been trained with; see `common.weights.read_weights`.

    Raises:
        InputError: a member is missing, damaged, of another network or trained otherwise than the others or than
            `trained_with` says; or `combine` is unknown.
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
        axes: str = "RAS",
        sigmoid: bool = False,
        trained_with: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if combine not in COMBINATIONS:
            raise InputError(f"combine is {combine!r}: give one of {', '.join(COMBINATIONS)}")
        self.inferer = inferer
        self.combine, self.sigmoid = combine, sigmoid
        self.views = make_views(flips, rotations, axes)
        self.members = find_members(members, draw, draw_seed)
        if len(self.members) > 1:
            check_alike(self.members, trained_with or {})
        for member in self.members:
            read_weights(network, member, trained_with)
            tell_origin(member)
        self.variance: torch.Tensor | None = None

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Apply the members to the views of `inputs` (B, C, D, H, W); gives (B, classes, D, H, W), float32."""
        image = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        outputs = self._outputs(image, network, *args, **kwargs)
        self.variance = None
        if len(self.members) <= 1 and len(self.views) == 1:
            return _like(next(outputs), inputs)
        logits, variance = COMBINATIONS[self.combine](outputs, self.sigmoid)
        self.variance = _like(variance, inputs)
        return _like(logits, inputs)

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


def _average(outputs: Iterable[torch.Tensor], sigmoid: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the mean of the probabilities, and their variance."""
    mean, squares = torch.zeros(()), torch.zeros(())
    for number, logits in enumerate(outputs, start=1):
        probabilities = logits.sigmoid() if sigmoid else logits.softmax(1)
        difference = probabilities - mean
        mean = mean + difference / number
        squares = squares + (difference * (probabilities - mean)).sum(1, keepdim=True)
    return _logits(mean, sigmoid), squares / number


def _average_logits(outputs: Iterable[torch.Tensor], sigmoid: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of the logits, and the variance of the probabilities."""
    mean = torch.zeros(())

    def added() -> Iterator[torch.Tensor]:
        nonlocal mean
        for number, logits in enumerate(outputs, start=1):
            mean = mean + (logits - mean) / number
            yield logits

    _, variance = _average(added(), sigmoid)
    return mean, variance


def _count(outputs: Iterable[torch.Tensor], sigmoid: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the shares of the votes, and their variance. Whole numbers are summed: classes that tie are equal."""
    votes, voters = torch.zeros(()), 0
    for logits in outputs:
        if sigmoid:
            votes = votes + (logits > 0).to(logits.dtype)
        else:
            votes = votes + torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1)
        voters += 1
    shares = votes / voters
    variance = (shares * (1 - shares)).sum(1, keepdim=True) if sigmoid else 1 - shares.square().sum(1, keepdim=True)
    return _logits(shares, sigmoid), variance


def _logits(probabilities: torch.Tensor, sigmoid: bool) -> torch.Tensor:
    # A class without any vote must stay finite, since resampling multiplies it by zero.
    if sigmoid:
        return probabilities.logit(torch.finfo(probabilities.dtype).eps)
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


COMBINATIONS = {"mean": _average, "logits": _average_logits, "vote": _count}
"""The ways to put outputs together: see `EnsembleInferer`."""


def first_member(inferer: Inferer, network: nn.Module) -> Inferer:
    """What an ensemble applies to each member and view, or the inferer itself; `network` gets the first one's weights.

    Args:
        inferer: of a bundle's inference.
        network: of which the members are.
    """
    if not isinstance(inferer, EnsembleInferer):
        return inferer
    if inferer.members:
        load_weights(network, inferer.members[0])
    return inferer.inferer


def _like(values: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """With the metadata of the inputs where they have some: `Invertd` takes nothing without."""
    return convert_to_dst_type(values, inputs, dtype=values.dtype)[0] if isinstance(inputs, MetaTensor) else values
