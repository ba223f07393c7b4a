"""Agreement of the processes that train together; alone, a process agrees with itself."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

__all__ = ["count", "gather", "greatest", "mean", "rank"]


def _are_several() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Which of the processes this is."""
    return dist.get_rank() if _are_several() else 0


def count() -> int:
    """How many they are."""
    return dist.get_world_size() if _are_several() else 1


def gather(value: Any) -> list[Any]:
    """Each process's value, in their order."""
    values = [value] * count()
    if _are_several():
        dist.all_gather_object(values, value)
    return values


def greatest(number: int, device: torch.device) -> int:
    """The greatest of the processes' numbers.

    Args:
        number: this process's.
        device: where it trains.
    """
    if not _are_several():
        return number
    tensor = torch.tensor(number, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def mean(number: float, device: torch.device) -> float:
    """The mean of the processes' numbers.

    Args:
        number: this process's.
        device: where it trains.
    """
    if not _are_several():
        return number
    tensor = torch.tensor(float(number), device=device)
    dist.all_reduce(tensor)
    return float(tensor) / count()
