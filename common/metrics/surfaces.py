"""Surfaces of labelled masks, and how far they are from one another.

A surface point is a place between 2×2×2 voxels, some of which belong to the mask and some don't. Its area depends on
which ones do. This is how DeepMind's surface-distance sees a mask, and with it the BraTS challenges; its table of areas
is used here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from surface_distance.lookup_tables import create_table_neighbour_code_to_surface_area

__all__ = ["Spacing", "Surface", "nearest", "surface_of", "weighted_percentile"]

Spacing = tuple[float, float, float]
Distances = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclasses.dataclass(frozen=True)
class Surface:
    """N surface points.

    Attributes:
        points: (N, 3) positions; (i, j, k) lies between the voxels i-1 and i of the first axis, and so on.
        areas: (N,) areas in mm².
        owners: (N,) label of the component that each point belongs to.
        keys: (N,) ascending numbers, equal for equal positions in two surfaces of the same shape.
    """

    points: NDArray[np.intp]
    areas: Distances
    owners: NDArray[np.intp]
    keys: Indices

    def __len__(self) -> int:
        return len(self.areas)


_NEAR = 16  # voxels, within which a tree finds its targets fast
_VISITS = 100  # a tree's visits to targets, at worst all for each point, in the time of a voxel in a distance transform

# From a place back to one of its voxels that belongs to the mask: that of the code's highest bit.
_STEP_TO_OWNER = np.array(
    [[bit >> 2 & 1, bit >> 1 & 1, bit & 1] for bit in (max(c.bit_length(), 1) - 1 for c in range(256))]
)


@lru_cache(maxsize=16)
def _areas(spacing: Spacing) -> Distances:
    return create_table_neighbour_code_to_surface_area(spacing)


def surface_of(mask: NDArray[np.bool_], labels: NDArray[np.integer], spacing: Spacing) -> Surface:
    """The surface of a mask whose parts are labelled, in one pass.

    Args:
        mask: (D, H, W), fastest in C order.
        labels: of the same shape, that of each voxel of the mask; no two that differ touch (26 neighbours).
        spacing: voxel size in mm.
    """
    padded = np.zeros([size + 2 for size in mask.shape], bool)
    padded[1:-1, 1:-1, 1:-1] = mask
    # Bit by bit along one axis after the other; what lies before a place counts more.
    code = padded.view(np.uint8)
    for axis, bits in ((2, 1), (1, 2), (0, 4)):
        before, here = (code[(slice(None),) * axis + (part,)] for part in (np.s_[:-1], np.s_[1:]))
        code = before << np.uint8(bits)
        code |= here
    flat = code.ravel()
    # Neither 0 nor 255, which wraps around to 254.
    keys = np.flatnonzero((flat - np.uint8(1)) < np.uint8(254))
    codes = flat[keys]
    points = np.stack(np.unravel_index(keys, code.shape), axis=1)
    owners = labels[tuple((points - _STEP_TO_OWNER[codes]).T)]
    return Surface(points, _areas(spacing)[codes], owners.astype(np.intp), keys)


def _length(steps: NDArray[np.intp], spacing: Spacing) -> Distances:
    """Lengths of steps (..., 3) in mm, in the arithmetic of scipy's distance transform, to the last bit."""
    x, y, z = np.moveaxis(steps * np.asarray(spacing), -1, 0)
    return np.sqrt((x * x + y * y) + z * z)


def nearest(points: NDArray[np.intp], targets: NDArray[np.intp], spacing: Spacing) -> tuple[Distances, Indices]:
    """Distance in mm from each of the points (N, 3) to its nearest of the targets (M, 3), and which one that is."""
    scale = np.asarray(spacing)
    whole = (scale == np.rint(scale)).all()
    neighbours = [1] if whole else [1, 2]
    tree = cKDTree(targets * scale, leafsize=32, compact_nodes=False, balanced_tree=False)
    index = np.full(len(points), len(targets))
    near, indices = tree.query(points * scale, k=neighbours, distance_upper_bound=_NEAR * max(spacing))
    # Where the second may have been cut off by the bound, a tie might be overlooked.
    close = np.flatnonzero(near[:, 0] < 0.999 * _NEAR * max(spacing))
    index[close] = indices[close, 0]
    far = np.flatnonzero(index == len(targets))
    if len(far):
        lower = np.minimum(points[far].min(axis=0), targets.min(axis=0))
        shape = np.maximum(points[far].max(axis=0), targets.max(axis=0)) - lower + 1
        if len(far) * len(targets) > _VISITS * np.prod(shape):
            index[far] = _nearest_by_transform(points[far] - lower, targets - lower, shape, spacing)
        else:
            near[far], indices[far] = tree.query(points[far] * scale, k=neighbours)
            index[far] = indices[far, 0]
            close = np.arange(len(points))
    if not whole:
        # Then lengths of equally distant targets may differ in the last bit; a distance transform takes one of them.
        limits = near[:, 0] * (1 + 1e-12)
        tied = close[near[close, 1] <= limits[close]]
        found = tree.query_ball_point(points[tied] * scale, limits[tied])
        _settle_ties(index, tied, found, points, targets, spacing)
    return _length(points - targets[index], spacing), index


def _settle_ties(
    index: Indices,
    tied: Indices,
    found: Sequence[list[int]],
    points: NDArray[np.intp],
    targets: NDArray[np.intp],
    spacing: Spacing,
) -> None:
    """Set the index of each tied point to that of the found targets which a distance transform takes."""
    counts = np.array([len(few) for few in found], np.intp)
    candidates = np.fromiter(chain.from_iterable(found), np.intp, counts.sum())
    lengths = _length(np.repeat(points[tied], counts, axis=0) - targets[candidates], spacing)
    starts = np.cumsum(counts) - counts
    if len(tied):
        differ = np.minimum.reduceat(lengths, starts) != np.maximum.reduceat(lengths, starts)
        for point, few in zip(tied[differ], found[differ], strict=True):
            index[point] = few[_taken((targets[few] - points[point]).tolist(), spacing)]


def _nearest_by_transform(
    points: NDArray[np.intp], targets: NDArray[np.intp], shape: NDArray[np.intp], spacing: Spacing
) -> Indices:
    """Which of the targets is nearest, by scipy's Euclidean distance transform of a box of that shape.

    A tree goes through nearly all targets where these are about equally far; a transform doesn't mind.
    """
    number = np.full(shape, -1, np.int32)
    number[tuple(targets.T)] = np.arange(len(targets))
    taken = distance_transform_edt(number < 0, sampling=spacing, return_distances=False, return_indices=True)
    at = (slice(None), *points.T)
    return number[tuple(taken[at])].astype(np.intp)


def _taken(steps: list[list[int]], spacing: Spacing) -> int:
    """Which of equally distant targets, given as steps from a point, scipy's Euclidean distance transform finds.

    It goes along one axis after the other (Maurer et al. 2003) and keeps, of those on a line, the ones that are not
    hidden by their neighbours on both sides; where it is a draw, rounding decides.
    """
    remaining, before = list(range(len(steps))), [0.0] * len(steps)
    for axis, size in enumerate(spacing):
        lines: dict[tuple[int, ...], list[int]] = {}
        for n in sorted(remaining, key=lambda n: steps[n][axis]):
            kept = lines.setdefault(tuple(steps[n][axis + 1 :]), [])
            while len(kept) > 1:
                first, middle = kept[-2:]
                a, b = (steps[middle][axis] - steps[first][axis]) * size, (steps[n][axis] - steps[middle][axis]) * size
                c = a + b
                if c * before[middle] - b * before[first] - a * before[n] - a * b * c <= 0:
                    break
                kept.pop()
            kept.append(n)
        before = [
            so_far + (step[axis] * size) * (step[axis] * size) for so_far, step in zip(before, steps, strict=True)
        ]
        remaining = []
        for kept in lines.values():
            at = 0
            while at + 1 < len(kept) and before[kept[at + 1]] < before[kept[at]]:
                at += 1
            remaining.append(kept[at])
    return remaining[0]


def weighted_percentile(distances: Distances, areas: Distances, percent: float = 95) -> float:
    """The first distance, in ascending order, at which the areas so far reach a share of all; inf where there is none.

    Args:
        distances: (N,) in mm.
        areas: (N,) area that each stands for.
        percent: the share.
    """
    if not len(distances):
        return np.inf
    order = np.lexsort((areas, distances))
    shares = np.cumsum(areas[order]) / np.sum(areas[order])
    first = min(int(np.searchsorted(shares, percent / 100)), len(order) - 1)
    return float(distances[order[first]])
