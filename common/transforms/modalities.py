"""Leaving out modalities at random, so that a network learns to do without them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

__all__ = ["RandDropModalities", "RandDropModalitiesd"]


class RandDropModalities(RandomizableTransform):
    """Set some channels of a normalised scan to zero, as reading does with a modality that a case lacks.

    Which ones is drawn from all choices that drop at least one channel and keep at least one, each as likely as any
    other: 14 for four modalities.

    Args:
        prob: probability that channels are dropped at all.
    """

    def __init__(self, prob: float) -> None:
        super().__init__(prob)
        self.kept: list[bool] = []

    def randomize(self, data: torch.Tensor) -> None:
        """Draw which channels of `data` (C, D, H, W) are kept."""
        super().randomize(None)
        channels = len(data)
        choice = int(self.R.randint(1, 2**channels - 1)) if self._do_transform else 2**channels - 1
        self.kept = [bool(choice >> channel & 1) for channel in range(channels)]

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """The scan (C, D, H, W) with the channels that aren't kept set to zero."""
        if randomize:
            self.randomize(img)
        if all(self.kept):
            return img
        dropped = img.clone()
        dropped[[not kept for kept in self.kept]] = 0
        return dropped


class RandDropModalitiesd(RandomizableTransform, MapTransform):
    """Dictionary version of `RandDropModalities`; all keys lose the same channels.

    Args:
        keys: scans (C, D, H, W) with as many channels each.
        prob: as there.
    """

    def __init__(self, keys: KeysCollection, prob: float) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self)
        self.dropper = RandDropModalities(prob)

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandDropModalitiesd:
        """Seed what is drawn."""
        super().set_random_state(seed, state)
        self.dropper.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Drop channels of each key."""
        dropped = dict(data)
        self.dropper.randomize(dropped[self.keys[0]])
        for key in self.keys:
            dropped[key] = self.dropper(dropped[key], randomize=False)
        return dropped
