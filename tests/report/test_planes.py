"""Planes lie where the lesion is and look as radiologists expect, however the scan is stored."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from common.data.labels import CHANNELS
from common.report.pictures import REGION_COLOURS, Picture
from common.report.planes import (
    MODALITY_NAMES,
    PLANES,
    View,
    choose_slice,
    draw_plane,
    draw_planes,
    find_lesion,
    orient,
)


def pixels(figure: Any) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float)


def decoded(picture: Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.data)))


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "SAL"])
def test_marks_and_places(scan: Any, axes: str) -> None:
    """A bright spot at the patient's right front top is where R, A and S are written."""
    scan = scan.turned(axes)
    image, spacing = orient(scan.image, scan.affine)
    label, _ = orient(scan.label, scan.affine)
    assert spacing == (1.0, 1.0, 2.0)
    view = View(image, spacing, label)
    lesion = find_lesion(label)
    quadrants = {"axial": ("R", "A"), "coronal": ("R", "S"), "sagittal": ("A", "S")}
    for plane, (side, upper) in quadrants.items():
        figure = draw_plane(view, plane, choose_slice(lesion, PLANES[plane]), detail=False, lesion=lesion)
        shown = figure.axes[0].texts
        marks = {text.get_text(): text.get_position() for text in shown}
        assert marks[side][0] < 0.1 and marks[upper][1] > 0.9, plane
        blue = np.abs(pixels(figure) - 255 * np.array(to_rgb(REGION_COLOURS["WT"]))).sum(axis=2) < 40
        rows, columns = np.nonzero(blue)
        assert columns.mean() < 200 and rows.mean() < 200, plane


def test_contours_agree_with_the_mask(scan: Any) -> None:
    """Contour lines in mm run half a voxel outside the outermost voxels' centres."""
    label, spacing = orient(scan.label, scan.affine)
    image, _ = orient(scan.image, scan.affine)
    index = choose_slice(label == 1, 1)
    figure = draw_plane(View(image, spacing, label), "coronal", index, detail=True, lesion=find_lesion(label))
    wanted = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
    for contours, labels in zip(figure.axes[0].collections, wanted.values(), strict=True):
        x, z = np.nonzero(np.isin(label[:, index], labels))
        vertices = contours.get_paths()[0].vertices
        assert vertices.min(axis=0) == pytest.approx([x.min() - 0.5, 2 * (z.min() - 0.5)])
        assert vertices.max(axis=0) == pytest.approx([x.max() + 0.5, 2 * (z.max() + 0.5)])


def test_prediction_is_dashed_and_reference_solid(scan: Any) -> None:
    image, spacing = orient(scan.image, scan.affine)
    label, _ = orient(scan.label, scan.affine)
    other = np.where(label == 2, 2, 0).astype(np.uint8)
    lesion = find_lesion(label)
    figure = draw_plane(View(image, spacing, label, other), "axial", choose_slice(label == 1, 2), True, lesion)
    dashes = [contours.get_linestyle()[0][1] for contours in figure.axes[0].collections]
    assert [dash is None for dash in dashes] == [True, True, True, False]


@pytest.mark.parametrize("axes", ["LPS", "LAS", "PIR", "SAL"])
def test_stored_otherwise_the_pictures_are_the_same_to_the_bit(scan: Any, axes: str) -> None:
    turned = scan.turned(axes)
    first = draw_planes("a", scan.image, scan.affine, scan.label, None)
    assert first == draw_planes("a", turned.image, turned.affine, turned.label, None)
    assert len(first) == 6


def test_voxels_are_shown_in_mm(scan: Any) -> None:
    """In the coronal plane the box of 32 mm × 32 mm of brain, 32 voxels × 16, is a square."""
    picture = decoded(draw_planes("a", scan.image, scan.affine, scan.label, None)[2])
    grey = picture.max(axis=2) > 60
    rows, columns = (np.flatnonzero(np.convolve(grey.mean(axis=a), np.ones(3) / 3, "same") > 0.5) for a in (1, 0))
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), rel=0.06)


def test_the_largest_lesion_is_chosen(scan: Any) -> None:
    label = scan.label.copy()
    lesion = find_lesion(label)
    assert lesion.sum() == 10 * 12 * 6 and not lesion[8, 8, 4]


@pytest.mark.parametrize("spot", [None, 0])
def test_without_any_lesion_the_middle_of_the_brain_is_shown(scan: Any, spot: int | None) -> None:
    label = None if spot is None else np.zeros_like(scan.label)
    pictures = draw_planes("a", scan.image, scan.affine, label, np.zeros_like(scan.label))
    assert [p.caption for p in pictures] == [
        "Axial, FLAIR, slice 11 of 20",
        "Coronal, FLAIR, slice 25 of 48",
        "Sagittal, FLAIR, slice 21 of 40",
    ]


def test_the_modality_follows_the_enhancing_tumour(scan: Any) -> None:
    assert "T1 with contrast" in draw_planes("a", scan.image, scan.affine, scan.label, None)[0].caption
    only_edema = np.where(scan.label > 0, 2, 0).astype(np.uint8)
    assert "FLAIR" in draw_planes("a", scan.image, scan.affine, None, only_edema)[0].caption
    one_voxel = np.zeros_like(scan.label)
    one_voxel[0, 0, 0] = 3
    assert len(draw_planes("a", scan.image, scan.affine, one_voxel, None)) == 6


def test_every_picture_says_what_it_shows(scan: Any) -> None:
    for picture in draw_planes("case-7", scan.image, scan.affine, scan.label, scan.label):
        assert "case-7" in picture.alt and "reference and prediction" in picture.alt
        assert (picture.width, picture.height) == decoded(picture).shape[:2]


def test_a_modality_that_is_missing_is_not_shown(scan: Any) -> None:
    def shown(*missing: str) -> str:
        image = scan.image.copy()
        image[[CHANNELS.index(name) for name in missing]] = 0
        return draw_planes("a", image, scan.affine, scan.label, None)[0].caption.split(",")[1].strip()

    assert shown() == MODALITY_NAMES["t1c"]
    assert shown("t1c") == MODALITY_NAMES["t2f"]
    assert shown("t1c", "t2f") == MODALITY_NAMES["t1n"]
