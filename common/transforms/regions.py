"""From a network's outputs to labels, be they of labels that exclude one another or of regions that overlap."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

__all__ = ["LabelProbabilitiesd", "LabelsFromProbabilitiesd"]


class LabelProbabilitiesd(MapTransform):
    """Turn logits into the probability of each label: background, NCR, ED, ET.

    Of labels that exclude one another it is the softmax. Regions have a sigmoid each, and contain one another: where a
    smaller one is more probable than a larger one, the larger is taken to be as probable.

    Args:
        keys: logits, of the labels (4, D, H, W), or of WT, TC and ET (3, D, H, W).
        regions: which of the two.
    """

    def __init__(self, keys: KeysCollection, regions: bool = False) -> None:
        super().__init__(keys)
        self.regions = regions

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each key."""
        return {**data, **{key: self._probabilities(data[key]) for key in self.keys}}

    def _probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        if not self.regions:
            return logits.softmax(0)
        whole, core, enhancing = logits.sigmoid()
        core = torch.maximum(core, enhancing)
        whole = torch.maximum(whole, core)
        return torch.stack([1 - whole, core - enhancing, whole - core, enhancing])


class LabelsFromProbabilitiesd(MapTransform):
    """Decide for a label at each voxel.

    Of labels that exclude one another it is the likeliest. Of regions each is there where its probability is above one
    half, and the smallest that is there says the label, as nnU-Net decides.

    Args:
        keys: probabilities of background, NCR, ED and ET (4, D, H, W), as `LabelProbabilitiesd` makes them; all zero,
            as where a crop was undone, is background.
        regions: see there.
    """

    def __init__(self, keys: KeysCollection, regions: bool = False) -> None:
        super().__init__(keys)
        self.regions = regions

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each key by labels (1, D, H, W)."""
        return {**data, **{key: self._labels(data[key]) for key in self.keys}}

    def _labels(self, probabilities: torch.Tensor) -> torch.Tensor:
        if not self.regions:
            return probabilities.argmax(0, keepdim=True)
        necrosis, _, enhancing = probabilities[1:]
        labels = torch.zeros_like(probabilities[:1])
        for label, region in ((2, probabilities[1:].sum(0)), (1, necrosis + enhancing), (3, enhancing)):
            labels[0, region > 0.5] = label
        return labels
