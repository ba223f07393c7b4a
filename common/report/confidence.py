"""How sure a network is: the confidence histogram of Fig. 8 of the CGA U-Net paper.

Li et al., "Category Guided Attention Network for Brain Tumor Segmentation in MRI", 2021, section 4.6: the predicted
probability is divided into ten intervals, of which the middle ones are merged. The paper leaves open which voxels are
counted. It reads a larger share above 0.9 together with a smaller share below 0.5 as more confidence, and this holds
for the probability that a voxel gets for what it is. Counted here is therefore, for each region, the predicted
probability of that region (the sum over its labels) at the voxels of the region in the reference.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..data.labels import REGIONS
from .pictures import CHART_COLOURS, Chart, encode_chart

__all__ = ["INTERVALS", "count_confidence", "draw_confidence"]

INTERVALS = ("0–0.1", "0.1–0.5", "0.5–0.9", "0.9–1")
_MERGED = np.array([0, 1, 1, 1, 1, 2, 2, 2, 2, 3])


def count_confidence(probabilities: np.ndarray, reference: np.ndarray) -> dict[str, np.ndarray]:
    """Counts voxels by the probability of the region that they belong to.

    Args:
        probabilities: (4, X, Y, Z), one channel a label.
        reference: canonical label map (X, Y, Z).

    Returns:
        for each region the number of voxels in [0, 0.1), [0.1, 0.5), [0.5, 0.9) and [0.9, 1].
    """
    counts = {}
    for region, labels in REGIONS.items():
        inside = np.isin(reference, labels)
        # In tenths and rounded to what 16 bits can hold: 0.1 + 0.2 + 0.6 belongs to the last interval.
        values = np.round(probabilities[list(labels)].astype(np.float64).sum(axis=0)[inside] * 10, 3)
        tenths, _ = np.histogram(np.clip(values, 0, 10), bins=10, range=(0, 10))
        counts[region] = np.bincount(_MERGED, weights=tenths, minlength=4).astype(np.int64)
    return counts


def draw_confidence(counts: dict[str, np.ndarray]) -> Chart | None:
    """Draws the share of voxels in each interval, one column a region; None where no voxel was counted."""
    shares = {region: n / n.sum() for region, n in counts.items() if n.sum() > 0}
    if not shares:
        return None
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(shares)
    for number, (region, share) in enumerate(shares.items()):
        x = np.arange(4) + (number - (len(shares) - 1) / 2) * width
        axes.bar(x, share * 100, width * 0.9, color=CHART_COLOURS[region], label=region)
        for place, value in zip(x, share * 100, strict=True):
            axes.text(place, value + 1, f"{value:.0f}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(4), INTERVALS)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 25))
    axes.set_xlabel("Predicted probability of the voxel's own region")
    axes.set_ylabel("Share of voxels, %")
    figure.legend(frameon=False, ncols=3, fontsize=9, loc="outside upper center")
    words = "; ".join(
        f"{region}: " + ", ".join(f"{value:.0%} in {name}" for name, value in zip(INTERVALS, share, strict=True))
        for region, share in shares.items()
    )
    return encode_chart(figure, f"Confidence histogram. {words}.", "Confidence histogram")
