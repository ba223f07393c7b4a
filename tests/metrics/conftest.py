"""Small pairs of label maps with several lesions, some found, some moved, some missed, and false ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Maps = tuple[np.ndarray, np.ndarray]
SHAPE = (22, 18, 16)


def _draw_pair(seed: int) -> Maps:
    """Boxes, of which all or a share of the voxels is kept.

    Holes make ragged edges, components that touch at corners only, and lesions in several parts.
    """
    rng = np.random.default_rng(seed)
    prediction, reference = np.zeros((2, *SHAPE), np.uint8)
    for _ in range(rng.integers(6)):
        place, size = rng.integers(0, np.array(SHAPE) - 3), rng.integers(1, 7, 3)
        _box(reference, place, size)[...] = rng.integers(1, 4)
        # As it is, moved, larger or smaller, or missed.
        move, growth = ((0, 0), (2, 0), (1, 2), (0, 0))[fate := rng.integers(4)]
        if fate < 3:
            moved = np.maximum(place + rng.integers(-move, move + 1, 3), 0)
            _box(prediction, moved, np.maximum(size + rng.integers(-growth, growth + 1, 3), 1))[...] = rng.integers(
                1, 4
            )
    for _ in range(rng.integers(3)):
        _box(prediction, rng.integers(0, np.array(SHAPE) - 1), rng.integers(1, 4, 3))[...] = rng.integers(1, 4)
    holes = rng.random((2, *SHAPE)) < rng.choice([1, 0.9, 0.6])
    return prediction * holes[0], reference * holes[1]


def _box(array: np.ndarray, place: np.ndarray, size: np.ndarray) -> np.ndarray:
    return array[tuple(slice(at, at + length) for at, length in zip(place, size, strict=True))]


@pytest.fixture(scope="session")
def pairs() -> SearchStrategy[Maps]:
    """Prediction and reference, canonical labels."""
    return st.integers(0, 2**32 - 1).map(_draw_pair)
