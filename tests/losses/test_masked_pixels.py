"""Eq. 4 over the masked pixels, against a loop."""

from __future__ import annotations

import pytest
import torch

from common.losses.masked_pixels import MaskedPixelLoss
from common.networks.masked_unet import MaskedImage


def test_mean_of_the_masked_pixels_squares():
    predicted, image = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    masked = torch.rand(2, 1, 4, 4) < 0.4
    squares = [
        float((predicted[b, c, y, x] - image[b, c, y, x]) ** 2)
        for b in range(2)
        for c in range(3)
        for y in range(4)
        for x in range(4)
        if masked[b, 0, y, x]
    ]
    loss = MaskedPixelLoss()(MaskedImage(predicted, masked), image)
    assert float(loss) == pytest.approx(sum(squares) / len(squares), rel=1e-5)


def test_only_masked_pixels_get_a_gradient():
    predicted = torch.randn(1, 1, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    masked = torch.rand(1, 1, 4, 4) < 0.5
    loss = MaskedPixelLoss()(MaskedImage(predicted, masked), torch.randn(1, 1, 4, 4))
    loss.backward()
    assert loss.dtype == torch.float32 and torch.equal(predicted.grad != 0, masked)
