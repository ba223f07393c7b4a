"""Slices of volumes, and pictures, as the samples of a training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from monai.transforms import Compose

from ..errors import CaseError, InputError
from ..processes import count
from .case_dataset import CaseDataset

__all__ = ["SliceDataset"]

logger = logging.getLogger(__name__)


class SliceDataset(CaseDataset):
    """A CaseDataset of whole volumes whose samples are their slices.

    A volume is prepared once and kept on disk, where a sample reads its slice, so that no volume is in memory but those
    that are being prepared. A slice along the first axis lies there in one piece for each channel; one along the others
    is spread over the whole entry. The transforms up to the first random one make of a case "image"
    (C, D, H, W), perhaps "label" (1, D, H, W), and "filled", axis and number of the slices that aren't empty; the
    others get plain tensors, such as (C, H, W) of a slice along the first axis.

    Args:
        data, transform, cache_dir, cache_gib, num_workers: as there.
        empty_slices: whether slices without anything but background are samples, too.
        axes: axes (0, 1, 2) whose slices are samples.
        slice_range: of the slices along the first axis, number of the first and past the last one; empty for all.

    Raises:
        InputError: as there; or the cache has no room for all images, these hold nothing but background, or have fewer
            slices than the range says.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Compose,
        cache_dir: Path | str,
        cache_gib: float = 100,
        num_workers: int = 0,
        empty_slices: bool = False,
        axes: Sequence[int] = (0,),
        slice_range: Sequence[int] = (),
    ) -> None:
        super().__init__(data, transform, cache_dir, cache_gib, num_workers)
        if not self.limit or self._full:
            raise InputError(
                f"cache_gib {cache_gib:g}: slices are read from the cache, which has no room for all images; raise it"
            )
        if count() > 1:
            dist.barrier()  # each has prepared its share, and what the others have is read
        self.samples: list[tuple[int, int, int]] = []
        self._mapped: dict[int, dict[str, Any]] = {}
        short = []
        for number, case in enumerate(self.data):
            prepared, name = self._cachecheck(case), str(case.get("case", case["image"]))
            sizes = prepared["image"].shape[1:]
            if slice_range and slice_range[1] > sizes[0]:
                missing = f"slice_range {[*slice_range]} of {sizes[0]} slices"
                short.append(CaseError(name, None, missing, "give a range that all scans have, or [] for all slices"))
                continue
            if empty_slices:
                slices = [(axis, place) for axis, size in enumerate(sizes) for place in range(size)]
            else:
                slices = [(axis, place) for axis, place in prepared["filled"].tolist()]
            within = range(*slice_range) if slice_range else range(sizes[0])
            slices = [one for one in slices if one[0] in axes and (one[0] or one[1] in within)]
            self.samples += [(number, *one) for one in slices]
            if not slices:
                logger.warning("%s has nothing but background%s and is left out", name, _within(slice_range))
        if short:
            raise InputError(*map(str, short))
        if self.data and not self.samples:
            what = "another range" if slice_range else "other images"
            where = _within(slice_range)
            raise InputError(f"none of {len(self.data)} images holds anything but background{where}: give {what}")
        if len(self.samples) > len(self.data):
            logger.info("%d slices of %d images", len(self.samples), len(self.data))

    def __len__(self) -> int:
        return len(self.samples)

    def prepared(self, index: int) -> dict[str, Any]:
        """A sample before anything random."""
        number, axis, place = self.samples[index]
        whole = self._mapped.get(number)
        if whole is None:
            whole = self._cachecheck(self.data[number])
            self._mapped[number] = whole  # from the disk, so that it takes no memory
        sample = {key: value for key, value in whole.items() if key != "filled"}
        slices = {key: whole[key].as_tensor().select(axis + 1, place) for key in ("image", "label") if key in whole}
        return {**sample, **slices}


def _within(slice_range: Sequence[int]) -> str:
    return f" in slice_range {[*slice_range]}" if slice_range else ""
