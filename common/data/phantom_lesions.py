"""The lesions of a generated brain: how much of each voxel they take, and its label."""

from __future__ import annotations

import dataclasses
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from .labels import LABEL_NAMES
from .phantom_anatomy import Anatomy, find_box, ramp
from .phantom_fields import Array, Fields, Grid
from .phantom_record import Lesion

__all__ = ["CAVITY", "LesionFractions", "LesionShapes"]

_VALUES = {name: value for value, name in LABEL_NAMES.items()}

CAVITY = 255
"""Label of a cavity until all lesions are there: background that no edema of another lesion takes."""

VISIBLE = 0.2
"""Edema that fades is labelled where it brightens FLAIR by more than this, as a fraction: not in sulci."""


@dataclasses.dataclass(frozen=True)
class LesionFractions:
    """One lesion, over the M voxels around it.

    Attributes:
        voxels: (M,) positions of these among the anatomy's N voxels.
        edema, core, enhancing: (M,) fractions of each voxel; `enhancing` is that of the core which enhances.
        label: (M,) uint8, the canonical value, or CAVITY.
    """

    voxels: NDArray[np.intp]
    edema: Array
    core: Array
    enhancing: Array
    label: NDArray[np.uint8]


class LesionShapes:
    """Shapes of the lesions of one phantom, deformed by random fields that they share.

    Args:
        anatomy: the brain that they lie in.
        grid: its voxels.
        fields: its random fields.
    """

    def __init__(self, anatomy: Anatomy, grid: Grid, fields: Fields) -> None:
        self.anatomy, self.spacing = anatomy, grid.spacing
        self.coarse, self.medium, self.fine, self.gaps = (
            fields.field(f"lesion {name}", knot, grid.axes)[anatomy.near]
            for name, knot in (("coarse", 18), ("medium", 8), ("fine", 4), ("gaps", 6))
        )

    def fractions(self, lesion: Lesion) -> LesionFractions:
        """The lesion's fractions and labels. A core smaller than the voxels can show is drawn as small as they can."""
        radius = max(lesion.radius, 1.1 * self.spacing)
        reach = 1.6 * radius + 2 * lesion.edema + 2 * self.spacing
        centre = np.array(lesion.centre, dtype=np.float32).reshape(3, 1)
        points = self.anatomy.points
        voxels = find_box(points, lesion.centre, (reach, reach, reach))
        voxels = voxels[self.anatomy.brain[voxels] & (self.anatomy.dura[voxels] < 0.5)]
        stretch = np.array(lesion.stretch, dtype=np.float32).reshape(3, 1)
        distance = np.sqrt((((points[:, voxels] - centre) * stretch) ** 2).sum(axis=0))
        coarse, medium, fine = self.coarse[voxels], self.medium[voxels], self.fine[voxels]

        # Only fields finer than the lesion shape it; a coarser one would merely change its size.
        bumps = 0.7 * min(1, radius / 18) * coarse + 0.5 * min(1, radius / 8) * medium + 0.2 * fine
        core_depth = np.maximum(radius * (1 + lesion.irregularity * bumps), 0.5 * radius)
        core_depth = np.minimum(core_depth, lesion.bulge * radius) - distance
        core = ramp(core_depth, max(self.spacing, 1.0))
        enhancing = self._enhancing(lesion, core_depth, voxels)
        spread = core_depth + self._edema_reach(lesion, voxels)
        # It never enters the ventricles, beside which it is as bright as elsewhere.
        edema_depth = np.minimum(spread, -self.anatomy.ventricle[voxels])
        edema = ramp(edema_depth, max(lesion.softness, self.spacing))
        if lesion.fade and lesion.edema:
            edema *= 1 - np.float32(lesion.fade) * (1 - np.clip(spread / np.float32(lesion.edema), 0, 1))

        label = np.zeros(len(voxels), dtype=np.uint8)
        if lesion.edema:
            shown = edema_depth > 0
            if lesion.fade:
                shown &= edema * (lesion.edema_contrast[3] - 1) * (1 - self.anatomy.fluid[voxels]) > VISIBLE
            label[shown] = _VALUES["ED"]
        else:
            edema = np.zeros_like(edema)
        inside = CAVITY if lesion.pattern == "cavity" else _VALUES["NCR"]
        label[core_depth > 0] = np.where(enhancing > 0.5, _VALUES["ET"], inside)[core_depth > 0]
        return LesionFractions(voxels, edema, core, enhancing, label)

    def _edema_reach(self, lesion: Lesion, voxels: NDArray[np.intp]) -> Array:
        """How far beyond the core edema spreads, mm: in fingers along white matter, less into cortex and deep nuclei
        and across the midline.
        """
        anatomy = self.anatomy
        fingers = 0.5 * self.coarse[voxels] + 0.35 * self.medium[voxels] + 0.15 * self.fine[voxels]
        across = anatomy.points[0, voxels] * lesion.centre[0] < 0
        barrier = 0.5 * anatomy.grey[voxels] + 0.3 * anatomy.deep[:, voxels].sum(axis=0) + 0.6 * across
        return lesion.edema * np.clip(1 + 0.6 * fingers - np.float32(lesion.barrier) * barrier, 0.1, 2)

    def _enhancing(self, lesion: Lesion, core_depth: Array, voxels: NDArray[np.intp]) -> Array:
        """Fraction of the core that enhances."""
        if lesion.pattern == "none":
            return np.zeros_like(core_depth)
        if lesion.pattern == "solid":
            return np.ones_like(core_depth)
        quantile = NormalDist().inv_cdf(lesion.gap) if lesion.gap else -np.inf
        missing = 1 - ramp((self.gaps[voxels] - np.float32(quantile)) * 4, max(self.spacing, 1.0))
        if lesion.pattern == "patchy":
            return 1 - missing
        # A rim thinner than a voxel would be lost in the labels' grid.
        uneven = np.clip(1 + (0.4 + lesion.nodules) * self.medium[voxels], 0.5, 2 + 2 * lesion.nodules)
        rim = np.maximum(lesion.rim * uneven, self.spacing)
        return ramp(rim - core_depth, max(self.spacing, 0.8)) * (1 - missing)
