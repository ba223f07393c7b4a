"""Renders the record of a generated brain: tissue by tissue, lesions over it, then the physics of each modality."""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import InputError
from .phantom_anatomy import Anatomy, build_anatomy, find_box, ramp
from .phantom_fields import EXTENT, Array, Fields, Grid, make_grid
from .phantom_lesions import CAVITY, LesionFractions, LesionShapes
from .phantom_record import Appearance, Phantom, Spot, Triple

__all__ = ["MIN_SIZE", "check_shape", "fit_voxels", "phantom_affine", "render_phantom"]

MIN_SIZE = 24
"""Fewest voxels along an axis; with fewer, anatomy is smaller than a voxel."""

MAX_SIZE = 512


def check_shape(shape: int | tuple[int, int, int]) -> tuple[int, int, int]:
    """One size for all axes, or one for each, as a tuple.

    Raises:
        InputError: not one or three integers between 24 and 512.
    """
    sizes = (shape,) * 3 if isinstance(shape, int) else tuple(shape) if isinstance(shape, tuple | list) else ()
    if len(sizes) != 3 or any(
        isinstance(size, bool) or not isinstance(size, int) or not MIN_SIZE <= size <= MAX_SIZE for size in sizes
    ):
        raise InputError(f"shape {shape!r} of a phantom: give one or three integers from {MIN_SIZE} to {MAX_SIZE}")
    return sizes[0], sizes[1], sizes[2]


def fit_voxels(phantom: Phantom, spacing: float) -> tuple[Phantom, tuple[int, int, int]]:
    """The record with its size rounded up to whole voxels of `spacing` mm, and the shape that the head then fills."""
    x, y, z = (math.ceil(extent * factor / spacing) for extent, factor in zip(EXTENT, phantom.size, strict=True))
    a, b, c = (count * spacing / extent for count, extent in zip((x, y, z), EXTENT, strict=True))
    return dataclasses.replace(phantom, size=(a, b, c)), (x, y, z)


def phantom_affine(shape: tuple[int, int, int], size: Triple = (1.0, 1.0, 1.0)) -> NDArray[np.float64]:
    """Voxel to world (mm) of a rendered phantom of that size, (4, 4): right, anterior, superior, origin at the image's
    centre.
    """
    grid = make_grid(shape, size)
    affine = np.diag([grid.spacing] * 3 + [1.0])
    affine[:3, 3] = [-(size - 1) / 2 * grid.spacing for size in shape]
    return affine


def render_phantom(
    phantom: Phantom, shape: tuple[int, int, int] = (128, 128, 128)
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Images and label map of a record; the same record and shape give the same bits.

    The head fills the image whatever its shape: voxels are isotropic, 1.45 mm at 128 x 128 x 128 and 2.91 mm at
    64 x 64 x 64 for a head of size 1 (`phantom_affine`), and the record's millimetres hold at every shape. Only lesions
    and rims thinner than the voxels can show are enlarged to about one voxel's radius or thickness.

    Args:
        phantom: what `draw_phantom` gave, or `Phantom.from_dict` of a saved record.
        shape: X, Y, Z; at least 24 each.

    Returns:
        images: (4, X, Y, Z) int16, t1n t1c t2w t2f; 0 outside the brain, at least 1 inside.
        label: (X, Y, Z) uint8; 0 background, 1 necrotic or non-enhancing core, 2 edema, 3 enhancing tumour.

    Raises:
        InputError: a shape that is too small or too large.
    """
    shape = check_shape(shape)
    grid = make_grid(shape, phantom.size)
    fields = Fields(phantom.texture)
    healthy = build_anatomy(phantom, grid, fields)
    anatomy = _add_islands(phantom, healthy, grid, fields)
    shapes = LesionShapes(anatomy, grid, fields)
    lesions = [shapes.fractions(lesion) for lesion in phantom.lesions]
    textures = [fields.field(f"texture {knot}", knot, grid.axes)[anatomy.near] for knot in (25, 8, 3)]
    brain = np.zeros(shape, dtype=bool)
    brain[anatomy.near] = anatomy.brain
    patches = _Patches(phantom, grid, fields, healthy, textures)
    images = np.zeros((4, *shape), dtype=np.int16)
    for channel, look in enumerate(phantom.appearance):
        values = _paint(phantom, channel, anatomy, lesions, textures, patches)
        images[channel][brain] = _scan(values, look, anatomy, brain, grid, fields, channel)
    label = np.zeros(shape, dtype=np.uint8)
    label[anatomy.near] = _merge_labels(lesions, anatomy.points.shape[1])
    return images, label


def _merge_labels(lesions: list[LesionFractions], count: int) -> NDArray[np.uint8]:
    """Cores win over any edema; cores do not meet."""
    label = np.zeros(count, dtype=np.uint8)
    for lesion in lesions:
        here = label[lesion.voxels]
        edema = lesion.label == 2
        label[lesion.voxels] = np.where((lesion.label == 0) | (edema & (here > 0)), here, lesion.label)
    label[label == CAVITY] = 0
    return label


def _patch(name: str, size: float, share: float, anatomy: Anatomy, grid: Grid, fields: Fields) -> Array:
    """Patches that take a share of the voxels (N,), 1 within and 0 without."""
    field = fields.field(name, size, grid.axes)[anatomy.near]
    return ramp(field - np.float32(NormalDist().inv_cdf(1 - share)), 0.5)


def _add_islands(phantom: Phantom, anatomy: Anatomy, grid: Grid, fields: Fields) -> Anatomy:
    """The anatomy with the record's islands of grey matter and fluid."""
    for number, island in enumerate(phantom.islands):
        patch = _patch(f"island {number}", island.size, island.share, anatomy, grid, fields)
        anatomy = dataclasses.replace(anatomy, **{island.tissue: np.maximum(getattr(anatomy, island.tissue), patch)})
    return anatomy


class _Patches:
    """Where spots, compartments and moving fluid are, from 0 to 1, the same in all modalities."""

    def __init__(self, phantom: Phantom, grid: Grid, fields: Fields, healthy: Anatomy, textures: list[Array]) -> None:
        self.compartments = [
            _patch(f"compartment {number}", one.size, one.share, healthy, grid, fields)
            for number, one in enumerate(phantom.compartments)
        ]
        self.spots = [_find_spot(spot, healthy, textures) for spot in phantom.spots]
        moves = any(look.flow for look in phantom.appearance)
        # Not in islands: fluid in the midst of tissue that is bright in FLAIR couldn't be told from a lesion.
        self.flow = healthy.fluid * (_patch("flow", 16, 0.4, healthy, grid, fields) if moves else np.float32(0))


def _paint(
    phantom: Phantom,
    channel: int,
    anatomy: Anatomy,
    lesions: list[LesionFractions],
    textures: list[Array],
    patches: _Patches,
) -> Array:
    """Intensities (N,) before the scanner, white matter being 1."""
    look = phantom.appearance[channel]
    texture = sum(amplitude * field for amplitude, field in zip(look.spread, textures, strict=True))
    values = np.ones(anatomy.points.shape[1], dtype=np.float32)
    if look.caps != 1:
        # Bright caps are thickest where a field is high, and missing where it is low.
        width = np.maximum(phantom.caps * (1 + 0.8 * textures[1]), 0.1)
        values += (look.caps - 1) * np.exp(-((np.minimum(anatomy.ventricle, 0) / width) ** 2))
    for spot, here, strength in patches.spots:
        if spot.white_only:
            values[here] *= 1 + (spot.contrast[channel] - 1) * strength
    for fraction, mean in zip((*anatomy.deep, anatomy.grey), (*look.deep, look.grey), strict=True):
        values += fraction * (mean - values)
    values *= 1 + texture
    values *= 1 + anatomy.hindbrain * np.float32(look.hindbrain - 1)
    for compartment, patch in zip(phantom.compartments, patches.compartments, strict=True):
        values *= 1 + patch * np.float32(compartment.contrast[channel] - 1)
    soaked = np.ones_like(values)
    for lesion, fractions in zip(phantom.lesions, lesions, strict=True):
        contrast = lesion.edema_contrast[channel] * (1 + 0.6 * lesion.spread * textures[1][fractions.voxels])
        here = 1 + fractions.edema * (contrast - 1)
        # Where two edemas meet, the stronger one shows.
        before = soaked[fractions.voxels]
        soaked[fractions.voxels] = np.where(np.abs(here - 1) > np.abs(before - 1), here, before)
    values *= soaked
    values += anatomy.fluid * (look.fluid - values) + np.float32(look.flow) * patches.flow
    values += anatomy.vessel * (look.vessel - values)
    for lesion, fractions in zip(phantom.lesions, lesions, strict=True):
        here = fractions.voxels
        rough = 1 + lesion.spread * (textures[1][here] + 0.7 * textures[2][here])
        core, enhancing = lesion.core_level[channel], lesion.enhancing_level[channel]
        level = (core + fractions.enhancing * (enhancing - core)) * rough
        values[here] += fractions.core * (level - values[here])
    values += anatomy.dura * (look.dura * (1 + texture) - values)
    for spot, here, strength in patches.spots:
        if not spot.white_only and spot.contrast[channel] != 1:
            values[here] *= 1 + (spot.contrast[channel] - 1) * strength
    return values


def _find_spot(spot: Spot, anatomy: Anatomy, textures: list[Array]) -> tuple[Spot, NDArray[np.intp], Array]:
    """The spot, the voxels that it reaches, and how strong it is there, from 0 to 1."""
    centre, radius = (np.array(triple, dtype=np.float32).reshape(3, 1) for triple in (spot.centre, spot.radius))
    x, y, z = (2.5 * radius).ravel().tolist()
    here = find_box(anatomy.points, spot.centre, (x, y, z))
    level = (((anatomy.points[:, here] - centre) / radius) ** 2).sum(axis=0)
    if spot.white_only:
        level *= 1 + 0.4 * np.clip(textures[1][here], -2, 2)
    return spot, here, np.exp(-(level**2 if spot.white_only else level))


def _scan(
    values: Array,
    look: Appearance,
    anatomy: Anatomy,
    brain: NDArray[np.bool_],
    grid: Grid,
    fields: Fields,
    channel: int,
) -> NDArray[np.int16]:
    """What the scanner makes of the intensities, in the brain's voxels: blur, bias, gamma, noise, the file's units."""
    volume = np.full(grid.shape, look.fluid, dtype=np.float32)
    volume[anatomy.near] = values
    for axis in range(3):
        sigma = np.hypot(look.blur, look.slice_blur if axis == look.slice_axis else 0) / grid.spacing
        # Below a quarter of a voxel the blur would change nothing.
        if sigma > 0.25:
            volume = ndimage.gaussian_filter1d(volume, sigma, axis=axis, mode="nearest", truncate=3)
    if look.slice_distance > grid.spacing:
        volume = _between_slices(volume, look.slice_axis, look.slice_distance / grid.spacing)
    if any(look.slip):
        volume = ndimage.shift(volume, np.array(look.slip) / grid.spacing, order=1, mode="nearest")
    seen = np.maximum(volume[brain], 0.02) ** np.float32(look.gamma)
    seen *= np.exp(np.float32(look.bias) * fields.field(f"bias {channel}", 60, grid.axes)[brain])
    if look.shade:
        seen *= np.exp(np.float32(look.shade) * fields.field(f"shade {channel}", 120, grid.axes)[brain])
    noise = fields.generator(f"noise {channel}")
    real = seen + np.float32(look.noise) * noise.standard_normal(seen.shape, dtype=np.float32)
    imaginary = np.float32(look.noise) * noise.standard_normal(seen.shape, dtype=np.float32)
    received = np.hypot(real, imaginary)
    if look.ceiling:
        received = np.minimum(received, np.float32(look.ceiling) * np.median(received))
    return np.clip(np.rint(received * look.gain), 1, np.iinfo(np.int16).max).astype(np.int16)


def _between_slices(volume: Array, axis: int, distance: float) -> Array:
    """Keep slices `distance` voxels apart, and interpolate what lies between them linearly."""
    size = volume.shape[axis]
    centres = np.arange(0, size - 1 + distance, distance)
    slices = _linear(volume, centres, axis)
    return _linear(slices, np.arange(size) / distance, axis)


def _linear(volume: Array, positions: NDArray[np.float64], axis: int) -> Array:
    """Values at positions along an axis, in voxels, linear between voxels."""
    low = np.clip(np.floor(positions).astype(int), 0, volume.shape[axis] - 1)
    high = np.minimum(low + 1, volume.shape[axis] - 1)
    along = [1] * volume.ndim
    along[axis] = -1
    weight = (positions - np.floor(positions)).astype(np.float32).reshape(along)
    return volume.take(low, axis=axis) * (1 - weight) + volume.take(high, axis=axis) * weight
