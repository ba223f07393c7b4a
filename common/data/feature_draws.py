"""Random numbers of the features of generated brains, and changes of records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .phantom_draws import Draw
from .phantom_record import Appearance, Lesion, Phantom, Quadruple, Triple

__all__ = ["FeatureDraw", "change_head", "change_lesions", "change_looks", "four", "three", "unchanged"]

BEYOND = 0.15
"""How far beyond a range the numbers of cases drawn apart lie at most, in multiples of its width."""


class FeatureDraw(Draw):
    """Random numbers of one feature; drawn apart, each lies beside its range and not in it.

    Args:
        seed, index: see `Draw`.
        stream: name of the feature.
        apart: whether they are drawn apart.
    """

    def __init__(self, seed: int, index: int, stream: str, apart: bool) -> None:
        super().__init__(seed, index, stream)
        self.apart = apart

    def between(self, low: float, high: float) -> float:
        """Evenly spread over the range, or apart over a band on either side of it; what is above zero stays above, and
        what begins there lies beyond the other end.
        """
        if not self.apart:
            return super().between(low, high)
        beyond = self.generator.uniform(0, BEYOND) * (high - low)
        below = max(low - beyond, 0.5 * low) if low > 0 else low - beyond
        above = self.chance(0.5) or low == 0
        return round(float(high + beyond if above else below), 4)

    def log_between(self, low: float, high: float) -> float:
        """The same of the logarithm."""
        return round(float(np.exp(self.between(np.log(low), np.log(high)))), 4)


def change_lesions(phantom: Phantom, change: Callable[[Lesion], Lesion]) -> Phantom:
    """The record with each lesion changed."""
    return dataclasses.replace(phantom, lesions=tuple(map(change, phantom.lesions)))


def change_looks(phantom: Phantom, change: Callable[[int, Appearance], Appearance]) -> Phantom:
    """The record with each modality's looks changed; the change is told which modality it is."""
    t1n, t1c, t2w, t2f = (change(channel, look) for channel, look in enumerate(phantom.appearance))
    return dataclasses.replace(phantom, appearance=(t1n, t1c, t2w, t2f))


def change_head(phantom: Phantom, **changes: Any) -> Phantom:
    """The record with some values of its head changed."""
    return dataclasses.replace(phantom, head=dataclasses.replace(phantom.head, **changes))


def four(*values: float) -> Quadruple:
    """Four numbers, rounded as a record's are."""
    a, b, c, d = (round(value, 4) for value in values)
    return a, b, c, d


def three(*values: float) -> Triple:
    """Three numbers, rounded as a record's are."""
    a, b, c = (round(float(value), 4) for value in values)
    return a, b, c


def unchanged(phantom: Phantom) -> Phantom:
    """The record as it is."""
    return phantom
