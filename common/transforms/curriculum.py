"""Curricula beside label maps, and the training targets that are made of both."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..data.curriculum import CATEGORIES, read_curriculum

__all__ = ["CategoryTargetsd", "LoadCurriculumd"]


class LoadCurriculumd(MapTransform):
    """Read curricula as MetaTensors (K, X, Y, Z), uint8, in the geometry of the label, checked against it.

    What they hold is told in `common.data.curriculum.entry_stages`. It comes right after the label is loaded, before
    anything turns, cuts or resamples; from there on the curriculum goes through all that the label does.

    Args:
        keys: entries to read, paths.
        categories: a name in `common.data.curriculum.CATEGORIES`.
        stages: how many there are.
        label_key: canonical labels (1, X, Y, Z), as `LoadLabelMapd` loads them.
        allow_missing_keys: cases may have no curriculum.

    Raises:
        CaseError: the file is missing or damaged, or doesn't fit the label, the categories or the stages.
    """

    def __init__(
        self,
        keys: KeysCollection = ("curriculum",),
        categories: str = "labels",
        stages: int = 3,
        label_key: str = "label",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.categories, self.stages, self.label_key = categories, stages, label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each key's path by the tensor."""
        loaded = dict(data)
        label = data[self.label_key]
        for key in self.key_iterator(loaded):
            case = {"case": data.get("case", "?"), "label": label, "curriculum": data[key]}
            numbers = read_curriculum(case, np.asarray(label[0]), self.stages, self.categories)
            loaded[key] = MetaTensor(numbers, meta={**deepcopy(label.meta), "filename_or_obj": str(data[key])})
        return loaded


class CategoryTargetsd(MapTransform):
    """Replace label maps by training targets: for each category and voxel, the stage from which on it is learnt.

    A target is (K, D, H, W), uint8: the curriculum where the case has one. Without, it is 1 wherever the category is,
    all of it learnt from the beginning, and 0 elsewhere. So target > 0 is the truth in any case.

    Args:
        keys: canonical labels (1, D, H, W).
        curriculum: entry with the curriculum (K, D, H, W); it may be missing.
        categories: a name in `common.data.curriculum.CATEGORIES`.
    """

    def __init__(
        self, keys: KeysCollection = ("label",), curriculum: str = "curriculum", categories: str = "labels"
    ) -> None:
        super().__init__(keys)
        self.curriculum, self.categories = curriculum, categories

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each key."""
        made = dict(data)
        for key in self.keys:
            target = data.get(self.curriculum)
            if target is None:
                label = data[key]
                values = [label.new_tensor(labels) for labels in CATEGORIES[self.categories].values()]
                target = torch.cat([torch.isin(label, of_category) for of_category in values])
            made[key] = target.to(torch.uint8)
        return made
