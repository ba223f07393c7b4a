"""What is drawn of the attention is what the network's attention gave, in its place."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.networks.cga_unet import CGAUNet
from common.report.attention import draw_attention, draw_features, enlarge, match_grid, study_crop


class Attended(NamedTuple):
    features: torch.Tensor
    attention: torch.Tensor


class Doubling(nn.Module):
    """Stands for an attention: the map is every second voxel of the image, the update doubles the features."""

    def forward(self, image: torch.Tensor, features: torch.Tensor) -> Attended:
        return Attended(features * 2, image[:, :, ::2, ::2, ::2])


class Network(nn.Module):
    def __init__(self, attention: nn.Module | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.attention = attention

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.attention is not None:
            self.attention(image, image[:, :, ::2, ::2, ::2])
        return image * self.weight


def meta(scan: Any) -> MetaTensor:
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(scan.image)), affine=torch.from_numpy(scan.affine))


def test_study_keeps_what_went_in_and_out(scan: Any) -> None:
    image = meta(scan)
    study = study_crop(Network(Doubling()), image, np.array([28.0, 36.0, 26.0]))
    assert study.image.shape == (4, 48, 48, 32)
    assert study.before is not None and study.after is not None and study.attention is not None
    assert np.array_equal(study.after, 2 * study.before)
    assert np.array_equal(study.attention, study.image[:, ::2, ::2, ::2])
    assert study.probabilities == pytest.approx(torch.softmax(torch.from_numpy(study.image), 0).numpy(), abs=0.01)
    restored = match_grid(scan.label, scan.affine, study)
    assert restored.sum() == scan.label.sum()
    assert (study.image[0][restored == 3] > 150).all()


def test_crop_surrounds_the_point_and_stays_inside() -> None:
    image = MetaTensor(torch.rand(4, 200, 130, 20), affine=torch.diag(torch.tensor([-1.0, 1, 1, 1])))
    study = study_crop(Network(None), image, np.array([-150.0, 5.0, 3.0]))
    assert study.image.shape == (4, 128, 128, 32) and study.attention is None
    assert np.array_equal(study.image[..., 6:26], image[:, 72:, :128].numpy())
    assert study.affine[:3, 3] == pytest.approx([-72, 0, -6])
    assert draw_attention("a", study, None, None) == draw_features("a", study, None, None) == []


def test_cell_centres_lie_where_strides_put_them() -> None:
    """A ramp sampled at every eighth voxel comes back as the ramp."""
    ramp = np.arange(32.0)[None, :, None, None] * np.ones((1, 1, 16, 16))
    back = enlarge(ramp[:, ::8, ::8, ::8], (32, 16, 16))
    assert back[0, :25] == pytest.approx(ramp[0, :25])
    assert back[0, 25:] == pytest.approx(24.0)


def test_a_trained_networks_own_module_is_drawn(scan: Any) -> None:
    torch.manual_seed(0)
    network = CGAUNet(features=(8, 8, 8, 16), blocks=(1, 1, 1, 1))
    study = study_crop(network, meta(scan), np.array([28.0, 36.0, 26.0]))
    assert study.attention is not None and study.attention.shape == (4, 6, 6, 4)
    label = match_grid(scan.label, scan.affine, study)
    names = [p.caption for p in draw_attention("a", study, label, None)]
    assert [name[-5:] for name in names] == ["round", "(NCR)", " (ED)", " (ET)"]
    features = draw_features("a", study, label, None)
    assert len(features) == 8 and features[0].caption.endswith("before") and features[1].caption.endswith("after")
    assert features[0].data != features[1].data
    plain = CGAUNet(features=(8, 8, 8, 16), blocks=(1, 1, 1, 1), update_classes=())
    assert draw_features("a", study_crop(plain, meta(scan), np.zeros(3)), label, None) == []
    assert not network.attention._forward_hooks  # type: ignore[union-attr]


def test_the_hook_is_gone_after_a_failure(scan: Any) -> None:
    network = Network(Doubling())
    network.weight = nn.Parameter(torch.ones(7))
    with pytest.raises(RuntimeError):
        study_crop(network, meta(scan), np.zeros(3))
    assert not network.attention._forward_hooks  # type: ignore[union-attr]
