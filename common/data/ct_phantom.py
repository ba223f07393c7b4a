"""Draws the record of a generated CT of a neck with a tumour: every random choice as plain numbers, fit for JSON.

Lengths are in mm in a frame whose origin is the centre of the image and whose axes point right, anterior and superior.
Intensities are in Hounsfield units (HU). `common.data.ct_rendering` makes a volume of a record.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from .phantom_draws import Draw
from .phantom_record import Triple, from_json

__all__ = ["EXTENT", "Levels", "Metal", "Neck", "NeckCT", "Node", "Scanner", "Tumour", "airway", "draw_ct"]

EXTENT = (210.0, 210.0, 72.0)
"""What the image covers, mm: from the larynx to the upper jaw."""


@dataclasses.dataclass(frozen=True)
class Neck:
    """One person's anatomy.

    Attributes:
        scale: size along x and y, 1 for a mean adult.
        shift: how far the image's centre is above the lower edge of the jaw, mm.
        deformation: amplitude of the smooth deformation that makes the two sides differ, mm.
        fat: thickness of the fat below the skin, mm.
        muscles: size of the muscles, 1 for a mean adult.
        airway: width and depth of the airway, 1 for a mean adult.
    """

    scale: tuple[float, float]
    shift: float
    deformation: float
    fat: float
    muscles: float
    airway: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Levels:
    """Mean of each tissue, HU.

    Attributes:
        fat, muscle: as they say.
        gland: of the parotid glands; those below the jaw are between this and muscle.
        vessel: with contrast agent or without.
        spongy, cortical: bone inside and at its surface.
        texture: amplitude of the texture in soft tissue.
    """

    fat: float
    muscle: float
    gland: float
    vessel: float
    spongy: float
    cortical: float
    texture: float


@dataclasses.dataclass(frozen=True)
class Tumour:
    """The primary tumour (GTVt), at the wall of the pharynx.

    Attributes:
        centre: where it is, mm.
        radius: its mean radius, mm.
        stretch: factors on the radius along the three axes; their product is 1.
        irregularity: amplitude of its border's deformation, as a fraction of the radius.
        softness: width of its border, mm.
        contrast: how much brighter than muscle it is, HU.
        necrosis: radius of its dark centre, as a fraction of its own; 0 for none.
        spread: amplitude of the texture inside, HU.
    """

    centre: Triple
    radius: float
    stretch: Triple
    irregularity: float
    softness: float
    contrast: float
    necrosis: float
    spread: float


@dataclasses.dataclass(frozen=True)
class Node:
    """A lymph node beside the vessels; it looks like a small tumour and is not labelled.

    Attributes:
        centre: where it is, mm.
        radius: its radii along the three axes, mm.
        contrast: how much brighter than muscle it is, HU.
    """

    centre: Triple
    radius: Triple
    contrast: float


@dataclasses.dataclass(frozen=True)
class Metal:
    """A filling of a tooth, from which streaks go out.

    Attributes:
        angle: place along the row of teeth, radians from the middle.
        height: z, mm.
        strength: amplitude of the streaks beside it, HU.
    """

    angle: float
    height: float
    strength: float


@dataclasses.dataclass(frozen=True)
class Scanner:
    """How the scan looks.

    Attributes:
        blur: standard deviation of the point spread in the slice, mm.
        slice_blur: the same across the slices, mm.
        noise: standard deviation of the noise, HU.
        grain: of the filter that makes the noise's grain, mm.
        table: whether the table is in the image.
    """

    blur: float
    slice_blur: float
    noise: float
    grain: float
    table: bool


@dataclasses.dataclass(frozen=True)
class NeckCT:
    """A CT of a neck before rendering.

    Attributes:
        seed: what it was drawn from, together with `index`.
        index: number of the case in its set.
        texture: seed of the random fields (deformation, textures, noise).
        neck: the anatomy.
        levels: of the tissues.
        tumour: what is labelled.
        nodes: what looks like it and is not labelled.
        metal: fillings of teeth.
        scanner: how the scan looks.
    """

    seed: int
    index: int
    texture: int
    neck: Neck
    levels: Levels
    tumour: Tumour
    nodes: tuple[Node, ...]
    metal: tuple[Metal, ...]
    scanner: Scanner

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, ready for `json.dump`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> NeckCT:
        """The inverse of `to_dict`, also after a trip through JSON."""
        parts: dict[str, Any] = {
            "neck": from_json(Neck, record["neck"]),
            "levels": from_json(Levels, record["levels"]),
            "tumour": from_json(Tumour, record["tumour"]),
            "nodes": tuple(from_json(Node, one) for one in record["nodes"]),
            "metal": tuple(from_json(Metal, one) for one in record["metal"]),
            "scanner": from_json(Scanner, record["scanner"]),
        }
        return cls(**{**record, **parts})


def airway(neck: Neck, z: Any) -> tuple[Any, Any, Any]:
    """The airway at heights z (mm): how far in front of the centre it is, and its radii along x and y, mm."""
    level = np.asarray(z) + neck.shift
    heights = (-48, -26, -14, 0, 12, 28, 48)
    front = np.interp(level, heights, (18, 17, 9, 6, 6, 4, 2))
    width = np.interp(level, heights, (8, 8, 14, 12, 11, 12, 13))
    depth = np.interp(level, heights, (11, 10, 6, 8, 8, 7, 8))
    return front, width * neck.airway[0], depth * neck.airway[1]


def draw_ct(seed: int, index: int) -> NeckCT:
    """Draw one CT of a neck.

    Args:
        seed: seed of the set.
        index: number of the case in the set; each case has a stream of its own, however many there are.

    Raises:
        InputError: a seed or index that is negative or no integer.
    """
    draw = Draw(seed, index)
    size = draw.between(0.92, 1.04)
    neck = Neck(
        scale=(round(size * draw.between(0.95, 1.05), 4), round(size * draw.between(0.97, 1.03), 4)),
        shift=draw.between(-8.0, 10.0),
        deformation=draw.between(1.5, 3.5),
        fat=draw.log_between(3.0, 13.0),
        muscles=draw.between(0.9, 1.1),
        airway=(draw.between(0.7, 1.2), draw.between(0.7, 1.2)),
    )
    tumour = _draw_tumour(draw, neck)
    return NeckCT(
        seed=seed,
        index=index,
        texture=draw.integer(0, 2**31 - 1),
        neck=neck,
        levels=Levels(
            fat=draw.between(-115.0, -90.0),
            muscle=draw.between(45.0, 65.0),
            gland=draw.between(-30.0, 20.0),
            vessel=draw.between(130.0, 240.0) if draw.chance(0.4) else draw.between(35.0, 52.0),
            spongy=draw.between(180.0, 380.0),
            cortical=draw.between(800.0, 1400.0),
            texture=draw.between(2.0, 6.0),
        ),
        tumour=tumour,
        nodes=_draw_nodes(draw, tumour),
        metal=_draw_metal(draw, neck),
        scanner=Scanner(
            blur=draw.between(0.5, 1.1),
            slice_blur=draw.between(0.8, 1.6),
            noise=draw.between(6.0, 15.0),
            grain=draw.between(0.5, 0.9),
            table=draw.chance(0.7),
        ),
    )


def _draw_tumour(draw: Draw, neck: Neck) -> Tumour:
    """Beside the airway, on either side, behind it or in the base of the tongue; all of it inside the image."""
    radius, stretch = draw.log_between(9.0, 18.0), draw.stretch(0.2)
    reach = EXTENT[2] / 2 - 4 - 1.3 * radius * stretch[2]
    z = draw.between(-reach, reach)
    front, width, depth = (float(value) for value in airway(neck, z))
    # Mostly to a side: 0 is the patient's right, pi / 2 in front.
    angle = draw.between(-0.5, 1.1) if draw.chance(0.85) else draw.between(1.1, math.pi / 2)
    angle = angle if draw.chance(0.5) else math.pi - angle
    away = 0.7 * radius
    return Tumour(
        centre=(
            round((width + away) * math.cos(angle), 4),
            round(front + (depth + away) * math.sin(angle), 4),
            z,
        ),
        radius=radius,
        stretch=stretch,
        irregularity=draw.between(0.12, 0.25),
        softness=draw.between(1.2, 3.0),
        contrast=draw.between(20.0, 45.0),
        necrosis=draw.between(0.3, 0.5) if radius > 10 and draw.chance(0.25) else 0.0,
        spread=draw.between(2.0, 8.0),
    )


def _draw_nodes(draw: Draw, tumour: Tumour) -> tuple[Node, ...]:
    nodes: list[Node] = []
    for _ in range(draw.integer(3, 9)):
        side = 1 if draw.chance(0.5) else -1
        # Along the jugular veins, below the jaw, or beside the muscles at the back.
        x, y = (side * value for value in (draw.between(28, 46), side * draw.between(-30, 12)))
        size = draw.log_between(2.2, 6.5)
        node = Node(
            centre=(round(x, 4), round(y, 4), draw.between(-34, 30)),
            radius=(round(size * draw.between(0.8, 1.2), 4), size, round(size * draw.between(1.0, 1.6), 4)),
            contrast=draw.between(-5.0, 30.0),
        )
        if math.dist(node.centre, tumour.centre) > 1.4 * tumour.radius + 1.6 * size + 2:
            nodes.append(node)
    return tuple(nodes)


def _draw_metal(draw: Draw, neck: Neck) -> tuple[Metal, ...]:
    count = draw.integer(1, 3) if draw.chance(0.35) else 0
    heights = draw.between(21.0, 31.0) - neck.shift
    return tuple(
        Metal(draw.between(-1.1, 1.1), round(heights + draw.between(-1.5, 1.5), 4), draw.between(60.0, 260.0))
        for _ in range(count)
    )
