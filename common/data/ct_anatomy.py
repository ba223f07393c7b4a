"""The tissues of a generated neck, painted one over the other in Hounsfield units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .ct_phantom import NeckCT, airway
from .phantom_fields import Array, Fields
from .phantom_record import Triple

__all__ = ["MIDDLE", "Canvas", "paint_air", "paint_bone", "paint_neck", "paint_vessels", "teeth_at"]

AIR = -1000.0

MIDDLE = 4.0
"""How far in front of the image's centre that of the neck's frame is, mm, before the neck's size."""

_TEETH = (43.0, 56.0, 9.0)  # radii of the row of teeth along x and y, and how far in front its centre is, mm


class Canvas:
    """The voxels' places in the neck's own frame, (X, Y, Z), and what they hold.

    Args:
        phantom: the record.
        axes: coordinates of the voxels along the three axes, mm.
        fields: of the record.

    Attributes:
        x, y: places, after the neck's size and deformation are taken out, mm.
        side: distance from the middle plane, for what is on both sides, mm.
        z: height above the image's centre, (Z,), mm.
        level: height above the lower edge of the jaw, (Z,), mm.
        values: HU.
    """

    def __init__(self, phantom: NeckCT, axes: tuple[Array, Array, Array], fields: Fields) -> None:
        neck = phantom.neck
        self.pixel = float(axes[0][1] - axes[0][0])
        self.shape = tuple(len(axis) for axis in axes)
        bend = [neck.deformation * fields.field(f"bend {axis}", 38, axes) for axis in "xy"]
        self.x = np.asarray((axes[0][:, None, None] + bend[0]) / neck.scale[0], np.float32)
        self.y = np.asarray((axes[1][None, :, None] + bend[1]) / neck.scale[1] - MIDDLE, np.float32)
        self.side: Array = np.abs(self.x)
        self.z = axes[2]
        self.level: Array = axes[2] + np.float32(neck.shift)
        self.values = np.full(self.shape, AIR, dtype=np.float32)

    def oval(self, x: Any, y: Any, wide: Any, deep: Any, turn: float = 0.0, mirrored: bool = True) -> Array:
        """How far inside an oval each voxel is, mm; centre, radii (mm) may differ from slice to slice, (Z,)."""
        dx, dy = (self.side if mirrored else self.x) - np.float32(x), self.y - np.float32(y)
        if turn:
            cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
            dx, dy = dx * cos + dy * sin, dy * cos - dx * sin
        u, v = dx / np.float32(wide), dy / np.float32(deep)
        radius = np.sqrt(u * u + v * v) + np.float32(1e-3)
        u /= np.float32(wide)
        v /= np.float32(deep)
        # The distance to first order: by the gradient of the oval's own radius.
        return radius * (1 - radius) / (np.sqrt(u * u + v * v) + np.float32(1e-4))

    def ball(self, centre: Triple, radii: Sequence[float]) -> Array:
        """How far each voxel is from a place, in multiples of the radii along the axes (mm)."""
        offsets = (self.x - centre[0], self.y - centre[1], self.z - centre[2])
        return np.asarray(np.sqrt(sum((o / r) ** 2 for o, r in zip(offsets, radii, strict=True))), np.float32)

    def between(self, low: float, high: float, soft: float = 3.0) -> Array:
        """1 in the slices from one level to another, 0 in the others, (Z,)."""
        return np.clip(np.minimum(self.level - low, high - self.level) / soft + 0.5, 0, 1)

    def paint(self, inside: Array, value: Any, part: Any = 1.0, soft: float = 0.0) -> None:
        """Put a tissue where a distance is above 0, its border as wide as a voxel or `soft` (mm)."""
        fraction = self.part(inside, soft) * part
        self.values += fraction * (value - self.values)

    def part(self, inside: Array, soft: float = 0.0) -> Array:
        """The part of each voxel that is inside, 0 to 1."""
        return np.clip(inside / np.float32(max(self.pixel, soft)) + np.float32(0.5), 0, 1)


def paint_neck(canvas: Canvas, phantom: NeckCT, soft_texture: Array, strands: Array) -> Array:
    """Paint all soft tissue but vessels and the tumour.

    Args:
        canvas: of air.
        phantom: the record.
        soft_texture: HU that the texture adds to soft tissue, (X, Y, Z).
        strands: a field that crosses 0 where muscles are divided by fat.

    Returns:
        How far inside the body each voxel is, mm.
    """
    neck, levels = phantom.neck, phantom.levels
    body = _body(canvas)
    head = np.clip((canvas.level + 5) / 30, 0, 1)
    muscle = levels.muscle + soft_texture
    fat = levels.fat + 1.5 * soft_texture
    canvas.paint(body, levels.muscle - 35)
    canvas.paint(body - 1.8, fat)
    # Between the large muscles there are small ones, and fat.
    canvas.paint(body - neck.fat - 1.8, fat + (levels.muscle - levels.fat) * np.clip(strands + 0.1, 0, 1))
    size = neck.muscles
    deep = canvas.part(body - 0.6 * neck.fat - 1.8)
    # Thin sheets of fat run through the muscles.
    sheets = muscle - 70 * np.exp(-((strands / 0.07) ** 2))
    behind = np.minimum(np.minimum(body - neck.fat - 2, neck.fat + 8 - body), -30 - canvas.y)
    canvas.paint(behind, sheets)
    muscles = (
        (canvas.oval(12, -58, 9.5 * size, 12 * size), 1.0),  # semispinalis
        (canvas.oval(29, -50, 11 * size, 15 * size, 0.5), 1.0),  # splenius
        (canvas.oval(16, -41, 12 * size, 7 * size, -0.2), 1.0),  # multifidus
        (canvas.oval(33, -24, 9 * size, 11 * size), 1.0),  # levator of the scapula and scalenes
        (canvas.oval(47 - 3 * head, 2 - 34 * head, 7 * size, 14 * size, -0.5), 1.0),  # sternocleidomastoid
        (canvas.oval(9, -7, 8 * size, 4.5), 1.0),  # longus colli
        (canvas.oval(58, 20, 6.5 * size, 17 * size, 0.1), canvas.between(6, 70)),  # masseter
        (canvas.oval(37, 14, 6 * size, 14 * size, 0.25), canvas.between(8, 70)),  # medial pterygoid
        (canvas.oval(10, 38, 13, 25 * size), canvas.between(2, 32)),  # tongue
        (canvas.oval(13, 52, 9, 14, 0.5), canvas.between(-6, 6)),  # digastric
        (canvas.oval(9, 33, 7, 4), canvas.between(-60, -6)),  # strap muscles
    )
    for inside, part in muscles:
        canvas.paint(inside + 1.8, fat, 0.7 * deep * part, soft=1.5)
        canvas.paint(inside, sheets, deep * part, soft=1.5)
    # The glands: parotid, below the jaw, thyroid.
    canvas.paint(canvas.oval(57, -8, 10, 15, 0.2), levels.gland + 2 * soft_texture, deep * canvas.between(4, 60), 2.0)
    between = (levels.gland + levels.muscle) / 2 + soft_texture
    canvas.paint(canvas.oval(33, 24, 9, 12, 0.4), between, deep * canvas.between(-16, 7), 1.5)
    canvas.paint(canvas.oval(15, 8, 6.5, 10, 0.3), levels.muscle + 60, canvas.between(-80, -36), 1.5)
    # The pharynx's wall.
    front, wide, long = airway(neck, canvas.z)
    canvas.paint(canvas.oval(0, front, wide + 5, long + 5, mirrored=False), muscle, 1.0, 1.5)
    return body


def paint_vessels(canvas: Canvas, phantom: NeckCT) -> None:
    """Arteries and veins beside the airway, and in the foramina of the vertebrae."""
    level = phantom.levels.vessel
    lean = 2 * np.sin(canvas.level / 15)
    canvas.paint(canvas.oval(25 + lean, -4, 3.4, 3.4), level)
    canvas.paint(canvas.oval(32 + lean, -9, 4.2, 5.6, 0.4), level * 0.93)
    canvas.paint(canvas.oval(28, 6, 2.0, 2.0), level, canvas.between(-14, 40))
    canvas.paint(canvas.oval(18, -24, 1.9, 1.9), level * 0.95)


def paint_bone(canvas: Canvas, phantom: NeckCT) -> None:
    """Vertebrae, lower and upper jaw with teeth, hyoid, cartilage of the larynx, and the back of the skull."""
    levels = phantom.levels

    def bone(inside: Array, part: Any = 1.0, shell: float = 1.8) -> None:
        canvas.paint(inside, levels.cortical, part)
        canvas.paint(inside - shell, levels.spongy, part)

    # A vertebra every 18 mm, with a disc below it; arches overlap, with gaps between the spines.
    along = canvas.level % 18
    solid = np.clip((np.minimum(along, 13 - along) + 1.5) / 1.5, 0, 1)
    spine = np.clip((np.minimum(along - 3, 14 - along) + 1) / 2, 0, 1)
    canvas.paint(canvas.oval(0, -22, 12, 9, mirrored=False), levels.muscle + 35)
    bone(canvas.oval(0, -22, 12, 9, mirrored=False), solid)
    bone(canvas.oval(19, -27, 8, 4, -0.3), solid)
    bone(canvas.oval(0, -39, 14.5, 11.5, mirrored=False), 0.3 + 0.7 * spine, 1.5)
    bone(canvas.oval(0, -56, 3.5, 9, mirrored=False), spine, 1.3)
    canvas.paint(canvas.oval(0, -38, 10.5, 7.5, mirrored=False), 15.0)
    canvas.paint(canvas.oval(0, -38, 6.0, 4.2, mirrored=False), 38.0)
    # The lower jaw: an arch in front, two branches behind.
    arch = 5.5 - np.abs(canvas.oval(0, 10, 45, 62, mirrored=False))
    bone(np.minimum(arch, canvas.y - 4), canvas.between(0, 21), 2.0)
    bone(canvas.oval(48, 6, 4.6, 15, 0.1), canvas.between(9, 60), 1.8)
    wide, deep, front = _TEETH
    row = 3.6 - np.abs(canvas.oval(0, front, wide, deep, mirrored=False))
    angle = np.arctan2(canvas.x / wide, (canvas.y - front) / deep)
    row = np.minimum(row, 4.2 * np.cos(angle * 22) + 1.4)
    canvas.paint(np.minimum(row, canvas.y - 22), 1900.0, canvas.between(20, 33, 1.5))
    palate = 4.5 - np.abs(canvas.oval(0, 9, 41, 54, mirrored=False))
    bone(np.minimum(palate, canvas.y - 26), canvas.between(33, 44), 1.6)
    bone(np.minimum(canvas.oval(0, 20, 36, 40, mirrored=False), canvas.y - 22), canvas.between(36, 40, 1.5), 1.6)
    hyoid = 1.8 - np.abs(canvas.oval(0, 14, 19, 20, mirrored=False))
    bone(np.minimum(hyoid, canvas.y - 12), canvas.between(-17, -10), 1.5)
    cartilage = 1.6 - np.abs(canvas.oval(0, 12, 17, 23, mirrored=False))
    canvas.paint(np.minimum(cartilage, canvas.y - 8), levels.muscle + 130, canvas.between(-60, -22))
    # The back of the skull, round as it comes down, with the cerebellum in it.
    round_off = np.sqrt(np.clip(1 - ((64 - canvas.level) / 28) ** 2, 0.0, 1))
    shown = (round_off > 0.3).astype(np.float32)
    skull = canvas.oval(0, -58, 56 * np.maximum(round_off, 0.3), 34 * np.maximum(round_off, 0.3), mirrored=False)
    skull = np.minimum(skull, -canvas.y - 24)
    bone(skull, shown, 2.0)
    canvas.paint(skull - 6, 34.0, shown)


def paint_air(canvas: Canvas, phantom: NeckCT, uneven: Array) -> None:
    """The airway, whose wall is uneven (mm), and above the palate the nose and the sinuses."""
    front, wide, deep = airway(phantom.neck, canvas.z)
    canvas.paint(canvas.oval(0, front, wide, deep, mirrored=False) + uneven, AIR)
    canvas.paint(canvas.oval(0, 62, 22, 3.0, mirrored=False), AIR, canvas.between(28, 33, 2))
    above = canvas.between(41, 80)
    for inside in (canvas.oval(5, 46, 3.0, 24), canvas.oval(26, 46, 10, 15, 0.3)):
        canvas.paint(inside + 1.5, phantom.levels.cortical * 0.5, above)
        canvas.paint(inside, AIR, above)


def teeth_at(angle: float) -> tuple[float, float]:
    """Place on the row of teeth (x, y in mm), by the angle from its middle."""
    wide, deep, front = _TEETH
    return wide * float(np.sin(angle)), front + deep * float(np.cos(angle))


def _body(canvas: Canvas) -> Array:
    """How far inside the body each voxel is, mm: an oval neck that widens to the head, and the chin."""
    head, jaw = _ease(canvas.level, -12, 22), _ease(canvas.level, -20, 4)
    back = canvas.oval(0, -9 - 6 * head, 64 + 8 * head, 62 + 19 * head, mirrored=False)
    chin = canvas.oval(0, 10 + 26 * jaw, 38 + 16 * jaw, 34 + 15 * jaw, mirrored=False)
    # A smooth union.
    gap = np.clip(0.5 + 0.5 * (back - chin) / 14, 0, 1)
    return np.asarray(chin + (back - chin) * gap + 14 * gap * (1 - gap), np.float32)


def _ease(level: Array, low: float, high: float) -> Array:
    """From 0 at one level to 1 at another, smooth at both."""
    part = np.clip((level - low) / np.float32(high - low), 0, 1)
    return part * part * (3 - 2 * part)
