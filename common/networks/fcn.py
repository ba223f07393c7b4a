"""Fully convolutional network, which others are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InputError

__all__ = ["FCN8s"]


class FCN8s(nn.Module):
    """FCN-8s for slices.

    Based on: Long et al., "Fully Convolutional Networks for Semantic Segmentation" (2015), Sec. 4.2: five stages of
    convolutions, each with pooling; the scores of the last three are upsampled by two and added, and the sum upsampled
    by eight. Here stages have two 3×3 convolutions with batch normalisation, the upsampling is bilinear, and the fully
    connected layers are one 1×1 convolution: the paper's are for thousand classes.

    MONAI's own FCN takes torchvision's ResNet-50 and its weights of photographs, which is another network.

    Args:
        in_channels: of the image.
        out_channels: classes, background included.
        features: channels of the five stages, finest first.

    Raises:
        InputError: when there are other than five stages.
    """

    def __init__(
        self, in_channels: int = 4, out_channels: int = 4, features: Sequence[int] = (64, 128, 256, 512, 512)
    ) -> None:
        super().__init__()
        if len(features) != 5:
            raise InputError(f"features {list(features)}: give five numbers, one a stage")
        ends = zip((in_channels, *features), features, strict=False)
        self.stages = nn.ModuleList(nn.Sequential(*_convolutions(*one), nn.MaxPool2d(2)) for one in ends)
        self.middle = nn.Sequential(nn.Conv2d(features[-1], features[-1], kernel_size=1), nn.ReLU(inplace=True))
        self.scores = nn.ModuleList(nn.Conv2d(channels, out_channels, kernel_size=1) for channels in features[2:])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) to logits (B, out_channels, H, W).

        The image is padded by zeros to multiples of 32, so that each stage halves it and no scores are displaced.
        """
        rows, columns = image.shape[2:]
        x = F.pad(image, (0, -columns % 32, 0, -rows % 32))
        size, maps = x.shape[2:], []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        maps[-1] = self.middle(x)
        third, fourth, fifth = (score(one) for score, one in zip(self.scores, maps[2:], strict=True))
        fourth = fourth + F.interpolate(fifth, size=fourth.shape[2:], mode="bilinear")
        third = third + F.interpolate(fourth, size=third.shape[2:], mode="bilinear")
        return F.interpolate(third, size=size, mode="bilinear")[:, :, :rows, :columns]


def _convolutions(in_channels: int, out_channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [nn.Conv2d(channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)]
        layers.append(nn.ReLU(inplace=True))
    return layers
