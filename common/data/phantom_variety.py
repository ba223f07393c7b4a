"""What makes generated brains as various as real ones: features, each of which can be left out.

`draw_phantom` draws a brain; `vary_phantom` then applies the features to its record one after another. Each has a
stream of random numbers of its own, so that leaving one out changes nothing else. What a feature left out means is
said here too: where `draw_phantom` itself has some of it, that is taken away.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from .labels import CHANNELS
from .phantom_drawing import NUCLEI, TISSUES
from .phantom_draws import Draw
from .phantom_record import Appearance, Compartment, Lesion, Phantom, Quadruple, Triple

__all__ = ["FEATURES", "vary_phantom"]

BEYOND = 0.15
"""How far beyond a range the numbers of cases drawn apart lie at most, in multiples of its width."""

ROOM = (60.0, 75.0, 52.0)
"""Radii of where the centre of a moved lesion may be, mm."""

Feature = Callable[["_Draw", Phantom], Phantom]


class _Draw(Draw):
    """Random numbers of one feature; drawn apart, each lies beside its range and not in it."""

    def __init__(self, seed: int, index: int, stream: str, apart: bool) -> None:
        super().__init__(seed, index, stream)
        self.apart = apart

    def between(self, low: float, high: float) -> float:
        if not self.apart:
            return super().between(low, high)
        beyond = self.generator.uniform(0, BEYOND) * (high - low)
        # Nothing here that is above zero may fall below it.
        return round(float(high + beyond if self.chance(0.5) else max(low - beyond, min(low, 0.5 * low))), 4)

    def log_between(self, low: float, high: float) -> float:
        return round(float(np.exp(self.between(np.log(low), np.log(high)))), 4)


class _Feature(NamedTuple):
    """What a feature does to a record, and what leaving it out does; either may be nothing."""

    apply: Feature
    leave_out: Callable[[Phantom], Phantom]


def vary_phantom(phantom: Phantom, without: Collection[str] = (), apart: bool = False) -> Phantom:
    """Apply every feature but those left out to a record.

    Args:
        phantom: what `draw_phantom` gave.
        without: names of `FEATURES`.
        apart: draw each number of a feature from beside its range, so that no case drawn otherwise is like this one:
            for the cases among which a training chooses its weights.

    Returns:
        The record of the same brain, varied.

    Raises:
        InputError: there is no such feature.
    """
    if unknown := sorted({*without} - {*FEATURES}):
        raise InputError(f"feature {unknown[0]!r} of phantoms is not known; choose from {', '.join(FEATURES)}")
    for name, feature in FEATURES.items():
        if name in without:
            phantom = feature.leave_out(phantom)
        else:
            phantom = feature.apply(_Draw(phantom.seed, phantom.index, name, apart), phantom)
    return phantom


def _lesions(phantom: Phantom, change: Callable[[Lesion], Lesion]) -> Phantom:
    return dataclasses.replace(phantom, lesions=tuple(map(change, phantom.lesions)))


def _looks(phantom: Phantom, change: Callable[[int, Appearance], Appearance]) -> Phantom:
    t1n, t1c, t2w, t2f = (change(channel, look) for channel, look in enumerate(phantom.appearance))
    return dataclasses.replace(phantom, appearance=(t1n, t1c, t2w, t2f))


def _head(phantom: Phantom, **changes: Any) -> Phantom:
    return dataclasses.replace(phantom, head=dataclasses.replace(phantom.head, **changes))


def _four(*values: float) -> Quadruple:
    a, b, c, d = (round(value, 4) for value in values)
    return a, b, c, d


def _same(phantom: Phantom) -> Phantom:
    return phantom


# Tissues: how much they differ, and their texture.


def _contrast(draw: _Draw, phantom: Phantom) -> Phantom:
    """Tissues and edema differ more or less from white matter than drawn, each modality by factors of its own."""

    def stretched(value: float, low: float, high: float) -> float:
        return round(max(1 + (value - 1) * draw.between(low, high), 0.05), 4)

    def look(_: int, old: Appearance) -> Appearance:
        a, b, c = (stretched(value, 0.6, 1.4) for value in old.deep)
        grey, fluid = stretched(old.grey, 0.6, 1.5), stretched(old.fluid, 0.7, 1.2)
        return dataclasses.replace(old, grey=grey, fluid=fluid, vessel=stretched(old.vessel, 0.6, 1.4), deep=(a, b, c))

    def lesion(old: Lesion) -> Lesion:
        edema = (
            stretched(value, low, 1.3) for value, low in zip(old.edema_contrast, (0.3, 0.3, 0.6, 0.5), strict=True)
        )
        return dataclasses.replace(old, edema_contrast=_four(*edema))

    return _lesions(_looks(phantom, look), lesion)


def _one_contrast(phantom: Phantom) -> Phantom:
    def look(channel: int, old: Appearance) -> Appearance:
        grey, fluid, vessel = (statistics.mean(span) for span in TISSUES[CHANNELS[channel]])
        a, b, c = (statistics.mean(span) for span in NUCLEI[CHANNELS[channel]])
        return dataclasses.replace(old, grey=grey, fluid=fluid, vessel=vessel, deep=(a, b, c))

    return _lesions(
        _looks(phantom, look), lambda old: dataclasses.replace(old, edema_contrast=(0.84, 0.86, 1.62, 1.82))
    )


def _anatomy(draw: _Draw, phantom: Phantom) -> Phantom:
    """Heads of more sizes and shapes, ventricles of more calibres."""
    head = phantom.head
    x, y, z = (round(factor * draw.between(0.9, 1.0), 4) for factor in head.scale)
    varied = dataclasses.replace(
        head,
        scale=(x, y, z),
        deformation=round(head.deformation * draw.between(0.8, 1.8), 4),
        ventricles=round(head.ventricles * draw.between(0.7, 1.4), 4),
        sulcus_width=round(head.sulcus_width * draw.between(0.6, 1.8), 4),
    )
    return dataclasses.replace(phantom, head=varied)


def _compartments(draw: _Draw, phantom: Phantom) -> Phantom:
    """Regions of the brain that differ a little, each modality in its own way: what no atlas of tissues has."""
    ranges = ((0.85, 1.15), (0.85, 1.2), (0.8, 1.25), (0.8, 1.22))
    drawn = [
        Compartment(draw.between(10, 30), draw.between(0.08, 0.35), draw.four(*ranges))
        for _ in range(draw.integer(1, 4))
    ]
    return dataclasses.replace(phantom, compartments=tuple(drawn))


def _texture(draw: _Draw, phantom: Phantom) -> Phantom:
    """Tissue is smoother or rougher than drawn."""

    def look(_: int, old: Appearance) -> Appearance:
        a, b, c = (round(value * draw.between(0.5, 1.6), 4) for value in old.spread)
        return dataclasses.replace(old, spread=(a, b, c))

    return _lesions(
        _looks(phantom, look), lambda old: dataclasses.replace(old, spread=round(old.spread * draw.between(0.5, 2), 4))
    )


def _no_texture(phantom: Phantom) -> Phantom:
    plain = _looks(phantom, lambda _, old: dataclasses.replace(old, spread=(0.0, 0.0, 0.0)))
    return _lesions(plain, lambda old: dataclasses.replace(old, spread=0.0))


# Lesions.


def _rims(draw: _Draw, phantom: Phantom) -> Phantom:
    """Rims that are faint, thin, nodular or missing in part, more often than drawn."""

    def change(old: Lesion) -> Lesion:
        t1n, t1c, t2w, t2f = old.enhancing_level
        faint = draw.between(1.06, 1.3) if draw.chance(0.2) else t1c
        rim = draw.between(0.7, 1.6) if draw.chance(0.2) else old.rim
        gap = draw.between(0.2, 0.6) if draw.chance(0.25) else old.gap
        nodules = draw.between(0.3, 1.2) if draw.chance(0.4) else 0.0
        return dataclasses.replace(old, enhancing_level=(t1n, faint, t2w, t2f), rim=rim, gap=gap, nodules=nodules)

    return _lesions(phantom, change)


def _plain_rims(phantom: Phantom) -> Phantom:
    def change(old: Lesion) -> Lesion:
        t1n, _, t2w, t2f = old.enhancing_level
        rim = round(0.25 * old.radius + 1, 4)
        return dataclasses.replace(
            old, enhancing_level=(t1n, 1.8, t2w, t2f), rim=rim, gap=0.4 if old.pattern == "patchy" else 0.0, nodules=0.0
        )

    return _lesions(phantom, change)


def _t1_contrast(draw: _Draw, phantom: Phantom) -> Phantom:
    """Blood and melanin: some cores are bright in T1 before contrast agent already."""

    def change(old: Lesion) -> Lesion:
        if not draw.chance(0.12):
            return old
        bright = draw.between(1.05, 1.7)
        (_, e1, e2, e3), (_, _, c2, c3) = old.enhancing_level, old.core_level
        core = _four(bright, bright * draw.between(0.9, 1.1), c2, c3)
        return dataclasses.replace(
            old, core_level=core, enhancing_level=_four(bright * draw.between(0.8, 1.05), max(e1, bright), e2, e3)
        )

    return _lesions(phantom, change)


def _tied_t1(phantom: Phantom) -> Phantom:
    """The same contrast in T1 as in T1c but for what enhances, and that a fixed part of it."""

    def change(old: Lesion) -> Lesion:
        (_, e1, e2, e3), (_, c1, c2, c3) = old.enhancing_level, old.core_level
        _, o1, o2, o3 = old.edema_contrast
        return dataclasses.replace(
            old,
            core_level=(c1, c1, c2, c3),
            enhancing_level=_four(0.5 * e1, e1, e2, e3),
            edema_contrast=(o1, o1, o2, o3),
        )

    return _lesions(phantom, change)


def _non_enhancing(draw: _Draw, phantom: Phantom) -> Phantom:
    """More gliomas without any enhancement, some of which look all but like the edema around them."""

    def change(old: Lesion) -> Lesion:
        levels = zip((1.0, 1.0, 1.0, 1.0), old.edema_contrast, strict=True)
        core = _four(*(level * contrast * draw.between(0.85, 1.15) for level, contrast in levels))
        return dataclasses.replace(old, pattern="none", core_level=core)

    return _lesions(phantom, change) if phantom.kind == "glioma" and draw.chance(0.15) else phantom


def _all_enhancing(phantom: Phantom) -> Phantom:
    return _lesions(phantom, lambda old: dataclasses.replace(old, pattern="ring") if old.pattern == "none" else old)


def _clusters(draw: _Draw, phantom: Phantom) -> Phantom:
    """Metastases beside each other, whose edema merges."""
    if phantom.kind != "metastases":
        return phantom
    placed: list[Lesion] = []
    for lesion in phantom.lesions:
        if placed and draw.chance(0.4):
            lesion = _beside(draw, lesion, placed, phantom.lesions[len(placed) + 1 :], phantom.head.scale)
        placed.append(lesion)
    return dataclasses.replace(phantom, lesions=tuple(placed))


def _beside(draw: _Draw, lesion: Lesion, placed: list[Lesion], later: tuple[Lesion, ...], scale: Triple) -> Lesion:
    """The lesion moved to one that is there already, with some edema; where there is no room, as it was."""
    for _ in range(10):
        other = placed[draw.integer(0, len(placed) - 1)]
        direction = draw.generator.standard_normal(3)
        distance = 1.25 * (lesion.radius + other.radius) + 4 + draw.between(0.5, 8)
        x, y, z = np.array(other.centre) + direction * (distance / np.linalg.norm(direction))
        inside = np.linalg.norm(np.array([x, y, z]) / scale / ROOM) < 1 and abs(x) > 9 and z > -6
        if inside and all(
            np.linalg.norm(np.subtract((x, y, z), one.centre)) > 1.2 * (lesion.radius + one.radius) + 4
            for one in (*placed, *later)
        ):
            centre = (round(float(x), 4), round(float(y), 4), round(float(z), 4))
            return dataclasses.replace(lesion, centre=centre, edema=max(lesion.edema, draw.between(3, 10)))
    return lesion


def _one_lesion(phantom: Phantom) -> Phantom:
    return dataclasses.replace(phantom, lesions=phantom.lesions[:1])


def _cavities(draw: _Draw, phantom: Phantom) -> Phantom:
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


# What looks like a lesion and is none.


def _flow(draw: _Draw, phantom: Phantom) -> Phantom:
    """Fluid that moves isn't suppressed in FLAIR, and is bright there in patches: in cisterns, sulci and ventricles."""
    level = draw.between(0.2, 1.5) if draw.chance(0.5) else 0.0
    return _looks(phantom, lambda channel, old: dataclasses.replace(old, flow=level) if channel == 3 else old)


def _no_distractors(phantom: Phantom) -> Phantom:
    plain = _looks(phantom, lambda _, old: dataclasses.replace(old, caps=1.0))
    return dataclasses.replace(plain, spots=())


def _distractors(draw: _Draw, phantom: Phantom) -> Phantom:
    """White-matter lesions and caps that are brighter or darker than drawn."""
    factor = draw.between(0.5, 1.5)

    def look(_: int, old: Appearance) -> Appearance:
        return dataclasses.replace(old, caps=round(1 + (old.caps - 1) * factor, 4))

    spots = [
        dataclasses.replace(
            spot, contrast=_four(*(1 + (value - 1) * draw.between(0.5, 1.4) for value in spot.contrast))
        )
        for spot in phantom.spots
    ]
    return dataclasses.replace(_looks(phantom, look), spots=tuple(spots))


def _enhancing_tissue(draw: _Draw, phantom: Phantom) -> Phantom:
    """Dura within the mask, which enhances, beside the vessels and the choroid plexus that every brain has."""
    if draw.chance(0.5):
        phantom = _head(phantom, dura=draw.between(0.4, 1.8))
    ranges = ((0.6, 1.2), (0.9, 2.2), (0.4, 1.6), (0.5, 1.6))
    return _looks(phantom, lambda channel, old: dataclasses.replace(old, dura=draw.between(*ranges[channel])))


def _dark_vessels(phantom: Phantom) -> Phantom:
    t1n = phantom.appearance[0]
    return _looks(
        phantom, lambda channel, old: dataclasses.replace(old, vessel=t1n.vessel, dura=1.0) if channel == 1 else old
    )


# The scanner and what is done to its images.


def _resolution(draw: _Draw, phantom: Phantom) -> Phantom:
    """Thick slices with what lies between them interpolated, and blur of other resolutions."""

    def look(_: int, old: Appearance) -> Appearance:
        blur = round(old.blur * draw.between(0.7, 1.7), 4)
        if not draw.chance(0.4):
            return dataclasses.replace(old, blur=blur)
        distance = draw.between(3.0, 6.5)
        # A slice as thick as its distance, as the standard deviation of a normal profile.
        return dataclasses.replace(old, blur=blur, slice_distance=distance, slice_blur=round(distance / 2.355, 4))

    return _looks(phantom, look)


def _sharp(phantom: Phantom) -> Phantom:
    return _looks(phantom, lambda _, old: dataclasses.replace(old, blur=0.3, slice_blur=0.3))


def _strip(draw: _Draw, phantom: Phantom) -> Phantom:
    """Skull-stripping that leaves something of what lies around the brain, and takes something of the brain."""
    return _head(phantom, strip=draw.between(0.5, 4.0)) if draw.chance(0.4) else phantom


def _slips(draw: _Draw, phantom: Phantom) -> Phantom:
    """One or two modalities that aren't quite where the contrast-enhanced T1 is."""

    def look(channel: int, old: Appearance) -> Appearance:
        if channel == 1 or not draw.chance(0.15):
            return old
        direction = draw.generator.standard_normal(3)
        x, y, z = (float(value) for value in direction / np.linalg.norm(direction) * draw.between(0.5, 2.5))
        return dataclasses.replace(old, slip=(round(x, 4), round(y, 4), round(z, 4)))

    return _looks(phantom, look)


def _scanner(draw: _Draw, phantom: Phantom) -> Phantom:
    """Scales of several scanners' files, values cut off at the top, and stronger bias fields and gammas."""

    def look(_: int, old: Appearance) -> Appearance:
        return dataclasses.replace(
            old,
            gain=round(draw.log_between(60, 6000), 1),
            ceiling=draw.between(1.9, 4.0) if draw.chance(0.2) else 0.0,
            bias=round(old.bias * draw.between(0.5, 2.2), 4),
            gamma=round(old.gamma * draw.between(0.8, 1.25), 4),
            noise=round(old.noise * draw.between(0.4, 1.5), 4),
        )

    return _looks(phantom, look)


def _one_scanner(phantom: Phantom) -> Phantom:
    return _looks(phantom, lambda _, old: dataclasses.replace(old, bias=0.0, gamma=1.0, noise=0.02, gain=400.0))


FEATURES: dict[str, _Feature] = {
    "anatomy": _Feature(_anatomy, _same),
    "compartments": _Feature(_compartments, _same),
    "contrast": _Feature(_contrast, _one_contrast),
    "texture": _Feature(_texture, _no_texture),
    "rims": _Feature(_rims, _plain_rims),
    "t1_contrast": _Feature(_t1_contrast, _tied_t1),
    "non_enhancing": _Feature(_non_enhancing, _all_enhancing),
    "clusters": _Feature(_clusters, _one_lesion),
    "cavities": _Feature(_cavities, _same),
    "distractors": _Feature(_distractors, _no_distractors),
    "flow": _Feature(_flow, _same),
    "enhancing_tissue": _Feature(_enhancing_tissue, _dark_vessels),
    "resolution": _Feature(_resolution, _sharp),
    "strip_errors": _Feature(_strip, _same),
    "slips": _Feature(_slips, _same),
    "scanner": _Feature(_scanner, _one_scanner),
}
"""Feature → what applies it and what leaves it out, in the order in which they are applied."""
