"""Conv3: the gradient that bfloat16 on CPUs gets wrong for maps two voxels deep."""

from __future__ import annotations

import pytest
import torch

from common.networks.conv3 import Conv3


@pytest.mark.parametrize("size", [(1, 16, 16), (2, 16, 16), (2, 4, 4), (3, 16, 16)])
@pytest.mark.parametrize("channels", [16, 32, 64])
@pytest.mark.parametrize("stride", [1, 2])
def test_bfloat16_gradient_is_near_that_of_float32(size: tuple[int, int, int], channels: int, stride: int) -> None:
    torch.manual_seed(0)
    convolution, x = Conv3(channels, channels, stride), torch.randn(1, channels, *size)
    expected, *repeated = (_weight_gradient(convolution, x, half) for half in (False, *[True] * 5))
    for gradient in repeated:
        torch.testing.assert_close(gradient, expected, rtol=0.05, atol=0.05 * expected.abs().max().item())
        assert torch.equal(gradient, repeated[0])


def _weight_gradient(convolution: Conv3, x: torch.Tensor, half: bool) -> torch.Tensor:
    with torch.autocast("cpu", enabled=half):
        y = convolution(x)
    assert y.dtype == (torch.bfloat16 if half else torch.float32)
    return torch.autograd.grad(y.float().square().sum(), convolution.weight)[0]
