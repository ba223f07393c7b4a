"""The order in which a training goes through its cases, and the seed of what is random about each of them."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np
from torch.utils.data import Sampler

__all__ = ["Draw", "EpochBatches"]


class Draw(int):
    """An index into a data set, with the seed of all that is random about the sample taken there.

    Any data set takes it for the plain index that it is; `common.data.case_dataset.CaseDataset` seeds its random
    transforms with `seed` before it serves `index`, so that a sample doesn't depend on which process makes it, nor on
    what was made there before. Where `foreground` is set, it tells them so by an entry of that name.
    """

    seed: int
    foreground: bool

    def __new__(cls, index: int, seed: int, foreground: bool = False) -> Draw:
        """An index with a seed, and whether the sample must show foreground."""
        draw = super().__new__(cls, index)
        draw.seed, draw.foreground = seed, foreground
        return draw

    def __getnewargs__(self) -> tuple[int, int, bool]:  # type: ignore[override]
        return int(self), self.seed, self.foreground

    def __repr__(self) -> str:
        return f"Draw(index={int(self)}, seed={self.seed}, foreground={self.foreground})"

    @property
    def index(self) -> int:
        """The plain index."""
        return int(self)


class EpochBatches(Sampler[list[Draw]]):
    """Batches of one epoch after another, each a pure function of the seed, the epoch and the place in it.

    An epoch goes through all cases in an order of its own, cut into as few batches of nearly the same size as there can
    be with at most `batch_size` cases each and as many batches for every process. Process r of n gets batches r, r + n,
    r + 2n …, so each case comes once an epoch. With one exception: where every process has to get something, batches of
    one case can't cover a number of cases that the processes don't divide; then the first cases of the order come a
    second time to fill the last step. Which workers load the batches changes nothing.

    With `steps` an epoch has so many, of `batch_size` cases each, however many cases there are: it goes through all in
    one order after another, and may end within one.

    Each pass over this object is the next epoch.

    Args:
        cases: how many there are; at least one a process.
        batch_size: cases of a step and process, at most.
        seed: the training's.
        process: which of the processes this is.
        processes: how many train together.
        steps: of an epoch; 0 for as many as go through all cases once.
        foreground: share of each step's samples, of all processes together and rounded up, that must show foreground:
            the last ones.

    Attributes:
        epoch: of the next pass, counted from 0.
        start: batches that the next pass leaves out, to go on in the middle of an epoch; the length stays that of a
            whole epoch.
    """

    def __init__(
        self,
        cases: int,
        batch_size: int,
        seed: int,
        process: int = 0,
        processes: int = 1,
        steps: int = 0,
        foreground: float = 0.0,
    ) -> None:
        self.cases, self.batch_size, self.seed = cases, batch_size, seed
        self.process, self.processes = process, processes
        self.steps, self.foreground = steps, foreground
        self.epoch = self.start = 0

    def __len__(self) -> int:
        """Steps of an epoch, the same for every process."""
        return self.steps or -(-self.cases // (self.batch_size * self.processes))

    def __iter__(self) -> Iterator[list[Draw]]:
        # Nothing here runs before the first batch is asked for: a DataLoader makes iterators that it never uses.
        epoch, start = self.epoch, self.start
        self.epoch, self.start = epoch + 1, 0
        places = len(self) * self.processes
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.cases)
        if self.steps:
            while len(order) < places * self.batch_size:
                order = np.append(order, rng.permutation(self.cases))
            order = order[: places * self.batch_size]
        else:
            order = np.append(order, order[: max(0, places - self.cases)])
        entries = np.stack([order, np.arange(len(order)) // self.cases], axis=1)  # the case, and how often it was there
        batches = np.array_split(entries, places)
        for step in range(start, len(self)):
            of_all = batches[step * self.processes : (step + 1) * self.processes]
            sizes = [len(batch) for batch in of_all]
            first = sum(sizes) - ceil(self.foreground * sum(sizes))
            own = enumerate(of_all[self.process], sum(sizes[: self.process]))
            yield [self._draw(epoch, int(case), int(time), place >= first) for place, (case, time) in own]

    def _draw(self, epoch: int, case: int, time: int, foreground: bool) -> Draw:
        # (seed, epoch) alone is the seed of the order.
        sequence = np.random.SeedSequence((self.seed, epoch, case, time))
        return Draw(case, int(sequence.generate_state(1)[0]), foreground)
