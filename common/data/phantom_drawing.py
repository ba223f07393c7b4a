"""Draws the record of a generated brain. Nothing is rendered here, and nothing random happens after this.

What helps a network most on real scans is variety of looks, so contrasts between tissues, textures, blur, bias and
gamma are drawn from wide ranges per scan and modality, and a lesion's contrast in T1 independently of that in T1c.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from ..errors import InputError
from .labels import CHANNELS
from .phantom_draws import Draw
from .phantom_record import Appearance, Head, Lesion, Phantom, Spot, Triple

__all__ = ["CEREBRUM", "KINDS", "MAX_DIAMETER", "draw_phantom", "is_apart"]

KINDS = ("metastases", "glioma", "mixed")

MAX_DIAMETER = 40.0
"""No metastasis is longer, mm."""

CEREBRUM = (64.0, 79.0, 56.0)
"""Radii of the cerebrum's upper half in a head of the mean size, mm."""

MIN_RADIUS = 1.5
"""Mean radius of the smallest metastases, mm."""

# Ranges of the means per modality, in multiples of white matter: grey, fluid, vessel.
TISSUES: dict[str, tuple[tuple[float, float], ...]] = {
    "t1n": ((0.60, 0.88), (0.20, 0.50), (0.60, 1.10)),
    "t1c": ((0.66, 1.00), (0.20, 0.50), (1.20, 2.20)),
    "t2w": ((1.12, 1.60), (2.00, 4.20), (0.40, 0.90)),
    "t2f": ((0.98, 1.30), (0.15, 0.50), (0.50, 0.90)),
}

# The same of the deep nuclei: striatum, pallidum (dark in T2 and FLAIR for its iron), thalamus.
NUCLEI: dict[str, tuple[tuple[float, float], ...]] = {
    "t1n": ((0.74, 0.96), (0.88, 1.10), (0.80, 1.04)),
    "t1c": ((0.80, 1.02), (0.90, 1.12), (0.84, 1.08)),
    "t2w": ((1.00, 1.35), (0.68, 1.02), (1.05, 1.30)),
    "t2f": ((0.94, 1.20), (0.62, 0.98), (1.02, 1.22)),
}

# Ranges of a white-matter lesion's factors, per modality.
WHITE_MATTER_LESION = ((0.75, 1.0), (0.75, 1.0), (1.15, 1.8), (1.25, 1.8))


class _Draw(Draw):
    """Random numbers and places in the brain."""

    def place(self, depth: tuple[float, float], scale: Triple, cerebellum: float = 0.0) -> Triple:
        """A point at least `depth[0]` mm below the brain's surface and off the midline."""
        side = 1 if self.chance(0.5) else -1
        if self.chance(cerebellum):
            x, y, z = side * self.between(12, 28), self.between(-58, -42), self.between(-42, -32)
        else:
            direction = self.generator.standard_normal(3)
            direction /= np.linalg.norm(direction)
            # The flat lower half takes no centres below z = -6 mm.
            radii = np.maximum(np.array(CEREBRUM) - self.between(*depth), 8)
            x, y, z = (float(value) for value in direction * radii)
            x, z = side * max(abs(x), 9.0), max(abs(z) * (1 if self.chance(0.8) else -1), -6.0)
        a, b, c = (round(value * factor, 4) for value, factor in zip((x, y, z), scale, strict=True))
        return a, b, c


def draw_phantom(seed: int, index: int, kind: str = "mixed") -> Phantom:
    """Draw one generated brain.

    Args:
        seed: seed of the set.
        index: number of the case in the set; each case has a stream of its own, however many there are.
        kind: "metastases", "glioma", or "mixed" for either with equal chance.

    Returns:
        The record, which `render_phantom` turns into images and a label map.

    Raises:
        InputError: a kind other than these, or a negative seed or index.
    """
    if kind not in KINDS:
        raise InputError(f"kind of phantom {kind!r} is not known; choose one of {', '.join(KINDS)}")
    draw = _Draw(seed, index)
    either = ("metastases", "glioma")[draw.integer(0, 1)]
    kind = either if kind == "mixed" else kind
    head = _draw_head(draw)
    lesions = _draw_metastases(draw, head) if kind == "metastases" else _draw_glioma(draw, head)
    t1n, t1c, t2w, t2f = (_draw_appearance(draw, name) for name in CHANNELS)
    return Phantom(
        seed=seed,
        index=index,
        kind=kind,
        texture=draw.integer(0, 2**31 - 1),
        head=head,
        caps=draw.between(0.5, 4.0),
        lesions=lesions,
        spots=_draw_spots(draw, head),
        appearance=(t1n, t1c, t2w, t2f),
    )


def _draw_head(draw: _Draw) -> Head:
    size = draw.between(0.94, 1.04)
    a, b, c = draw.stretch(0.03)
    return Head(
        scale=(round(size * a, 4), round(size * b, 4), round(size * c, 4)),
        deformation=draw.between(1.5, 3.5),
        sulcus_width=draw.between(0.3, 1.1),
        sulcus_depth=draw.between(11.0, 17.0),
        cortex=draw.between(2.4, 3.4),
        ventricles=draw.log_between(0.8, 1.8),
        vessels=draw.between(0.6, 1.3),
        sinus=draw.between(1.5, 4.0),
    )


def _draw_metastases(draw: _Draw, head: Head) -> tuple[Lesion, ...]:
    """One to fifteen, half of the scans with one or two; the first is the largest, the others mostly small.

    The largest is the largest of three that are spread evenly over the logarithm of the radius, so that it is below
    10 mm across in an eighth of the scans.
    """
    count = min(int(draw.generator.geometric(0.5)), 15) if draw.chance(0.7) else draw.integer(4, 15)
    radii = [max(draw.log_between(MIN_RADIUS, 0.4 * MAX_DIAMETER) for _ in range(3))]
    radii += [draw.log_between(MIN_RADIUS, max(0.7 * radii[0], MIN_RADIUS)) for _ in range(count - 1)]
    lesions: list[Lesion] = []
    for radius in radii:
        centre = _place_apart(draw, head, lesions, radius, depth=(6 + 0.7 * radius, 24 + 0.7 * radius), cerebellum=0.15)
        if centre is None:
            continue
        pattern = "solid" if radius < 4 or draw.chance(0.15) else "ring"
        # Small metastases often have no edema, those above 7 mm always do.
        edema = draw.between(0.4, 1.4) * radius + draw.between(0, 5) if draw.chance(0.3 + 0.1 * radius) else 0.0
        irregularity = draw.between(0.05, 0.2)
        lesion = _draw_lesion(draw, centre, radius, pattern, round(min(edema, 25.0), 4), irregularity)
        if lesion.longest > MAX_DIAMETER:
            shrunk = math.floor(radius * MAX_DIAMETER / lesion.longest * 1e4) / 1e4
            lesion = dataclasses.replace(lesion, radius=shrunk)
        lesions.append(lesion)
    return tuple(lesions)


def _draw_glioma(draw: _Draw, head: Head) -> tuple[Lesion, ...]:
    """One focus, sometimes with a satellite; a fifth do not enhance."""
    pattern = ("ring", "patchy", "none", "solid")[int(draw.generator.choice(4, p=(0.55, 0.2, 0.2, 0.05)))]
    radius = draw.log_between(12.0, 24.0)
    lesions: list[Lesion] = []
    sizes = [radius] + ([round(radius * draw.between(0.3, 0.6), 4)] if draw.chance(0.25) else [])
    for size in sizes:
        centre = _place_apart(draw, head, lesions, size, depth=(10 + 0.7 * size, 34 + 0.4 * size), cerebellum=0.02)
        if centre is None:
            continue
        edema = round(draw.between(0.25, 0.9) * size + draw.between(1, 6), 4)
        lesions.append(_draw_lesion(draw, centre, size, pattern, edema, irregularity=draw.between(0.2, 0.4)))
    return tuple(lesions)


def _place_apart(
    draw: _Draw, head: Head, others: list[Lesion], radius: float, depth: tuple[float, float], cerebellum: float
) -> Triple | None:
    """A centre whose core stays clear of the other cores, None where no room is found."""
    for _ in range(50):
        centre = draw.place(depth, head.scale, cerebellum if radius < 14 else 0.0)
        if is_apart(centre, radius, others):
            return centre
    return None


def is_apart(centre: Triple, radius: float, others: Iterable[Lesion]) -> bool:
    """Whether a core of that radius stays clear of the other cores."""
    return all(np.linalg.norm(np.subtract(centre, o.centre)) > 1.2 * (radius + o.radius) + 4 for o in others)


def _draw_lesion(draw: _Draw, centre: Triple, radius: float, pattern: str, edema: float, irregularity: float) -> Lesion:
    faint = draw.chance(0.2)
    thin = draw.chance(0.3)
    rim = draw.between(1.0, 1.8) if thin else draw.between(0.15, 0.4) * radius + 1.0
    if pattern == "none":
        # Solid tumour that does not enhance looks much like edema, with less water than a necrosis has.
        core = draw.four((0.60, 0.92), (0.60, 0.95), (1.40, 2.30), (1.25, 1.90))
    else:
        core = draw.four((0.40, 0.90), (0.35, 0.85), (1.40, 3.20), (0.60, 1.80))
    return Lesion(
        centre=centre,
        radius=radius,
        stretch=draw.stretch(0.15),
        irregularity=irregularity,
        pattern=pattern,
        rim=round(rim, 4),
        gap=draw.between(0.15, 0.5) if pattern == "patchy" or draw.chance(0.35) else 0.0,
        edema=edema,
        softness=draw.between(0.8, 4.0),
        push=draw.between(0.0, 0.3),
        edema_contrast=draw.four((0.70, 0.98), (0.70, 1.02), (1.25, 2.00), (1.45, 2.20)),
        enhancing_level=draw.four((0.65, 1.15), (1.15, 1.35) if faint else (1.35, 2.20), (1.10, 2.10), (1.15, 1.90)),
        core_level=core,
        spread=draw.between(0.04, 0.15),
    )


def _draw_spots(draw: _Draw, head: Head) -> tuple[Spot, ...]:
    spots = []
    for _ in range(draw.integer(0, 6) if draw.chance(0.75) else draw.integer(6, 25)):
        a, b, c = draw.stretch(0.35)
        size = draw.log_between(1.2, 4.5)
        spots.append(
            Spot(
                centre=draw.place((16.0, 42.0), head.scale),
                radius=(round(size * a, 4), round(size * b, 4), round(size * c, 4)),
                contrast=draw.four(*WHITE_MATTER_LESION),
                white_only=True,
            )
        )
    for _ in range(draw.integer(1, 3) if draw.chance(0.5) else 0):
        # Artefacts: a smooth gain in one modality, most often FLAIR, near the surface, where coils and air are.
        contrast = [1.0, 1.0, 1.0, 1.0]
        contrast[3 if draw.chance(0.7) else draw.integer(0, 2)] = draw.between(1.2, 1.6)
        spots.append(
            Spot(
                centre=draw.place((2.0, 12.0), head.scale),
                radius=(draw.between(4, 14), draw.between(4, 14), draw.between(3, 8)),
                contrast=(contrast[0], contrast[1], contrast[2], contrast[3]),
                white_only=False,
            )
        )
    return tuple(spots)


def _draw_appearance(draw: _Draw, modality: str) -> Appearance:
    grey, fluid, vessel = draw.three(*TISSUES[modality])
    flair = modality == "t2f"
    # One modality of most examinations is a volume with thin slices, the others have thick ones.
    thick = draw.chance(0.5)
    return Appearance(
        grey=grey,
        deep=draw.three(*NUCLEI[modality]),
        fluid=fluid,
        vessel=vessel,
        spread=(draw.between(0.01, 0.05), draw.between(0.01, 0.05), draw.between(0.01, 0.06)),
        caps=draw.between(1.05, 1.5) if flair else draw.between(1.0, 1.2) if modality == "t2w" else 1.0,
        blur=draw.between(0.3, 0.8),
        slice_axis=2 if draw.chance(0.8) else draw.integer(0, 1),
        slice_blur=draw.between(1.2, 2.2) if thick else draw.between(0.3, 0.8),
        bias=draw.between(0.02, 0.10),
        gamma=draw.between(0.8, 1.25),
        noise=draw.between(0.01, 0.06),
        gain=round(draw.log_between(150, 900), 1),
    )
