"""Slices of volumes, and pictures, as the samples of a training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from monai.transforms import Compose

from ..errors import InputError
from ..processes import count
from .case_dataset import CaseDataset

__all__ = ["SliceDataset"]

logger = logging.getLogger(__name__)


class SliceDataset(CaseDataset):
    """A CaseDataset of whole volumes whose samples are their slices.

    A volume is prepared once and kept on disk; a sample reads its slice there and no more, so that no volume is in
    memory but those that are being prepared. The transforms up to the first random one make of a case "image"
    (C, slices, H, W), perhaps "label" (1, slices, H, W), and "filled", the numbers of the slices that aren't empty; the
    others get plain tensors (C, H, W).

    Args:
        data, transform, cache_dir, cache_gib, num_workers: as there.
        empty_slices: whether slices without anything but background are samples, too.

    Raises:
        InputError: as there; or the cache has no room for all images, or these hold nothing but background.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Compose,
        cache_dir: Path | str,
        cache_gib: float = 100,
        num_workers: int = 0,
        empty_slices: bool = False,
    ) -> None:
        super().__init__(data, transform, cache_dir, cache_gib, num_workers)
        if not self.limit or self._full:
            raise InputError(
                f"cache_gib {cache_gib:g}: slices are read from the cache, which has no room for all images; raise it"
            )
        if count() > 1:
            dist.barrier()  # each has prepared its share, and what the others have is read
        self.samples: list[tuple[int, int]] = []
        self._mapped: dict[int, dict[str, Any]] = {}
        for number, case in enumerate(self.data):
            prepared = self._cachecheck(case)
            slices = range(prepared["image"].shape[1]) if empty_slices else prepared["filled"].tolist()
            self.samples += [(number, index) for index in slices]
            if not slices:
                logger.warning("%s has nothing but background and is left out", case.get("case", case["image"]))
        if self.data and not self.samples:
            raise InputError(f"none of {len(self.data)} images holds anything but background: give other images")
        if len(self.samples) > len(self.data):
            logger.info("%d slices of %d images", len(self.samples), len(self.data))

    def __len__(self) -> int:
        return len(self.samples)

    def prepared(self, index: int) -> dict[str, Any]:
        """A sample before anything random."""
        number, place = self.samples[index]
        whole = self._mapped.get(number)
        if whole is None:
            whole = self._cachecheck(self.data[number])
            self._mapped[number] = whole  # from the disk, so that it takes no memory
        sample = {key: value for key, value in whole.items() if key != "filled"}
        slices = {key: whole[key].as_tensor()[:, place] for key in ("image", "label") if key in whole}
        return {**sample, **slices}
