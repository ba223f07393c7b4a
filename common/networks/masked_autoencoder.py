"""A masked autoencoder of volumes: pre-trains the blocks of 3D-TransUNet's vision transformer without labels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import nn

from ..errors import InputError
from .adaptive_masking import AdaptiveMasking
from .patches import gather_tokens, patchify
from .vision_transformer import TransformerBlocks, sine_cosine_positions

__all__ = ["MaskedAutoencoder", "Reconstruction"]


class Reconstruction(NamedTuple):
    """What `MaskedAutoencoder` returns.

    Attributes:
        predicted: pixels of each masked token (B, M, P), in the order of `patchify`, in the loss's units.
        masked: their numbers (B, M), rising.
    """

    predicted: torch.Tensor
    masked: torch.Tensor


class MaskedAutoencoder(nn.Module):
    """A vision transformer that sees some tokens of a volume, and a light decoder that predicts the others' pixels.

    Based on: Yang et al., "3D-TransUNet for Brain Metastases Segmentation in the BraTS2023 Challenge", section 2.4,
    and He et al., "Masked Autoencoders Are Scalable Vision Learners", for what the former takes over. The 2D patch
    embedding along z makes patches of one plane, (1, 16, 16): 8192 tokens of a crop of 128³, of which 2048 are visible.
    89,916,160 parameters with four modalities and such patches; 85,056,000 of them are the encoder's blocks and norm,
    which `common.pretrained` moves into 3D-TransUNet; the rest is thrown away.

    The encoder sees the visible tokens only, and has no mask tokens and no class token. Attention never holds a map of
    tokens by tokens (but `masking` does, where it selects patches). Nothing here is random: numbers that decide which
    tokens are masked are drawn elsewhere and given.

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
        masking: which tokens are masked, with the same `patch`; None for three quarters of them by chance.

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
        masking: AdaptiveMasking | None = None,
    ) -> None:
        super().__init__()
        if any(size % edge for size, edge in zip(image_size, patch, strict=True)):
            raise InputError(
                f"patch_size {list(image_size)}: tokens of {list(patch)} voxels don't divide it; give multiples of that"
            )
        self.in_channels, self.image_size, self.patch = in_channels, tuple(image_size), tuple(patch)
        self.grid = tuple(size // edge for size, edge in zip(image_size, patch, strict=True))
        self.tokens = prod(self.grid)
        if self.tokens < 2:
            raise InputError(
                f"patch_size {list(image_size)}: makes {self.tokens} token, and masking needs two; give a larger one"
            )
        self.masking = masking or AdaptiveMasking(self.patch, adaptive=False, select=False)
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

    def forward(self, image: torch.Tensor, noise: torch.Tensor) -> Reconstruction:
        """Predict the masked tokens' pixels from the visible ones.

        Args:
            image: (B, C, D, H, W) of the size that the network was made for.
            noise: one number for each token, (B, N), drawn uniformly; see `common.networks.adaptive_masking`.

        Raises:
            InputError: when the image has another shape.
        """
        self.check(image)
        chosen = self.masking(image, noise)
        # Keys of which no two are alike: ONNX has no stable sort.
        numbers = (chosen.masked * self.tokens + torch.arange(self.tokens, device=image.device)).argsort(dim=1)
        visible, masked = numbers.split([self.tokens - chosen.number, chosen.number], dim=1)
        return Reconstruction(self.decode(self.encode(image, visible), visible, masked), masked)

    def check(self, image: torch.Tensor) -> None:
        """Refuse an image of another shape than the network was made for."""
        if tuple(image.shape[1:]) != (self.in_channels, *self.image_size):
            raise InputError(
                f"image of shape {tuple(image.shape)}: the network takes "
                f"(batch, {self.in_channels} channels, {', '.join(map(str, self.image_size))})"
            )

    def encode(self, image: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """The encoder's output (B, V, width) for the visible tokens, after the last norm."""
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
