"""The healthy anatomy of a generated brain: which part of each voxel is what.

Everything is a distance in mm, found from nested ellipsoids and tubes in deformed coordinates; fractions of a voxel
follow from distances by a ramp as wide as a voxel, which is the partial volume. The folds of the cortex are the
zero surfaces of a random field on a sphere, carried inwards along rays, so that sulci are sheets that start at the
surface; the cortical veins are the curves where they meet the zero surfaces of a second field.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .phantom_fields import Array, Fields, Grid
from .phantom_record import Lesion, Phantom, Triple

__all__ = ["Anatomy", "build_anatomy", "find_box", "ramp"]

FOLD_RADIUS = 50.0
"""Radius of the sphere on which the folds are drawn, mm."""

# The lateral ventricle of one side as tubes: (|x|, y, z) and radius in mm at either end.
VENTRICLE = (
    ((13.0, 32.0, 4.0, 2.0), (9.0, 16.0, 17.0, 4.5)),
    ((9.0, 16.0, 17.0, 4.5), (12.0, -14.0, 21.0, 4.5)),
    ((12.0, -14.0, 21.0, 4.5), (23.0, -35.0, 9.0, 6.5)),
    ((23.0, -35.0, 9.0, 6.5), (21.0, -56.0, 3.0, 2.0)),
    ((23.0, -35.0, 9.0, 6.5), (31.0, -18.0, -12.0, 2.0)),
)
CHOROID = ((16.0, -22.0, 18.0, 0.5), (23.0, -36.0, 7.0, 2.2))
CAUDATE = ((14.0, 21.0, 6.0, 6.0), (18.0, -10.0, 19.0, 2.5))

# The other deep nuclei of one side as ellipsoids: centre and radii in mm; the front is nearer to the midline.
PUTAMEN = ((27.0, 5.0, 3.0), (5.5, 18.0, 11.0))
PALLIDUM = ((18.5, 1.0, 1.0), (4.5, 11.0, 7.0))
THALAMUS = ((10.5, -13.0, 4.0), (8.0, 14.0, 9.0))
LEAN = 0.35

LEAF = 5.0
"""Distance between the fissures of the cerebellum at its surface, mm."""

FOLIA_DEPTH = 16.0
"""How deep the cerebellum's leaves reach, mm; white matter lies below."""

LARGEST_ERROR = 1.5
"""No error of skull-stripping is larger, in multiples of its amplitude."""

FAN_RADIUS = 32.0
"""How far that surface is from where the leaves fan out, mm."""


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """Arrays over the N voxels in and just around the head, float32 where nothing else is said.

    Attributes:
        near: (X, Y, Z) bool, which voxels these are.
        points: (3, N) coordinates, mm.
        brain: (N,) bool, what skull-stripping keeps: what is inside the brain's surface, but for its errors.
        grey, fluid, vessel: (N,) fractions of the voxel that are cortex, cerebrospinal fluid and vessel.
        deep: (3, N) fractions that are striatum, pallidum and thalamus; what nothing else takes is white matter.
        ventricle: (N,) signed distance to the wall of the nearest ventricle, positive inside, mm.
        hindbrain: (N,) fraction of the voxel that is cerebellum or brain stem.
        dura: (N,) fraction of the voxel that is dura or lies outside the brain's surface.
    """

    near: NDArray[np.bool_]
    points: Array
    brain: NDArray[np.bool_]
    grey: Array
    deep: Array
    fluid: Array
    vessel: Array
    ventricle: Array
    hindbrain: Array
    dura: Array


def ramp(distance: Array, width: float) -> Array:
    """From 0 to 1 over `width` mm, 0.5 where the signed distance is 0."""
    return np.clip(distance / np.float32(width) + np.float32(0.5), 0, 1)


def find_box(points: Array, centre: Triple, reach: Triple) -> NDArray[np.intp]:
    """Which of the points (3, N) are nearer to a centre than `reach` mm along each axis."""
    found = np.flatnonzero(np.abs(points[0] - np.float32(centre[0])) < np.float32(reach[0]))
    for axis in (1, 2):
        found = found[np.abs(points[axis, found] - np.float32(centre[axis])) < np.float32(reach[axis])]
    return found


def build_anatomy(phantom: Phantom, grid: Grid, fields: Fields) -> Anatomy:
    """The healthy anatomy of a record on a grid, displaced by the lesions where they push."""
    head = phantom.head
    scale = np.array(head.scale, dtype=np.float32).reshape(3, 1)
    axes = tuple(axis / factor for axis, factor in zip(grid.axes, head.scale, strict=True))
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    depths = np.stack(_depths(x, y, z))
    depths += (0.7 * head.deformation) * fields.field("outline", 30, grid.axes)
    depths += np.float32(0.4) * fields.field("strip", 6, grid.axes)
    depth = depths.max(axis=0)
    near = depth > -2 * grid.spacing - LARGEST_ERROR * head.strip
    points = np.stack(np.meshgrid(*grid.axes, indexing="ij"))[:, near]
    inner = _displace(points, phantom.lesions)
    for axis, name in enumerate("xyz"):
        inner[axis] += head.deformation * fields.field(f"deformation {name}", 40, grid.axes)[near]
    inner /= scale
    cerebrum, cerebellum, stem = depths[:, near]
    midline = _midline_distance(inner)
    wander = np.stack([fields.field(f"wander {name}", 11, grid.axes)[near] for name in "xyz"])
    sulcus, vein = _folds(fields, inner, wander, cerebrum, midline)
    sulcal_depth = head.sulcus_depth + 4 * fields.field("sulcal depth", 14, grid.axes)[near]
    medial = np.minimum(cerebrum, midline)
    folded = np.hypot(sulcus, np.maximum(medial - np.clip(sulcal_depth, 4, 24), 0))
    pial = np.minimum(np.minimum(medial, folded), _lateral_fissure(inner + 3 * wander))
    bend = 3 * fields.field("leaves", 16, grid.axes)[near] + wander[0]
    leaves = _leaf_distance(inner, cerebellum, bend, fields.generator("leaf depths").uniform(5, 19, 64))
    pial = np.maximum(np.maximum(pial, leaves), stem)

    ventricle = _ventricle_distance(inner, head.ventricles)
    width = max(grid.spacing, 1.0)
    fluid = np.maximum(ramp(head.sulcus_width - pial, width), ramp(ventricle, width))
    grey = ramp(head.sulcus_width + head.cortex - pial, width) * (stem < 2)
    if head.folia:
        outer = ramp(cerebellum, width) * ramp(FOLIA_DEPTH - cerebellum, 6.0)
        grey = np.maximum(grey, np.float32(head.folia) * outer * (stem < 2))
    # The stem is white matter, and its outside is seen only where neither cerebrum nor cerebellum covers it.
    deep = _nuclei(inner + wander, width)
    vein_distance = np.hypot(np.minimum(sulcus, medial), vein)
    sinus = np.hypot(points[0] / scale[0], cerebrum - head.sinus) + 1e3 * (points[2] < 10)
    vessel = np.maximum(ramp(head.vessels - vein_distance, width), ramp(head.sinus - sinus, width))
    vessel *= medial < 9
    vessel = np.maximum(vessel, ramp(_tube(inner, *CHOROID), width))
    brain = depth[near] + _strip_error(head.strip, grid, fields)[near] > 0 if head.strip else depth[near] > 0
    dura = np.zeros_like(ventricle)
    if head.dura or head.strip:
        patches = ramp(fields.field("dura", 18, grid.axes)[near], 0.6)
        between = np.where(cerebrum > 0, midline, depth[near])  # no sheet parts cerebellum and stem
        dura = _dura(head.dura, depth[near], between, patches, max(grid.spacing, 1.0))
    hindbrain = ramp(np.maximum(cerebellum, stem), width)
    return Anatomy(near, points, brain, grey, deep, fluid, vessel.astype(np.float32), ventricle, hindbrain, dura)


def _strip_error(amplitude: float, grid: Grid, fields: Fields) -> Array:
    """How far the mask's edge lies outside the brain's surface (X, Y, Z), mm: nothing but in patches."""
    field = fields.field("strip errors", 22, grid.axes)
    beyond = np.clip(np.abs(field) - np.float32(0.7), 0, LARGEST_ERROR)
    return np.float32(amplitude) * np.sign(field) * beyond


def _dura(thickness: float, depth: Array, between: Array, patches: Array, width: float) -> Array:
    """All that lies outside the surface, and in patches a sheet under it and between the hemispheres."""
    outside = ramp(-depth, width)
    if not thickness:
        return outside
    return np.maximum(outside, ramp(np.float32(thickness) - np.minimum(depth, between), width) * patches)


def _depths(x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
    """How far below the surface of cerebrum, cerebellum and brain stem a point is, along the ray, mm."""
    above = z + np.float32(-5)
    # The base: temporal lobes reach lowest, the forehead and the middle less.
    temporal = np.exp(-(((y + 2) / 32) ** 2)) * np.clip(np.abs(x) / 24, 0, 1)
    base = 24 + 8 * np.exp(-(((y + 10) / 45) ** 2)) + 22 * temporal
    height = np.where(above > 0, np.float32(60), base)
    breadth = 66 * (1 - 0.0022 * (y + 25)) + 0 * x
    power = np.float32(2.3)
    level = (np.abs(x) / breadth) ** power + (np.abs(y) / 81) ** power
    level = (level + (np.abs(above) / height) ** power) ** (1 / power)
    cerebrum = _ray_depth(level, np.sqrt(x**2 + y**2 + above**2))
    dx, dy, dz = np.abs(x) - 18, y + 44, z + 36
    level = np.sqrt((dx / 34) ** 2 + (dy / 29) ** 2 + (dz / 23) ** 2)
    cerebellum = _ray_depth(level, np.sqrt(dx**2 + dy**2 + dz**2))
    along = np.clip((-12 - z) / 55, 0, 1)
    stem = (13 - 4 * along) - np.hypot(x, y + 12 + 18 * along)
    stem = np.minimum(stem, np.minimum(z + 66, 5 - z))
    return cerebrum, cerebellum, stem.astype(np.float32)


def _ray_depth(level: Array, radius: Array) -> Array:
    return (radius * (1 / np.maximum(level, np.float32(0.05)) - 1)).astype(np.float32)


def _displace(points: Array, lesions: tuple[Lesion, ...]) -> Array:
    """Where the tissue at each point lay before the lesions grew: towards each centre."""
    source = points.copy()
    for lesion in lesions:
        if lesion.push * lesion.radius < 0.5:
            continue
        offset = points - np.array(lesion.centre, dtype=np.float32).reshape(3, 1)
        distance = np.sqrt((offset**2).sum(axis=0)) + np.float32(1e-3)
        amount = lesion.push * lesion.radius * np.exp(-((distance / (2.5 * lesion.radius)) ** 2))
        source -= offset * (np.minimum(amount, 0.6 * distance) / distance)
    return source


def _midline_distance(points: Array) -> Array:
    """Distance to the fissure between the hemispheres, which ends above the corpus callosum."""
    x, y, z = points
    level = np.sqrt((y / 42) ** 2 + ((z + 2) / 30) ** 2)
    return np.hypot(x, np.maximum(1 - level, 0) * 30)


def _lateral_fissure(points: Array) -> Array:
    """Distance to the fissure between temporal lobe and the lobes above it, which ends at the insula."""
    x, y, z = points
    across = np.hypot(z - 0.3 * y - 1, np.maximum(34 - np.abs(x), 0))
    return np.hypot(across, np.maximum(np.abs(y + 2) - 24, 0))


def _folds(fields: Fields, points: Array, wander: Array, cerebrum: Array, midline: Array) -> tuple[Array, Array]:
    """Distances (N,) to the nearest sulcus's sheet and to the sheets that cut veins out of it, mm."""
    far = np.full(points.shape[1], 30, dtype=np.float32)
    cortex = (cerebrum > -5) & (np.minimum(cerebrum, midline) < 28)
    offset = points[:, cortex]
    offset[0] -= np.sign(offset[0]) * 20
    radius = np.sqrt((offset**2).sum(axis=0)) + np.float32(1)
    # A power below 1 lets sulci lean and branch with depth, and wandering curves them.
    offset *= (FOLD_RADIUS / radius) ** np.float32(0.8)
    offset[0] += np.sign(points[0, cortex]) * 20
    offset += np.float32(2.5) * wander[:, cortex]
    lattice = np.arange(-90, 91, 2, dtype=np.float32)
    positions = (offset + 90) / 2
    sheets = []
    for name, knot in (("sulci", 5.5), ("veins", 14.0)):
        values = fields.field(name, knot, (lattice, lattice, lattice))
        slope = np.sqrt(sum(np.gradient(values, 2.0, axis=axis) ** 2 for axis in range(3)))
        distance = values / np.maximum(slope, np.float32(0.6 / knot))
        sheet = far.copy()
        sheet[cortex] = np.abs(ndimage.map_coordinates(distance, positions, order=1, mode="nearest"))
        sheet[cortex] *= np.clip(radius / FOLD_RADIUS, 0.3, 1.3)
        sheets.append(sheet)
    return sheets[0], sheets[1]


def _leaf_distance(points: Array, cerebellum: Array, bend: Array, depths: NDArray[np.float64]) -> Array:
    """Distance to the surface of the cerebellum, whose leaves fan out from the fourth ventricle.

    They are bent by `bend`, mm, and the fissures between them have each a depth of its own, taken from `depths`, mm,
    so that the white matter inside branches.
    """
    x, y, z = points
    forwards, up = y + 25 - np.float32(0.0125) * x**2, z + 30
    reach = np.hypot(forwards, up)
    # The angle as the length of an arc near the surface.
    arc = np.arctan2(up, -forwards) * FAN_RADIUS + bend
    number = np.round(arc / np.float32(LEAF))
    leaf = np.abs(arc - np.float32(LEAF) * number) * (reach / np.float32(FAN_RADIUS))
    # No fissure reaches the place where all would meet.
    leaf += np.maximum(14 - reach, 0)
    depth = depths.astype(np.float32)[number.astype(int) % len(depths)] + bend
    return np.minimum(cerebellum, np.hypot(leaf, np.maximum(cerebellum - depth, 0)) + np.float32(0.5))


def _tube(points: Array, start: tuple[float, ...], end: tuple[float, ...], calibre: float = 1.0) -> Array:
    """Signed distance to a tube on either side of the midline, positive inside, mm."""
    a, b = np.array(start, dtype=np.float32), np.array(end, dtype=np.float32)
    direction = b[:3] - a[:3]
    x, y, z = np.abs(points[0]) - a[0], points[1] - a[1], points[2] - a[2]
    t = np.clip((x * direction[0] + y * direction[1] + z * direction[2]) / (direction**2).sum(), 0, 1)
    x, y, z = x - t * direction[0], y - t * direction[1], z - t * direction[2]
    return (a[3] + t * (b[3] - a[3])) * np.float32(calibre) - np.sqrt(x * x + y * y + z * z)


def _ellipsoid(points: Array, centre: Triple, radii: Triple, lean: float = 0.0) -> Array:
    """About the signed distance to an ellipsoid on either side of the midline, positive inside, mm.

    `lean` is how far it shifts towards the midline for each mm forwards.
    """
    y, z = points[1] - centre[1], points[2] - centre[2]
    x = np.abs(points[0]) - centre[0] + np.float32(lean) * y
    level = np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2)
    return (1 - level) * np.float32(min(radii))


def _ventricle_distance(points: Array, calibre: float) -> Array:
    distance = _ellipsoid(points, (0, -4, -1), (1.8 * calibre, 14, 10))
    np.maximum(distance, _ellipsoid(points, (0, -31, -34), (6 * calibre, 4, 8)), out=distance)
    for start, end in VENTRICLE:
        np.maximum(distance, _tube(points, start, end, calibre), out=distance)
    # The septum keeps the two sides apart.
    lateral = np.minimum(distance, np.abs(points[0]) - 0.5)
    return np.where(points[2] > 10, lateral, distance)


def _nuclei(points: Array, width: float) -> Array:
    """Fractions (3, N) of striatum, pallidum and thalamus."""
    striatum = np.maximum(_ellipsoid(points, *PUTAMEN, LEAN), _tube(points, *CAUDATE))
    pallidum, thalamus = _ellipsoid(points, *PALLIDUM, LEAN), _ellipsoid(points, *THALAMUS, LEAN)
    deep = np.stack([ramp(distance, width) for distance in (striatum, pallidum, thalamus)])
    # Where two meet, the earlier one takes its part first.
    deep[1] *= 1 - deep[0]
    deep[2] *= 1 - deep[0] - deep[1]
    return deep
