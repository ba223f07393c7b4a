"""A picture of a Segmentation over the series that it refers to, to be looked at before it is sent on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ..atomic import whole_file
from .pictures import REGION_COLOURS
from .planes import PLANES, choose_slice, draw_contour, find_lesion, grey_limits, mark_sides, orient, show_slice

__all__ = ["write_segmentation_picture"]

_PIXELS = 600  # of each plane's edge


def write_segmentation_picture(
    path: Path, image: np.ndarray, label: np.ndarray, affine: np.ndarray, segments: Mapping[int, str]
) -> None:
    """Draw segments in three planes through the largest lesion, or through the middle without one, and name them.

    One that has no voxel isn't named; of one that has some elsewhere it is said that they aren't in these slices.

    Args:
        path: of the PNG file to write.
        image: (X, Y, Z) values of the series.
        label: (X, Y, Z) values of the segments, 0 elsewhere.
        affine: of both; mm, RAS.
        segments: value → what the picture calls it; three at most.

    Raises:
        InputError: the folder can't be written to, or the disk is full.
    """
    (values, spacing), (found, _) = orient(image, affine), orient(label, affine)
    limits = grey_limits(values, values != 0)
    colours = dict(zip(segments, REGION_COLOURS.values(), strict=False))
    present = set(np.unique(found).tolist())
    shown: set[int] = set()
    figure = Figure(figsize=(3 * _PIXELS / 100, _PIXELS / 100), dpi=100, facecolor="black")
    for number, axis in enumerate(PLANES.values()):
        axes = figure.add_axes((number / 3, 0, 1 / 3, 1))
        axes.set_axis_off()
        index = choose_slice(find_lesion(found), axis) if found.any() else found.shape[axis] // 2
        across, down = (other for other in range(3) if other != axis)
        edges = (spacing[across], spacing[down])
        show_slice(axes, values.take(index, axis=axis).T, edges, limits)
        for value, colour in colours.items():
            mask = value == found.take(index, axis=axis).T
            if mask.any():
                shown.add(value)
            show_slice(axes, mask, edges, (0, 1), ListedColormap([colour]), alpha=0.35 * mask)
            draw_contour(axes, mask, edges, colour, dashed=False, width=1)
        mark_sides(axes, across, down)
    for line, value in enumerate(value for value in segments if value in present):
        name = segments[value] if value in shown else f"{segments[value]} (not in these slices)"
        figure.text(
            0.006, 0.975 - 0.035 * line, name, color=colours[value], fontsize=11, va="top",
            path_effects=[withStroke(linewidth=3, foreground="black")],
        )  # fmt: skip
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", facecolor="black")
