"""Resampling to a voxel size, also behind MONAI Label."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Spacingd

__all__ = ["SpacingOfKeysd"]


class SpacingOfKeysd(Spacingd):
    """MONAI's Spacingd for skull-stripped images, that takes its keys at their word.

    An image is 0 outside the brain, channel by channel, and an interpolation between brain and 0 would give the brain a
    dark rim, and another one for each place of the voxels. So what lies outside doesn't count in "bilinear": a voxel is
    the mean of what is brain around it, and 0 where that has less than half of the weight. Where the voxels stay as
    they are, so do their values.

    Since MONAI 1.6 Spacingd takes every entry named `<key>_…` for a meta dictionary, and fails on MONAI Label's
    `image_path`. Those entries are kept aside while it works.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample the keys of `data` to the voxel size (mm)."""
        prefixes = tuple(f"{key}_" for key in self.keys)
        aside = {k: v for k, v in data.items() if str(k).startswith(prefixes) and not isinstance(v, dict)}
        rest = {k: v for k, v in data.items() if k not in aside}
        resampled: dict[Hashable, Any] = super().__call__(rest, lazy=lazy)
        for key, mode in zip(self.keys, self.mode, strict=True):
            if key in rest and mode == "bilinear":
                self._leave_outside(rest[key], resampled[key])
        return {**resampled, **aside}

    def _leave_outside(self, image: MetaTensor, resampled: MetaTensor) -> None:
        """Take from a resampled image (C, D, H, W) what the zeros of the image added to it."""
        if image.shape == resampled.shape and torch.allclose(image.affine, resampled.affine):
            return
        inside = self.spacing_transform((image != 0).to(torch.float32), mode="bilinear")
        resampled.div_(inside.clamp_min(0.5)).mul_(inside >= 0.5)
