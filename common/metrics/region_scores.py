"""Scores of the tumour regions: overlap, surface distances in mm, volumes in mm³."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.metrics.utils import get_edge_surface_distance

from ..data.labels import REGIONS

__all__ = ["SCORES", "region_scores", "summarise"]

SCORES = ("dice", "hd95", "hd100", "sensitivity", "specificity", "volume_prediction", "volume_reference")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _hausdorff(prediction: torch.Tensor, reference: torch.Tensor, spacing: Sequence[float]) -> tuple[float, float]:
    """95th percentile and maximum of the surface distances in mm, the larger of both directions."""
    with warnings.catch_warnings():
        # MONAI 1.6 warns of an argument that its own function passes.
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy")
        _, distances, _ = get_edge_surface_distance(prediction, reference, spacing=list(spacing), symmetric=True)
    return (
        max(float(torch.quantile(d, 0.95)) for d in distances),
        max(float(d.max()) for d in distances),
    )


def region_scores(
    prediction: torch.Tensor,
    reference: torch.Tensor,
    spacing: Sequence[float],
    regions: Mapping[str, Sequence[int]] = REGIONS,
    penalty: float | None = None,
) -> dict[str, dict[str, float]]:
    """Scores of one case for each region (CGA U-Net, Tables 2, 4 and 5).

    Dice, voxel-wise sensitivity and specificity; HD95 and HD100, the 95th percentile and the maximum of the distances
    between the surfaces in mm (the larger of both directions, by MONAI's `get_edge_surface_distance`); the volumes of
    prediction and reference in mm³. Where a region is empty the policy is that of BraTS: both empty gives Dice 1 and
    distances 0; one empty gives Dice 0 and, as distance, the image's diagonal (373.1287 mm for 240×240×155 at 1 mm).
    Sensitivity is 1 where the reference is empty, specificity where it fills the image.

    Args:
        prediction: label map (D, H, W), integers.
        reference: likewise.
        spacing: voxel size in mm, one value an axis.
        regions: name → labels that make it up.
        penalty: distance in mm where one is empty; None takes the image's diagonal.

    Returns:
        region → score (see `SCORES`) → value.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"shapes differ: prediction {tuple(prediction.shape)}, reference {tuple(reference.shape)}")
    voxel = float(np.prod(spacing))
    diagonal = float(np.linalg.norm([n * s for n, s in zip(prediction.shape, spacing, strict=True)]))
    worst = diagonal if penalty is None else penalty
    scores = {}
    for name, labels in regions.items():
        values = torch.tensor(list(labels), device=prediction.device)
        p, r = torch.isin(prediction, values), torch.isin(reference, values)
        size_p, size_r, both = int(p.sum()), int(r.sum()), int((p & r).sum())
        if size_p and size_r:
            hd95, hd100 = _hausdorff(p, r, spacing)
        else:
            hd95 = hd100 = 0.0 if size_p == size_r else worst
        negatives = r.numel() - size_r
        scores[name] = {
            "dice": _ratio(2 * both, size_p + size_r),
            "hd95": hd95,
            "hd100": hd100,
            "sensitivity": _ratio(both, size_r),
            "specificity": _ratio(negatives - (size_p - both), negatives),
            "volume_prediction": size_p * voxel,
            "volume_reference": size_r * voxel,
        }
    return scores


def summarise(
    rows: Sequence[Mapping[str, object]], scores: Sequence[str] = SCORES
) -> dict[str, dict[str, dict[str, float]]]:
    """Mean, standard deviation (n − 1; 0 for one case) and median of each score over cases, and how many, by region.

    Cases in which a score isn't defined (NaN) are left out of it; where it is in none, the three are NaN.

    Args:
        rows: one mapping a case and region, with `region` and the scores.
        scores: which of them.
    """
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for region in dict.fromkeys(str(row["region"]) for row in rows):
        chosen = [row for row in rows if row["region"] == region]
        summary[region] = {}
        for score in scores:
            values = np.array([row[score] for row in chosen], dtype=np.float64)
            values = values[~np.isnan(values)]
            summary[region][score] = {
                "mean": float(values.mean()) if len(values) else math.nan,
                "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0 if len(values) else math.nan,
                "median": float(np.median(values)) if len(values) else math.nan,
                "cases": len(values),
            }
    return summary
