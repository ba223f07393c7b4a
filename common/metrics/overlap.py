"""How much of what was found is lesion, and how much of the lesion was found: per image and per patient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.metrics.confusion_matrix import get_confusion_matrix

from ..data.partition import patient_of

__all__ = ["OVERLAP_SCORES", "Overlap", "image_overlaps", "overlap_rows"]

OVERLAP_SCORES = {"dice": "DSC", "ppv": "PPV", "sensitivity": "sensitivity"}
"""The scores, and what tables call them."""


class Overlap(NamedTuple):
    """Pixels of one image, or of several together: found and lesion, found but not lesion, lesion but not found."""

    both: int
    found_only: int
    lesion_only: int

    def scores(self) -> dict[str, float]:
        """Dice, PPV and sensitivity, by name.

        Where there is neither a lesion nor anything found Dice is 1 and the others aren't defined (NaN); without a
        lesion sensitivity isn't. Where there is a lesion and nothing was found PPV is 0, as for a single wrong pixel.
        """
        both, found, lesion = self.both, self.both + self.found_only, self.both + self.lesion_only
        return {
            "dice": 2 * both / (found + lesion) if found + lesion else 1.0,
            "ppv": both / found if found else 0.0 if lesion else math.nan,
            "sensitivity": both / lesion if lesion else math.nan,
        }


def image_overlaps(prediction: torch.Tensor, reference: torch.Tensor) -> list[Overlap]:
    """The overlap of each slice of a volume.

    Args:
        prediction: (slices, H, W), 0 or 1.
        reference: likewise.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"shapes differ: prediction {tuple(prediction.shape)}, reference {tuple(reference.shape)}")
    counts = get_confusion_matrix(prediction[:, None].float(), reference[:, None].float())[:, 0].long()
    return [Overlap(both, found, lesion) for both, found, _, lesion in counts.tolist()]


def overlap_rows(cases: Mapping[str, Sequence[Overlap]]) -> list[dict[str, Any]]:
    """Rows of scores of images and of patients.

    A slice of a volume without lesion in which nothing was found is no row: most slices are such, and would hide the
    others. A picture of its own is one in any case. A patient's pixels are those of all their images together.

    Args:
        cases: name → overlaps of the slices.

    Returns:
        Rows with "region" ("image" or "patient"), "case" (the patient's name in the latter), "slice" (counted from 1;
        empty for a patient) and the `OVERLAP_SCORES`.
    """
    rows: list[dict[str, Any]] = []
    patients: dict[str, list[Overlap]] = {}
    for case, overlaps in cases.items():
        patients.setdefault(patient_of(case), []).extend(overlaps)
        for number, overlap in enumerate(overlaps, start=1):
            if len(overlaps) == 1 or any(overlap):
                rows.append({"region": "image", "case": case, "slice": number, **overlap.scores()})
    for patient, overlaps in patients.items():
        together = Overlap(*map(sum, zip(*overlaps, strict=True)))
        rows.append({"region": "patient", "case": patient, "slice": "", **together.scores()})
    return rows
