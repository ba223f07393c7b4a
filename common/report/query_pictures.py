"""What each query of a 3D-TransUNet paints, in colours over axial slices."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patheffects import withStroke

from ..data.labels import REGIONS
from ..metrics.lesion_table import connected
from .attention import Study
from .pictures import Picture, encode_picture
from .planes import View, choose_axial_slice, choose_slice, draw_tile, find_lesion, orient

__all__ = ["draw_queries"]

NAMES_SHOWN = 3  # at one place in a picture
TITLES = {"WT": "Whole tumour (WT)", "TC": "Tumour core (TC)", "ET": "Enhancing tumour (ET)"}


def draw_queries(
    case: str,
    study: Study,
    window: tuple[slice, slice, slice],
    painters: np.ndarray,
    reference: np.ndarray | None,
    prediction: np.ndarray | None,
    lesions: np.ndarray,
    colours: dict[int, str],
) -> list[Picture]:
    """Draw what is painted of each region in an axial slice through the largest lesion, and, of all, from above.

    Args:
        case: name, for the pictures' descriptions.
        study: of the case.
        window: what part of its image (X, Y, Z) is drawn.
        painters: the query that paints each voxel of each region in the window (K, x, y, z), −1 for none.
        reference, prediction: label maps (X, Y, Z) on the study's grid, canonical, or None.
        lesions: numbers of those to be named (X, Y, Z), 0 elsewhere.
        colours: of the queries.

    Returns:
        a picture for each region, and one of all slices laid on one another.
    """
    labels = (None if label is None else label[window] for label in (reference, prediction))
    view = View.turned(study.image[(slice(None), *window)], study.affine, *labels)
    painters, _ = orient(painters, study.affine)
    index = _choose_slice(view)
    pictures = []
    for number, (region, outline) in enumerate(REGIONS.items()):
        plane = painters[number, :, :, index].T
        figure, axes = draw_tile(view, index, outline)
        voxels = _fill(axes, [plane], colours)
        for query in voxels:
            box = {"facecolor": colours[query], "edgecolor": "black", "boxstyle": "square,pad=0.15", "linewidth": 0.8}
            _write(axes, plane == query, view.spacing[:2], str(query), color="black", bbox=box)
        what = ", ".join(f"query {query} paints {count} voxels" for query, count in voxels.items()) or "nothing painted"
        alt = f"Case {case}, axial plane, {TITLES[region]}: {what}"
        pictures.append(encode_picture(figure, alt, TITLES[region]))

    flat = _flatten(view)
    figure, axes = draw_tile(flat, 0, REGIONS["WT"])
    # Of those that paint above one another, the smallest region is seen, and of its queries that of highest number.
    _fill(axes, [layer.max(axis=2).T for layer in painters], colours)
    numbered, _ = orient(lesions[window], study.affine)
    edge = [withStroke(linewidth=2.5, foreground="black")]
    for shadow, text in _name_shadows(numbered):
        _write(axes, shadow.T, view.spacing[:2], text, color="white", path_effects=edge)
    alt = f"Case {case}, all axial slices of the window laid on one another, with the lesions' numbers"
    return [*pictures, encode_picture(figure, alt, "All slices, with the lesions' numbers")]


def _choose_slice(view: View) -> int:
    """The axial slice at which the smallest region of the largest lesion is widest: there the others are, too."""
    if view.guide is not None:
        lesion = find_lesion(view.guide)
        for labels in reversed(REGIONS.values()):
            part = lesion & np.isin(view.guide, labels)
            if part.any():
                return choose_slice(part, 2)
    return choose_axial_slice(view)


def _name_shadows(lesions: np.ndarray) -> list[tuple[np.ndarray, str]]:
    """Where lesions (X, Y, Z) are seen from above (X, Y), with their numbers; those that touch there share a name."""
    together = connected(np.asarray((lesions > 0).any(axis=2))[..., None])[..., 0]
    names: dict[int, list[str]] = {}
    for number in np.unique(lesions[lesions > 0]).tolist():
        place = together[np.asarray((lesions == number).any(axis=2))]
        names.setdefault(int(place[0]), []).append(str(number))
    return [
        (together == part, ", ".join(numbers[:NAMES_SHOWN] + ["…"] * (len(numbers) > NAMES_SHOWN)))
        for part, numbers in names.items()
    ]


def _flatten(view: View) -> View:
    """All axial slices on one another: the brightest value of the brain at each place."""
    inside = view.brain
    image = np.where(inside, view.image, -np.inf).max(axis=3, keepdims=True)
    labels = (
        None if label is None else label.max(axis=2, keepdims=True) for label in (view.reference, view.prediction)
    )
    return View(np.where(np.isfinite(image), image, 0), view.spacing, *labels)


def _fill(axes: Axes, layers: list[np.ndarray], colours: dict[int, str]) -> dict[int, int]:
    """Lay slices of painters (rows, columns) in their colours over the picture; gives the voxels of each painter."""
    voxels: dict[int, int] = {}
    paint = np.zeros((*layers[0].shape, 4))
    for layer in layers:
        for query in np.unique(layer[layer >= 0]).tolist():
            paint[layer == query] = (*to_rgb(colours[query]), 0.6)
            voxels[query] = int((layer == query).sum())
    axes.imshow(paint, extent=axes.get_images()[0].get_extent(), interpolation="nearest")
    return voxels


def _write(axes: Axes, mask: np.ndarray, spacing: tuple[float, ...], text: str, **look: Any) -> None:
    """Write beside the largest connected part of a slice's mask (rows, columns), where there is more room."""
    parts = connected(mask[..., None])[..., 0]
    rows, columns = np.nonzero(parts == np.bincount(parts.ravel())[1:].argmax() + 1)
    right = columns.max() + columns.min() < mask.shape[1]
    x = (columns.max() + 1.5 if right else columns.min() - 1.5) * spacing[0]
    side = "left" if right else "right"
    axes.text(x, rows.mean() * spacing[1], text, ha=side, va="center", fontsize=9, weight="bold", **look)
