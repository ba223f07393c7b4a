"""Features of generated brains: the scanner, and what is done to its images."""

from __future__ import annotations

import dataclasses

import numpy as np

from .feature_draws import FeatureDraw, change_head, change_looks, three
from .phantom_record import Appearance, Phantom

__all__ = ["one_scanner", "resolution", "scanner", "sharp", "slips", "strip"]


def resolution(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """Thick slices with what lies between them interpolated, and blur of other resolutions."""

    def look(_: int, old: Appearance) -> Appearance:
        blur = round(old.blur * draw.between(0.7, 1.7), 4)
        if not draw.chance(0.4):
            return dataclasses.replace(old, blur=blur)
        distance = draw.between(3.0, 6.5)
        # A slice as thick as its distance, as the standard deviation of a normal profile.
        return dataclasses.replace(old, blur=blur, slice_distance=distance, slice_blur=round(distance / 2.355, 4))

    return change_looks(phantom, look)


def sharp(phantom: Phantom) -> Phantom:
    """Fine resolution, the same in all modalities."""
    return change_looks(phantom, lambda _, old: dataclasses.replace(old, blur=0.3, slice_blur=0.3))


def strip(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """Skull-stripping that leaves something of what lies around the brain, and takes something of the brain."""
    return change_head(phantom, strip=draw.between(0.5, 4.0)) if draw.chance(0.4) else phantom


def slips(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """One or two modalities that aren't quite where the contrast-enhanced T1 is."""

    def look(channel: int, old: Appearance) -> Appearance:
        if channel == 1 or not draw.chance(0.15):
            return old
        direction = draw.generator.standard_normal(3)
        slip = three(*(direction / np.linalg.norm(direction) * draw.between(0.5, 2.5)))
        return dataclasses.replace(old, slip=slip)

    return change_looks(phantom, look)


def scanner(draw: FeatureDraw, phantom: Phantom) -> Phantom:
    """Scales of several scanners' files, values cut off at the top, shading, and stronger bias fields and gammas."""

    def look(_: int, old: Appearance) -> Appearance:
        return dataclasses.replace(
            old,
            gain=round(draw.log_between(60, 6000), 1),
            ceiling=draw.between(1.9, 4.0) if draw.chance(0.2) else 0.0,
            bias=round(old.bias * draw.between(0.5, 2.2), 4),
            shade=draw.between(0.0, 0.4),
            gamma=round(old.gamma * draw.between(0.7, 1.5), 4),
            noise=round(old.noise * draw.between(0.4, 1.5), 4),
        )

    return change_looks(phantom, look)


def one_scanner(phantom: Phantom) -> Phantom:
    """One scale, no bias field, and little noise."""
    return change_looks(phantom, lambda _, old: dataclasses.replace(old, bias=0.0, gamma=1.0, noise=0.02, gain=400.0))
