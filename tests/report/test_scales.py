"""What is told of the scales is what they find, at its place in the patient, whatever the scan's axes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer

from common.inferers.mixed_precision import MixedPrecisionInferer
from common.inferers.slices import FilledSlicesInferer
from common.networks.msconvlstm_att import MSConvLSTMAtt
from common.report import scales
from common.report.attention import Study
from common.report.build import build_report
from common.report.scales import draw_scales, look

PLAN = {"features": (4, 4, 8), "width": 8}


@pytest.fixture
def network() -> MSConvLSTMAtt:
    """Sure of itself, so that places differ."""
    torch.manual_seed(0)
    made = MSConvLSTMAtt(**PLAN).eval()
    for head in made.heads.values():
        torch.nn.init.normal_(head.predict.weight, std=60)
    return made


def test_mean_is_what_the_inference_gives(network: MSConvLSTMAtt):
    """For a slice that is padded to the inference's size, odd along one axis."""
    inferer = MixedPrecisionInferer(FilledSlicesInferer((24, 32)), amp=False)
    image = np.random.default_rng(0).normal(size=(4, 20, 27)).astype(np.float32)
    tumour, maps = look(network, inferer, image, (10, 13))
    assert [*maps] == ["Scale 1", "Scale 2", "Scale 3"] and [*tumour] == [*maps, "Mean of the scales"]
    assert {one.shape for one in (*tumour.values(), *maps.values())} == {(20, 27)}
    with torch.inference_mode():
        logits = inferer(torch.from_numpy(image)[None, :, None], network)
    expected = 1 - logits.softmax(dim=1)[0, 0, 0].numpy()
    mean = tumour["Mean of the scales"]
    np.testing.assert_allclose(mean, expected, atol=1e-4)
    assert np.ptp(mean) > 0.2 and np.abs(tumour["Scale 1"] - mean).max() > 0.05


def test_attention_is_of_the_position(network: MSConvLSTMAtt):
    """Where keys and queries are the image's own brightness, a bright place looks at the bright ones."""
    attention = network.heads["2"].attention[0]
    bright = np.zeros((4, 16, 16), np.float32)
    bright[:, 2:4, 10:12] = 3

    def told(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(torch.from_numpy(bright[:1])[None], 2).expand(1, 2, 8, 8)

    attention.key.forward = attention.query.forward = told
    _, maps = look(network, SimpleInferer(), bright, (3, 11))
    assert maps["Scale 2"][2:4, 10:12].min() > 10 * np.median(maps["Scale 2"])
    assert maps["Scale 2"].mean() == pytest.approx(1, abs=0.2)


def test_places_are_those_of_the_scan(network: MSConvLSTMAtt, monkeypatch: pytest.MonkeyPatch):
    """A lesion in slice 2, at the left back: the slice and the position that are looked at."""
    image = np.random.default_rng(1).normal(size=(4, 6, 16, 20)).astype(np.float32)
    label = np.zeros((6, 16, 20), np.uint8)
    label[2, 11:14, 15:18] = 1
    spl = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    seen = []

    def note(network: object, inferer: object, image: np.ndarray, position: tuple[int, int]) -> tuple[dict, dict]:
        seen.append((image, position))
        return {"Scale 1": np.zeros(image.shape[1:])}, {"Scale 1": np.ones(image.shape[1:])}

    monkeypatch.setattr(scales, "look", note)
    study = Study(image, spl, np.zeros((4, 6, 16, 20)))
    pictures = draw_scales("c", network, SimpleInferer(), study, label, None)
    (shown, position) = seen[0]
    np.testing.assert_array_equal(shown, image[:, 2])
    assert position == (12, 16)
    assert [p.caption for p in pictures] == ["Scale 1: tumour", "Scale 1: attention, at most 1.0"]
    coronal = FilledSlicesInferer((16, 20), planes=("coronal",))
    assert draw_scales("c", network, coronal, study, label, None) == []
    assert draw_scales("c", torch.nn.Identity(), SimpleInferer(), study, label, None) == []


def test_page(
    folders: tuple[Path, Path],
    repository: Path,
    tmp_path: Path,
    network: MSConvLSTMAtt,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    given = {"bundle": repository / "bundles" / "msconvlstm_att", "checkpoint": tmp_path / "model.pt"}
    given |= {"network_def#features": [4, 4, 8], "network_def#width": 8, "crop_size": [48, 48], "resample": False}
    page = build_report(*folders, tmp_path / "report.html", **given, device="cpu").read_text()
    assert page.count("<h4>Scales</h4>") == 2 and page.count("Scale 3: attention, at most") == 2
