"""3D-TransUNet: nnU-Net's plain 3D U-Net, a vision transformer in its bottleneck, and queries that decode its maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..errors import InputError
from .plain_unet import PlainUNet
from .query_decoder import QueryDecoder, QueryPrediction, combine_queries, mask_logits
from .vision_transformer import BottleneckTransformer

__all__ = ["QueryPrediction", "TransUNet3D", "TransUNetOutput"]


class TransUNetOutput(NamedTuple):
    """What `TransUNet3D` returns in training.

    Attributes:
        heads: the convolutional decoder's logits of each level, finest first, (B, K, D, H, W), (B, K, D / 2, …) and so
            on.
        predictions: of the queries at first and after each layer; empty without queries.
        mask_features: (B, C, D, H, W), from which the masks are made; None without queries.
    """

    heads: list[torch.Tensor]
    predictions: list[QueryPrediction]
    mask_features: torch.Tensor | None


class TransUNet3D(PlainUNet):
    """3D-TransUNet for regions, each with a sigmoid of its own.

    Based on: Yang et al., "3D-TransUNet for Brain Metastases Segmentation in the BraTS2023 Challenge". The plan's
    numbers make its variants, here with four modalities and three regions:

    =================== ============== ============== ==============
    variant             encoder_layers decoder_layers     parameters
    =================== ============== ============== ==============
    Encoder-only                    12              0    116,792,111
    Decoder-only                     0              3     34,071,475
    encoder and decoder              1              3     41,702,643
    plain nnU-Net                    0              0     31,194,351
    =================== ============== ============== ==============

    Without queries the finest head segments. With queries the regions are classes, and the queries segment by set
    prediction: each predicts a region or none, and a mask; the heads only supervise the convolutional decoder in
    training. The queries' layers look at the coarse levels of the decoder first, and at half the resolution last.

    Args:
        in_channels: modalities.
        out_channels: regions K.
        features: channels of each stage, finest first; their number is the depth.
        encoder_layers: layers of the vision transformer in the bottleneck; 0 for none.
        decoder_layers: layers of the queries' decoder; 0 for no queries.
        queries: their number, at least K.
        positions: grid (D, H, W) of the vision transformer's learned positions: the crop in training divided by 2 to
            the power of the stages less one. For images of other sizes they are interpolated.
        encoder_width: of the vision transformer.
        encoder_heads: of its attention.
        encoder_mlp: hidden width of its perceptrons.
        decoder_width: of the queries, a multiple of 32.
        decoder_heads: of their attention.
        decoder_mlp: hidden width of their perceptrons.
        dropout: of the vision transformer; the queries have none.

    Raises:
        InputError: when an argument is outside its range.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 3,
        features: Sequence[int] = (32, 64, 128, 256, 320, 320),
        encoder_layers: int = 12,
        decoder_layers: int = 0,
        queries: int = 20,
        positions: Sequence[int] = (4, 4, 4),
        encoder_width: int = 768,
        encoder_heads: int = 12,
        encoder_mlp: int = 3072,
        decoder_width: int = 192,
        decoder_heads: int = 8,
        decoder_mlp: int = 1536,
        dropout: float = 0.1,
    ) -> None:
        if not 0 <= decoder_layers <= len(features) - 2:
            raise InputError(
                f"decoder_layers {decoder_layers}: {len(features)} stages have levels for 0 to {len(features) - 2}"
            )
        if encoder_layers < 0:
            raise InputError(f"encoder_layers {encoder_layers}: give 0 for none, or more")
        super().__init__(in_channels, out_channels, features)
        self.transformer: BottleneckTransformer | None = None
        if encoder_layers:
            self.transformer = BottleneckTransformer(
                features[-1],
                positions,
                encoder_width,
                encoder_layers,
                encoder_heads,
                encoder_mlp,
                dropout,
            )
        self.query_decoder: QueryDecoder | None = None
        if decoder_layers:
            levels = range(decoder_layers, 0, -1)
            self.query_decoder = QueryDecoder(
                [features[level] for level in levels],
                [2**level for level in levels],
                features[0],
                out_channels,
                queries,
                decoder_width,
                decoder_heads,
                decoder_mlp,
            )

    def forward(self, image: torch.Tensor) -> TransUNetOutput | torch.Tensor:
        """Segment.

        Args:
            image: (B, in_channels, D, H, W), sizes that 2 to the power of the stages less one divides.

        Returns:
            `TransUNetOutput` in training. In evaluation the logits (B, K, D, H, W) alone, whose sigmoid is a region's
            probability; from queries they are in float32, under autocast too. See `combine_queries`.

        Raises:
            InputError: when the image has another number of channels, or a size that the stages can't halve.
        """
        output = self._run(image)
        if self.training:
            return output
        if output.mask_features is None:
            return output.heads[0]
        return combine_queries(output.predictions[-1], output.mask_features)

    def queries(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What each query is and paints at last, for a report; `forward` sums over the queries.

        Args:
            image: as in `forward`.

        Returns:
            The probabilities of the classes (B, Q, K + 1), the last of "no object", and the masks' (B, Q, D, H, W),
            both float32.

        Raises:
            InputError: when the network has no queries, or as in `forward`.
        """
        if self.query_decoder is None:
            raise InputError("the network has no queries: its decoder_layers is 0")
        output = self._run(image)
        assert output.mask_features is not None
        prediction = output.predictions[-1]
        return prediction.classes.softmax(2), mask_logits(prediction, output.mask_features).sigmoid_()

    def _run(self, image: torch.Tensor) -> TransUNetOutput:
        """All of the heads and predictions in training; in evaluation only the last of those that segment."""
        self.check(image)
        encoded = self.encode(image)
        if self.transformer is not None:
            encoded[-1] = self.transformer(encoded[-1])
        decoder = self.query_decoder
        heads: list[torch.Tensor] = []
        predictions: list[QueryPrediction] = []
        if decoder is not None:
            queries = decoder.start(len(image))
            layers = {layer.step: layer for layer in decoder.layers}
            if self.training:
                predictions.append(decoder.predict(queries))
        for level, x in self.decode(encoded):
            if self.training or (decoder is None and level == 0):
                heads.insert(0, self.head(level)(x))
            if decoder is not None and 2**level in layers:
                # Now, so that nothing of it is there when the finest level takes its memory.
                queries = layers[2**level](queries, x)
                if self.training or level == 1:
                    predictions.append(decoder.predict(queries))
        return TransUNetOutput(heads, predictions, None if decoder is None else x)
