"""Features of generated brains: how their lesions look, and where they are."""

from __future__ import annotations

import dataclasses

import numpy as np

from .feature_draws import FeatureDraw, change_lesions, four, three
from .phantom_drawing import CEREBRUM, is_apart
from .phantom_record import Lesion, Phantom, Triple

__all__ = [
    "all_enhancing",
    "cavities",
    "clusters",
    "infiltration",
    "non_enhancing",
    "one_lesion",
    "plain_rims",
    "rims",
    "t1_contrast",
    "tied_t1",
]

ROOM = (60.0, 75.0, 52.0)
"""Radii of where the centre of a moved lesion may be, mm."""


def rims(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """Rims that are faint, thin, nodular or missing in part, more often than drawn."""

    def change(old: Lesion) -> Lesion:
        t1n, t1c, t2w, t2f = old.enhancing_level
        faint = draw.between(1.06, 1.3) if draw.chance(0.2) else t1c
        rim = draw.between(0.7, 1.6) if draw.chance(0.2) else old.rim
        gap = draw.between(0.2, 0.6) if draw.chance(0.25) else old.gap
        nodules = draw.between(0.3, 1.2) if draw.chance(0.4) else 0.0
        return dataclasses.replace(old, enhancing_level=(t1n, faint, t2w, t2f), rim=rim, gap=gap, nodules=nodules)

    return change_lesions(phantom, change)


def plain_rims(phantom: Phantom) -> Phantom:
    """Rims that are bright, thick and whole."""

    def change(old: Lesion) -> Lesion:
        t1n, _, t2w, t2f = old.enhancing_level
        rim = round(0.25 * old.radius + 1, 4)
        return dataclasses.replace(
            old, enhancing_level=(t1n, 1.8, t2w, t2f), rim=rim, gap=0.4 if old.pattern == "patchy" else 0.0, nodules=0.0
        )

    return change_lesions(phantom, change)


def t1_contrast(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """Blood and melanin: some cores are bright in T1 before contrast agent already."""

    def change(old: Lesion) -> Lesion:
        if not draw.chance(0.12):
            return old
        bright = draw.between(1.05, 1.7)
        (_, e1, e2, e3), (_, _, c2, c3) = old.enhancing_level, old.core_level
        core = four(bright, bright * draw.between(0.9, 1.1), c2, c3)
        return dataclasses.replace(
            old, core_level=core, enhancing_level=four(bright * draw.between(0.8, 1.05), max(e1, bright), e2, e3)
        )

    return change_lesions(phantom, change)


def tied_t1(phantom: Phantom) -> Phantom:
    """The same contrast in T1 as in T1c but for what enhances, and that a fixed part of it."""

    def change(old: Lesion) -> Lesion:
        (_, e1, e2, e3), (_, c1, c2, c3) = old.enhancing_level, old.core_level
        _, o1, o2, o3 = old.edema_contrast
        return dataclasses.replace(
            old,
            core_level=(c1, c1, c2, c3),
            enhancing_level=four(0.5 * e1, e1, e2, e3),
            edema_contrast=(o1, o1, o2, o3),
        )

    return change_lesions(phantom, change)


def non_enhancing(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """More gliomas without any enhancement, some of which look all but like the edema around them."""

    def change(old: Lesion) -> Lesion:
        levels = zip((1.0, 1.0, 1.0, 1.0), old.edema_contrast, strict=True)
        core = four(*(level * contrast * draw.between(0.85, 1.15) for level, contrast in levels))
        return dataclasses.replace(old, pattern="none", core_level=core)

    return change_lesions(phantom, change) if phantom.kind == "glioma" and draw.chance(0.15) else phantom


def all_enhancing(phantom: Phantom) -> Phantom:
    """Gliomas that all enhance, in a ring where they didn't."""
    return change_lesions(
        phantom, lambda old: dataclasses.replace(old, pattern="ring") if old.pattern == "none" else old
    )


def infiltration(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """Edema that fades out slowly; that of gliomas is tumour in part, and takes cortex and nuclei as white matter.

    Some gliomas lie in the cortex.
    """
    glioma = phantom.kind == "glioma"

    def change(old: Lesion) -> Lesion:
        fade, softness = draw.between(0.05, 0.75), round(old.softness * draw.between(0.7, 2.5), 4)
        barrier = draw.between(0.0, 1.0) if glioma else 1.0
        return dataclasses.replace(old, fade=fade, softness=softness, barrier=barrier)

    phantom = change_lesions(phantom, change)
    return _into_cortex(draw, phantom) if glioma and phantom.lesions and draw.chance(0.4) else phantom


def _into_cortex(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """The first lesion moved outwards, less than its radius below the surface; where there is no room, as it was."""
    first, *others = phantom.lesions
    outwards = np.array(first.centre) / phantom.head.scale / CEREBRUM
    depth = draw.between(0.3, 1.0) * first.radius / min(CEREBRUM)
    centre = three(*(np.array(first.centre) * max((1 - depth) / np.linalg.norm(outwards), 1)))
    if not is_apart(centre, first.radius, others):
        return phantom
    return dataclasses.replace(phantom, lesions=(dataclasses.replace(first, centre=centre), *others))


def clusters(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """Metastases beside each other, whose edema merges."""
    if phantom.kind != "metastases":
        return phantom
    placed: list[Lesion] = []
    for lesion in phantom.lesions:
        if placed and draw.chance(0.4):
            lesion = _beside(draw, lesion, placed, phantom.lesions[len(placed) + 1 :], phantom.head.scale)
        placed.append(lesion)
    return dataclasses.replace(phantom, lesions=tuple(placed))


def _beside(
    draw: FeatureDraw, lesion: Lesion, placed: list[Lesion], later: tuple[Lesion, ...], scale: Triple
) -> Lesion:
    """The lesion moved to one that is there already, with some edema; where there is no room, as it was."""
    for _ in range(10):
        other = placed[draw.integer(0, len(placed) - 1)]
        direction = draw.generator.standard_normal(3)
        distance = 1.25 * (lesion.radius + other.radius) + 4 + draw.between(0.5, 8)
        x, y, z = np.array(other.centre) + direction * (distance / np.linalg.norm(direction))
        inside = np.linalg.norm(np.array([x, y, z]) / scale / ROOM) < 1 and abs(x) > 9 and z > -6
        if inside and is_apart((x, y, z), lesion.radius, (*placed, *later)):
            return dataclasses.replace(lesion, centre=three(x, y, z), edema=max(lesion.edema, draw.between(3, 10)))
    return lesion


def one_lesion(phantom: Phantom) -> Phantom:
    """The first lesion alone."""
    return dataclasses.replace(phantom, lesions=phantom.lesions[:1])


def cavities(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """After surgery: what was resected is fluid within a thin rim that enhances in part, and background."""
    first, *others = phantom.lesions or (None,)
    if first is None or first.radius < 6 or not draw.chance(0.15):
        return phantom
    cavity = dataclasses.replace(
        first,
        pattern="cavity",
        rim=draw.between(0.7, 2.5),
        gap=draw.between(0.3, 0.9),
        core_level=draw.four((0.2, 0.6), (0.2, 0.65), (1.8, 4.0), (0.15, 1.2)),
    )
    return dataclasses.replace(phantom, lesions=(cavity, *(one for one in others if one is not None)))
