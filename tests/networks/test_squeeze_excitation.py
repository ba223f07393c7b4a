"""Inception and residual block with squeeze and excitation, against their figures and equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from monai.networks.blocks import ChannelSELayer
from torch import nn

from common.networks.squeeze_excitation import SEInception, SEResNet, conv_norm


def warm(block: nn.Module, channels: int) -> nn.Module:
    """In evaluation, with batch statistics that aren't 0 and 1."""
    torch.manual_seed(0)
    for _ in range(3):
        block(torch.randn(4, channels, 9, 9) * 2 + 1)
    return block.eval()


def test_each_channel_is_scaled_by_what_the_means_say():
    """Hu et al., Eqs 2 to 4, and that the layer between is narrower by 16."""
    torch.manual_seed(0)
    layer = SEInception(4, 64).squeeze
    first, second = (module for module in layer.modules() if isinstance(module, nn.Linear))
    assert first.weight.shape == (4, 64) and second.weight.shape == (64, 4)
    x = torch.randn(2, 64, 3, 5)
    found = layer(x)
    for sample in range(2):
        z = torch.stack([x[sample, channel].mean() for channel in range(64)])
        scale = torch.sigmoid(second.weight @ torch.relu(first.weight @ z + first.bias) + second.bias)
        for channel in range(64):
            torch.testing.assert_close(found[sample, channel], x[sample, channel] * scale[channel])


def test_inception_branch_by_branch():
    block = warm(SEInception(4, 8, squeeze=False), 4)
    x = torch.randn(2, 4, 7, 10)

    def normed(sequence: nn.Sequential, x: torch.Tensor, stride: int) -> torch.Tensor:
        conv, norm = sequence[0], sequence[1]
        y = F.conv2d(x, conv.weight, stride=stride, padding=conv.weight.shape[-1] // 2)
        y = (y - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
        return torch.relu(y * norm.weight[:, None, None] + norm.bias[:, None, None])

    one, three, five, pooled = block.branches
    parts = [normed(one, x, 2)]
    parts += [normed(last, normed(reduced, x, 1), 2) for reduced, last in (three, five)]
    parts.append(normed(pooled[1], F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-torch.inf), 3, stride=2), 1))
    torch.testing.assert_close(block(x), torch.cat(parts, dim=1), rtol=1e-5, atol=1e-5)
    assert [last[0].kernel_size[0] for last in (one, three[1], five[1], pooled[1])] == [1, 3, 5, 1]


def test_residual_block_by_its_figure():
    block = warm(SEResNet(4, 8), 4)
    x = torch.randn(2, 4, 7, 10)
    first, second, squeeze = block.residual
    assert isinstance(squeeze, ChannelSELayer) and len(second) == 2  # no ReLU before the sum
    residual = squeeze(second(torch.relu(first[1](first[0](x)))))
    torch.testing.assert_close(block(x), torch.relu(residual + block.shortcut(x)))
    assert block(x).shape == (2, 8, 4, 5)


@pytest.mark.parametrize("size", [8, 9, 95])
def test_halves_rounding_up(size: int):
    x = torch.randn(1, 4, size, 8)
    for block in (SEInception(4, 8), SEResNet(4, 8), conv_norm(4, 8, 3, stride=2)):
        assert block.eval()(x).shape == (1, 8, (size + 1) // 2, 4)
