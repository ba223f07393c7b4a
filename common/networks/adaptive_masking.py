"""Which patches of an image a masked autoencoder must predict: likely lesions first, and more of them each epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from ..errors import InputError
from .patches import patchify

__all__ = [
    "AdaptiveMasking",
    "Masking",
    "adaptive_ratio",
    "choose_patches",
    "lesion_patches",
    "masked_count",
    "two_means",
]

_MOST_ROUNDS = 100


def _is_exporting() -> bool:
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


class Masking(NamedTuple):
    """What `AdaptiveMasking` chose.

    Attributes:
        masked: which patches are masked, (B, N), boolean, in the order of `patchify`; as many of each image.
        number: how many those are.
        lesion: which patches are likely lesion, (B, N), boolean; None where patches aren't selected.
    """

    masked: torch.Tensor
    number: int
    lesion: torch.Tensor | None


class AdaptiveMasking(nn.Module):
    """Masked patch selection (MPS) and adaptive masking ratio (AMS).

    Based on: Wang et al., "MPS-AMS: Masked Patches Selection and Adaptive Masking Strategy Based Self-Supervised
    Medical Image Segmentation", section 2.

    The patches that `lesion_patches` takes for lesion are masked first, then others, until ⌊N σ⌋ of the N patches are,
    with the ratio σ of `adaptive_ratio`. Among patches of a kind chance decides, which is drawn elsewhere and given.

    Nothing here has weights, and everything is computed for the whole batch on its device. Selection takes N² numbers
    for each image.

    Args:
        patch: edges of a patch along each axis of the image.
        initial_ratio: σ₀.
        growth: τ.
        adaptive: whether the ratio grows; else it is `fixed_ratio`, in Table 2 the rows without AMS.
        fixed_ratio: the ratio of all epochs otherwise, and in evaluation, so that losses of epochs can be compared.
        select: whether likely lesions come first; else chance alone decides, the rows without MPS.

    Attributes:
        ratio: σ of the epoch in training; see `set_epoch`.

    Raises:
        InputError: when an argument is outside its range.
    """

    def __init__(
        self,
        patch: Sequence[int] = (16, 16),
        initial_ratio: float = 0.25,
        growth: float = 12.0,
        adaptive: bool = True,
        fixed_ratio: float = 0.75,
        select: bool = True,
    ) -> None:
        super().__init__()
        for name, value in {"initial_ratio": initial_ratio, "mask_ratio": fixed_ratio}.items():
            if not 0 < value < 1:
                raise InputError(f"{name} {value}: give a number above 0 and below 1")
        if growth <= 0:
            raise InputError(f"ratio_growth {growth}: give a number above zero")
        self.patch, self.select = tuple(patch), select
        self.initial_ratio, self.growth = initial_ratio, growth
        self.adaptive, self.fixed_ratio = adaptive, fixed_ratio
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Say how many epochs are finished, before each epoch and after resuming: it makes the ratio."""
        grown = adaptive_ratio(epoch + 1, self.initial_ratio, self.growth)
        self.ratio = grown if self.adaptive else self.fixed_ratio

    @torch.no_grad()
    def forward(self, image: torch.Tensor, noise: torch.Tensor) -> Masking:
        """Choose.

        Args:
            image: (B, C, …), in units of its own standard deviation and with zeros as background, sizes that the patch
                divides.
            noise: one number for each patch, (B, N), drawn uniformly; of patches of a kind those with the smallest are
                masked first.

        Raises:
            InputError: when the patch doesn't divide the image, or there are fewer than two patches.
        """
        sizes = tuple(image.shape[2:])
        patches = math.prod(size // edge for size, edge in zip(sizes, self.patch, strict=True))
        if any(size % edge for size, edge in zip(sizes, self.patch, strict=True)) or patches < 2:
            raise InputError(
                f"image of {sizes} pixels: patches of {list(self.patch)} must divide it into two or more; give other "
                "sizes"
            )
        lesion = lesion_patches(image, self.patch) if self.select else None
        number = masked_count(patches, self.ratio if self.training else self.fixed_ratio)
        return Masking(choose_patches(noise, number, lesion), number, lesion)


def adaptive_ratio(epoch: int, initial: float = 0.25, growth: float = 12.0) -> float:
    """σ = σ₀ + ln(e) / τ, section 2.2: the share of patches that is masked in epoch e, counted from 1; at most 1."""
    return min(1.0, initial + math.log(epoch) / growth)


def masked_count(patches: int, ratio: float) -> int:
    """⌊N σ⌋, but at least one patch, and at least one that isn't masked."""
    return min(max(math.floor(patches * ratio), 1), patches - 1)


def choose_patches(noise: torch.Tensor, count: int, lesion: torch.Tensor | None = None) -> torch.Tensor:
    """Mask so many patches, lesions first.

    Args:
        noise: (B, N), from 0 to below 1.
        count: how many of each image.
        lesion: which are likely lesion (B, N), boolean; None for none.

    Returns:
        Which are masked, (B, N), boolean.
    """
    order = noise if lesion is None else noise + ~lesion
    chosen = order.argsort(dim=1)[:, :count]
    return torch.zeros_like(noise).scatter(1, chosen, 1.0).bool()


def lesion_patches(image: torch.Tensor, patch: Sequence[int]) -> torch.Tensor:
    """Which patches are likely lesion: the smaller of two clusters of rows of softmax(similarity), section 2.1.

    The similarity of two patches is the mean of the products of their pixels, as in a covariance matrix but without
    taking each patch's mean away: that mean is what tells a bright lesion from its surroundings. The clusters' centres
    begin at the patches of the least and the greatest mean. Of two clusters of one size that of the brighter patch is
    taken. An image whose patches are all alike has no lesion.

    Args:
        image: (B, C, …), see `AdaptiveMasking`.
        patch: edges of a patch, which divide the image.

    Returns:
        (B, N), boolean.
    """
    with torch.autocast(image.device.type, enabled=False):
        patches = patchify(image.float(), patch)
        rows = (patches @ patches.transpose(1, 2) / patches.shape[2]).softmax(dim=2)
        mean = patches.mean(dim=2)
        starts = torch.stack([mean.argmin(dim=1), mean.argmax(dim=1)], dim=1)
        centres = rows.gather(1, starts[:, :, None].expand(-1, -1, rows.shape[2]))
        second = two_means(rows, centres)
    of_second = second.sum(dim=1, keepdim=True)
    smaller, some_are_first = 2 * of_second <= second.shape[1], of_second < second.shape[1]
    return (second & smaller) | (~second & ~smaller & some_are_first)


def two_means(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Lloyd's k-means with two centres, of all samples of a batch at once.

    A centre that has lost all its points stays where it is. It ends when no point changes its cluster, after a hundred
    rounds at the latest.

    Args:
        points: (B, N, F).
        centres: where the two begin (B, 2, F).

    Returns:
        Which points are the second centre's (B, N), boolean; one as near to both is the first's.
    """
    second = points.new_zeros(points.shape[:2], dtype=torch.bool)
    total = points.sum(dim=1)
    for number in range(_MOST_ROUNDS):
        # |p − a|² > |p − b|² needs no distances.
        first, last = centres.unbind(dim=1)
        border = (last.square().sum(dim=1) - first.square().sum(dim=1)) / 2
        nearer = (points @ (last - first).unsqueeze(2)).squeeze(2) > border.unsqueeze(1)
        # An exported network can't tell when to end; further rounds change nothing.
        if number and not _is_exporting() and torch.equal(nearer, second):
            break
        second = nearer
        count = second.sum(dim=1, keepdim=True)
        inside = (second.to(points.dtype).unsqueeze(1) @ points).squeeze(1)
        counts = torch.stack([second.shape[1] - count, count], dim=1)
        sums = torch.stack([total - inside, inside], dim=1)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    return second
