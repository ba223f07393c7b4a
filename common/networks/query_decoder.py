"""A transformer decoder whose queries segment by set prediction: each says what it is, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.networks.blocks import MLPBlock
from torch import nn

from ..errors import InputError
from .vision_transformer import sine_cosine_positions

__all__ = ["CrossAttention", "QueryDecoder", "QueryLayer", "QueryPrediction", "combine_queries", "mask_logits"]

_GROUPS = 32
PIECE = 2**18
"""Voxels whose masks are held at a time: those of 20 queries then take 21 MB."""


class QueryPrediction(NamedTuple):
    """What each query predicts.

    Attributes:
        classes: logits (B, Q, K + 1), the last for "no object".
        weights: (B, Q, C); a query's mask logits are weights · mask features + bias, see `mask_logits`.
        bias: (B, Q).
    """

    classes: torch.Tensor
    weights: torch.Tensor
    bias: torch.Tensor


class CrossAttention(nn.Module):
    """Attention of few queries to the many voxels of a map, without a map of keys or values a head.

    Based on: Yang et al., "3D-TransUNet for Brain Metastases Segmentation in the BraTS2023 Challenge", Eq. 4 without
    its residual connection, in several heads, scaled by the root of a head's width, and followed by a linear layer.

    Products with w_k and w_v are linear. So w_k is applied to the queries and w_v to what they see, which are few: that
    is less to compute and to keep than w_k and w_v of each voxel. A bias of the keys would change nothing.

    Args:
        width: C of the queries and of the map.
        heads: they divide the width.
    """

    def __init__(self, width: int = 192, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Look.

        Args:
            queries: (B, Q, C).
            keys: a map (B, C, N) before w_k.
            values: a map (B, C, N) before w_v.

        Returns:
            (B, Q, C).
        """
        asked = self.query(queries).unflatten(2, (self.heads, -1))
        w_k, w_v = (layer.weight.unflatten(0, (self.heads, -1)) for layer in (self.key, self.value))
        asked = torch.einsum("bqhd,hdc->bhqc", asked / asked.shape[3] ** 0.5, w_k).flatten(1, 2)
        seen = (asked @ keys).softmax(2) @ values.transpose(1, 2)
        seen = torch.einsum("bhqc,hdc->bqhd", seen.unflatten(1, (self.heads, -1)), w_v)
        return self.out(seen.flatten(2) + self.value.bias)


class QueryLayer(nn.Module):
    """One layer of the decoder: queries look at a level's map, then at one another, then think.

    Based on: Yang et al., "3D-TransUNet for Brain Metastases Segmentation in the BraTS2023 Challenge", section 2.2:
    cross-attention with a residual connection (Eq. 4), without the masks of Mask2Former, which made the training
    unstable; then self-attention and a perceptron, each followed by a norm.

    Keys, unlike values, have the positions of their voxels. What tells the level is the shift that the norm of its
    projection learns: an embedding of the level would be the same once more.

    Args:
        channels: of the level's map.
        step: voxels of the image that one of the map covers along each axis: positions are told in these, so that a
            place is told alike at each level.
        width: of the queries, a multiple of 32 and of the heads.
        heads: of both attentions.
        mlp: hidden width of the perceptron.
    """

    def __init__(self, channels: int, step: int, width: int = 192, heads: int = 8, mlp: int = 1536) -> None:
        super().__init__()
        self.step = step
        self.projection = nn.Sequential(nn.Conv3d(channels, width, kernel_size=1), nn.GroupNorm(_GROUPS, width))
        self.cross_attention = CrossAttention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLPBlock(width, mlp, act="RELU")
        self.norm3 = nn.LayerNorm(width)

    def forward(self, queries: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Refine the queries.

        Args:
            queries: (B, Q, width).
            features: the level's map (B, channels, D, H, W).

        Returns:
            (B, Q, width).
        """
        values = self.projection(features).flatten(2)
        positions = sine_cosine_positions(features.shape[2:], values.shape[1], self.step, values.device)
        keys = values + positions.T.to(values.dtype)
        queries = self.norm1(queries + self.cross_attention(queries, keys, values))
        queries = self.norm2(queries + self.self_attention(queries, queries, queries, need_weights=False)[0])
        return self.norm3(queries + self.mlp(queries))


class QueryDecoder(nn.Module):
    """The queries, a layer for each level that they look at, and the heads that predict from them.

    Based on: Yang et al., "3D-TransUNet for Brain Metastases Segmentation in the BraTS2023 Challenge", section 2.2.

    The layers run one by one, `layers[number](queries, features)`, so that nobody need keep a level's map for them.

    A mask is the product of a query's embedding with the mask features, brought to the queries' width by a 1³
    convolution (Eq. 5). Both are linear, and so the convolution is applied to the embedding, not to the map: no map
    of that many channels is made at full resolution.

    Args:
        channels: of each level's map, in the order of the layers.
        steps: voxels of the image that a voxel of each level's map covers along each axis.
        mask_channels: of the mask features, C.
        classes: number of classes K, "no object" not counted.
        queries: their number Q, at least K.
        width: of the queries, a multiple of 32 and of the heads.
        heads: of the attentions.
        mlp: hidden width of the layers' perceptron.

    Raises:
        InputError: when an argument is outside its range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        steps: Sequence[int],
        mask_channels: int,
        classes: int = 3,
        queries: int = 20,
        width: int = 192,
        heads: int = 8,
        mlp: int = 1536,
    ) -> None:
        super().__init__()
        if queries < classes:
            raise InputError(f"{queries} queries: give at least as many as there are classes, {classes}")
        if width % _GROUPS or width % heads:
            raise InputError(f"queries of width {width}: give a multiple of {_GROUPS} and of the {heads} heads")
        self.initial = nn.Parameter(torch.randn(queries, width))
        self.layers = nn.ModuleList(
            QueryLayer(count, step, width, heads, mlp) for count, step in zip(channels, steps, strict=True)
        )
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, classes + 1)
        self.mask_embedding = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )
        self.mask_projection = nn.Conv3d(mask_channels, width, kernel_size=1)

    def start(self, batch: int) -> torch.Tensor:
        """The queries before any layer, (batch, Q, width)."""
        return self.initial.repeat(batch, 1, 1)

    def predict(self, queries: torch.Tensor) -> QueryPrediction:
        """What the queries (B, Q, width) say now, in float32 under autocast too: there is little to compute."""
        with torch.autocast(queries.device.type, enabled=False):
            queries = self.norm(queries.float())
            embedding = self.mask_embedding(queries)
            assert self.mask_projection.bias is not None
            return QueryPrediction(
                self.classes(queries),
                embedding @ self.mask_projection.weight.flatten(1),
                embedding @ self.mask_projection.bias,
            )


def mask_logits(prediction: QueryPrediction, features: torch.Tensor) -> torch.Tensor:
    """The logits of each query's mask (Eq. 5 before g).

    Args:
        prediction: what the queries predict.
        features: the mask features (B, C, D, H, W).

    Returns:
        (B, Q, D, H, W), float32.
    """
    with torch.autocast(features.device.type, enabled=False):
        logits = torch.baddbmm(prediction.bias.unsqueeze(2), prediction.weights, features.flatten(2).float())
    return logits.unflatten(2, features.shape[2:])


def combine_queries(prediction: QueryPrediction, features: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """The classes' logits: of Σ over the queries of class probability × mask.

    The sum is clamped to [eps, 1 − eps], since several queries may paint the same. It is made of a few slices at a
    time, so that the masks of all queries are never held whole.

    Args:
        prediction: what the queries predict.
        features: the mask features (B, C, D, H, W).
        eps: least probability.

    Returns:
        (B, K, D, H, W), float32; above zero where the sum is above a half.
    """
    probabilities = prediction.classes.softmax(2)[..., :-1].transpose(1, 2)  # (B, K, Q)
    slices = max(1, PIECE // features[:, 0, 0].numel())
    pieces = []
    for piece in features.split(slices, dim=2):
        masks = mask_logits(prediction, piece).sigmoid()
        with torch.autocast(features.device.type, enabled=False):
            pieces.append((probabilities @ masks.flatten(2)).unflatten(2, masks.shape[2:]))
    return torch.cat(pieces, dim=2).logit(eps)
