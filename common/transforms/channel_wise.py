"""Random transforms that treat each channel by itself."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

__all__ = ["RandChannelWised"]


class RandChannelWised(RandomizableTransform, MapTransform):
    """Apply a random transform to one channel after the other, with parameters, and statistics, of its own each.

    Most of MONAI's transforms of intensities draw once for all channels and look at all of them together, which is for
    colours; the modalities of a scan have nothing in common, and nnU-Net augments each by itself.

    Args:
        keys: images (C, D, H, W).
        transform: MONAI's array transform of an image; its own probability is that of each channel.
        prob: probability that any of it is done.
    """

    def __init__(self, keys: KeysCollection, transform: RandomizableTransform, prob: float) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.transform = transform

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandChannelWised:
        """Seed what is drawn, here and by the transform."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed=int(self.R.randint(np.iinfo(np.int32).max)))
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each key."""
        self.randomize(None)
        if not self._do_transform:
            return dict(data)
        changed = {key: torch.cat([self.transform(channel[None]) for channel in data[key]]) for key in self.keys}
        return {**data, **changed}
