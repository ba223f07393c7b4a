"""Pictures of an image in grey with the outline of what was found in it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion

__all__ = ["draw_overlay", "slices_through"]

MOST_SLICES = 5
# Longest edges in pixels: where the outline, 2 pixels wide, is seen and hides little.
LEAST_PIXELS, MOST_PIXELS, TILE_PIXELS = 384, 1024, 320
_GAP = 4
_COLOUR = (213, 94, 0)  # of Okabe and Ito's palette; on white and on black it is seen best
_PERCENTILES = (1, 99.8)


def draw_overlay(image: np.ndarray, mask: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> Image.Image:
    """Draw a picture, or of a volume a row of axial slices, each with its number, counted from the feet.

    Args:
        image: (slices, H, W), on the axes SPL; 0 is background. A picture is one slice.
        mask: what was found, likewise.
        spacing: of rows and of columns; only their relation matters.

    Returns:
        picture in colours.
    """
    grey = _window(image)
    if len(image) == 1:
        longest = int(np.clip(max(image.shape[1:]), LEAST_PIXELS, MOST_PIXELS))
        return Image.fromarray(_outlined(grey[0], mask[0], spacing, longest))
    tiles = []
    for index in slices_through(mask):
        tile = Image.fromarray(_outlined(grey[index], mask[index], spacing, TILE_PIXELS))
        _write(tile, f"slice {index + 1} of {len(image)}")
        tiles.append(tile)
    width, height = tiles[0].size
    row = Image.new("RGB", (len(tiles) * (width + _GAP) - _GAP, height))
    for place, tile in enumerate(tiles):
        row.paste(tile, (place * (width + _GAP), 0))
    return row


def slices_through(mask: np.ndarray) -> list[int]:
    """At most five slices, evenly through those in which a mask (slices, H, W) has something; else the middle one."""
    found = np.flatnonzero(mask.any(axis=(1, 2)))
    if not len(found):
        return [len(mask) // 2]
    count = min(len(found), MOST_SLICES)
    # Of as many equal parts the middle: at its ends a lesion is small.
    places = (np.arange(count) + 0.5) * len(found) / count
    return found[places.astype(int)].tolist()


def _window(image: np.ndarray) -> np.ndarray:
    """Greys, uint8, between two percentiles of what isn't background."""
    values = image[image != 0]
    low, high = np.percentile(values, _PERCENTILES) if values.size else (0.0, 1.0)
    low = min(low, 0.0) if low == high else low
    return (((image - low) / max(high - low, 1e-12)).clip(0, 1) * 255).round().astype(np.uint8)


def _outlined(grey: np.ndarray, mask: np.ndarray, spacing: tuple[float, float], longest: int) -> np.ndarray:
    """A slice (H, W) with the outline of its mask, (H', W', 3), true to its spacing, H' or W' being `longest`."""
    edges = np.array(grey.shape) * spacing
    rows, columns = (int(edge) for edge in np.maximum(1, (edges * longest / edges.max()).round()))
    picture = Image.fromarray(grey).resize((columns, rows), Image.Resampling.BICUBIC)
    # This filter is the nearest neighbour where it makes larger; where smaller, no pixel of what was found is lost.
    inside = np.asarray(Image.fromarray(mask.astype(np.float32)).resize((columns, rows), Image.Resampling.BOX)) > 0
    colours = np.stack([np.asarray(picture)] * 3, axis=-1)
    colours[binary_dilation(inside) & ~binary_erosion(inside)] = _COLOUR
    return colours


def _write(tile: Image.Image, text: str) -> None:
    """Which slice it is, and which sides of the patient are at its edges."""
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(14)
    right, middle = tile.width - 6, tile.height / 2
    for place, anchor, words in (((6, 4), "la", text), ((6, middle), "lm", "R"), ((right, middle), "rm", "L")):
        draw.text(place, words, "white", font, anchor, stroke_width=2, stroke_fill="black")
