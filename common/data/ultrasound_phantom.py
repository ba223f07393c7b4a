"""Draws the record of a generated ultrasound image of a breast. Nothing is rendered here.

`common.data.ultrasound_rendering` makes an image of a record, and nothing random happens there.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .phantom_draws import Draw
from .phantom_record import Triple
from .ultrasound_record import Breast, Mass, Probe, Shade, Ultrasound

__all__ = ["CLASSES", "class_of", "draw_ultrasound"]

CLASSES = ("benign", "malignant", "normal")

# Of eight images three are benign, three malignant and two normal, in this order, so that few have some of each.
_ORDER = (0, 1, 2, 0, 1, 0, 1, 2)

# Part of the image that the lesions take together: of one lesion, of each of two.
_ONE, _EACH_OF_TWO = (0.03, 0.115), (0.02, 0.05)


def class_of(index: int) -> str:
    """BUSI's class of an image, by its number in the set."""
    return CLASSES[_ORDER[index % len(_ORDER)]]


def draw_ultrasound(seed: int, index: int) -> Ultrasound:
    """Draw one ultrasound image: benign, malignant or normal by its number (`class_of`).

    Args:
        seed: seed of the set.
        index: number of the case in the set; each case has a stream of its own, however many there are.

    Raises:
        InputError: a seed or index that is negative or no integer.
    """
    draw = Draw(seed, index)
    kind = class_of(index)
    depth = draw.between(32.0, 44.0)
    width = round(depth * draw.between(1.0, 1.35), 4)
    breast = _draw_breast(draw, depth)
    lesions: list[Mass] = []
    if kind != "normal":
        two = draw.chance(0.15 if kind == "benign" else 0.06)
        for part in range(2 if two else 1):
            # Two lesions share the image's width.
            middle = (part - 0.5) * width / 2 if two else 0.0
            area = draw.log_between(*(_EACH_OF_TWO if two else _ONE)) * width * depth
            lesions.append(_draw_lesion(draw, kind, area, middle, width / (2 if two else 1), depth, breast))
    return Ultrasound(
        seed=seed,
        index=index,
        kind=kind,
        texture=draw.integer(0, 2**31 - 1),
        width=width,
        depth=depth,
        zoom=draw.between(0.92, 1.08),
        breast=breast,
        lesions=tuple(lesions),
        lobules=_draw_lobules(draw, width, breast, lesions),
        shades=_draw_shades(draw, width, depth),
        probe=_draw_probe(draw, depth),
    )


def _draw_breast(draw: Draw, depth: float) -> Breast:
    gel = draw.between(0.2, 1.0)
    skin = round(gel + draw.between(1.0, 2.2), 4)
    fat = round(skin + draw.log_between(3.0, 10.0), 4)
    gland = round(fat + draw.between(0.3, 0.5) * depth, 4)
    behind = round(gland + draw.between(0.8, 4.0), 4)
    muscle = round(behind + draw.between(5.0, 9.0), 4)
    fatty = draw.between(-13.0, -6.0)
    return Breast(
        borders=(gel, skin, fat, gland, behind, muscle),
        waves=(
            draw.between(0.02, 0.12),
            draw.between(0.03, 0.15),
            draw.between(0.4, 1.4),
            draw.between(0.4, 1.2),
            draw.between(0.2, 0.7),
            draw.between(0.2, 0.7),
        ),
        tilt=draw.between(-0.06, 0.06),
        level=(draw.between(3.0, 8.0), fatty, draw.between(-11.0, -5.0), draw.between(-24.0, -14.0)),
        septa=draw.between(6.0, 13.0),
        texture=draw.three((1.5, 4.5), (1.5, 4.5), (2.5, 5.0)),
    )


def _draw_lesion(draw: Draw, kind: str, area: float, middle: float, room: float, depth: float, breast: Breast) -> Mass:
    """A lesion of that area (mm2) in the part of the image that is `room` mm wide around `middle`."""
    benign = kind == "benign"
    # Radius in depth over that to the sides.
    aspect = draw.between(0.5, 0.85) if benign else draw.between(1.05, 1.5)
    lobes = [(draw.between(0.0, 0.07 if benign else 0.12) / (1 + 0.3 * order), _angle(draw)) for order in range(3)]
    spicules: list[Triple] = []
    if not benign:
        lobes += [(draw.between(0.01, 0.04), _angle(draw)) for _ in range(6)]
        count = draw.integer(5, 11)
        turn = _angle(draw)
        for number in range(count):
            angle = turn + 2 * math.pi * (number + draw.between(-0.3, 0.3)) / count
            spicules.append((round(angle % (2 * math.pi), 4), draw.between(0.12, 0.5), draw.between(0.09, 0.26)))
    cyst = benign and draw.chance(0.25)
    fat = breast.level[1]
    mass = Mass(
        centre=(0.0, 0.0),
        radii=(1.0, aspect),
        tilt=draw.between(-0.25, 0.25),
        lobes=tuple((round(amplitude, 4), phase) for amplitude, phase in lobes),
        spicules=tuple(spicules),
        level=draw.between(-38.0, -27.0) if cyst else round(fat - draw.between(2.5, 8.5), 4),
        texture=0.0 if cyst else draw.between(0.5, 2.0) if benign else draw.between(1.0, 3.0),
        softness=draw.between(0.15, 0.4) if benign else draw.between(0.35, 0.9),
        rim=draw.between(1.0, 6.0) if benign else draw.between(2.0, 7.0),
        rim_width=draw.between(0.2, 0.4) if benign else draw.between(0.6, 1.6),
        attenuation=_draw_attenuation(draw, benign, cyst),
        edge_shadow=draw.between(2.0, 7.0) if benign and draw.chance(0.6) else 0.0,
    )
    return _place(draw, mass, area, middle, room, depth, breast)


def _draw_attenuation(draw: Draw, benign: bool, cyst: bool) -> float:
    if cyst:
        return draw.between(-0.9, -0.45)
    return draw.between(-0.35, 0.1) if benign else draw.between(0.9, 2.0)


def _place(draw: Draw, mass: Mass, area: float, middle: float, room: float, depth: float, breast: Breast) -> Mass:
    """The mass enlarged to its area and put where all of it is in the image, with some tissue below it."""
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    border = mass.border(angle)
    factor = math.sqrt(area / (math.pi * mass.radii[0] * mass.radii[1] * float((border**2).mean())))
    sides, deep = factor * mass.radii[0] * border * np.cos(angle), factor * mass.radii[1] * border * np.sin(angle)
    x = sides * math.cos(mass.tilt) - deep * math.sin(mass.tilt)
    y = sides * math.sin(mass.tilt) + deep * math.cos(mass.tilt)
    left, right = -room / 2 + 1 - x.min(), room / 2 - 1 - x.max()
    # From the fat down into the gland, at least an eighth of the image being below.
    top, bottom = breast.borders[1] + 1.5 - y.min(), 0.88 * depth - y.max()
    lowest = max(top, min(bottom, breast.borders[3] - 0.3 * float(y.max())))
    highest = min(max(top, breast.borders[2]), lowest)
    where = draw.between(left, right) if left < right else round(float(left + right) / 2, 4)
    return dataclasses.replace(
        mass,
        radii=(round(factor * mass.radii[0], 4), round(factor * mass.radii[1], 4)),
        centre=(round(middle + where, 4), draw.between(highest, lowest)),
    )


def _draw_lobules(draw: Draw, width: float, breast: Breast, lesions: list[Mass]) -> tuple[Mass, ...]:
    """Ovals of fat in the gland, as dark as the fat above it, where there is room beside the lesions."""
    lobules: list[Mass] = []
    for _ in range(draw.integer(1, 5)):
        radii = draw.log_between(1.2, 6.0), draw.log_between(0.8, 2.8)
        centre = draw.between(-width / 2, width / 2), draw.between(breast.borders[2], breast.borders[3])
        lobule = Mass(
            centre=centre,
            radii=(max(radii), min(radii)),
            tilt=draw.between(-0.3, 0.3),
            lobes=tuple((draw.between(0.0, 0.1), _angle(draw)) for _ in range(3)),
            spicules=(),
            level=round(breast.level[1] + draw.between(-2.5, 1.5), 4),
            texture=draw.between(0.5, 2.0),
            softness=draw.between(0.3, 0.8),
            rim=draw.between(0.0, 4.0),
            rim_width=draw.between(0.2, 0.5),
            attenuation=0.0,
            edge_shadow=0.0,
        )
        others = [*lesions, *lobules]
        if all(math.dist(centre, o.centre) > 1.1 * (lobule.radii[0] + 1.3 * max(o.radii)) for o in others):
            lobules.append(lobule)
    return tuple(lobules)


def _draw_shades(draw: Draw, width: float, depth: float) -> tuple[Shade, ...]:
    shades = []
    for _ in range(draw.integer(0, 3)):
        # Half begin at the skin, where the probe has no contact; the others below a ligament or a calcification.
        start = draw.between(0.0, 2.0) if draw.chance(0.4) else draw.between(0.1, 0.6) * depth
        shades.append(
            Shade(
                top=(draw.between(-width / 2, width / 2), round(start, 4)),
                width=draw.log_between(0.6, 4.0),
                slope=draw.between(-0.12, 0.12),
                loss=draw.between(5.0, 16.0),
            )
        )
    return tuple(shades)


def _draw_probe(draw: Draw, depth: float) -> Probe:
    lateral = draw.between(0.24, 0.42)
    return Probe(
        axial=draw.between(0.11, 0.2),
        lateral=(lateral, round(lateral * draw.between(1.3, 2.2), 4)),
        focus=draw.between(0.3, 0.7) * depth,
        looks=draw.integer(2, 5),
        slope=draw.between(-0.35, 0.05),
        uneven=draw.between(0.5, 2.0),
        noise=draw.between(-50.0, -38.0),
        gain=draw.between(105.0, 155.0),
        range=draw.between(48.0, 66.0),
        smoothing=draw.between(0.06, 0.16),
    )


def _angle(draw: Draw) -> float:
    return draw.between(0.0, 2 * math.pi)
