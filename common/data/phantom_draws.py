"""Random numbers for the records of generated images."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .phantom_record import Quadruple, Triple

__all__ = ["Draw"]


class Draw:
    """Random numbers rounded to four decimals, which keeps a record short and its JSON exact.

    Args:
        seed: seed of the set.
        index: number of the case in the set; each case has a stream of its own, however many there are.
        stream: another name, another stream of the same case.

    Raises:
        InputError: a seed or index that is negative or no integer.
    """

    def __init__(self, seed: int, index: int, stream: str = "") -> None:
        for name, value in (("seed", seed), ("index", index)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(f"{name} of a phantom must be an integer of at least 0, not {value!r}")
        self.generator = np.random.default_rng(np.random.SeedSequence([seed, index, *stream.encode()]))

    def between(self, low: float, high: float) -> float:
        """Evenly spread from low to high."""
        return round(float(self.generator.uniform(low, high)), 4)

    def log_between(self, low: float, high: float) -> float:
        """The same of the logarithm."""
        return round(float(np.exp(self.generator.uniform(np.log(low), np.log(high)))), 4)

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return bool(self.generator.random() < probability)

    def integer(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return int(self.generator.integers(low, high + 1))

    def three(self, *ranges: tuple[float, float]) -> Triple:
        """Three numbers, each from a range of its own."""
        a, b, c = (self.between(*one) for one in ranges)
        return a, b, c

    def four(self, *ranges: tuple[float, float]) -> Quadruple:
        """Four numbers, each from a range of its own."""
        a, b, c, d = (self.between(*one) for one in ranges)
        return a, b, c, d

    def stretch(self, amount: float) -> Triple:
        """Factors along three axes whose product is 1, each up to about e to the `amount`."""
        logs = self.generator.uniform(-amount, amount, 3)
        a, b, c = (round(float(value), 4) for value in np.exp(logs - logs.mean()))
        return a, b, c
