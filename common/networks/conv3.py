"""The 3×3×3 convolution that the networks are built of."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Conv3"]


class Conv3(nn.Conv3d):
    """A 3×3×3 convolution padded by 1, with bias.

    In torch 2.13.0 on a CPU with AVX-512 bfloat16, the weight gradient under bfloat16 autocast of such a convolution
    of a map two voxels deep is wrong, differs between identical calls, and is sometimes infinite or NaN (seen at
    stride 1 with 16 and more channels; the cause wasn't looked into). Under autocast on a CPU such maps, which are
    small, are therefore convolved in float32.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: 1, or 2 to halve each axis, rounding up.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, stride=stride, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, D, H, W) to (B, out_channels, D', H', W')."""
        if x.shape[2] == 2 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float()).to(torch.get_autocast_dtype("cpu"))
        return super().forward(x)
