"""The voxel grid of a generated brain, and smooth random fields on it.

A field is a cubic B-spline over a lattice of normal random numbers that is fixed in millimetres, so that one record
gives the same anatomy at every image size. The sums are elementwise, without BLAS: the bits don't depend on threads.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
from numpy.typing import NDArray

from .phantom_record import Triple

__all__ = ["EXTENT", "Fields", "Grid", "make_grid"]

Array = NDArray[np.float32]

EXTENT = (150.0, 186.0, 150.0)
"""What the image covers at least, mm: the largest head that is drawn, with a margin."""

PERIOD = 280.0
"""A field repeats after at least this many mm, which is more than any image of a whole head covers."""

# The mean over positions of the sum of squared weights of a cubic B-spline is 151/315 along each axis.
UNIT_VARIANCE = (151 / 315) ** -0.5


@dataclasses.dataclass(frozen=True)
class Grid:
    """Isotropic voxels centred on the head: `spacing` in mm, and the voxels' coordinates along each axis, in which a
    head of any size is as large as it was drawn.
    """

    shape: tuple[int, int, int]
    spacing: float
    axes: tuple[Array, Array, Array]


def make_grid(shape: tuple[int, int, int], size: Triple = (1.0, 1.0, 1.0)) -> Grid:
    """The finest isotropic grid of that shape that covers a head of that size: `EXTENT` times it along each axis.

    128 x 128 x 128 has voxels of 1.45 mm where the size is 1.
    """
    spacing = max(extent * factor / count for extent, factor, count in zip(EXTENT, size, shape, strict=True))
    x, y, z = (
        ((np.arange(count) - (count - 1) / 2) * (spacing / factor)).astype(np.float32)
        for count, factor in zip(shape, size, strict=True)
    )
    return Grid(shape, spacing, (x, y, z))


class Fields:
    """Named random fields of one phantom; each name has its own stream, so none changes when another is added.

    Args:
        seed: the record's `texture`.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def generator(self, name: str) -> np.random.Generator:
        """The random stream of that name."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def field(self, name: str, knot: float | tuple[float, ...], axes: tuple[Array, ...]) -> Array:
        """A field of mean 0 and variance about 1 whose lattice has a knot every `knot` mm, one for all axes or each.

        Args:
            name: another name, another field.
            knot: distance of the lattice's knots along the axes, mm.
            axes: coordinates of the voxels along each axis, mm; one axis or more.

        Returns:
            float32, as long along each axis as that has coordinates.
        """
        knots = knot if isinstance(knot, tuple) else (knot,) * len(axes)
        sizes = [int(np.ceil(PERIOD / one)) for one in knots]
        values = self.generator(name).standard_normal(sizes, dtype=np.float32)
        values *= np.float32(UNIT_VARIANCE ** len(axes))
        # The last axis first: the costliest sum, over the whole grid, then adds contiguous planes.
        for axis in reversed(range(len(axes))):
            values = _interpolate(values, axes[axis] / knots[axis], axis)
        return values


def _interpolate(values: Array, positions: Array, axis: int) -> Array:
    """Cubic B-spline along one axis at `positions` in knots, periodic."""
    cell = np.floor(positions).astype(int)
    t = (positions - cell).astype(np.float32)
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    along = [1] * values.ndim
    along[axis] = -1
    total: Array | None = None
    for tap, weight in enumerate(weights):
        part = values.take((cell + tap - 1) % values.shape[axis], axis=axis)
        part *= (weight / 6).astype(np.float32).reshape(along)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total
