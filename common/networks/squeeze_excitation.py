"""Inception and residual blocks with squeeze and excitation."""

from __future__ import annotations

import torch
from monai.networks.blocks import ChannelSELayer
from torch import nn

__all__ = ["SEInception", "SEResNet", "conv_norm"]

_REDUCTION = 16  # by how much the layer between squeeze and excitation is narrower (Hu et al.)


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, relu: bool = True
) -> nn.Sequential:
    """Convolution that keeps the size (a stride divides it, rounding up), batch normalisation, ReLU.

    Args:
        in_channels: of the input.
        out_channels: of the result.
        kernel_size: odd.
        stride: 1 or 2.
        relu: whether there is one.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


def _squeeze(channels: int) -> ChannelSELayer:
    return ChannelSELayer(2, channels, r=min(_REDUCTION, channels))


class SEInception(nn.Module):
    """Convolutions of several sizes side by side, then squeeze and excitation; halves the size, rounding up.

    Based on: Szegedy et al., "Going Deeper with Convolutions" (2015), Fig. 2b, and Hu et al., "Squeeze-and-Excitation
    Networks" (2018), Fig. 2. Each of the four branches, of 1×1, 3×3 and 5×5 convolutions and of pooling, gives a
    quarter of the channels.

    Args:
        in_channels: of the input.
        out_channels: of the result, a multiple of 4.
        squeeze: whether there is squeeze and excitation.
    """

    def __init__(self, in_channels: int, out_channels: int, squeeze: bool = True) -> None:
        super().__init__()
        quarter = out_channels // 4
        self.branches = nn.ModuleList(
            [
                conv_norm(in_channels, quarter, 1, stride=2),
                nn.Sequential(conv_norm(in_channels, quarter, 1), conv_norm(quarter, quarter, 3, stride=2)),
                nn.Sequential(conv_norm(in_channels, quarter, 1), conv_norm(quarter, quarter, 5, stride=2)),
                nn.Sequential(nn.MaxPool2d(3, stride=2, padding=1), conv_norm(in_channels, quarter, 1)),
            ]
        )
        self.squeeze = _squeeze(out_channels) if squeeze else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) to (B, out_channels, ⌈H/2⌉, ⌈W/2⌉)."""
        return self.squeeze(torch.cat([branch(x) for branch in self.branches], dim=1))


class SEResNet(nn.Module):
    """Two convolutions, squeeze and excitation, and the input added; halves the size, rounding up.

    Based on: He et al., "Deep Residual Learning for Image Recognition" (2016), Fig. 2, and Hu et al. (2018), Fig. 3.
    The shortcut is a strided 1×1 convolution.

    Args:
        in_channels: of the input.
        out_channels: of the result.
        squeeze: whether there is squeeze and excitation.
    """

    def __init__(self, in_channels: int, out_channels: int, squeeze: bool = True) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_norm(in_channels, out_channels, 3, stride=2),
            conv_norm(out_channels, out_channels, 3, relu=False),
            _squeeze(out_channels) if squeeze else nn.Identity(),
        )
        self.shortcut = conv_norm(in_channels, out_channels, 1, stride=2, relu=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) to (B, out_channels, ⌈H/2⌉, ⌈W/2⌉)."""
        return torch.relu(self.residual(x) + self.shortcut(x))
