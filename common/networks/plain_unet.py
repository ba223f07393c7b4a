"""nnU-Net's plain 3D U-Net, which other networks build on: its stages, its heads and the sizes that it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from monai.networks.nets import DynUNet
from torch import nn

from ..errors import InputError
from .conv3 import Conv3

__all__ = ["PlainUNet", "can_halve"]


class PlainUNet(DynUNet):
    """nnU-Net's plain 3D U-Net with deep supervision.

    Based on: Isensee et al., "nnU-Net" (Nature Methods 18, 2021). It is MONAI's DynUNet by nnU-Net's plan: stages of
    two convolutions with instance normalisation and leaky ReLU, 31,194,351 parameters with six stages, four modalities
    and three outputs.

    DynUNet itself supervises heads that it has upsampled; here each keeps its own resolution, as in nnU-Net.

    Args:
        in_channels: modalities.
        out_channels: outputs K: classes with the background first, or regions.
        features: channels of each stage, finest first; their number is the depth.

    Attributes:
        multiple: of which each size of an image must be a multiple.

    Raises:
        InputError: when there are fewer than three stages.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 3,
        features: Sequence[int] = (32, 64, 128, 256, 320, 320),
    ) -> None:
        stages = len(features)
        if stages < 3:
            raise InputError(f"features {list(features)}: give at least three stages")
        super().__init__(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=[3] * stages,
            strides=[1] + [2] * (stages - 1),
            upsample_kernel_size=[2] * (stages - 1),
            filters=list(features),
            norm_name=("instance", {"affine": True}),
            act_name=("leakyrelu", {"inplace": True, "negative_slope": 0.01}),
            deep_supervision=True,
            deep_supr_num=stages - 2,
        )
        # The same layers once more, nested, which would be in the state dict twice; and random placeholders.
        del self.skip_layers, self.heads
        for module in self.modules():
            if isinstance(module, nn.Conv3d) and module.kernel_size == (3, 3, 3):
                # Which trains a map of two slices, that of a 64³ crop, on a CPU too. DynUNet builds its layers itself
                # and takes none; so they stay in their places, with their weights as they were drawn.
                module.__class__ = Conv3
        self.multiple = 2 ** (stages - 1)

    def encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The maps of each stage, finest first: (B, C, D, H, W), (B, C', D / 2, H / 2, W / 2) and so on."""
        encoded = [self.input_block(image)]
        for stage in [*self.downsamples, self.bottleneck]:
            encoded.append(stage(encoded[-1]))
        return encoded

    def decode(self, encoded: list[torch.Tensor]) -> Iterator[tuple[int, torch.Tensor]]:
        """The decoder's maps, coarsest first, each made when it is asked for.

        Args:
            encoded: what `encode` returns. It is emptied on the way, so that no map is kept longer than it is needed.

        Yields:
            The level, 0 the finest, and its map (B, features[level], D / 2^level, …).
        """
        x = encoded.pop()
        for up in self.upsamples:
            x = up(x, encoded.pop())
            yield len(encoded), x

    def head(self, level: int) -> nn.Module:
        """The 1³ convolution that makes the logits of a level, 0 the finest."""
        return self.deep_supervision_heads[level - 1] if level else self.output_block

    def logits(self, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """The logits of each level in training, finest first; in evaluation a list of the finest alone.

        Args:
            encoded: what `encode` returns; it is emptied.
        """
        logits: list[torch.Tensor] = []
        for level, x in self.decode(encoded):
            if self.training or level == 0:
                logits.insert(0, self.head(level)(x))
        return logits

    def forward(self, image: torch.Tensor) -> Sequence[object] | torch.Tensor:
        """Segment.

        Args:
            image: (B, in_channels, D, H, W), sizes that 2 to the power of the stages less one divides.

        Returns:
            In training the logits of each level, finest first, (B, K, D, H, W), (B, K, D / 2, …) and so on; the finest
            alone in evaluation.

        Raises:
            InputError: when the image has another number of channels, or a size that the stages can't halve.
        """
        self.check(image)
        logits = self.logits(self.encode(image))
        return logits if self.training else logits[0]

    def check(self, image: torch.Tensor) -> None:
        """Refuse an image of another shape than `forward` says."""
        if image.ndim != 5 or image.shape[1] != self.in_channels:
            raise InputError(
                f"image of shape {tuple(image.shape)}: the network takes (batch, {self.in_channels} channels, D, H, W)"
            )
        sizes = tuple(image.shape[2:])
        if not can_halve(sizes, self.multiple):
            raise InputError(
                f"image of {sizes} voxels: the network takes multiples of {self.multiple} along each axis, not "
                f"{self.multiple} along all three"
            )


def can_halve(sizes: Sequence[int], multiple: int) -> bool:
    """Whether an image of these sizes, in voxels, can go through stages that leave a `multiple`-th of each axis.

    A single voxel may not be left, since it can't be normalised.
    """
    return not any(size % multiple for size in sizes) and max(sizes) > multiple
