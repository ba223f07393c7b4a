"""The supervised attention module of CGA U-Net: a category map from the image, class prototypes, intra-class update."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InputError
from .conv3 import Conv3

__all__ = ["AttendedFeatures", "SupervisedAttention"]

# Hidden channels and strides of the attention path at each downsampling rate. Rate 8 is the paper's Table 1. Table 3
# gives only parameters and cost for the other two (0.034 M and 1.97 GMac, 0.01 M and 2.89 GMac at 4×128³); these come
# nearest to them (34,628 and 1.92, 10,404 and 2.72).
_PATHS = {8: (16, (2, 2, 2)), 4: (32, (2, 2, 1)), 2: (16, (2, 1, 1))}


class AttendedFeatures(NamedTuple):
    """What `SupervisedAttention` returns.

    Attributes:
        features: updated feature map (B, C, d, h, w).
        attention: attention map (B, K, d, h, w), one channel a class, unnormalised.
        prototypes: mean feature vector of each class (B, K, C), float32 or wider, zero where the class is absent.
        present: whether the class has any weight in the sample's masks (B, K), boolean.
    """

    features: torch.Tensor
    attention: torch.Tensor
    prototypes: torch.Tensor
    present: torch.Tensor


class SupervisedAttention(nn.Module):
    """Supervised Attention Module (SAM) with intra-class update.

    Based on: Li et al., "Category Guided Attention Network for Brain Tumor Segmentation in MRI" (2021),
    sections 3.2 and 3.3.

    Three stacked convolutions, without normalisation or activation, turn the image into an attention map with one
    channel a class (Eq. 6), which a loss is to pull towards the one-hot label. The map gives one mask a class; masked
    average pooling of the feature map gives one prototype a class (Eq. 7); each prototype is mapped back to where its
    class is (Eq. 8) and the sum over the classes is added to the feature map.

    The map is trained with a squared error, so its values are about 0 and 1 and are no logits: a softmax over them
    weighs the right class only 0.48 against 0.17 for each of three others, so that every prototype is mostly the mean
    of the whole image. Hence the hard masks (argmax) by default, as in the authors' release. They pass no gradient
    to the attention path, which the loss on the map then trains alone, the independence that section 3.1 asks for.

    Args:
        in_channels: channels of the image.
        num_classes: number of classes K, background included.
        rate: downsampling rate of the map, 8, 4 or 2 (Table 3); the feature map must have the same rate.
        hard: True takes the argmax over the classes as masks, False the softmax.
        update_classes: classes whose prototypes are added to the feature map (Table 4's single-class rows);
            empty leaves the feature map as it is.

    Raises:
        InputError: when `rate` is not 8, 4 or 2, or `update_classes` are not distinct classes.
    """

    def __init__(
        self,
        in_channels: int = 4,
        num_classes: int = 4,
        rate: int = 8,
        hard: bool = True,
        update_classes: Sequence[int] = (0, 1, 2, 3),
    ) -> None:
        super().__init__()
        if rate not in _PATHS:
            raise InputError(f"attention rate {rate}: it must be 8, 4 or 2")
        if len(set(update_classes)) != len(update_classes) or not set(update_classes) <= set(range(num_classes)):
            raise InputError(
                f"update_classes {list(update_classes)}: they must be distinct and among 0 to {num_classes - 1}"
            )
        hidden, strides = _PATHS[rate]
        channels = (in_channels, hidden, hidden, num_classes)
        self.path = nn.Sequential(
            *(Conv3(fine, coarse, stride) for (fine, coarse), stride in zip(pairwise(channels), strides, strict=True))
        )
        self.num_classes = num_classes
        self.hard = hard
        self.update_classes = list(update_classes)

    def forward(self, image: torch.Tensor, features: torch.Tensor) -> AttendedFeatures:
        """Update a feature map by the classes seen in the image.

        Args:
            image: (B, in_channels, D, H, W).
            features: (B, C, d, h, w) with d = ceil(D / rate) and so on, as strided convolutions leave it.
        """
        attention = self.path(image)
        # Sums over thousands of voxels, and the differences between their means, need more than bfloat16's 8 bits.
        with torch.autocast(features.device.type, enabled=False):
            masks = self._masks(attention)
            prototypes, present = pool_prototypes(masks, features)
            updated = self._update(masks, prototypes, features)
        return AttendedFeatures(updated, attention, prototypes, present)

    def _masks(self, attention: torch.Tensor) -> torch.Tensor:
        if self.hard:
            return F.one_hot(attention.argmax(dim=1), self.num_classes).movedim(-1, 1)
        return attention.to(_wide(attention.dtype)).softmax(dim=1)

    def _update(self, masks: torch.Tensor, prototypes: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        if not self.update_classes:
            return features
        chosen = self.update_classes
        mapped = map_back(masks[:, chosen], prototypes[:, chosen])
        return features + mapped.to(features.dtype)


def pool_prototypes(masks: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Masked average pooling (Eq. 7).

    Args:
        masks: weight of each voxel in each class (B, K, d, h, w), not negative.
        features: (B, C, d, h, w).

    Returns:
        Prototypes (B, K, C) in float32 (float64 for float64 features), zero for a class without weight, and whether
        each class has weight (B, K).
    """
    dtype = _wide(features.dtype)
    flat_masks = masks.flatten(2).to(dtype)
    sums = torch.bmm(flat_masks, features.flatten(2).to(dtype).transpose(1, 2))
    weights = flat_masks.sum(dim=2)
    present = weights > 1e-6
    prototypes = sums / torch.where(present, weights, 1.0).unsqueeze(2)
    return torch.where(present.unsqueeze(2), prototypes, 0.0), present


def map_back(masks: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Map each class's prototype to its mask and sum over the classes (Eq. 8).

    Args:
        masks: (B, K, d, h, w).
        prototypes: (B, K, C).

    Returns:
        (B, C, d, h, w) in the prototypes' type.
    """
    mapped = torch.bmm(prototypes.transpose(1, 2), masks.flatten(2).to(prototypes.dtype))
    return mapped.unflatten(2, masks.shape[2:])


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
