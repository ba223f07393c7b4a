"""Renders the record of a generated ultrasound image: echoes of the tissue, their way through it, speckle, greys.

As in the usual linear models of B-mode images, random scatterers as strong as the tissue's echo are blurred by the
point spread. The envelope of what comes back has Rayleigh's distribution: speckle. Its logarithm is shown.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .phantom_fields import Array, Fields
from .ultrasound_record import Breast, Mass, Probe, Shade, Ultrasound

__all__ = ["render_ultrasound", "ultrasound_shape"]

_DECIBEL = np.float32(np.log(10) / 20)


def ultrasound_shape(phantom: Ultrasound, size: int) -> tuple[int, int]:
    """Height and width in pixels of the image, which has about size x size of them; pixels are square."""
    root = (phantom.width / phantom.depth) ** 0.5
    return round(size * phantom.zoom / root), round(size * phantom.zoom * root)


def render_ultrasound(phantom: Ultrasound, size: int = 256) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]:
    """Image and masks of a record; the same record and size give the same bits.

    Args:
        phantom: what `draw_ultrasound` gave, or `Ultrasound.from_dict` of a saved record.
        size: root of the number of pixels, about; the record's millimetres hold at every size.

    Returns:
        image: (H, W) uint8, the probe at the top.
        masks: of each lesion, (H, W) uint8, 0 or 255; none of a normal breast.
    """
    height, width = ultrasound_shape(phantom, size)
    pixel = phantom.depth / height
    x = ((np.arange(width) - (width - 1) / 2) * pixel).astype(np.float32)
    depth = ((np.arange(height) + 0.5) * pixel).astype(np.float32)
    scene = _Scene(phantom, x, depth, pixel)
    echo = scene.tissue(phantom.breast)
    loss = np.zeros_like(echo)
    for lobule in phantom.lobules:
        scene.add_mass(echo, loss, lobule)
    masks = [np.where(scene.add_mass(echo, loss, lesion) > 0, 255, 0).astype(np.uint8) for lesion in phantom.lesions]
    for number, shade in enumerate(phantom.shades):
        scene.add_shade(loss, shade, number)
    loss = ndimage.gaussian_filter1d(loss, 0.8 / pixel, axis=1, mode="nearest", truncate=3)
    return scene.scan(echo - loss, phantom.probe), masks


class _Scene:
    """The pixel grid of one image, (H, W), with the random fields of its record."""

    def __init__(self, phantom: Ultrasound, x: Array, depth: Array, pixel: float) -> None:
        self.fields, self.pixel = Fields(phantom.texture), pixel
        self.x, self.depth = x, depth

    def field(self, name: str, deep: float, sideways: float) -> Array:
        """A random field whose lattice has knots that far apart, mm."""
        return self.fields.field(name, (deep, sideways), (self.depth, self.x))

    def tissue(self, breast: Breast) -> Array:
        """Mean echo of the layers, dB."""
        skin, fat, muscle, wall = breast.level
        below = [self._below(breast, number) for number in range(6)]
        gel_end, skin_end, fat_end, gland_end, behind_end, muscle_end = below
        echo = np.full((len(self.depth), len(self.x)), -40, dtype=np.float32)
        fatty = fat + self._septa() * breast.septa + 1.5 * self.field("fat", 3, 5)
        # Streaks run along the layer they are in.
        gland = breast.texture[0] * self._along(fat_end, "streaks", 0.7, 4.5)
        gland += breast.texture[1] * (0.7 * self.field("patches", 2, 3.5) + 0.7 * self.field("regions", 5, 9))
        fibres = breast.texture[2] * self._along(behind_end, "fibres", 0.5, 11)
        layers = (
            (gel_end, np.float32(skin)),
            (skin_end, fatty),
            (fat_end, gland),
            (gland_end, fatty),
            (behind_end, muscle + fibres),
            (muscle_end, wall + 2 * self._along(muscle_end, "wall", 1.2, 6)),
        )
        for border, level in layers:
            echo += _step(border, 0.35) * (level - echo)
        # Fascia: thin and bright along the muscle; the skin has a bright line on either side.
        lines = ((gel_end, 5, 0.15), (skin_end, 4, 0.15), (behind_end, 9, 0.25), (muscle_end, 16, 0.4))
        for border, height, thickness in lines:
            echo += height * np.exp(-((border / thickness) ** 2))
        return echo

    def _below(self, breast: Breast, number: int) -> Array:
        """How far each pixel is below a border, mm."""
        wave = self.fields.field(f"border {number}", 9, (self.x,))
        wave += 0.35 * self.fields.field(f"detail {number}", 3, (self.x,))
        # The skin lies at the probe, what is deeper may lie aslant.
        border = breast.borders[number] + breast.waves[number] * wave + breast.tilt * self.x * min(number, 2) / 2
        return np.asarray(self.depth[:, None] - border, np.float32)

    def _along(self, below: Array, name: str, deep: float, sideways: float) -> Array:
        """A field that follows a border, at half of its undulation."""
        straight = self.field(name, deep, sideways)
        shift = (below - below.mean(axis=1, keepdims=True)) / (2 * self.pixel)
        rows = np.arange(len(self.depth), dtype=np.float32)[:, None] + shift
        columns = np.broadcast_to(np.arange(len(self.x), dtype=np.float32), rows.shape)
        return ndimage.map_coordinates(straight, [rows, columns], order=1, mode="reflect")

    def _septa(self) -> Array:
        """1 on the thin walls between lobules of fat, 0 elsewhere: where a field crosses 0."""
        crossing = self.field("septa", 2.4, 5.5) + 0.3 * self.field("septa detail", 0.9, 1.6)
        slope = np.hypot(*np.gradient(crossing, self.pixel)) + 0.05
        strength = np.clip(0.6 + 0.5 * self.field("septa strength", 3, 5), 0, 1)
        return strength * np.exp(-((crossing / (slope * 0.16)) ** 2))

    def add_mass(self, echo: Array, loss: Array, mass: Mass) -> Array:
        """Put a mass into the tissue, and what it takes from the sound into the loss; how deep inside it is, mm."""
        dx, dy = self.x[None, :] - mass.centre[0], self.depth[:, None] - mass.centre[1]
        cos, sin = math.cos(mass.tilt), math.sin(mass.tilt)
        sideways, deep = (dx * cos + dy * sin) / mass.radii[0], (dy * cos - dx * sin) / mass.radii[1]
        mean = (mass.radii[0] * mass.radii[1]) ** 0.5
        inside: Array = (mass.border(np.arctan2(deep, sideways)) - np.hypot(sideways, deep)) * mean
        part = _step(inside, mass.softness)
        name = f"mass {mass.centre}"
        rough = self.field(name, 1.2, 1.6)
        # Capsule or halo: bright just outside the border, more here than there.
        rim = np.exp(-(((inside + mass.rim_width / 2) / mass.rim_width) ** 2))
        echo += mass.rim * rim * np.clip(0.7 + 0.6 * rough, 0, 1.6)
        echo += part * (mass.level + mass.texture * rough - echo)
        path = np.cumsum(part, axis=0) * self.pixel
        # What stands in a shadow is not evenly dark: the tissue above lets some sound through.
        loss += mass.attenuation * path * np.clip(1 + 0.25 * self.fields.field(f"{name} rays", 1.5, (self.x,)), 0.3, 2)
        if mass.edge_shadow:
            edge = np.abs(dx) - 0.93 * mass.radii[0]
            loss += mass.edge_shadow * np.exp(-((edge / 0.5) ** 2)) * _step(dy - 0.2 * mass.radii[1], 2.0)
        return inside

    def add_shade(self, loss: Array, shade: Shade, number: int) -> None:
        """Add a shadow that no lesion throws to the loss."""
        down = self.depth[:, None] - shade.top[1]
        wave = 0.35 * shade.width * self.fields.field(f"shade {number}", 6, (self.depth,))[:, None]
        off = self.x[None, :] - shade.top[0] - shade.slope * down + wave
        loss += shade.loss * _step(down - 1, 3.0) * np.exp(-(np.abs(off / shade.width) ** 3))

    def scan(self, level: Array, probe: Probe) -> NDArray[np.uint8]:
        """The image, (H, W) uint8, of echo levels in dB."""
        gain = probe.slope * self.depth[:, None] + probe.uneven * self.field("gain", 14, 14)
        amplitude = np.exp((level + gain) * _DECIBEL)
        noise = np.exp((probe.noise + 0.3 * self.depth[:, None]) * _DECIBEL)
        away = np.clip(np.abs(self.depth[:, None] - probe.focus) / 18, 0, 1)
        envelope = np.zeros_like(level)
        for look in range(probe.looks):
            stream = self.fields.generator(f"speckle {look}")
            power = np.zeros_like(level)
            for _ in range(2):  # the two quadratures
                power += self._receive(stream, amplitude, noise, away, probe) ** 2
            envelope += np.sqrt(power) / probe.looks
        shown = np.log(envelope + np.float32(1e-6)) / _DECIBEL
        if probe.smoothing > 0.25 * self.pixel:
            shown = ndimage.gaussian_filter(shown, probe.smoothing / self.pixel, truncate=3)
        return np.clip(np.rint(probe.gain + shown * (255 / probe.range)), 0, 255).astype(np.uint8)

    def _receive(self, stream: np.random.Generator, amplitude: Array, noise: Array, away: Array, probe: Probe) -> Array:
        """One quadrature of the echo: scatterers under the point spread, sharp in the focus, wider away from it."""
        shape = amplitude.shape
        near, far = (
            _spread(
                stream.standard_normal(shape, dtype=np.float32) * amplitude,
                probe.axial / self.pixel,
                lateral / self.pixel,
            )
            for lateral in probe.lateral
        )
        signal = np.sqrt(1 - away) * near + np.sqrt(away) * far
        return signal + noise * _spread(stream.standard_normal(shape, dtype=np.float32), 0.6, 0.6)


def _spread(scatterers: Array, axial: float, lateral: float) -> Array:
    """The scatterers blurred with standard deviations in pixels, without loss of variance."""
    for axis, sigma in enumerate((axial, lateral)):
        sigma = max(sigma, 0.4)
        delta = np.zeros(2 * int(4 * sigma + 1) + 1, np.float32)
        delta[len(delta) // 2] = 1
        kernel = ndimage.gaussian_filter1d(delta, sigma, truncate=3)
        scatterers = ndimage.convolve1d(scatterers, kernel / np.sqrt((kernel**2).sum()), axis=axis, mode="reflect")
    return scatterers


def _step(distance: Array, width: float) -> Array:
    """0 where the distance is far below 0, 1 far above, over a width."""
    t = np.clip(distance / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)
