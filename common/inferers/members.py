"""Which checkpoints make up an ensemble."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from glob import glob
from pathlib import Path

from ..errors import InputError

__all__ = ["find_members"]

logger = logging.getLogger(__name__)


def find_members(members: str | Sequence[str], draw: int = 0, seed: int = 0) -> list[Path]:
    """The checkpoints of an ensemble, sorted by path, so that the order in which they were given changes nothing.

    Args:
        members: paths, or patterns such as `folds/*/model.pt`; `**` stands for any folders. Empty: no ensemble.
        draw: how many of them to take, chosen at random; 0 takes all.
        seed: of the choice. The same files and seed give the same choice.

    Raises:
        InputError: a path or pattern fits no file, or there are fewer files than are to be drawn.
    """
    found: set[Path] = set()
    for pattern in [members] if isinstance(members, str) else members:
        # A path that is there is taken as it is, though it may hold characters of a pattern.
        paths = [pattern] if Path(pattern).is_file() else glob(pattern, recursive=True)
        files = {Path(path).resolve() for path in paths if Path(path).is_file()}
        if not files:
            raise InputError(f"members: no file fits {pattern}; give checkpoints, such as \"['a.pt','b.pt']\"")
        found |= files
    if draw > len(found):
        raise InputError(f"draw is {draw}, and members names {len(found)} files: draw fewer, or add members")
    chosen = sorted(found)
    if draw:
        chosen = sorted(random.Random(seed).sample(chosen, draw))
    if chosen:
        logger.info("ensemble of %d of %d networks: %s", len(chosen), len(found), ", ".join(map(str, chosen)))
    return chosen
