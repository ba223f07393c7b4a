"""The numbers that decide which patches of an image are masked: drawn here, applied by the network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable, Transform

__all__ = ["RandPatchNoised", "prepare_masked_batch"]


class RandPatchNoised(Randomizable, Transform):
    """Draws a number for each patch, uniformly from 0 to below 1: of patches that are alike the least are masked first.

    Based on: He et al., "Masked Autoencoders Are Scalable Vision Learners", section 3 (random sampling without
    replacement, uniform). The same numbers mask the same patches again; how many, `common.networks.adaptive_masking`
    decides.

    Args:
        patches: how many there are.
        seed: draw the same numbers each time, as a validation needs; None for others each time.
        name: of the entry, (N,), float32.
    """

    def __init__(self, patches: int, seed: int | None = None, name: str = "noise") -> None:
        self.patches, self.seed, self.name = patches, seed, name

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the entry."""
        if self.seed is not None:
            self.set_random_state(self.seed)
        return {**data, self.name: torch.from_numpy(self.R.random_sample(self.patches).astype(np.float32))}


def prepare_masked_batch(
    batch: Mapping[str, torch.Tensor],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor], dict[str, Any]]:
    """A batch as MONAI's engines take it: what goes into the network, what the loss compares with, and the noise.

    Args:
        batch: "image" (B, C, …), and "noise" (B, N) of `RandPatchNoised`.
        device: to which both are brought.
        non_blocking: see `torch.Tensor.to`.
        options: likewise.

    Returns:
        the image twice, in place of an input and a label; the network's further arguments; and no named ones.
    """
    image = batch["image"]
    # The loss would take a MetaTensor's every operation through Python.
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    moved = plain.to(device=device, non_blocking=non_blocking, **options)
    return moved, moved, (batch["noise"].to(device=device, non_blocking=non_blocking),), {}
