"""Images as patches side by side, in any number of dimensions, and back."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

__all__ = ["gather_tokens", "patch_mask", "patchify", "unpatchify"]


def patchify(image: torch.Tensor, patch: Sequence[int]) -> torch.Tensor:
    """Cut images into patches side by side.

    Args:
        image: (B, C, H, W) or (B, C, D, H, W).
        patch: edges of one along each axis, which divide the image's.

    Returns:
        (B, N, P): N patches, the last axis of their grid running fastest, with P = C · Π patch pixels each, the channel
        running slowest.
    """
    grid = [size // edge for size, edge in zip(image.shape[2:], patch, strict=True)]
    cells = [length for pair in zip(grid, patch, strict=True) for length in pair]
    split = image.reshape(*image.shape[:2], *cells)
    last = split.ndim
    return split.permute(0, *range(2, last, 2), 1, *range(3, last, 2)).reshape(len(image), prod(grid), -1)


def unpatchify(patches: torch.Tensor, patch: Sequence[int], grid: Sequence[int]) -> torch.Tensor:
    """The inverse of `patchify`: images (B, C, …) of patches (B, N, P) that make up a grid of them."""
    axes = len(patch)
    split = patches.reshape(len(patches), *grid, -1, *patch)
    order = [place for axis in range(axes) for place in (1 + axis, 2 + axes + axis)]
    sizes = [cells * edge for cells, edge in zip(grid, patch, strict=True)]
    return split.permute(0, 1 + axes, *order).reshape(len(patches), -1, *sizes)


def patch_mask(masked: torch.Tensor, patch: Sequence[int], grid: Sequence[int]) -> torch.Tensor:
    """Which pixels are masked (B, 1, …), of which patches are (B, N)."""
    return unpatchify(masked[:, :, None].expand(-1, -1, prod(patch)), patch, grid)


def gather_tokens(tokens: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Those (B, V, …) of all tokens (B, N, …) that have the numbers (B, V)."""
    return tokens.gather(1, numbers[:, :, None].expand(-1, -1, tokens.shape[2]))
