"""Volumes by a network of slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer, SliceInferer

from ..errors import InputError

__all__ = ["PLANES", "FilledSlicesInferer", "axes_of"]

PLANES = ("axial", "coronal", "sagittal")
"""The planes of a scan's slices, by the axis (of SPL) that they lie along."""

_BACKGROUND = 20.0  # logit of a slice without anything; the softmax's other classes are then below float32's 1e-8


def axes_of(planes: Sequence[str]) -> list[int]:
    """The axes along which the slices of these planes lie, in a scan brought to the axes SPL.

    Raises:
        InputError: a plane isn't known, or there is none.
    """
    if not planes or not {*planes} <= {*PLANES} or len({*planes}) < len(planes):
        raise InputError(f"planes {[*planes]}: give one or more of {', '.join(PLANES)}, each once")
    return [PLANES.index(plane) for plane in planes]


class FilledSlicesInferer(Inferer):
    """Applies a network of slices to a volume, many slices at once, in one direction or several.

    MONAI's SliceInferer does the slices; here those that hold nothing but zeros are left out, as background, and
    several directions vote: the mean of their probabilities is the result, as logits (2.5D).

    Args:
        roi_size: pixels (rows, columns) that the network sees at most; over what is larger windows slide, and are
            blended by a Gaussian. For what is smaller see `window`.
        slices: how many go through the network at once.
        planes: see `axes_of`; the volume's axes are SPL.
    """

    def __init__(self, roi_size: Sequence[int], slices: int = 16, planes: Sequence[str] = ("axial",)) -> None:
        super().__init__()
        self.roi_size = tuple(roi_size)
        self.slices = slices
        self.axes = axes_of(planes)

    def window(self, sizes: Sequence[int]) -> list[int]:
        """Rows and columns that slices of these are given to the network with.

        Those are multiples of the largest power of two that divides `roi_size`, which a network that takes `roi_size`
        takes, too; what is missing is padded by zeros. An attention over all pixels has little to do with empty ones.
        """
        steps = [whole & -whole for whole in self.roi_size]
        return [
            min(most, -(-size // step) * step) for most, size, step in zip(self.roi_size, sizes, steps, strict=True)
        ]

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Apply `network`, (N, C, H, W) to logits (N, K, H, W), to `inputs` (1, C, D, H, W); gives (1, K, D, H, W)."""
        filled = inputs.ne(0).flatten(0, 1).any(dim=0)
        mean: torch.Tensor | None = None
        for axis in self.axes:
            others = [other for other in range(3) if other != axis]
            window = self.window([inputs.shape[other + 2] for other in others])
            inferer = SliceInferer(axis, roi_size=window, sw_batch_size=self.slices, mode="gaussian")
            chosen = filled.any(dim=others[1]).any(dim=others[0]).nonzero()[:, 0]
            # An empty volume still needs the number of classes: one slice of it says that.
            asked = chosen if len(chosen) else chosen.new_zeros(1)
            found = inferer(inputs.index_select(axis + 2, asked), network, *args, **kwargs)
            assert isinstance(found, torch.Tensor)
            logits = found.new_zeros((*found.shape[:2], *inputs.shape[2:]))
            logits[:, 0] = _BACKGROUND
            if len(chosen):
                logits.index_copy_(axis + 2, chosen, found)
            if len(self.axes) == 1:
                return logits
            share = logits.softmax(dim=1) / len(self.axes)
            mean = share if mean is None else mean.add_(share)
        assert mean is not None
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
