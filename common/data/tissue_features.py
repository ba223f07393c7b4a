"""Features of generated brains: their anatomy, how their tissues look, and what looks like a lesion and is none."""

from __future__ import annotations

import dataclasses
import statistics

import numpy as np

from .feature_draws import FeatureDraw, change_head, change_lesions, change_looks, four, three
from .labels import CHANNELS
from .phantom_drawing import NUCLEI, TISSUES
from .phantom_record import Appearance, Compartment, Island, Lesion, Phantom, Spot, Triple

__all__ = [
    "anatomy",
    "compartments",
    "contrast",
    "dark_vessels",
    "distractors",
    "enhancing_tissue",
    "flow",
    "no_distractors",
    "no_texture",
    "one_contrast",
    "texture",
]

# Where FLAIR is bright at the base: the cortex above the orbits, the temporal poles, uncus and hippocampus, the
# insula, and the cerebellum; |x|, y and z in mm.
BASE = (
    ((0.0, 22.0), (15.0, 60.0), (-16.0, 0.0)),
    ((28.0, 48.0), (0.0, 26.0), (-32.0, -12.0)),
    ((14.0, 32.0), (-30.0, 8.0), (-22.0, -6.0)),
    ((30.0, 42.0), (-15.0, 20.0), (-8.0, 12.0)),
    ((5.0, 38.0), (-70.0, -35.0), (-50.0, -25.0)),
)

HINDBRAIN = ((0.9, 1.1), (0.9, 1.1), (0.85, 1.2), (0.85, 1.3))
"""Range of what cerebellum and brain stem are brighter by than the same tissues above them, in each modality."""

EDEMA_OVER_GREY = 1.1
"""How much brighter than cortex edema in white matter is in FLAIR at least."""


def contrast(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """Tissues and edema differ more or less from white matter than drawn, each modality by factors of its own."""

    def stretched(value: float, low: float, high: float) -> float:
        return round(max(1 + (value - 1) * draw.between(low, high), 0.05), 4)

    def look(channel: int, old: Appearance) -> Appearance:
        a, b, c = (stretched(value, 0.3, 1.3) for value in old.deep)
        grey, fluid = stretched(old.grey, 0.25, 1.6), stretched(old.fluid, 0.8, 1.8 if old.fluid > 1 else 1.25)
        if channel == 3:
            grey = round(grey * draw.between(0.85, 1.0), 4)  # darker than white matter in some scans
        vessel, hindbrain = stretched(old.vessel, 0.6, 1.4), draw.between(*HINDBRAIN[channel])
        return dataclasses.replace(old, grey=grey, fluid=fluid, vessel=vessel, deep=(a, b, c), hindbrain=hindbrain)

    phantom = change_looks(phantom, look)

    def lesion(old: Lesion) -> Lesion:
        t1n, t1c, t2w, t2f = (
            stretched(value, low, high)
            for value, low, high in zip(old.edema_contrast, (0.3, 0.3, 0.3, 0.45), (1.3, 1.3, 1.3, 1.1), strict=True)
        )
        t1c *= draw.between(0.95, 1.12)  # tumour between the cells may enhance a little
        # Edema in white matter is told from cortex by being the brighter one in FLAIR.
        t2f = max(t2f, EDEMA_OVER_GREY * phantom.appearance[3].grey)
        edema = four(t1n, t1c, t2w, t2f)
        if old.pattern != "none":
            return dataclasses.replace(old, edema_contrast=edema)
        # What doesn't enhance may be as dark in T1 as fluid.
        levels = zip(old.core_level, (0.7, 0.7, 0.7, 0.7), (1.6, 1.6, 1.6, 1.2), strict=True)
        return dataclasses.replace(old, edema_contrast=edema, core_level=four(*(stretched(*one) for one in levels)))

    return change_lesions(phantom, lesion)


def one_contrast(phantom: Phantom) -> Phantom:
    """The same means of tissues and edema in all scans: the middle of their ranges."""

    def look(channel: int, old: Appearance) -> Appearance:
        grey, fluid, vessel = (statistics.mean(span) for span in TISSUES[CHANNELS[channel]])
        a, b, c = (statistics.mean(span) for span in NUCLEI[CHANNELS[channel]])
        return dataclasses.replace(old, grey=grey, fluid=fluid, vessel=vessel, deep=(a, b, c))

    return change_lesions(
        change_looks(phantom, look), lambda old: dataclasses.replace(old, edema_contrast=(0.84, 0.86, 1.62, 1.82))
    )


def anatomy(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """Heads of more sizes and shapes, ventricles of more calibres."""
    head = phantom.head
    x, y, z = (round(factor * draw.between(0.9, 1.0), 4) for factor in head.scale)
    varied = dataclasses.replace(
        head,
        scale=(x, y, z),
        deformation=round(head.deformation * draw.between(0.8, 1.8), 4),
        ventricles=round(head.ventricles * draw.between(0.7, 1.8), 4),
        sulcus_width=round(head.sulcus_width * draw.between(0.3, 1.2), 4),
        folia=draw.between(0.2, 1.0),
    )
    size = draw.between(0.9, 1.2)  # smaller ones would be too few voxels of 5 mm
    factors = [size * draw.between(0.95, 1.06) for _ in range(3)]
    return dataclasses.replace(phantom, head=varied, size=three(*factors))


def compartments(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """Regions of the brain that differ a little, each modality in its own way, and islands of grey matter and fluid.

    No atlas of tissues has them: they stand for whatever else a brain is made of.
    """
    # Brighter in FLAIR or T2 only as far as edema isn't: what can't be told apart teaches nothing.
    ranges = ((0.85, 1.15), (0.85, 1.15), (0.8, 1.15), (0.8, 1.12))
    drawn = [
        Compartment(draw.between(10, 30), draw.between(0.08, 0.35), draw.four(*ranges))
        for _ in range(draw.integer(1, 4))
    ]
    islands = [Island("grey", draw.between(6, 20), draw.between(0.03, 0.2)) for _ in range(draw.integer(0, 2))]
    if draw.chance(0.6):
        islands.append(Island("fluid", draw.between(5, 12), draw.between(0.01, 0.05)))
    return dataclasses.replace(phantom, compartments=tuple(drawn), islands=tuple(islands))


def texture(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """Tissue is smoother or rougher than drawn."""

    def look(_: int, old: Appearance) -> Appearance:
        a, b, c = (round(value * draw.between(0.2, 1.4), 4) for value in old.spread)
        return dataclasses.replace(old, spread=(a, b, c))

    return change_lesions(
        change_looks(phantom, look),
        lambda old: dataclasses.replace(old, spread=round(old.spread * draw.between(0.5, 2), 4)),
    )


def no_texture(phantom: Phantom) -> Phantom:
    """Smooth tissue and smooth lesions."""
    plain = change_looks(phantom, lambda _, old: dataclasses.replace(old, spread=(0.0, 0.0, 0.0)))
    return change_lesions(plain, lambda old: dataclasses.replace(old, spread=0.0))


def flow(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """Fluid that moves isn't suppressed in FLAIR, and is bright there in patches: in cisterns, sulci and ventricles."""
    level = draw.between(0.2, 1.0) if draw.chance(0.5) else 0.0
    return change_looks(phantom, lambda channel, old: dataclasses.replace(old, flow=level) if channel == 3 else old)


def no_distractors(phantom: Phantom) -> Phantom:
    """No white-matter lesions, caps or artefacts."""
    plain = change_looks(phantom, lambda _, old: dataclasses.replace(old, caps=1.0))
    return dataclasses.replace(plain, spots=())


def distractors(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """White-matter lesions and caps that are brighter or darker than drawn, and artefacts at the base."""
    factor = draw.between(0.5, 1.5)

    def look(_: int, old: Appearance) -> Appearance:
        return dataclasses.replace(old, caps=round(1 + (old.caps - 1) * factor, 4))

    spots = [
        dataclasses.replace(spot, contrast=four(*(1 + (value - 1) * draw.between(0.5, 1.4) for value in spot.contrast)))
        for spot in phantom.spots
    ]
    for _ in range(draw.integer(0, 3)):
        spots += _at_the_base(draw, phantom.head.scale)
    return dataclasses.replace(change_looks(phantom, look), spots=tuple(spots))


def _at_the_base(draw: FeatureDraw, scale: Triple) -> list[Spot]:
    """What is bright in FLAIR at the base, on one side or both: above air, and where cortex is older and thicker."""
    x, y, z = (draw.between(*span) for span in BASE[draw.integer(0, len(BASE) - 1)])
    radius = draw.three((6, 20), (6, 20), (5, 14))
    contrast = draw.four((0.85, 1.1), (0.85, 1.1), (0.9, 1.3), (1.08, 1.5))
    sides = (-1, 1) if draw.chance(0.6) else ((-1,) if draw.chance(0.5) else (1,))
    centres = [three(*(np.array([side * x, y, z]) * scale)) for side in sides]
    return [Spot(centre, radius, contrast, white_only=False) for centre in centres]


def enhancing_tissue(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """Dura within the mask, which enhances, beside the vessels and the choroid plexus that every brain has."""
    if draw.chance(0.5):
        phantom = change_head(phantom, dura=draw.between(0.4, 1.8))
    ranges = ((0.6, 1.2), (0.9, 2.2), (0.4, 1.6), (0.5, 1.6))
    return change_looks(phantom, lambda channel, old: dataclasses.replace(old, dura=draw.between(*ranges[channel])))


def dark_vessels(phantom: Phantom) -> Phantom:
    """Vessels that look in T1c as they do in T1, and no dura."""
    t1n = phantom.appearance[0]
    return change_looks(
        phantom, lambda channel, old: dataclasses.replace(old, vessel=t1n.vessel, dura=1.0) if channel == 1 else old
    )
