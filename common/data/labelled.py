"""Which labelled images a training uses: a share of them, so that fewer labels can be compared with more."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..atomic import write_text
from ..errors import InputError
from .case_files import Case
from .partition import PARTS, names_of, patient_of

__all__ = ["labelled_parts"]

logger = logging.getLogger(__name__)


def labelled_parts(
    parts: Mapping[str, Sequence[Case]],
    share: float = 1.0,
    seed: int = 0,
    file: Path | str = "",
    needed: Sequence[str] = ("training", "validation"),
) -> dict[str, list[Case]]:
    """The labelled cases of each part, and of those that train only a share of the patients.

    Patients are put in an order that the seed alone decides, and the first of them are taken, rounded: with one seed a
    smaller share's are among a larger one's.

    Args:
        parts: part → cases, from `common.data.partition`; those without "label" are left out.
        share: of the patients with labels in the training part, above 0 and up to 1.
        seed: of the drawing.
        file: JSON file that gets the share, the seed and the names of the training cases; none where it is empty.
        needed: parts that must have a label, if they have any case.

    Returns:
        "training", "validation" and "test", as there.

    Raises:
        InputError: no patient is left to train on, or none of a part's cases has a label.
    """
    labelled = {part: [case for case in parts[part] if "label" in case] for part in PARTS}
    left_out = [case["case"] for part in PARTS for case in parts[part] if "label" not in case]
    if left_out:
        shown = ", ".join(left_out[:5]) + (" …" if len(left_out) > 5 else "")
        logger.warning("%d images have no mask and aren't used: %s", len(left_out), shown)
    for part in needed:
        if parts[part] and not labelled[part]:
            raise InputError(
                f"none of the {len(parts[part])} {part} images has a mask: give more masks, or divide anew with "
                "--fractions and another --partition_file"
            )
    patients = sorted({patient_of(case["case"]) for case in labelled["training"]})
    order = [patients[index] for index in np.random.default_rng(seed).permutation(len(patients))]
    count = round(share * len(order))
    if order and not count:
        raise InputError(
            f"labelled_share {share:g} of {len(order)} labelled training patients is none: give a larger share, or "
            "more labelled images"
        )
    chosen = names_of(order[:count], [case["case"] for case in labelled["training"]])
    if file:
        content = {"labelled_share": share, "seed": seed, "training": chosen}
        write_text(Path(file), json.dumps(content, indent=1) + "\n")
    if count < len(order):
        logger.info("labels of %d of %d training patients are used", count, len(order))
    training = [case for case in labelled["training"] if case["case"] in set(chosen)]
    return {**labelled, "training": training}
