"""Renders the record of a generated CT: the tissues and the tumour, then what the scanner makes of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .ct_anatomy import MIDDLE, Canvas, paint_air, paint_bone, paint_neck, paint_vessels, teeth_at
from .ct_phantom import EXTENT, Metal, NeckCT
from .phantom_fields import Array, Fields

__all__ = ["ct_affine", "render_ct"]

RAYS = 280  # directions in which the streaks of a filling differ


def ct_affine(shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Voxel to world (mm) of a rendered volume, (4, 4): right, anterior, superior, origin at the image's centre."""
    spacing = _spacing(shape)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(size - 1) / 2 * step for size, step in zip(shape, spacing, strict=True)]
    return affine


def render_ct(
    phantom: NeckCT, shape: tuple[int, int, int] = (128, 128, 24)
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Volume and tumour of a record; the same record and shape give the same bits.

    The neck fills the image whatever its shape: pixels are square, of 1.72 mm at 128 x 128, and slices share 72 mm, so
    that 24 are 3 mm apart (`ct_affine`).

    Args:
        phantom: what `draw_ct` gave, or `NeckCT.from_dict` of a saved record.
        shape: X, Y, Z.

    Returns:
        image: (X, Y, Z) int16, Hounsfield units from -1024.
        tumour: (X, Y, Z) uint8, 0 or 1.
    """
    spacing = _spacing(shape)
    x, y, z = (
        ((np.arange(size) - (size - 1) / 2) * step).astype(np.float32)
        for size, step in zip(shape, spacing, strict=True)
    )
    axes = (x, y, z)
    fields = Fields(phantom.texture)
    canvas = Canvas(phantom, axes, fields)
    grain = fields.field("grain", 4, axes)
    strands = fields.field("strands", (9, 9, 22), axes)
    texture = phantom.levels.texture * (grain + fields.field("patches", 15, axes)) / np.float32(1.4)
    body = paint_neck(canvas, phantom, texture, strands)
    paint_vessels(canvas, phantom)
    _paint_nodes(canvas, phantom, texture)
    paint_air(canvas, phantom, np.clip(fields.field("airway", 7, axes), -1.5, 1.5))
    inside = _paint_tumour(canvas, phantom, grain, fields, axes)
    soft = canvas.values.copy()
    paint_bone(canvas, phantom)
    # Bone is no tumour, nor is what lies outside the body.
    label = (inside > 0) & (canvas.values < soft + 150) & (body > 2)
    if phantom.scanner.table:
        _paint_table(canvas, axes, body)
    return _scan(canvas.values, phantom, fields, axes, spacing), label.astype(np.uint8)


def _spacing(shape: tuple[int, int, int]) -> tuple[float, float, float]:
    pixel = max(EXTENT[0] / shape[0], EXTENT[1] / shape[1])
    return pixel, pixel, EXTENT[2] / shape[2]


def _paint_tumour(
    canvas: Canvas, phantom: NeckCT, grain: Array, fields: Fields, axes: tuple[Array, Array, Array]
) -> Array:
    """Put the tumour over soft tissue and air; how far inside it each voxel is, mm."""
    tumour = phantom.tumour
    distance = canvas.ball(tumour.centre, [tumour.radius * factor for factor in tumour.stretch])
    bumps = 0.75 * fields.field("bumps", 9, axes) + 0.65 * fields.field("small bumps", 4.5, axes)
    inside = np.asarray(tumour.radius * (1 - distance + tumour.irregularity * np.clip(bumps, -2, 1.2)), np.float32)
    level = phantom.levels.muscle + tumour.contrast + tumour.spread * grain
    canvas.paint(inside, level, soft=tumour.softness)
    if tumour.necrosis:
        dead = tumour.radius * (tumour.necrosis - distance + 0.12 * bumps)
        canvas.paint(
            np.asarray(dead, np.float32), phantom.levels.muscle - 25 + tumour.spread * grain, soft=2 * tumour.softness
        )
    return inside


def _paint_nodes(canvas: Canvas, phantom: NeckCT, texture: Array) -> None:
    for node in phantom.nodes:
        inside = np.float32(min(node.radius)) * (1 - canvas.ball(node.centre, node.radius))
        canvas.paint(inside, phantom.levels.muscle + node.contrast + texture)


def _paint_table(canvas: Canvas, axes: tuple[Array, Array, Array], body: Array) -> None:
    """A shell below the back: dense skin, foam inside."""
    x, y = axes[0][:, None, None], axes[1][None, :, None]
    rows = np.flatnonzero((body > 0).any(axis=(0, 2)))
    top = float(axes[1][rows[0]]) - 1.5
    below = np.asarray(top + 0.0012 * x**2 - y, np.float32)
    outside = canvas.part(-body)
    canvas.paint(below, -20.0, outside)
    canvas.paint(below - 3.5, -930.0, outside)


def _scan(
    values: Array,
    phantom: NeckCT,
    fields: Fields,
    axes: tuple[Array, Array, Array],
    spacing: tuple[float, float, float],
) -> NDArray[np.int16]:
    """What the scanner makes of it: blur, streaks, noise."""
    scanner = phantom.scanner
    for axis, sigma in enumerate((scanner.blur, scanner.blur, scanner.slice_blur)):
        # Below a quarter of a voxel the blur would change nothing.
        if sigma > 0.25 * spacing[axis]:
            values = ndimage.gaussian_filter1d(values, sigma / spacing[axis], axis=axis, mode="nearest", truncate=3)
    noise = fields.generator("noise").standard_normal(values.shape, dtype=np.float32)
    for axis in (0, 1):
        noise = ndimage.gaussian_filter1d(noise, max(scanner.grain / spacing[axis], 0.3), axis=axis, truncate=3)
    noise *= np.float32(scanner.noise) / noise.std()
    # More where the way through the body is longer.
    x, y = axes[0][:, None, None], axes[1][None, :, None]
    values += noise * (0.6 + 0.6 * np.exp(-((x / 60) ** 2) - ((y + 10) / 70) ** 2))
    for number, metal in enumerate(phantom.metal):
        rays = fields.field(f"rays {number}", 5, (np.arange(RAYS, dtype=np.float32),))
        values += _streaks(metal, rays, phantom.neck.scale, axes)
    return np.clip(np.rint(values), -1024, 3071).astype(np.int16)


def _streaks(metal: Metal, rays: Array, scale: tuple[float, float], axes: tuple[Array, Array, Array]) -> Array:
    """Bright and dark rays from a filling, in the slices that have it; `rays` has their strengths around it."""
    x, y = teeth_at(metal.angle)
    dx, dy = axes[0][:, None] - x * scale[0], axes[1][None, :] - (y + MIDDLE) * scale[1]
    distance, turn = np.hypot(dx, dy), np.arctan2(dy, dx)
    around = np.interp((turn / (2 * np.pi) + 0.5) * (RAYS - 1), np.arange(RAYS), rays)
    plane = metal.strength * around * np.exp(-distance / 45) * np.clip(distance / 6, 0, 1)
    plane += 1500 * np.exp(-((distance / 3) ** 2))
    return np.asarray(plane[:, :, None] * np.exp(-(((axes[2] - metal.height) / 2.2) ** 2)), np.float32)
