"""Each epoch goes through all cases once, in an order that depends on nothing but seed and epoch."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import CacheDataset, DataLoader, Dataset

from common.data.order import Draw, EpochBatches


def epoch_of(batches: EpochBatches, epoch: int, start: int = 0) -> list[list[tuple[int, int]]]:
    batches.epoch, batches.start = epoch, start
    return [[(draw.index, draw.seed) for draw in batch] for batch in batches]


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 5), st.integers(0, 9), st.integers(0, 3))
def test_each_case_once_an_epoch(cases: int, batch_size: int, processes: int, seed: int, epoch: int):
    cases = max(cases, processes)
    shares = [epoch_of(EpochBatches(cases, batch_size, seed, r, processes), epoch) for r in range(processes)]
    steps = len(EpochBatches(cases, batch_size, seed, 0, processes))
    assert [len(share) for share in shares] == [steps] * processes
    assert steps == -(-cases // (batch_size * processes))
    sizes = [len(batch) for share in shares for batch in share]
    assert min(sizes) >= 1 and max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
    times = Counter(case for share in shares for batch in share for case, _ in batch)
    assert set(times) == set(range(cases))
    twice = [case for case, count in times.items() if count == 2]
    assert max(times.values()) <= 2
    if batch_size > 1 or cases % processes == 0:
        assert not twice
    else:
        assert len(twice) == processes - cases % processes


@given(st.integers(0, 2**32), st.integers(0, 500), st.integers(0, 100))
def test_goes_on_in_the_middle(seed: int, epoch: int, start: int):
    whole = epoch_of(EpochBatches(10, 3, seed), epoch)
    start %= len(whole) + 1
    batches = EpochBatches(10, 3, seed)
    assert epoch_of(batches, epoch, start) == whole[start:]
    assert len(batches) == len(whole) == 4
    # What comes after is the next epoch, from its beginning.
    assert [list(batch) for batch in batches] == [
        [index for index, _ in batch] for batch in epoch_of(EpochBatches(10, 3, seed), epoch + 1)
    ]


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(0, 3))
def test_so_many_steps_an_epoch(cases: int, batch_size: int, processes: int, steps: int, epoch: int):
    shares = [epoch_of(EpochBatches(cases, batch_size, 1, r, processes, steps), epoch) for r in range(processes)]
    assert [len(share) for share in shares] == [steps] * processes
    assert all(len(batch) == batch_size for share in shares for batch in share)
    draws = [draw for share in shares for batch in share for draw in batch]
    assert len(set(draws)) == len(draws)  # a case that comes again is cropped anew
    times = Counter(case for case, _ in draws)
    assert max(times.values()) - min(times[case] for case in range(cases)) <= 1


def test_the_last_samples_of_a_batch_must_show_foreground():
    def flags(batch_size: int, share: float) -> list[list[bool]]:
        batches = EpochBatches(6, batch_size, 0, steps=2, foreground=share)
        return [[draw.foreground for draw in batch] for batch in batches]

    assert flags(2, 0.5) == [[False, True]] * 2
    assert flags(1, 0.5) == [[True]] * 2
    assert flags(3, 0.34) == [[False, True, True]] * 2
    assert flags(2, 0.0) == [[False, False]] * 2


@pytest.mark.parametrize(("batch_size", "processes"), [(4, 1), (2, 2), (1, 4)])
def test_foreground_is_a_share_of_what_all_processes_do_in_a_step(batch_size: int, processes: int):
    everything = [
        [*EpochBatches(6, batch_size, 0, process, processes, steps=3, foreground=0.5)] for process in range(processes)
    ]
    for step in zip(*everything, strict=True):
        assert [draw.foreground for batch in step for draw in batch] == [False, False, True, True]


def test_epochs_seeds_and_cases_differ():
    batches = EpochBatches(50, 50, seed=3)
    draws = [dict(epoch_of(batches, epoch)[0]) for epoch in range(4)]
    draws.append(dict(epoch_of(EpochBatches(50, 50, seed=4), 0)[0]))
    assert len({tuple(epoch) for epoch in draws}) == 5
    assert len({seed for epoch in draws for seed in epoch.values()}) == 5 * 50


def test_seed_belongs_to_the_case_and_not_to_its_place():
    """Whatever the batch size and the number of processes."""
    expected = dict(epoch_of(EpochBatches(12, 12, seed=1), 2)[0])
    for batch_size, processes in ((1, 1), (5, 1), (2, 2), (1, 3)):
        for process in range(processes):
            for batch in epoch_of(EpochBatches(12, batch_size, 1, process, processes), 2):
                assert all(expected[case] == seed for case, seed in batch)


def test_an_iterator_that_is_never_used_moves_nothing():
    batches = EpochBatches(4, 1, seed=0)
    iter(batches)
    assert batches.epoch == 0
    next(iter(batches))
    assert batches.epoch == 1


class Seen(torch.utils.data.Dataset):
    """Gives index and seed of what it is asked for, and draws from a state of its own before."""

    def __getitem__(self, draw: Draw) -> tuple[int, int]:
        return draw.index, draw.seed


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int):
    def epochs(num_workers: int) -> list[list[torch.Tensor]]:
        batches = EpochBatches(11, 2, seed=5)
        batches.start = 2
        loader = torch.utils.data.DataLoader(
            Seen(), batch_sampler=batches, num_workers=num_workers, persistent_workers=num_workers > 0
        )
        return [[torch.stack(batch) for batch in loader] for _ in range(3)]

    for one, other in zip(epochs(0), epochs(workers), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_draw_is_an_index():
    draw = Draw(2, seed=7, foreground=True)
    assert (draw.index, draw.seed) == (2, 7) and "abcd"[draw] == "c"
    copy = pickle.loads(pickle.dumps(draw))
    assert (type(copy), copy.index, copy.seed, copy.foreground) == (Draw, 2, 7, True)
    assert type(draw.index) is int


@pytest.mark.parametrize("kind", [Dataset, CacheDataset], ids=str)
def test_any_data_set_takes_it(kind: Callable[..., Dataset]):
    data = kind([{"value": np.float32(n)} for n in range(4)], transform=lambda item: item)
    loader = DataLoader(data, batch_sampler=EpochBatches(4, 2, seed=0))
    assert sorted(value for batch in loader for value in batch["value"].tolist()) == [0, 1, 2, 3]
