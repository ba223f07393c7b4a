"""The record of a generated ultrasound image of a breast: every random choice as plain numbers, fit for JSON.

Lengths are in mm: x runs from the middle of the image to its right, depth from the probe down. Echo levels are in dB,
0 being the mean of the gland.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .phantom_record import Triple, from_json

__all__ = ["Breast", "Mass", "Probe", "Shade", "Ultrasound"]

Pair = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Breast:
    """The layers from the skin down, and what they echo.

    Attributes:
        borders: mean depths of the lower borders of gel, skin, fat, gland, fat behind the gland, and muscle, mm.
        waves: amplitudes of the borders' undulation, mm.
        tilt: slope of the layers from left to right, mm per mm.
        level: mean echo of skin, fat, muscle and what is behind it, dB.
        septa: how much brighter than the fat the septa in it are, dB.
        texture: amplitude of streaks and of patches in the gland, and of fibres in the muscle, dB.
    """

    borders: tuple[float, float, float, float, float, float]
    waves: tuple[float, float, float, float, float, float]
    tilt: float
    level: tuple[float, float, float, float]
    septa: float
    texture: Triple


@dataclasses.dataclass(frozen=True)
class Mass:
    """An oval or irregular thing in the breast: a lesion, which the mask has, or a lobule of fat, which it hasn't.

    Attributes:
        centre: x and depth, mm.
        radii: to the sides and in depth, before the border's irregularity, mm.
        tilt: turn, radians.
        lobes: (amplitude, phase) of the border's waves with 2, 3, 4 … periods around, relative to the radius.
        spicules: (angle, length, width) of the border's spikes: radians, relative to the radius, radians.
        level: mean echo, dB.
        texture: amplitude of the patches inside, dB.
        softness: width of the border, mm.
        rim: how much brighter (capsule, halo) the border is than its surroundings, dB.
        rim_width: of that, mm.
        attenuation: dB a mm that what is behind it loses more than elsewhere; below 0 it gains (enhancement).
        edge_shadow: dB that is lost below its two sides, by refraction.
    """

    centre: Pair
    radii: Pair
    tilt: float
    lobes: tuple[Pair, ...]
    spicules: tuple[Triple, ...]
    level: float
    texture: float
    softness: float
    rim: float
    rim_width: float
    attenuation: float
    edge_shadow: float

    def border(self, angle: NDArray[Any]) -> NDArray[Any]:
        """The border's radius relative to the oval's, at angles from the mass's own axis to the side, radians."""
        radius = np.ones_like(angle)
        for periods, (amplitude, phase) in enumerate(self.lobes, start=2):
            radius += amplitude * np.cos(periods * angle + phase)
        for direction, length, width in self.spicules:
            away = (angle - direction + np.pi) % (2 * np.pi) - np.pi
            radius += length * np.exp(-(np.abs(away / width) ** 1.5))
        return radius


@dataclasses.dataclass(frozen=True)
class Shade:
    """A shadow without a lesion, below a ligament, a calcification or a lack of contact: a distractor.

    Attributes:
        top: x and depth where it begins, mm.
        width: half of its width, mm.
        slope: how far it runs to the side, mm per mm of depth.
        loss: dB.
    """

    top: Pair
    width: float
    slope: float
    loss: float


@dataclasses.dataclass(frozen=True)
class Probe:
    """What the machine makes of the echoes.

    Attributes:
        axial: standard deviation of the point spread in depth, mm.
        lateral: the same to the sides, in the focus and away from it, mm.
        focus: depth of the focus, mm.
        looks: images from several directions that are averaged, each with speckle of its own.
        slope: gain that is missing or too much, dB per mm of depth.
        uneven: amplitude of the slow changes of the gain over the image, dB.
        noise: of the receiver, at the surface, dB; it grows as the gain does.
        gain: grey value of the gland's mean, 0 to 255.
        range: dB from black to white.
        smoothing: standard deviation of the filter after compression, mm.
    """

    axial: float
    lateral: Pair
    focus: float
    looks: int
    slope: float
    uneven: float
    noise: float
    gain: float
    range: float
    smoothing: float


@dataclasses.dataclass(frozen=True)
class Ultrasound:
    """An ultrasound image of a breast before rendering.

    Attributes:
        seed: what it was drawn from, together with `index`.
        index: number of the case in its set.
        kind: "benign", "malignant" or "normal".
        texture: seed of the random fields (undulation, tissue, speckle).
        width, depth: what the image shows, mm.
        zoom: of the image's size in pixels, relative to the one asked for.
        breast: the layers.
        lesions: what the masks have, each one of its own.
        lobules: dark ovals of fat in the gland, and of gland in the fat; not in the masks.
        shades: shadows that no lesion throws.
        probe: the machine.
    """

    seed: int
    index: int
    kind: str
    texture: int
    width: float
    depth: float
    zoom: float
    breast: Breast
    lesions: tuple[Mass, ...]
    lobules: tuple[Mass, ...]
    shades: tuple[Shade, ...]
    probe: Probe

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, ready for `json.dump`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Ultrasound:
        """The inverse of `to_dict`, also after a trip through JSON."""
        parts: dict[str, Any] = {
            "breast": from_json(Breast, record["breast"]),
            "lesions": tuple(from_json(Mass, one) for one in record["lesions"]),
            "lobules": tuple(from_json(Mass, one) for one in record["lobules"]),
            "shades": tuple(from_json(Shade, one) for one in record["shades"]),
            "probe": from_json(Probe, record["probe"]),
        }
        return cls(**{**record, **parts})
