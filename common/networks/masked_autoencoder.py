"""A masked autoencoder of volumes: pre-trains the blocks of 3D-TransUNet's vision transformer without labels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import nn

from ..errors import InputError
from .vision_transformer import TransformerBlocks, sine_cosine_positions

__all__ = ["MaskedAutoencoder", "Reconstruction", "gather_tokens", "masked_tokens", "patchify", "unpatchify"]


class Reconstruction(NamedTuple):
    """What `MaskedAutoencoder` returns.

    Attributes:
        predicted: pixels of each masked token (B, M, P), in the order of `patchify`, in the loss's units.
        masked: their numbers (B, M), rising.
    """

    predicted: torch.Tensor
    masked: torch.Tensor


def patchify(image: torch.Tensor, patch: Sequence[int]) -> torch.Tensor:
    """Cut images into patches side by side.

    Args:
        image: (B, C, D, H, W).
        patch: voxels (d, h, w) of one, which divide D, H and W.

    Returns:
        (B, N, P): N = D/d · H/h · W/w patches, the last axis of the grid running fastest, with P = C · d · h · w
        pixels each, the channel running slowest.
    """
    batch, channels = image.shape[:2]
    d, h, w = patch
    grid = [size // edge for size, edge in zip(image.shape[2:], patch, strict=True)]
    split = image.reshape(batch, channels, grid[0], d, grid[1], h, grid[2], w)
    return split.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, prod(grid), channels * d * h * w)


def unpatchify(patches: torch.Tensor, patch: Sequence[int], grid: Sequence[int]) -> torch.Tensor:
    """The inverse of `patchify`: images (B, C, D, H, W) of patches (B, N, P) that make up a grid of them."""
    batch = len(patches)
    (d, h, w), (planes, rows, columns) = patch, grid
    split = patches.reshape(batch, planes, rows, columns, -1, d, h, w)
    return split.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(batch, -1, planes * d, rows * h, columns * w)


def gather_tokens(tokens: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Those (B, V, …) of all tokens (B, N, …) that have the numbers (B, V)."""
    return tokens.gather(1, numbers[:, :, None].expand(-1, -1, tokens.shape[2]))


def masked_tokens(visible: torch.Tensor, tokens: int) -> torch.Tensor:
    """The numbers (B, M) of the tokens that aren't visible, rising; those that are: (B, V), different ones."""
    seen = torch.zeros(len(visible), tokens, dtype=torch.uint8, device=visible.device).scatter_(1, visible, 1)
    return seen.argsort(dim=1, stable=True)[:, : tokens - visible.shape[1]]


class MaskedAutoencoder(nn.Module):
    """A vision transformer that sees some tokens of a volume, and a light decoder that predicts the others' pixels.

    Based on: Yang et al., "3D-TransUNet for Brain Metastases Segmentation in the BraTS2023 Challenge", section 2.4,
    and He et al., "Masked Autoencoders Are Scalable Vision Learners", for what the former takes over. The 2D patch
    embedding along z makes patches of one plane, (1, 16, 16): 8192 tokens of a crop of 128³, of which 2048 are visible.
    89,916,160 parameters with four modalities and such patches; 85,056,000 of them are the encoder's blocks and norm,
    which `common.pretrained` moves into 3D-TransUNet; the rest is thrown away.

    The encoder sees the visible tokens only, and has no mask tokens and no class token. Attention never holds a map of
    tokens by tokens. Nothing here is random: which tokens are visible is drawn elsewhere and given.

    Args:
        in_channels: modalities C.
        image_size: voxels (D, H, W) of a crop.
        patch: voxels (d, h, w) of a token; (1, 16, 16) as in the paper, (4, 16, 16) makes a quarter of the tokens.
        width: of the encoder.
        layers: blocks of the encoder.
        heads: attention heads of the encoder.
        mlp: hidden width of the encoder's blocks.
        decoder_width: of the decoder.
        decoder_layers: blocks of the decoder; the paper has one.
        decoder_heads: attention heads of the decoder.
        checkpointing: compute a block's activations again in the backward pass, instead of keeping them.

    Attributes:
        grid: tokens along each axis.
        tokens: their number N.

    Raises:
        InputError: when patches don't divide the crop, or heads a width.
    """

    def __init__(
        self,
        in_channels: int = 4,
        image_size: Sequence[int] = (128, 128, 128),
        patch: Sequence[int] = (1, 16, 16),
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        mlp: int = 3072,
        decoder_width: int = 512,
        decoder_layers: int = 1,
        decoder_heads: int = 16,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if any(size % edge for size, edge in zip(image_size, patch, strict=True)):
            raise InputError(
                f"patch_size {list(image_size)}: tokens of {list(patch)} voxels don't divide it; give multiples of that"
            )
        self.in_channels, self.image_size, self.patch = in_channels, tuple(image_size), tuple(patch)
        self.grid = tuple(size // edge for size, edge in zip(image_size, patch, strict=True))
        self.tokens = prod(self.grid)
        pixels = in_channels * prod(patch)
        self.embedding = nn.Linear(pixels, width)
        self.encoder = TransformerBlocks(width, layers, heads, mlp, checkpointing=checkpointing)
        self.decoder_embedding = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(decoder_width))
        self.decoder = TransformerBlocks(
            decoder_width, decoder_layers, decoder_heads, 4 * decoder_width, checkpointing=checkpointing
        )
        self.head = nn.Linear(decoder_width, pixels)
        self.positions: torch.Tensor
        self.decoder_positions: torch.Tensor
        # Fixed, and so no part of a checkpoint.
        self.register_buffer("positions", sine_cosine_positions(self.grid, width), persistent=False)
        self.register_buffer("decoder_positions", sine_cosine_positions(self.grid, decoder_width), persistent=False)
        nn.init.normal_(self.mask_token, std=0.02)
        for layer in (self.embedding, self.decoder_embedding, self.head):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, image: torch.Tensor, visible: torch.Tensor) -> Reconstruction:
        """Predict the masked tokens' pixels from the visible ones.

        Args:
            image: (B, C, D, H, W) of the size that the network was made for.
            visible: numbers of the visible tokens (B, V), different ones, int64; see
                `common.transforms.random_masking`.

        Raises:
            InputError: when the image has another shape.
        """
        masked = masked_tokens(visible, self.tokens)
        return Reconstruction(self.decode(self.encode(image, visible), visible, masked), masked)

    def encode(self, image: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """The encoder's output (B, V, width) for the visible tokens, after the last norm."""
        if tuple(image.shape[1:]) != (self.in_channels, *self.image_size):
            raise InputError(
                f"image of shape {tuple(image.shape)}: the network takes "
                f"(batch, {self.in_channels} channels, {', '.join(map(str, self.image_size))})"
            )
        # Only what is visible is embedded: the others cost nothing.
        tokens = self.embedding(gather_tokens(patchify(image, self.patch), visible))
        return self.encoder(tokens + self.positions[visible])

    def decode(self, encoded: torch.Tensor, visible: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """The pixels (B, M, P) of the tokens asked for (B, M), from the encoder's output.

        Each visible token goes back to its place, and the mask token to all others.
        """
        embedded = self.decoder_embedding(encoded).to(self.mask_token.dtype)
        tokens = self.mask_token.expand(len(embedded), self.tokens, -1)
        tokens = tokens.scatter(1, visible[:, :, None].expand_as(embedded), embedded)
        decoded = self.decoder(tokens + self.decoder_positions)
        return self.head(gather_tokens(decoded, asked))
