"""Conv3: the gradient that bfloat16 on CPUs gets wrong for maps two voxels deep."""

from __future__ import annotations

import pytest
import torch

from common.networks.conv3 import Conv3


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_bfloat16_gradient_is_near_that_of_float32(depth: int, stride: int) -> None:
    torch.manual_seed(0)
    convolution, x = Conv3(32, 32, stride), torch.randn(1, 32, depth, 4, 4)
    gradients = []
    for half in (False, True):
        with torch.autocast("cpu", enabled=half):
            y = convolution(x)
        assert y.dtype == (torch.bfloat16 if half else torch.float32)
        gradients.append(torch.autograd.grad(y.float().square().sum(), convolution.weight)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.05, atol=0.05 * gradients[0].abs().max().item())
