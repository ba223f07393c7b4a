"""Where segments are in the picture, in each plane, and in which colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageColor

from common.errors import InputError
from common.report.segmentation_picture import write_segmentation_picture

SHAPE = (40, 50, 60)  # to the right, the front and the crown
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
NAMES = {1: "core", 2: "edema", 3: "enhancing"}
COLOURS = {1: "#56B4E9", 2: "#F0E442", 3: "#D55E00"}


def drawn(path: Path, label: np.ndarray) -> np.ndarray:
    """The picture (600, 1800, 3) of a label map over a flat image."""
    write_segmentation_picture(path, np.ones(SHAPE), label, AFFINE, NAMES)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def box_of(pixels: np.ndarray, colour: str) -> tuple[int, int, int, int] | None:
    """First and last row, first and last column of a colour."""
    rows, columns = np.nonzero(np.abs(pixels - ImageColor.getrgb(colour)).max(axis=-1) < 30)
    return (rows.min(), rows.max(), columns.min(), columns.max()) if rows.size else None


def test_where_a_segment_is(tmp_path: Path):
    label = np.zeros(SHAPE, np.uint8)
    label[::-1, ::-1, ::-1][3:13, 20:30, 40:55] = 2  # from the right, the front and the crown
    pixels = drawn(tmp_path / "a.png", label)
    # Voxels across, down, and the segment's first and last edges along both.
    expected = {0: (40, 50, 3, 13, 20, 30), 1: (40, 60, 3, 13, 40, 55), 2: (50, 60, 20, 30, 40, 55)}
    for plane, (across, down, left, right, top, bottom) in expected.items():
        panel = pixels[120:, 600 * plane : 600 * (plane + 1)]  # below the segments' names
        pixel = 600 / down
        blank = (600 - across * pixel) / 2
        wanted = (top * pixel - 120, bottom * pixel - 120, blank + left * pixel, blank + right * pixel)
        np.testing.assert_allclose(box_of(panel, COLOURS[2]), wanted, atol=8)
        assert box_of(panel, COLOURS[1]) is None and box_of(panel, COLOURS[3]) is None


def test_colours_have_names_and_differ(tmp_path: Path):
    label = np.zeros(SHAPE, np.uint8)
    label[10:20, 20:40, 20:40], label[20:30, 20:40, 20:40], label[30:35, 20:40, 20:40] = 1, 2, 3
    pixels = drawn(tmp_path / "a.png", label)
    for value, colour in COLOURS.items():
        assert box_of(pixels[120:, :600], colour), NAMES[value]
    empty = drawn(tmp_path / "b.png", np.zeros(SHAPE, np.uint8))
    for colour in COLOURS.values():
        assert not box_of(empty, colour)


def test_names_of_segments_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not of those that have no voxel; and one that lies elsewhere is said to."""
    named: dict[str, str] = {}
    text = Figure.text

    def note(figure: Figure, x: float, y: float, name: str, color: str, **options: Any) -> Any:
        named[name] = color
        return text(figure, x, y, name, color=color, **options)

    monkeypatch.setattr(Figure, "text", note)
    label = np.zeros(SHAPE, np.uint8)
    label[10:20, 20:40, 20:40], label[0, 0, 0] = 2, 3
    drawn(tmp_path / "a.png", label)
    assert named == {"edema": COLOURS[2], "enhancing (not in these slices)": COLOURS[3]}


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can't be written"):
        write_segmentation_picture(tmp_path / "file" / "a.png", np.ones(SHAPE), np.zeros(SHAPE), AFFINE, NAMES)
