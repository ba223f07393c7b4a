"""What the page is made of: pictures (WebP) and charts (SVG that takes its colours from the page)."""

from __future__ import annotations

import base64
import io
import re
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

__all__ = [
    "CHART_COLOURS",
    "REGION_COLOURS",
    "SERIES_COLOURS",
    "Chart",
    "Picture",
    "dark_figure",
    "encode_chart",
    "encode_picture",
]

# Okabe and Ito's palette, told apart with every common colour blindness and on black.
REGION_COLOURS = {"WT": "#56B4E9", "TC": "#F0E442", "ET": "#D55E00"}

# Stand-ins that `encode_chart` turns into the page's own colours, which differ between light and dark.
CHART_COLOURS = {"WT": "#010201", "TC": "#010202", "ET": "#010203", "line": "#010204", "ink": "#010205"}
_INK, _RULE = CHART_COLOURS["ink"], "#010206"
# For what is compared side by side, such as methods; the numbers are those of the page's --series-1, ....
SERIES_COLOURS = tuple(f"#01030{number}" for number in range(1, 7))
_PAGE_COLOURS = {
    CHART_COLOURS["WT"]: "var(--wt)",
    CHART_COLOURS["TC"]: "var(--tc)",
    CHART_COLOURS["ET"]: "var(--et)",
    CHART_COLOURS["line"]: "var(--accent)",
    _INK: "var(--ink)",
    _RULE: "var(--rule)",
    **{stand_in: f"var(--series-{number})" for number, stand_in in enumerate(SERIES_COLOURS, start=1)},
}


class Picture(NamedTuple):
    """A picture inside the page.

    Args:
        data: the encoded file.
        width, height: in pixels.
        alt: what the picture shows, for who can't see it.
        caption: the line below it.
    """

    data: bytes
    width: int
    height: int
    alt: str
    caption: str

    @property
    def uri(self) -> str:
        """The picture as a data URI, so that the page asks for no other file."""
        return "data:image/webp;base64," + base64.b64encode(self.data).decode()


class Chart(NamedTuple):
    """A chart inside the page: SVG markup, what it shows in words, and its caption."""

    svg: str
    alt: str
    caption: str


def dark_figure(pixels: int) -> tuple[Figure, Axes]:
    """A square black figure of that many pixels, filled by one set of axes without frame."""
    figure = Figure(figsize=(pixels / 100, pixels / 100), dpi=100, facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return figure, axes


def encode_picture(figure: Figure, alt: str, caption: str, quality: int = 80) -> Picture:
    """Draws a figure made by `dark_figure` and encodes it as WebP."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    stream = io.BytesIO()
    image.save(stream, format="WEBP", quality=quality, method=6)
    return Picture(stream.getvalue(), image.width, image.height, alt, caption)


def style_chart(axes: Axes) -> None:
    """The page's ink for everything that is text or rule, no box."""
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_RULE)
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0, labelsize=9)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(_INK)
        text.set_fontsize(9)
    for text in axes.texts:
        text.set_color(_INK)


def encode_chart(figure: Figure, alt: str, caption: str) -> Chart:
    """Draws a figure as SVG markup to be put into the page itself, with the page's colours and fonts."""
    for axes in figure.axes:
        style_chart(axes)
    for legend in figure.legends:
        for text in legend.get_texts():
            text.set_color(_INK)
    stream = io.StringIO()
    # A fixed salt, so that the same chart has the same identifiers each time; the caption tells charts apart.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": caption, "font.family": "sans-serif"}):
        figure.savefig(
            stream,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Type": None, "Format": None},
        )
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    # Matplotlib gives every group a name such as axes_1, the same in each chart of the page.
    svg = re.sub(r' id="([^"]+)"', lambda name: name[0] if f"#{name[1]}" in svg else "", svg)
    for stand_in, colour in _PAGE_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return Chart(svg, alt, caption)
