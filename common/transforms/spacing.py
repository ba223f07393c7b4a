"""Resampling to a voxel size, also behind MONAI Label."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Spacingd

__all__ = ["SpacingOfKeysd"]


class SpacingOfKeysd(Spacingd):
    """MONAI's Spacingd that leaves alone the entries whose names only begin like one of its keys.

    Since MONAI 1.6 Spacingd takes every entry named `<key>_…` for a meta dictionary, and fails on MONAI Label's
    `image_path`. Those entries are kept aside while it works.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample the keys of `data` to the voxel size (mm)."""
        prefixes = tuple(f"{key}_" for key in self.keys)
        aside = {k: v for k, v in data.items() if str(k).startswith(prefixes) and not isinstance(v, dict)}
        rest = {k: v for k, v in data.items() if k not in aside}
        return {**super().__call__(rest, lazy=lazy), **aside}
