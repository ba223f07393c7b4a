"""Three planes through the largest lesion, as radiologists show them, with the contours of reference and prediction."""

from __future__ import annotations

from typing import NamedTuple

import cc3d
import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ..data.labels import CHANNELS, REGIONS
from .pictures import REGION_COLOURS, Picture, dark_figure, encode_picture

__all__ = [
    "AXIS_MARKS",
    "PLANES",
    "View",
    "choose_axial_slice",
    "choose_channel",
    "draw_contour",
    "draw_plane",
    "draw_planes",
    "draw_tile",
    "find_lesion",
    "grey_limits",
    "mark_sides",
    "orient",
    "orient_point",
    "show_slice",
]

# Arrays are turned so that their axes run to the patient's left, back and feet (LPI). A transposed slice is then
# already what radiologists look at: the patient's right on the left, the nose up or to the left, the crown up.
_ORIENTATION = nib.orientations.axcodes2ornt("LPI")
AXIS_MARKS = (("R", "L"), ("A", "P"), ("S", "I"))
MODALITY_NAMES = {"t1n": "T1", "t1c": "T1 with contrast", "t2w": "T2", "t2f": "FLAIR"}
PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}

OVERVIEW_PIXELS, DETAIL_PIXELS, TILE_PIXELS = 400, 480, 260
DETAIL_MARGIN_MM, DETAIL_LEAST_MM = 12.0, 50.0


class View(NamedTuple):
    """One case turned to LPI.

    Args:
        image: (4, X, Y, Z), channels in canonical order.
        spacing: edge lengths of a voxel in mm.
        reference, prediction: label maps (X, Y, Z), canonical; None where there is none.
    """

    image: np.ndarray
    spacing: tuple[float, float, float]
    reference: np.ndarray | None = None
    prediction: np.ndarray | None = None

    @classmethod
    def turned(
        cls, image: np.ndarray, affine: np.ndarray, reference: np.ndarray | None, prediction: np.ndarray | None
    ) -> View:
        """Of a case as it was read: its arrays, all with one affine, are turned."""
        upright, spacing = orient(image, affine)
        labels = (None if label is None else orient(label, affine)[0] for label in (reference, prediction))
        return cls(upright, spacing, *labels)

    @property
    def brain(self) -> np.ndarray:
        """Mask (X, Y, Z) of the voxels that are not 0 in every modality."""
        return np.asarray(np.any(self.image, axis=0))

    @property
    def guide(self) -> np.ndarray | None:
        """The label map that says where to look: the reference if it holds a lesion, else the prediction."""
        for label in (self.reference, self.prediction):
            if label is not None and label.any():
                return label
        return None

    @property
    def channel(self) -> int:
        """The modality to show."""
        enhancing = self.guide is not None and np.isin(self.guide, REGIONS["ET"]).any()
        return choose_channel(self.image, bool(enhancing))


def choose_channel(image: np.ndarray, enhancing: bool) -> int:
    """Choose the modality to show: T1 with contrast for enhancing tumour, else FLAIR; another where it is missing.

    Args:
        image: (4, X, Y, Z), channels in canonical order, zeros where a modality is missing.
        enhancing: whether the tumour is.
    """
    names = ("t1c", "t2f", "t1n", "t2w") if enhancing else ("t2f", "t1c", "t2w", "t1n")
    channels = [CHANNELS.index(name) for name in names]
    return next((channel for channel in channels if image[channel].any()), channels[0])


def orient(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Turns an array (..., X, Y, Z) to LPI by flips and permutations, the nearest to it where the scan is oblique.

    Returns:
        the array and its spacing in mm.
    """
    change = nib.orientations.ornt_transform(nib.orientations.io_orientation(affine), _ORIENTATION)
    leading, trailing = range(array.ndim - 3), range(3 - array.ndim, 0)
    turned = nib.orientations.apply_orientation(np.moveaxis(array, leading, trailing), change)
    turned = np.moveaxis(turned, trailing, leading)
    sizes = np.empty(3)
    sizes[change[:, 0].astype(int)] = nib.affines.voxel_sizes(affine)
    return np.ascontiguousarray(turned), (float(sizes[0]), float(sizes[1]), float(sizes[2]))


def orient_point(point: tuple[float, ...], shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Where a voxel (i, j, k) of an array (X, Y, Z) is once `orient` has turned it."""
    change = nib.orientations.ornt_transform(nib.orientations.io_orientation(affine), _ORIENTATION)
    return nib.affines.apply_affine(np.linalg.inv(nib.orientations.inv_ornt_aff(change, shape)), point)


def find_lesion(label: np.ndarray) -> np.ndarray:
    """The largest connected part (26 neighbours) of everything that is not background, as a mask (X, Y, Z)."""
    return np.asarray(cc3d.largest_k(label > 0, k=1, connectivity=26)) > 0


def choose_slice(mask: np.ndarray, axis: int) -> int:
    """The index along `axis` at which the mask is widest."""
    return int(mask.sum(axis=tuple(a for a in range(3) if a != axis)).argmax())


def choose_axial_slice(view: View) -> int:
    """The index of the axial slice at which the largest lesion is widest; the middle one where there is none."""
    return view.image.shape[3] // 2 if view.guide is None else choose_slice(find_lesion(view.guide), 2)


def _box(mask: np.ndarray, spacing: tuple[float, float]) -> tuple[np.ndarray, float]:
    """Centre (column, row) and longer edge, in mm, of the box around a slice's mask (rows, columns)."""
    low = np.array([np.flatnonzero(mask.any(axis=a))[0] for a in (0, 1)])
    high = np.array([np.flatnonzero(mask.any(axis=a))[-1] for a in (0, 1)])
    return (low + high) / 2 * spacing, float(((high - low + 1) * spacing).max())


def show_slice(
    axes: Axes,
    values: np.ndarray,
    spacing: tuple[float, float],
    limits: tuple[float, float],
    cmap: str | Colormap = "gray",
    alpha: float | np.ndarray = 1.0,
) -> None:
    """Shows a slice (rows, columns) in mm; the centre of its first voxel is the origin."""
    width, height = spacing
    rows, columns = values.shape
    extent = (-width / 2, (columns - 0.5) * width, (rows - 0.5) * height, -height / 2)
    axes.imshow(values, cmap=cmap, vmin=limits[0], vmax=limits[1], extent=extent, interpolation="bilinear", alpha=alpha)


def grey_limits(image: np.ndarray, brain: np.ndarray, most: float = 99.9) -> tuple[float, float]:
    """What is shown black and white: the percentiles 1 and `most` of the image's values in the brain's mask."""
    low, high = np.percentile(image[brain], (1, most)) if brain.any() else (0.0, 1.0)
    return float(low), float(high)


def draw_contour(
    axes: Axes, mask: np.ndarray, spacing: tuple[float, float], colour: str, dashed: bool, width: float = 1.8
) -> None:
    """Outlines a slice's mask (rows, columns) with a line of some points; it runs halfway between voxels in and out."""
    if not mask.any() or mask.all():
        return
    x, y = np.arange(mask.shape[1]) * spacing[0], np.arange(mask.shape[0]) * spacing[1]
    lines = axes.contour(x, y, mask, levels=[0.5], colors=[colour], linewidths=width)
    if dashed:
        lines.set_linestyle((0, (2.2, 1.6)))
        # A dark edge keeps the dashes apart from a solid line of the same colour below them.
        lines.set_path_effects([withStroke(linewidth=width + 2.4, foreground="black")])


def mark_sides(axes: Axes, across: int, down: int, size: float = 13) -> None:
    """Writes at each edge of a picture which side of the patient is there, for a slice along two axes of LPI."""
    (left, right), (top, bottom) = AXIS_MARKS[across], AXIS_MARKS[down]
    for x, y, text in ((0.03, 0.5, left), (0.97, 0.5, right), (0.5, 0.965, top), (0.5, 0.035, bottom)):
        axes.text(
            x, y, text, transform=axes.transAxes, color="white", fontsize=size, weight="bold", ha="center", va="center",
            path_effects=[withStroke(linewidth=3, foreground="black")],
        )  # fmt: skip


def draw_tile(view: View, index: int, outline: tuple[int, ...]) -> tuple[Figure, Axes]:
    """Draws an axial slice, small, with a white outline of some labels.

    The outline is that of the reference, or, dashed, of the prediction where there is no reference.
    """
    spacing = (view.spacing[0], view.spacing[1])
    image = view.image[view.channel, :, :, index].T
    figure, axes = dark_figure(TILE_PIXELS)
    # Normalised, the background is no longer the darkest: it is 0 amid values of both signs.
    brain = view.brain[:, :, index].T
    limits = grey_limits(image, brain)
    show_slice(axes, np.where(brain, image, limits[0]), spacing, limits)
    if view.guide is not None:
        mask = np.isin(view.guide[:, :, index].T, outline)
        draw_contour(axes, mask, spacing, "white", dashed=view.guide is not view.reference)
    mark_sides(axes, 0, 1, size=9)
    return figure, axes


def _scale_bar(axes: Axes, field_mm: float) -> None:
    length = max(step for step in (5, 10, 20, 50) if step <= max(field_mm / 4, 5))
    (left, _), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y = left + 0.05 * field_mm, bottom - 0.05 * (bottom - top)
    outline = [withStroke(linewidth=5, foreground="black")]
    axes.plot([x, x + length], [y, y], color="white", linewidth=2.5, solid_capstyle="butt", path_effects=outline)
    axes.text(
        x, y - 0.02 * field_mm, f"{length} mm", color="white", fontsize=11, ha="left", va="bottom",
        path_effects=[withStroke(linewidth=3, foreground="black")],
    )  # fmt: skip


def draw_plane(view: View, plane: str, index: int, detail: bool, lesion: np.ndarray | None = None) -> Figure:
    """Draws one plane.

    Args:
        view: the case.
        plane: axial, coronal or sagittal.
        index: which slice along the plane's axis.
        detail: the surroundings of the lesion with all regions, instead of the whole brain with the whole tumour only.
        lesion: mask (X, Y, Z) of what the detail surrounds, and what the overview frames.
    """
    axis = PLANES[plane]
    across, down = (a for a in range(3) if a != axis)
    spacing = (view.spacing[across], view.spacing[down])

    def cut(array: np.ndarray) -> np.ndarray:
        return array.take(index, axis=axis).T

    channel = view.image[view.channel]
    brain = view.brain
    limits = grey_limits(channel, brain)
    figure, axes = dark_figure(DETAIL_PIXELS if detail else OVERVIEW_PIXELS)
    show_slice(axes, cut(channel), spacing, limits)

    outline = np.asarray(np.any(brain, axis=axis)).T
    centre, field = _box(outline if outline.any() else np.ones_like(outline), spacing)
    field *= 1.12
    if lesion is not None:
        middle, edge = _box(cut(lesion), spacing)
        near = min(max(edge + 2 * DETAIL_MARGIN_MM, DETAIL_LEAST_MM), field)
        if detail:
            centre, field = middle, near
        else:
            frame = Rectangle(
                (middle[0] - near / 2, middle[1] - near / 2), near, near, fill=False, edgecolor="white", lw=1
            )
            axes.add_patch(frame)
    regions = tuple(REGIONS) if detail else ("WT",)
    for label, dashed in ((view.reference, False), (view.prediction, True)):
        if label is not None:
            for region in regions:
                draw_contour(axes, np.isin(cut(label), REGIONS[region]), spacing, REGION_COLOURS[region], dashed)
    axes.set_xlim(centre[0] - field / 2, centre[0] + field / 2)
    axes.set_ylim(centre[1] + field / 2, centre[1] - field / 2)
    mark_sides(axes, across, down)
    if detail:
        _scale_bar(axes, field)
    return figure


def draw_planes(
    case: str, image: np.ndarray, affine: np.ndarray, reference: np.ndarray | None, prediction: np.ndarray | None
) -> list[Picture]:
    """Draws an overview and, where there is a lesion, a detail of each plane, axial first.

    The planes are those at which the largest lesion is widest: of the reference, of the prediction where the reference
    has none, and through the middle of the brain's box where neither has one.

    Args:
        case: name, for the pictures' descriptions.
        image: (4, X, Y, Z), channels in canonical order.
        affine: of the image and both label maps.
        reference, prediction: label maps (X, Y, Z), canonical, or None.
    """
    view = View.turned(image, affine, reference, prediction)
    lesion = None if view.guide is None else find_lesion(view.guide)
    brain = view.brain
    modality = MODALITY_NAMES[CHANNELS[view.channel]]
    label_maps = {"reference": reference, "prediction": prediction}
    shown = " and ".join(name for name, label in label_maps.items() if label is not None)
    pictures = []
    for plane, axis in PLANES.items():
        if lesion is not None:
            index = choose_slice(lesion, axis)
        else:
            extent = np.flatnonzero(brain.any(axis=tuple(a for a in range(3) if a != axis)))
            index = int(extent[[0, -1]].mean()) if extent.size else brain.shape[axis] // 2
        # Counted from the feet, the back and the left, as viewers do.
        name = f"{plane.capitalize()}, {modality}, slice {brain.shape[axis] - index} of {brain.shape[axis]}"
        for detail in (False, True) if lesion is not None else (False,):
            what = "detail around the largest lesion" if detail else "whole brain"
            alt = f"Case {case}, {plane} plane, {what}, {modality}, with the contours of {shown}"
            figure = draw_plane(view, plane, index, detail, lesion)
            pictures.append(encode_picture(figure, alt, f"{name}: detail" if detail else name))
    return pictures
