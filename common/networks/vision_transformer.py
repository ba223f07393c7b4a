"""Transformer blocks for 3D maps: their stack, positions, and the vision transformer in a U-Net's bottleneck."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import InputError

__all__ = ["BottleneckTransformer", "TransformerBlocks", "interpolate_positions", "sine_cosine_positions"]

_TEMPERATURE = 10000.0


class TransformerBlocks(nn.Module):
    """A stack of pre-norm transformer blocks, and a last norm.

    Based on: Yang et al., "3D-TransUNet for Brain Metastases Segmentation in the BraTS2023 Challenge", Eqs 2 and 3, and
    Dosovitskiy et al., "An Image is Worth 16x16 Words": self-attention and a GELU perceptron, each on a branch of its
    own. 85,054,464 parameters with twelve blocks of width 768, and 1,536 of the norm.

    The blocks are torch's. MONAI's with `use_flash_attention` needs einops, drops attention in evaluation too, and has
    a norm without use, which would stop a training on several GPUs.

    Args:
        width: channels C of a token.
        layers: number of blocks.
        heads: of the attention; they divide the width.
        mlp: hidden width of the perceptron.
        dropout: probability of dropping a value of a branch's output or of the perceptron's hidden layer, in training.
            Attention itself has no dropout, as in the second paper, and so a map of tokens by tokens is never held.
        checkpointing: compute a block's activations again in the backward pass, instead of keeping them.

    Raises:
        InputError: when there is no block, or the heads don't divide the width.
    """

    def __init__(
        self,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        mlp: int = 3072,
        dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise InputError(f"{layers} transformer layers: give at least one")
        if width % heads:
            raise InputError(f"transformer of width {width}: {heads} heads don't divide it")
        self.checkpointing = checkpointing
        self.blocks = nn.ModuleList(_block(width, heads, mlp, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, N, C) to (B, N, C)."""
        x = tokens.transpose(0, 1)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing and self.training else block(x)
        return self.norm(x.transpose(0, 1))


def _block(width: int, heads: int, mlp: int, dropout: float) -> nn.TransformerEncoderLayer:
    # Tokens are its first axis, since torch's shortcut for evaluation, which does hold a map of tokens by tokens, is
    # only for batches first.
    block = nn.TransformerEncoderLayer(width, heads, mlp, dropout, activation="gelu", norm_first=True)
    block.self_attn.dropout = 0.0
    for linear in (block.linear1, block.linear2):
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
    return block


class BottleneckTransformer(nn.Module):
    """A vision transformer over the coarsest map of a U-Net (Eqs 1 to 3), each voxel of which is a token.

    Based on: Yang et al., "3D-TransUNet for Brain Metastases Segmentation in the BraTS2023 Challenge", section 2.1.

    Learned positions are added to the tokens; for a map of another grid they are interpolated. There is no layer scale:
    on the branches it isn't in the paper, and on the identity it would erase the positions.

    Args:
        channels: of the map.
        positions: grid (D, H, W) of the learned positions, that of the map in training.
        width: see `TransformerBlocks`, also for the following.
        layers: number of blocks.
        heads: of the attention.
        mlp: hidden width of the perceptron.
        dropout: also of the tokens with their positions.

    Raises:
        InputError: when an argument is outside its range.
    """

    def __init__(
        self,
        channels: int = 320,
        positions: Sequence[int] = (4, 4, 4),
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        mlp: int = 3072,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if len(positions) != 3 or min(positions) < 1:
            raise InputError(f"positions {list(positions)}: give three whole numbers above zero")
        self.embedding = nn.Conv3d(channels, width, kernel_size=1)
        self.positions = nn.Parameter(torch.empty(1, width, *positions))
        self.dropout = nn.Dropout(dropout)
        self.encoder = TransformerBlocks(width, layers, heads, mlp, dropout)
        self.projection = nn.Conv3d(width, channels, kernel_size=1)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, D, H, W) to the same shape."""
        embedded = self.embedding(x) + interpolate_positions(self.positions, x.shape[2:])
        tokens = self.encoder(self.dropout(embedded.flatten(2).transpose(1, 2)))
        return self.projection(tokens.transpose(1, 2).unflatten(2, x.shape[2:]))


def interpolate_positions(positions: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """Learned positions (1, C, D, H, W) for another grid (D', H', W'), trilinear; as they are for their own."""
    if tuple(positions.shape[2:]) == tuple(grid):
        return positions
    return F.interpolate(positions, tuple(grid), mode="trilinear")


def sine_cosine_positions(
    grid: Sequence[int], width: int, step: float = 1.0, device: torch.device | None = None
) -> torch.Tensor:
    """Fixed positions: sines and cosines of each axis' coordinate, of frequencies from 1 down to 1 / 10000.

    The first third of the channels tells the depth, the next the height, the last the width; sines come before
    cosines, and high frequencies before low ones. Where six doesn't divide the width, the channels left over are zero,
    which `monai.networks.blocks.pos_embed_utils` doesn't take.

    Args:
        grid: cells (D, H, W).
        width: channels C, at least six.
        step: edge of a cell. The coordinate of cell i is its centre, (i + ½) · step − ½: its number at step 1, and
            for coarser cells the mean number of those that they cover.
        device: where to make them.

    Returns:
        (D·H·W, C), float32, the last axis of the grid running fastest.
    """
    frequencies = width // 6
    omega = _TEMPERATURE ** -(torch.arange(frequencies, device=device, dtype=torch.float32) / frequencies)
    parts = []
    for axis, size in enumerate(grid):
        coordinate = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * step - 0.5
        angles = omega[:, None] * coordinate
        shape = [size if other == axis else 1 for other in range(3)]
        parts.append(torch.cat([angles.sin(), angles.cos()]).reshape(-1, *shape).expand(-1, *grid))
    rest = torch.zeros(1, device=device).expand(width - 6 * frequencies, *grid)
    return torch.cat([*parts, rest]).flatten(1).T
