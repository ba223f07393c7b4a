"""Which lesions there are, what was predicted for each, and how well: one table that every lesion-wise figure reads.

The definitions are those of the BraTS 2023 challenges (lesion-wise Dice and HD95).
"""

from __future__ import annotations

import dataclasses

import cc3d
import numpy as np
from numpy.typing import NDArray

from ..transforms.crop import bounding_box
from .surfaces import Distances, Indices, Spacing, Surface, nearest, surface_of, weighted_percentile

__all__ = ["Component", "LesionRow", "LesionTable", "connected", "dilate", "lesion_table"]


@dataclasses.dataclass(frozen=True)
class Component:
    """A predicted component, or a lesion of the reference.

    Attributes:
        voxels: how many there are.
        first_voxel: the lexicographically smallest of its voxels (i, j, k).
        centroid: mean of its voxels (i, j, k).
    """

    voxels: int
    first_voxel: tuple[int, int, int]
    centroid: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class LesionRow:
    """A lesion of the reference against all that was predicted for it.

    Attributes:
        lesion: the lesion.
        matched: indices of the predicted components that touch its dilation.
        predicted_voxels: size of the matched components together.
        overlap: voxels that are in both.
        hd95: surface-weighted 95th percentile of the Hausdorff distance in mm, inf where nothing matches.
    """

    lesion: Component
    matched: tuple[int, ...]
    predicted_voxels: int
    overlap: int
    hd95: float

    @property
    def dice(self) -> float:
        """Of the lesion and the matched components."""
        return 2.0 * self.overlap / (self.lesion.voxels + self.predicted_voxels)


@dataclasses.dataclass(frozen=True)
class LesionTable:
    """All that was found out about one region of one case.

    Attributes:
        rows: one a lesion, in the order in which the challenge's script numbers them.
        components: the predicted components.
        unmatched: indices of those that match no lesion.
        prediction, reference, overlap: voxels of the region in either, and in both.
        hd95: of the whole region in mm, inf where either is empty.
        surface_distances: of the whole region: distances (mm) and areas (mm²) of the surface of the prediction, and
            of that of the reference; distances are inf where the other is empty.
    """

    rows: tuple[LesionRow, ...]
    components: tuple[Component, ...]
    unmatched: tuple[int, ...]
    prediction: int
    reference: int
    overlap: int
    hd95: float
    surface_distances: tuple[tuple[Distances, Distances], tuple[Distances, Distances]]


def lesion_table(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing: Spacing,
    dilation: int,
    origin: tuple[int, int, int] = (0, 0, 0),
) -> LesionTable:
    """Compare a predicted region with the reference, lesion by lesion.

    Predicted components are 26-connected. A lesion is what holds together, 26-connected, once the reference is dilated
    by `dilation` steps of 18 neighbours; it is matched by every component that touches its dilation. Each lesion is
    measured undilated against the whole of its matched components, a component serving as many lesions as it touches.

    Args:
        prediction: mask (D, H, W).
        reference: mask (D, H, W).
        spacing: voxel size in mm.
        dilation: steps.
        origin: position of the masks in the image that they are cut from.
    """
    box = bounding_box(prediction | reference, margin=dilation)
    lower = tuple(part.start + at for part, at in zip(box, origin, strict=True))
    # In C order lesions are numbered as in the script; the last bit of a sum over them depends on that.
    prediction, reference = (np.ascontiguousarray(mask[box]) for mask in (prediction, reference))
    found = connected(prediction)
    dilated = connected(dilate(reference, dilation))

    voxels = np.flatnonzero(reference)
    lesions = _components(voxels, dilated.ravel()[voxels].astype(np.intp), reference.shape, lower)
    voxels = np.flatnonzero(prediction)
    # Of each predicted voxel: its component, and the lesion whose dilation it is in.
    owners, near = (labels.ravel()[voxels].astype(np.intp) for labels in (found, dilated))
    components = _components(voxels, owners, prediction.shape, lower)
    # All that is predicted inside a lesion matches it.
    overlaps = np.bincount(near[reference.ravel()[voxels]], minlength=len(lesions) + 1)
    touching = np.unique(near * (len(components) + 1) + owners)
    touched, by = np.divmod(touching[touching > len(components)], len(components) + 1)
    matches = np.split(by, np.searchsorted(touched, np.arange(1, len(lesions) + 1)))[1:]

    surfaces = surface_of(prediction, found, spacing), surface_of(reference, dilated, spacing)
    distances = _Distances(*surfaces, spacing)
    rows = tuple(
        LesionRow(
            lesion=lesion,
            matched=tuple(int(component) - 1 for component in matched),
            predicted_voxels=sum(components[component - 1].voxels for component in matched),
            overlap=int(overlaps[number]),
            hd95=distances.hd95_of(number, matched),
        )
        for number, (lesion, matched) in enumerate(zip(lesions, matches, strict=True), start=1)
    )
    unmatched = np.setdiff1d(np.arange(1, len(components) + 1), by) - 1
    return LesionTable(
        rows=rows,
        components=tuple(components),
        unmatched=tuple(map(int, unmatched)),
        prediction=sum(component.voxels for component in components),
        reference=sum(lesion.voxels for lesion in lesions),
        overlap=int(overlaps.sum()),
        hd95=max(
            weighted_percentile(distances.of_prediction, surfaces[0].areas),
            weighted_percentile(distances.of_reference, surfaces[1].areas),
        ),
        surface_distances=(
            (distances.of_prediction, surfaces[0].areas),
            (distances.of_reference, surfaces[1].areas),
        ),
    )


def connected(mask: NDArray[np.bool_]) -> NDArray[np.unsignedinteger]:
    """The 26-connected components, numbered from 1."""
    if mask.shape.count(1) < 2:
        return cc3d.connected_components(mask, connectivity=26)
    # cc3d fails on lines of voxels.
    return cc3d.connected_components(np.pad(mask, 1), connectivity=26)[1:-1, 1:-1, 1:-1]


def dilate(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """By steps of the neighbours that share a face or an edge: those of the squares around a voxel in three planes."""
    for _ in range(steps):
        along_1, along_2 = _spread(mask, 1), _spread(mask, 2)
        mask = _spread(along_1, 2)
        along_1 |= along_2
        mask |= _spread(along_1, 0)
    return mask


def _spread(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """With both neighbours along an axis."""
    wider = mask.copy()
    before, after = (slice(None),) * axis + (np.s_[:-1],), (slice(None),) * axis + (np.s_[1:],)
    wider[before] |= mask[after]
    wider[after] |= mask[before]
    return wider


def _components(voxels: Indices, owners: Indices, shape: tuple[int, ...], lower: tuple[int, ...]) -> list[Component]:
    """Each component of voxels, given by ascending index (C order) and number from 1."""
    i, j, k = (at + low for at, low in zip(np.unravel_index(voxels, shape), lower, strict=True))
    counts = np.bincount(owners, minlength=1)
    firsts = np.zeros(len(counts), np.intp)
    firsts[owners[::-1]] = np.arange(len(owners))[::-1]
    means = [np.bincount(owners, at, len(counts)) / np.maximum(counts, 1) for at in (i, j, k)]
    return [
        Component(
            int(counts[n]),
            (int(i[firsts[n]]), int(j[firsts[n]]), int(k[firsts[n]])),
            (float(means[0][n]), float(means[1][n]), float(means[2][n])),
        )
        for n in range(1, len(counts))
    ]


class _Distances:
    """Distances between the surfaces of all components and all lesions, each pair of points measured once if it can be.

    A point's nearest of all points is its nearest of those of one lesion too if it belongs to that lesion; only the
    others are measured again.
    """

    def __init__(self, prediction: Surface, reference: Surface, spacing: Spacing) -> None:
        self.prediction, self.reference, self.spacing = prediction, reference, spacing
        self.of_prediction, self.owner_for_prediction = self._nearest(prediction, reference)
        self.of_reference, self.owner_for_reference = self._nearest(reference, prediction)
        self.by_component, self.by_lesion = _by_owner(prediction), _by_owner(reference)

    def _nearest(self, source: Surface, target: Surface) -> tuple[Distances, Indices]:
        if not len(target):
            return np.full(len(source), np.inf), np.zeros(len(source), np.intp)
        distances = np.zeros(len(source))
        # Most points coincide with one of the target's; only the others are looked for.
        index = np.minimum(np.searchsorted(target.keys, source.keys), len(target) - 1)
        apart = np.flatnonzero(target.keys[index] != source.keys)
        if len(apart):
            distances[apart], index[apart] = nearest(source.points[apart], target.points, self.spacing)
        return distances, target.owners[index]

    def hd95_of(self, lesion: int, matched: Indices) -> float:
        """The larger of both directions between a lesion and its matched components (numbers from 1)."""
        if not len(matched):
            return np.inf
        truth = self.by_lesion[lesion]
        found = np.concatenate([self.by_component[m] for m in matched])
        to_found, to_truth = self.of_reference[truth], self.of_prediction[found]
        elsewhere = np.flatnonzero(~np.isin(self.owner_for_reference[truth], matched))
        if len(elsewhere):
            points = self.reference.points[truth[elsewhere]]
            to_found[elsewhere], _ = nearest(points, self.prediction.points[found], self.spacing)
        elsewhere = np.flatnonzero(self.owner_for_prediction[found] != lesion)
        if len(elsewhere):
            points = self.prediction.points[found[elsewhere]]
            to_truth[elsewhere], _ = nearest(points, self.reference.points[truth], self.spacing)
        return max(
            weighted_percentile(to_found, self.reference.areas[truth]),
            weighted_percentile(to_truth, self.prediction.areas[found]),
        )


def _by_owner(surface: Surface) -> list[Indices]:
    """The indices of each component's points, at the component's number."""
    order = np.argsort(surface.owners, kind="stable")
    ends = np.cumsum(np.bincount(surface.owners))
    return np.split(order, ends[:-1]) if len(order) else []
