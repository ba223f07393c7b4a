"""Probabilities outside the brain."""

from __future__ import annotations

import torch
from monai.data import MetaTensor

from common.transforms.outside import BackgroundOutsided


def test_what_lies_outside_is_background_and_the_rest_stays():
    image = torch.zeros(4, 5, 6, 7)
    image[0, 1:4] = 2.0
    image[3, 1:5, 2:] = -1.0  # in one channel alone is inside, too
    before = MetaTensor(torch.rand(4, 5, 6, 7).softmax(dim=0), affine=2 * torch.eye(4))
    after = BackgroundOutsided("pred")({"image": image, "pred": before})["pred"]
    for place in torch.cartesian_prod(*map(torch.arange, (5, 6, 7))).tolist():
        x, y, z = place
        inside = any(image[c, x, y, z] != 0 for c in range(4))
        expected = before[:, x, y, z] if inside else torch.tensor([1.0, 0, 0, 0])
        assert torch.equal(after[:, x, y, z].as_tensor(), torch.as_tensor(expected)), place
    assert isinstance(after, MetaTensor) and torch.equal(after.affine, before.affine)
