"""A small picture of each missed and each false lesion: an axial slice with the outlines of both label maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..data.labels import CHANNELS, REGIONS
from ..data.nifti_file import AFFINE_TOLERANCE
from ..data.pairs import LabelMaps, Pair
from ..data.reading import read_image
from ..errors import CaseError
from ..metrics.lesion_table import connected, dilate
from ..metrics.lesion_wise import Lesion, RegionScores
from ..transforms.crop import bounding_box
from .pictures import REGION_COLOURS, Picture, dark_figure, encode_picture
from .planes import MODALITY_NAMES, choose_channel, draw_contour, mark_sides, orient, orient_point, show_slice

__all__ = ["FIELD_MM", "CaseCutouts", "Cutout", "Group", "cut_case", "diameter", "draw_cutout", "lost_lesions"]

FIELD_MM = 50.0
PIXELS = 240
# A larger lesion can't be taken for another one beside it.
ARROW_BELOW_MM = 20.0

_Scan = dict[bool, tuple[str, np.ndarray]]
"""For enhancing tumour or not, the modality to show and its voxels."""

# Grey of labels 0 to 3 where there is no scan to show.
_SILHOUETTE = np.array([0, 110, 60, 160], dtype=np.uint8)


class Group(NamedTuple):
    """Whose lesions they are: those of a region that a method missed, or its false ones."""

    method: str
    region: str
    missed: bool


class Cutout(NamedTuple):
    """The surroundings of a lesion in an axial slice, as radiologists look at it.

    Args:
        group: what the lesion belongs to.
        case: name.
        lesion: which one.
        modality: of the scan; empty where the labels themselves are shown.
        values: grey (rows, columns), 0 to 255.
        reference, prediction: masks (rows, columns) of the region.
        spacing: width and height of a pixel in mm.
        centre: middle of the picture in mm from the centre of the first pixel, across and down.
    """

    group: Group
    case: str
    lesion: Lesion
    modality: str
    values: np.ndarray
    reference: np.ndarray
    prediction: np.ndarray
    spacing: tuple[float, float]
    centre: tuple[float, float]


@dataclass
class CaseCutouts:
    """What there is to picture of a case.

    Args:
        cutouts: one a lesion.
        repeated: how many lesions of each group are left out because they lie in one that is pictured in a wider
            region.
        problem: why the scan isn't shown, empty where it is or there is none.
    """

    cutouts: list[Cutout] = field(default_factory=list)
    repeated: Counter[Group] = field(default_factory=Counter)
    problem: str = ""


def diameter(volume: float) -> float:
    """Of a ball of that volume."""
    return float(2 * (3 * volume / (4 * np.pi)) ** (1 / 3))


def lost_lesions(scores: RegionScores, missed: bool) -> list[Lesion]:
    """The lesions that count and were missed, or the false ones."""
    if missed:
        return [lesion for lesion in scores.lesions if lesion.scored and not lesion.detected]
    return scores.false_positives


def cut_case(
    pairs: Mapping[str, Pair],
    scores: Mapping[str, Mapping[str, RegionScores]],
    dilation: int,
    ignore_affine: bool = False,
) -> CaseCutouts:
    """Cuts out every missed and every false lesion of a case, once, in the widest region in which it is lost.

    Args:
        pairs: the case's files by method.
        scores: method → region → scores; regions from the widest to the narrowest.
        dilation: steps by which the reference's lesions were dilated to join them.
        ignore_affine: see `Pair.read`.

    Raises:
        CaseError: a label map can't be read. A scan that can't be is told of instead.
    """
    found = CaseCutouts()
    lost = {
        (method, missed): {r: lesions for r, one in regions.items() if (lesions := lost_lesions(one, missed))}
        for method, regions in scores.items()
        for missed in (True, False)
    }
    if not any(lost.values()):
        return found
    scan: _Scan | None = None
    for method, pair in pairs.items():
        if not lost[method, True] and not lost[method, False]:
            continue
        # Read anew, for the scored label maps of all cases and methods together would fill the memory.
        maps = pair.read(ignore_affine)
        if scan is None:
            scan, found.problem = _read_scan(pair, maps)
        case = _Case(pair.case, scan, maps)
        for missed in (True, False):
            pictured: list[tuple[np.ndarray, set[int]]] = []
            for region, lesions in lost[method, missed].items():
                group = Group(method, region, missed)
                places = [case.turned(lesion.first_voxel) for lesion in lesions]
                numbers = _number(case.masks(region)[0 if missed else 1], dilation if missed else 0)
                for lesion, place in zip(lesions, places, strict=True):
                    if any(wider[place] in shown for wider, shown in pictured):
                        found.repeated[group] += 1
                    else:
                        found.cutouts.append(case.cut(group, lesion, numbers))
                pictured.append((numbers, {int(numbers[place]) for place in places}))
    return found


def _number(mask: np.ndarray, dilation: int) -> np.ndarray:
    """Numbers what is one lesion: what holds together once the mask is dilated."""
    numbers = np.zeros(mask.shape, np.uint32)
    box = bounding_box(mask, margin=dilation)
    numbers[box] = connected(dilate(mask[box], dilation))
    return numbers


def _read_scan(pair: Pair, maps: LabelMaps) -> tuple[_Scan, str]:
    """The modalities to show as greys from 0 to 255, turned; nothing where there is no scan that fits."""
    if not pair.reference.get("image"):
        return {}, ""
    try:
        image, affine = read_image(pair.reference)
    except CaseError as error:
        return {}, str(error)
    if image.shape[1:] != maps.reference.shape or np.abs(affine - maps.affine).max() > AFFINE_TOLERANCE:
        return {}, f"case {pair.case}: the scan's grid is not that of {pair.reference['label']}"
    scan = {}
    for enhancing in (True, False):
        number = choose_channel(image, enhancing)
        channel, _ = orient(image[number], affine)
        low, high = np.percentile(channel[channel != 0], (1, 99.9))
        grey = (np.clip((channel - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
        scan[enhancing] = (MODALITY_NAMES[CHANNELS[number]], grey)
    return scan, ""


class _Case:
    """Label maps and scan of a case, turned as radiologists look at it."""

    def __init__(self, name: str, scan: _Scan, maps: LabelMaps) -> None:
        self.name, self.scan = name, scan
        self.shape, self.affine = maps.reference.shape, maps.affine
        self.reference, self.spacing = orient(maps.reference, maps.affine)
        self.prediction, _ = orient(maps.prediction, maps.affine)

    def turned(self, point: tuple[float, ...]) -> tuple[int, int, int]:
        x, y, z = (round(float(value)) for value in orient_point(point, self.shape, self.affine))
        return x, y, z

    def masks(self, region: str) -> tuple[np.ndarray, np.ndarray]:
        labels = REGIONS[region]
        return np.isin(self.reference, labels), np.isin(self.prediction, labels)

    def cut(self, group: Group, lesion: Lesion, numbers: np.ndarray) -> Cutout:
        """The surroundings of a lesion; `numbers` tells its voxels from those of others."""
        source = self.reference if group.missed else self.prediction
        labels = REGIONS[group.region]
        place = self.turned(lesion.first_voxel)
        # The centroid of several parts, or of a bent one, can lie where none of it is.
        for centre in (orient_point(lesion.centroid, self.shape, self.affine), np.array(place)):
            window = self._window(centre)
            inside = np.isin(source[window], labels) & (numbers[window] == numbers[place])
            if inside.any():
                break
        if self.scan:
            modality, grey = self.scan[bool(np.isin(source[window][inside], REGIONS["ET"]).any())]
            values = grey[window]
        else:
            modality = ""
            values = _SILHOUETTE[np.where(self.reference[window], self.reference[window], self.prediction[window])]
        start = np.array([part.start for part in window[:2]])
        across, down = ((centre[:2] - start) * self.spacing[:2]).tolist()
        return Cutout(
            group=group,
            case=self.name,
            lesion=lesion,
            modality=modality,
            values=values.T.copy(),
            reference=np.isin(self.reference[window], labels).T,
            prediction=np.isin(self.prediction[window], labels).T,
            spacing=self.spacing[:2],
            centre=(across, down),
        )

    def _window(self, centre: np.ndarray) -> tuple[slice, slice, int]:
        """What of the slice through a point (x, y, z) the picture shows."""
        parts = []
        for place, size, count in zip(centre[:2], self.spacing[:2], self.reference.shape[:2], strict=True):
            reach = FIELD_MM / 2 / size + 1
            parts.append(slice(max(0, int(place - reach)), min(count, int(place + reach) + 2)))
        return parts[0], parts[1], round(float(centre[2]))


def draw_cutout(cutout: Cutout) -> Picture:
    """Draws a lesion in the middle of a square of FIELD_MM, the reference solid and the prediction dashed.

    An arrow points to a small one, which others may lie beside.
    """
    region, lesion = cutout.group.region, cutout.lesion
    figure, axes = dark_figure(PIXELS)
    show_slice(axes, cutout.values, cutout.spacing, (0, 255))
    for mask, dashed in ((cutout.reference, False), (cutout.prediction, True)):
        draw_contour(axes, mask, cutout.spacing, REGION_COLOURS[region], dashed, width=1.3)
    x, y = cutout.centre
    if diameter(lesion.volume) < ARROW_BELOW_MM:
        tip = diameter(lesion.volume) / 2**1.5 + 1
        style = {"arrowstyle": "-|>", "mutation_scale": 9, "facecolor": "white", "edgecolor": "white", "shrinkB": 0}
        axes.annotate("", (x + tip, y - tip), (x + tip + 6, y - tip - 6), arrowprops=style)
    axes.set_xlim(x - FIELD_MM / 2, x + FIELD_MM / 2)
    axes.set_ylim(y + FIELD_MM / 2, y - FIELD_MM / 2)
    mark_sides(axes, 0, 1, size=9)
    volume = f"{lesion.volume:.0f}" if lesion.volume >= 10 else f"{lesion.volume:.1f}"
    place = ", ".join(f"{value:.0f}" for value in lesion.centroid)
    shown = cutout.modality or "label maps"
    caption = f"{cutout.case}: {region}, {volume} mm³, ⌀ {diameter(lesion.volume):.1f} mm, voxel {place}, {shown}"
    kind = "missed" if cutout.group.missed else "false"
    alt = f"Case {cutout.case}, axial plane, {shown}, {kind} lesion of {volume} mm³ in {region}, with the contours"
    return encode_picture(figure, alt, caption)
