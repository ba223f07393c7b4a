"""Cases that are generated while a network trains on them, and written nowhere."""

from __future__ import annotations

from typing import Any

__all__ = ["generated_cases"]


def generated_cases(cases: int, validation_cases: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    """The cases of a training on generated scans, for `common.transforms.phantom` to render.

    Those of training have names alone: what they show is drawn anew each time that they are asked for. Those of
    validation have a record, drawn apart, and are the same in each epoch.

    Args:
        cases: of an epoch.
        validation_cases: how many the weights are chosen by.
        seed: the training's.

    Returns:
        Part → dictionaries of its cases.
    """
    return {
        "training": [{"case": f"generated_{index:05d}"} for index in range(cases)],
        "validation": [
            {"case": f"generated_apart_{index:05d}", "phantom": [seed, index]} for index in range(validation_cases)
        ],
    }
