"""How undecided a prediction is at each voxel."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

__all__ = ["EntropyMapd", "entropy_map"]


def entropy_map(probabilities: torch.Tensor) -> torch.Tensor:
    """Entropy of class probabilities over that of a uniform distribution: 0 is certain, 1 all classes alike.

    Args:
        probabilities: (C, D, H, W). The background, channel 0, is taken for what the other channels leave, so that
            what undoing a crop fills with zeros is certain background.

    Returns:
        (1, D, H, W).
    """
    others = probabilities[1:].clamp(0, 1)
    background = (1 - others.sum(0, keepdim=True)).clamp(0, 1)
    entropy = torch.special.entr(background) + torch.special.entr(others).sum(0, keepdim=True)
    return (entropy / math.log(len(probabilities))).clamp(0, 1)


class EntropyMapd(MapTransform):
    """Put the `entropy_map` of probabilities beside them, as the entry `name`.

    Args:
        keys: one entry of probabilities (C, D, H, W).
        name: of the new entry, (1, D, H, W).
    """

    def __init__(self, keys: KeysCollection, name: str = "entropy") -> None:
        super().__init__(keys)
        self.name = name

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the map."""
        return {**data, self.name: entropy_map(data[self.first_key(dict(data))])}
