"""The order in which a training goes through its cases, and the seed of what is random about each of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

__all__ = ["Draw", "EpochBatches"]


class Draw(int):
    """An index into a data set, with the seed of all that is random about the sample taken there.

    Any data set takes it for the plain index that it is; `common.data.case_dataset.CaseDataset` seeds its random
    transforms with `seed` before it serves `index`, so that a sample doesn't depend on which process makes it, nor on
    what was made there before.
    """

    seed: int

    def __new__(cls, index: int, seed: int) -> Draw:
        """An index with a seed."""
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self), self.seed

    def __repr__(self) -> str:
        return f"Draw(index={int(self)}, seed={self.seed})"

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

    Each pass over this object is the next epoch.

    Args:
        cases: how many there are; at least one a process.
        batch_size: cases of a step and process, at most.
        seed: the training's.
        process: which of the processes this is.
        processes: how many train together.

    Attributes:
        epoch: of the next pass, counted from 0.
        start: batches that the next pass leaves out, to go on in the middle of an epoch; the length stays that of a
            whole epoch.
    """

    def __init__(self, cases: int, batch_size: int, seed: int, process: int = 0, processes: int = 1) -> None:
        self.cases, self.batch_size, self.seed = cases, batch_size, seed
        self.process, self.processes = process, processes
        self.epoch = self.start = 0

    def __len__(self) -> int:
        """Steps of an epoch, the same for every process."""
        return -(-self.cases // (self.batch_size * self.processes))

    def __iter__(self) -> Iterator[list[Draw]]:
        # Nothing here runs before the first batch is asked for: a DataLoader makes iterators that it never uses.
        epoch, start = self.epoch, self.start
        self.epoch, self.start = epoch + 1, 0
        places = len(self) * self.processes
        order = np.random.default_rng((self.seed, epoch)).permutation(self.cases)
        order = np.append(order, order[: max(0, places - self.cases)])
        batches = np.array_split(order, places)[self.process :: self.processes]
        for batch in batches[start:]:
            yield [self._draw(epoch, int(case)) for case in batch]

    def _draw(self, epoch: int, case: int) -> Draw:
        # (seed, epoch) alone is the seed of the order.
        return Draw(case, int(np.random.SeedSequence((self.seed, epoch, case)).generate_state(1)[0]))
