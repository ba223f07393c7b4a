"""Channels that are augmented one by one."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import RandAdjustContrast, RandGaussianSmooth

from common.transforms.channel_wise import RandChannelWised

IMAGE = torch.rand(4, 6, 6, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 10, 0.1, 5]).view(
    4, 1, 1, 1
)


def gamma(prob: float = 1) -> RandChannelWised:
    return RandChannelWised("image", RandAdjustContrast(1, (0.7, 1.5), retain_stats=True), prob)


def test_each_channel_has_its_own_statistics_and_draw():
    done = gamma().set_random_state(0)({"image": MetaTensor(IMAGE), "other": 1})
    assert done["other"] == 1 and isinstance(done["image"], MetaTensor)
    torch.testing.assert_close(done["image"].mean((1, 2, 3)).as_tensor(), IMAGE.mean((1, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(done["image"].std((1, 2, 3)).as_tensor(), IMAGE.std((1, 2, 3)), rtol=1e-2, atol=1e-4)
    # Drawn alike, four channels that are alike would come out alike.
    alike = gamma().set_random_state(0)({"image": IMAGE[:1].expand(4, -1, -1, -1)})["image"]
    assert len({round(channel.max().item(), 4) for channel in alike}) == 4


@pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
def test_probabilities_of_all_and_of_each_channel(prob: float):
    transform = RandChannelWised("image", RandGaussianSmooth((0.5, 1), (0.5, 1), (0.5, 1), prob=0.5), prob)
    transform.set_random_state(0)
    changed = []
    for _ in range(300):
        done = transform({"image": IMAGE})["image"]
        changed.append([not torch.equal(a, b) for a, b in zip(done, IMAGE, strict=True)])
    share = torch.tensor(changed).float()
    assert share.mean().item() == pytest.approx(prob / 2, abs=0.04)
    assert share.amax(1).mean().item() == pytest.approx(prob * (1 - 0.5**4), abs=0.08)


def test_same_seed_same_image():
    first, second = (gamma(0.5).set_random_state(7) for _ in range(2))
    for _ in range(5):
        assert torch.equal(first({"image": IMAGE})["image"], second({"image": IMAGE})["image"])
