"""Lesion-wise scores as the BraTS 2023 challenges define them, and what else can be read off the same table."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.labels import REGIONS
from ..errors import InputError
from ..transforms.crop import bounding_box
from .lesion_table import Component, LesionTable, lesion_table
from .surfaces import Spacing

__all__ = ["NUMBERS", "PRESETS", "SIZE_BINS", "Lesion", "Policy", "RegionScores", "lesion_wise_scores", "policy_of"]

SIZE_BINS = (0.0, 50.0, 200.0, 1000.0, 5000.0, math.inf)
"""Bounds (mm³) of the sizes that sensitivities are told for."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """What a challenge or paper sets.

    Attributes:
        dilation: steps of 18 neighbours by which the reference is dilated to join and match lesions.
        threshold: lesions of at most this volume (mm³) aren't scored.
        penalty: HD95 (mm) of a missed lesion and of a false positive, and of a region that is empty in one only.
        whole_volume: Dice and HD95 are those of the whole region and not lesion-wise.
        tolerance: of the surface Dice, in mm.

    Raises:
        InputError: the steps aren't a whole number, or another number is negative or not finite.
    """

    dilation: int
    threshold: float
    penalty: float = 374.0
    whole_volume: bool = False
    tolerance: float = 1.0

    def __post_init__(self) -> None:
        for name, kind, meaning in (
            ("dilation", numbers.Integral, "a whole number of steps"),
            ("threshold", numbers.Real, "a volume in mm³"),
            ("penalty", numbers.Real, "a distance in mm"),
            ("tolerance", numbers.Real, "a distance in mm"),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool) or not 0 <= float(value) < math.inf:
                raise InputError(f"{name} is {value!r}: give {meaning}, zero or above")


PRESETS = {
    "brats2023-met": Policy(1, 2),
    "brats2023-men": Policy(1, 50),
    "brats2023-gli": Policy(3, 50),
    "brats2023-ssa": Policy(3, 50),
    "brats2023-ped": Policy(3, 50),
    "fancl": Policy(1, 2, penalty=373.1287, whole_volume=True),
}
"""Those of the BraTS 2023 challenges, and the whole-volume one of FANCL's paper (its section IV-B), with lesions
counted as in -met. The paper leaves open what the Dice is where both are empty: it is 1, as in the challenges."""


def policy_of(preset: str | Policy, **given: Any) -> Policy:
    """The policy of a preset (or one itself), with what is given and not None in place of its values.

    Raises:
        InputError: the preset or the name of a value is unknown, or a value means nothing (see `Policy`).
    """
    if not isinstance(preset, Policy):
        if not isinstance(preset, str) or preset not in PRESETS:
            raise InputError(f"preset {preset!r} is unknown; use one of {', '.join(PRESETS)}")
        preset = PRESETS[preset]
    names = [field.name for field in dataclasses.fields(Policy)]
    if unknown := given.keys() - set(names):
        raise InputError(f"{min(unknown)} is no setting of a policy; use some of {', '.join(names)}")
    return dataclasses.replace(preset, **{name: value for name, value in given.items() if value is not None})


@dataclasses.dataclass(frozen=True)
class Lesion:
    """A lesion of the reference, or a false positive.

    Attributes:
        first_voxel: lexicographically smallest of its voxels (i, j, k).
        centroid: mean position (i, j, k) of its voxels.
        volume: mm³.
        dice: of the lesion and all components that match it together; 0 where nothing does.
        hd95: likewise, mm; inf where nothing matches.
        detected: whether anything matches.
        matched_components: first voxels of the predicted components that match it.
        scored: whether it counts, being larger than the policy's threshold; false positives always do.
    """

    first_voxel: tuple[int, int, int]
    centroid: tuple[float, float, float]
    volume: float
    dice: float
    hd95: float
    detected: bool
    matched_components: tuple[tuple[int, int, int], ...] = ()
    scored: bool = True

    @property
    def iou(self) -> float:
        """Intersection over union, from the Dice."""
        return self.dice / (2 - self.dice)


@dataclasses.dataclass(frozen=True)
class RegionScores:
    """Scores of one region of one case.

    Attributes:
        dice: lesion-wise Dice: sum over the scored lesions divided by their number plus the false positives'.
        hd95: lesion-wise HD95 in mm, where each missed lesion and false positive counts as the penalty.
        tp: scored lesions that something matches.
        fp: predicted components that match no lesion, of any size.
        fn: scored lesions that nothing matches.
        volume_dice: Dice of the whole region, 1 where both are empty.
        volume_hd95: HD95 of the whole region in mm, 0 where both are empty, the penalty where one is.
        sensitivity: voxel-wise; where the reference is empty 1 if the prediction is too, else 0.
        specificity: voxel-wise, 0 where the reference fills the image.
        reference_volume: mm³.
        lesions: those of the reference, the ones too small to count too.
        false_positives: the components that match no lesion.
        prediction_volume: mm³.
        surface_dice: share of both surfaces of the whole region that is within the tolerance of the other.
    """

    dice: float
    hd95: float
    tp: int
    fp: int
    fn: int
    volume_dice: float
    volume_hd95: float
    sensitivity: float
    specificity: float
    reference_volume: float
    lesions: list[Lesion]
    false_positives: list[Lesion]
    prediction_volume: float
    surface_dice: float

    @property
    def lesion_sensitivity(self) -> float:
        """Share of the scored lesions that are detected; NaN where there is none."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def lesion_precision(self) -> float:
        """Detected lesions per detected lesion or false positive; NaN where there is neither."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def lesion_f1(self) -> float:
        """Harmonic mean of the two, also panoptic quality's recognition quality; 1 where there is nothing at all.

        A NaN there would leave a case out of a mean just where a false lesion would make it 0.
        """
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn) if self.tp + self.fp + self.fn else 1.0

    @property
    def segmentation_quality(self) -> float:
        """Mean intersection over union of the detected scored lesions (panoptic quality's SQ); NaN where none is."""
        found = [lesion.iou for lesion in self.lesions if lesion.scored and lesion.detected]
        return _ratio(math.fsum(found), len(found))

    @property
    def panoptic_quality(self) -> float:
        """SQ times RQ; 0 where no lesion is detected, 1 where there is nothing at all."""
        return self.segmentation_quality * self.lesion_f1 if self.tp else self.lesion_f1

    @property
    def volume_error(self) -> float:
        """Predicted minus true volume in mm³."""
        return self.prediction_volume - self.reference_volume

    @property
    def absolute_volume_error(self) -> float:
        """Its size without its sign, so that over- and underestimates don't cancel in a mean."""
        return abs(self.volume_error)

    @property
    def relative_volume_error(self) -> float:
        """The (signed) volume error as a share of the true volume; NaN where that is 0."""
        return _ratio(self.volume_error, self.reference_volume)

    def sensitivity_by_size(self, bounds: Sequence[float] = SIZE_BINS) -> dict[tuple[float, float], tuple[int, int]]:
        """Detected and all scored lesions of each size: (more than, at most) in mm³ -> (detected, all)."""
        bins = {}
        for low, high in pairwise(bounds):
            inside = [lesion for lesion in self.lesions if lesion.scored and low < lesion.volume <= high]
            bins[low, high] = (sum(lesion.detected for lesion in inside), len(inside))
        return bins


NUMBERS = tuple(
    [field.name for field in dataclasses.fields(RegionScores) if field.type in ("float", "int")]
    + [name for name, value in vars(RegionScores).items() if isinstance(value, property)]
)
"""What of `RegionScores` is a number; annotations are text here, as the module postpones them."""


def lesion_wise_scores(
    prediction: NDArray[np.integer],
    reference: NDArray[np.integer],
    spacing: Sequence[float],
    preset: str | Policy = "brats2023-met",
    *,
    dilation: int | None = None,
    threshold: float | None = None,
    penalty: float | None = None,
    regions: Mapping[str, Sequence[int]] = REGIONS,
    tolerance: float | None = None,
) -> dict[str, RegionScores]:
    """Lesion-wise scores of one case, for each region.

    Source: Saluja et al., the evaluation of the BraTS 2023 challenges, whose script's values these are to the last bit.
    For that, give the spacing of the *prediction's* file, as the script does: NIfTI's float32 values.

    Args:
        prediction: label map (D, H, W), integers.
        reference: likewise.
        spacing: voxel size in mm, one value an axis.
        preset: name of a policy of `PRESETS`, or a policy.
        dilation, threshold, penalty, tolerance: replace the preset's; see `Policy`.
        regions: name → labels that make it up; a label of no region is background, as 0 always is.

    Returns:
        region → scores.

    Raises:
        InputError: the arrays aren't label maps of one shape in 3D, the spacing isn't three positive numbers, a region
            isn't of labels other than 0, or the preset is unknown or what replaces its values means nothing.
    """
    policy = policy_of(preset, dilation=dilation, threshold=threshold, penalty=penalty, tolerance=tolerance)
    x, y, z = _checked_spacing(spacing)
    prediction, reference = _checked_label_maps(prediction, reference)
    _check_regions(regions)

    size = prediction.size
    box = bounding_box((prediction != 0) | (reference != 0), margin=policy.dilation)
    origin = (box[0].start, box[1].start, box[2].start)
    prediction, reference = prediction[box], reference[box]
    scores = {}
    for name, labels in regions.items():
        predicted, true = (_mask(label_map, labels) for label_map in (prediction, reference))
        table = lesion_table(predicted, true, (x, y, z), policy.dilation, origin)
        scores[name] = _score(table, (x, y, z), policy, size)
    return scores


def _mask(label_map: NDArray[np.integer], labels: Sequence[int]) -> NDArray[np.bool_]:
    return np.logical_or.reduce([label_map == label for label in labels])


def _check_regions(regions: Mapping[str, Sequence[int]]) -> None:
    for name, labels in regions.items():
        whole = isinstance(labels, Sequence) and all(isinstance(label, numbers.Integral) for label in labels)
        if not whole or not labels or 0 in labels:
            raise InputError(f"region {name} is {labels!r}: give a list of labels other than 0, which is background")


def _checked_spacing(spacing: Sequence[float]) -> Spacing:
    try:
        x, y, z = (float(value) for value in spacing)
    except (TypeError, ValueError):
        x = y = z = math.nan
    if not all(math.isfinite(value) and value > 0 for value in (x, y, z)):
        raise InputError(f"spacing {spacing}: give three positive numbers, in mm")
    return x, y, z


def _checked_label_maps(*arrays: NDArray[np.integer]) -> tuple[NDArray[np.integer], ...]:
    maps = tuple(np.asarray(array) for array in arrays)
    for label_map in maps:
        if label_map.ndim != 3:
            raise InputError(f"a label map is {label_map.ndim}D; give integers (D, H, W)")
        if label_map.dtype.kind not in "biu":
            raise InputError(f"a label map is of type {label_map.dtype}; give integers")
    if maps[0].shape != maps[1].shape:
        raise InputError(f"shapes differ: prediction {maps[0].shape}, reference {maps[1].shape}; resample one of them")
    return maps


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _score(table: LesionTable, spacing: Spacing, policy: Policy, size: int) -> RegionScores:
    def volume(voxels: int) -> float:
        return voxels * spacing[0] * spacing[1] * spacing[2]

    components, unmatched = table.components, table.unmatched
    lesions = [
        Lesion(
            first_voxel=row.lesion.first_voxel,
            centroid=row.lesion.centroid,
            volume=volume(row.lesion.voxels),
            dice=row.dice,
            hd95=row.hd95,
            detected=bool(row.matched),
            matched_components=tuple(components[index].first_voxel for index in row.matched),
            scored=volume(row.lesion.voxels) > policy.threshold,
        )
        for row in table.rows
    ]
    scored = [lesion for lesion in lesions if lesion.scored]
    detected = sum(lesion.detected for lesion in scored)
    volume_dice, volume_hd95 = _whole_volume(table, policy)
    dice, hd95 = (volume_dice, volume_hd95) if policy.whole_volume else _lesion_wise(scored, len(unmatched), policy)
    background = size - table.prediction - table.reference + table.overlap
    negative = size - table.reference
    empty = not table.prediction and not table.reference
    return RegionScores(
        dice=dice,
        hd95=hd95,
        tp=detected,
        fp=len(unmatched),
        fn=len(scored) - detected,
        volume_dice=volume_dice,
        volume_hd95=volume_hd95,
        sensitivity=table.overlap / table.reference if table.reference else float(empty),
        specificity=background / negative if negative else 0.0,
        reference_volume=volume(table.reference),
        lesions=lesions,
        false_positives=[_false_positive(components[index], volume) for index in unmatched],
        prediction_volume=volume(table.prediction),
        surface_dice=_surface_dice(table, policy.tolerance),
    )


def _false_positive(component: Component, volume: Callable[[int], float]) -> Lesion:
    return Lesion(component.first_voxel, component.centroid, volume(component.voxels), 0.0, math.inf, False)


def _lesion_wise(scored: Sequence[Lesion], false_positives: int, policy: Policy) -> tuple[float, float]:
    count = len(scored) + false_positives
    if not count:
        return 1.0, 0.0
    distances = [lesion.hd95 if math.isfinite(lesion.hd95) else policy.penalty for lesion in scored]
    # numpy's way of summing, on which the last bit depends.
    dice = np.sum(np.array([lesion.dice for lesion in scored])) / count
    hd95 = (np.sum(np.array(distances)) + false_positives * policy.penalty) / count
    return float(dice), float(hd95)


def _whole_volume(table: LesionTable, policy: Policy) -> tuple[float, float]:
    if not table.prediction and not table.reference:
        return 1.0, 0.0
    hd95 = table.hd95 if math.isfinite(table.hd95) else policy.penalty
    return 2.0 * table.overlap / (table.prediction + table.reference), hd95


def _surface_dice(table: LesionTable, tolerance: float) -> float:
    """Normalised surface Dice (Nikolov et al. 2021); NaN where both are empty."""
    within = sum(areas[distances <= tolerance].sum() for distances, areas in table.surface_distances)
    return _ratio(float(within), float(sum(areas.sum() for _, areas in table.surface_distances)))
