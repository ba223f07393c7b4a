"""Which query of a 3D-TransUNet paints which lesion.

Yang et al., "3D-TransUNet for Brain Metastases Segmentation in the BraTS2023 Challenge", section 2.2: each query says a
class, one of the regions or none, and paints a mask. A region is where the sum over the queries of class probability ×
mask is above a half. So each voxel of it is counted here to the query that gives most of that sum, and what the queries
paint of a region adds up to the region.

Queries decide anew in each window, and so they are asked in one only: that of the size of the inference's windows
around the largest lesion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.inferers import Inferer
from monai.utils import fall_back_tuple
from torch import nn

from ..data.labels import REGIONS
from ..inferers.ensemble import first_member
from ..metrics.lesion_table import connected
from ..networks.transunet3d import TransUNet3D
from .attention import Study
from .pictures import Picture
from .planes import View
from .query_pictures import draw_queries

__all__ = ["Answers", "LesionRow", "QueryRow", "QuerySection", "ask_queries", "describe_queries", "paint"]

LESIONS_SHOWN = 12
# Okabe and Ito's palette, first those of its colours that the page has not for the regions; told apart with every
# common colour blindness and on black.
COLOURS = ("#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442", "#D55E00")
OTHER = "#BBBBBB"


class Answers(NamedTuple):
    """What the queries say and paint in one window.

    Args:
        window: where it lies in the image (X, Y, Z); at the edges of a small image it is less than the network took in.
        size: voxels that the network took in along each axis.
        classes: probabilities (Q, K + 1), the last of "no object".
        painters: (K, x, y, z), the query that gives most of a region's probability where that is above a half, else −1.
    """

    window: tuple[slice, slice, slice]
    size: tuple[int, ...]
    classes: np.ndarray
    painters: np.ndarray


class QueryRow(NamedTuple):
    """A query and a region that it says or paints.

    Args:
        query: its number.
        colour: in the pictures; empty where it has painted nothing in this case or an earlier one.
        region: WT, TC or ET.
        probability: that it gives the region.
        volume: that it paints of it in the window, ml.
        lesions: numbers of those of which it paints some.
    """

    query: int
    colour: str
    region: str
    probability: str
    volume: str
    lesions: str


class LesionRow(NamedTuple):
    """A lesion, its volume in ml, and for each region which queries paint it, with the share that each does."""

    number: int
    volume: str
    painted: dict[str, str]


class QuerySection(NamedTuple):
    """What a case's section says of the queries.

    Args:
        pictures: axial slices of the window, one a region, and one of all slices; none where nothing is said.
        rows: of the queries that say or paint a region.
        lesions: that lie in the window, the largest.
        queries: how many there are.
        size: of the window, in words.
        about: what it lies around.
        source: what the lesions are of, "reference" or "prediction".
        alone: it holds the whole image.
        members: how many an ensemble has; the queries are those of the first.
        blends: what the prediction is the mean of, in words; empty where it is of this window only.
        said: sentences on what no row can tell.
    """

    pictures: list[Picture]
    rows: list[QueryRow]
    lesions: list[LesionRow]
    queries: int
    size: str
    about: str
    source: str
    alone: bool
    members: int
    blends: str
    said: list[str]


def paint(classes: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Which query paints each voxel of each region.

    Args:
        classes: probabilities (Q, K + 1), the last of "no object".
        masks: probabilities (Q, D, H, W).

    Returns:
        (K, D, H, W), int16: the query that gives most of the sum of probability × mask, −1 where this isn't above a
        half.
    """
    total = torch.zeros((classes.shape[1] - 1, *masks.shape[1:]), device=masks.device)
    most, painters = total.clone(), torch.full_like(total, -1, dtype=torch.int16)
    # One by one, since the products of all queries and classes would take gigabytes.
    for query, (probabilities, mask) in enumerate(zip(classes[:, :-1], masks, strict=True)):
        share = probabilities[:, None, None, None] * mask
        painters[share > most] = query
        most = torch.maximum(most, share)
        total += share
    painters[total <= 0.5] = -1
    return painters


def ask_queries(network: TransUNet3D, inferer: Inferer, image: np.ndarray, centre: Sequence[float]) -> Answers:
    """Ask the queries in one window of the inference's size, with its precision, as it lies in the image.

    Args:
        network: has queries; left in evaluation mode. Of an ensemble it gets the first member's weights.
        inferer: of the bundle's inference.
        image: (4, X, Y, Z), preprocessed.
        centre: voxel that the window lies around, as far as the image goes.
    """
    inferer = first_member(inferer, network)
    shape = image.shape[1:]
    size = _window_size(inferer, shape)
    low = [max(0, min(round(c - s / 2), n - s)) for c, s, n in zip(centre, size, shape, strict=True)]
    x, y, z = (slice(start, min(start + s, n)) for start, s, n in zip(low, size, shape, strict=True))
    classes: list[torch.Tensor] = []

    def answer(window: torch.Tensor) -> torch.Tensor:
        probabilities, masks = network.queries(window)
        classes.append(probabilities[0])
        return paint(probabilities[0], masks[0])[None].float()

    crop = torch.from_numpy(np.ascontiguousarray(image[:, x, y, z]))[None]
    network.eval()
    with torch.inference_mode():
        painters = inferer(crop.to(next(network.parameters()).device), answer)
    # Weighted by the window's Gaussian and divided by it, whole numbers are so only nearly.
    return Answers((x, y, z), size, classes[0].cpu().numpy(), painters[0].round().short().cpu().numpy())


def _window_size(inferer: Inferer, shape: Sequence[int]) -> tuple[int, ...]:
    """Of what slides windows, somewhere within; the whole image where nothing does."""
    inner: object = inferer
    while inner is not None:
        if (size := getattr(inner, "roi_size", None)) is not None:
            return tuple(map(int, fall_back_tuple(size, shape)))
        inner = getattr(inner, "inferer", None)
    return tuple(shape)


def _number_lesions(guide: np.ndarray) -> np.ndarray:
    """The connected parts (26 neighbours) of a label map, numbered from 1 by size, the largest first."""
    parts = connected(guide > 0)
    order = np.argsort(-np.bincount(parts.ravel())[1:], kind="stable")
    numbers = np.zeros(len(order) + 1, np.int32)
    numbers[order + 1] = np.arange(1, len(order) + 1)
    return numbers[parts]


def describe_queries(
    case: str,
    network: nn.Module,
    inferer: Inferer,
    study: Study,
    reference: np.ndarray | None,
    prediction: np.ndarray | None,
    colours: dict[int, str],
) -> QuerySection | None:
    """Ask the queries of a network around a case's largest lesion, and draw and list what they paint.

    Args:
        case: name, for the pictures' descriptions.
        network, inferer: see `ask_queries`.
        study: of the case.
        reference, prediction: label maps (X, Y, Z) on the study's grid, canonical, or None.
        colours: of the queries of earlier cases; new ones are added to it, so that each has one on the whole page.

    Returns:
        the case's section; None of a network without queries.
    """
    if not isinstance(network, TransUNet3D) or network.query_decoder is None:
        return None
    whole = View(study.image, (1.0, 1.0, 1.0), reference, prediction)
    guide = whole.guide if whole.guide is not None else np.zeros(study.image.shape[1:], np.uint8)
    lesions = _number_lesions(guide)
    inside = np.argwhere(lesions == 1) if lesions.any() else np.argwhere(whole.brain)
    centre = (inside.min(axis=0) + inside.max(axis=0) + 1) / 2 if len(inside) else np.array(lesions.shape) / 2
    answers = ask_queries(network, inferer, study.image, centre.tolist())
    counts, sizes = _count(answers, guide[answers.window], lesions[answers.window])
    millilitres = abs(float(np.linalg.det(study.affine[:3, :3]))) / 1000
    _choose_colours(answers, colours)
    rows = _query_rows(answers, counts, sizes, millilitres, colours)
    numbers = np.flatnonzero(sizes["WT"]).tolist()
    listed = numbers[:LESIONS_SHOWN]
    pictures = []
    if rows:
        named = np.where(np.isin(lesions, listed), lesions, 0)
        pictures = draw_queries(case, study, answers.window, answers.painters, reference, prediction, named, colours)
    volumes = np.bincount(lesions.ravel()) * millilitres
    alone = answers.painters.shape[1:] == lesions.shape
    members, views = (len(getattr(inferer, name, ())) for name in ("members", "views"))
    blended = {"several windows": not alone, f"{members} members": members > 1, f"{views} views": views > 1}
    return QuerySection(
        pictures=pictures,
        rows=rows,
        lesions=[_lesion_row(n, volumes[n], counts, sizes) for n in listed] if rows else [],
        queries=len(answers.classes),
        size="×".join(map(str, answers.size)),
        about="the largest lesion" if lesions.any() else "the middle of the brain",
        source="prediction" if whole.guide is not reference else "reference",
        alone=alone,
        members=members,
        blends=" and ".join(text for text, there in blended.items() if there),
        said=_say(answers, rows, numbers, int(lesions.max()), counts),
    )


def _count(
    answers: Answers, guide: np.ndarray, lesions: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Of each region the voxels by lesion (0: none) and query (−1 last), and those of each lesion's part, in a window.

    Returns:
        region → (L + 1, Q + 1), and region → (L + 1,), where that of no lesion is 0.
    """
    queries, last = len(answers.classes), int(lesions.max())
    counts, sizes = {}, {}
    for painters, (region, labels) in zip(answers.painters, REGIONS.items(), strict=True):
        part = np.where(np.isin(guide, labels), lesions, 0)
        places = part * (queries + 1) + painters % (queries + 1)
        counts[region] = np.bincount(places.ravel(), minlength=(last + 1) * (queries + 1)).reshape(last + 1, -1)
        sizes[region] = counts[region].sum(axis=1)
        sizes[region][0] = 0
    return counts, sizes


def _choose_colours(answers: Answers, colours: dict[int, str]) -> None:
    """Give each query that paints and has no colour yet the next one, those that paint most first; the last share."""
    voxels = np.bincount(answers.painters[answers.painters >= 0], minlength=len(answers.classes))
    for query in np.argsort(-voxels, kind="stable").tolist():
        if voxels[query] and query not in colours:
            colours[query] = COLOURS[len(colours)] if len(colours) < len(COLOURS) else OTHER


def _query_rows(
    answers: Answers,
    counts: dict[str, np.ndarray],
    sizes: dict[str, np.ndarray],
    millilitres: float,
    colours: dict[int, str],
) -> list[QueryRow]:
    """Of each region, largest volume first, the queries that paint some of it or whose likeliest class it is."""
    says = answers.classes.argmax(axis=1)
    rows = []
    for number, (region, table) in enumerate(counts.items()):
        voxels = table[:, :-1].sum(axis=0)
        for query in np.argsort(-voxels, kind="stable").tolist():
            if voxels[query] or says[query] == number:
                covered = np.flatnonzero((table[:, query] > 0) & (sizes[region] > 0))
                rows.append(
                    QueryRow(
                        query,
                        colours.get(query, ""),
                        region,
                        f"{answers.classes[query, number]:.2f}",
                        _volume(voxels[query] * millilitres),
                        ", ".join(map(str, covered)) or "none",
                    )
                )
    return rows


def _lesion_row(number: int, volume: float, counts: dict[str, np.ndarray], sizes: dict[str, np.ndarray]) -> LesionRow:
    painted = {}
    for region, table in counts.items():
        voxels = table[number, :-1]
        order = [query for query in np.argsort(-voxels, kind="stable").tolist() if voxels[query]]
        shares = [f"{query}: {_share(voxels[query] / sizes[region][number])}" for query in order]
        painted[region] = ", ".join(shares) or ("missed" if sizes[region][number] else "–")
    return LesionRow(number, _volume(volume), painted)


def _volume(millilitres: float) -> str:
    return "0" if not millilitres else f"{millilitres:.2f}" if millilitres >= 0.005 else "<0.01"


def _share(part: float) -> str:
    return f"{part:.0%}" if part >= 0.005 else "<1%"


def _say(
    answers: Answers, rows: list[QueryRow], numbers: list[int], lesions: int, counts: dict[str, np.ndarray]
) -> list[str]:
    """What the tables leave out, in sentences."""
    said = []
    if not rows:
        query, region = np.unravel_index(answers.classes[:, :-1].argmax(), answers.classes[:, :-1].shape)
        nearest = f"{[*REGIONS][region]} with {answers.classes[query, region]:.2f}"
        said.append(f"No query says a region here, and none is painted; query {query} comes nearest: {nearest}.")
    elif not (answers.painters >= 0).any():
        said.append("Queries say a region here, but none is painted.")
    if len(numbers) < lesions:
        said.append(f"{len(numbers)} of the case's {lesions} lesions lie in this window or reach into it.")
    if rows and len(numbers) > LESIONS_SHOWN:
        rest = numbers[LESIONS_SHOWN:]
        found = int((counts["WT"][rest, :-1].sum(axis=1) > 0).sum())
        said.append(f"The {LESIONS_SHOWN} largest of them are listed; of the {len(rest)} others {found} are found.")
    return said
