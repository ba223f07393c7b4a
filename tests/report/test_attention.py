"""What is drawn of the attention is what the network's attention gave, in its place."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.transforms import SpatialCrop, SpatialPad
from torch import nn

from common.data.layouts import recognise
from common.errors import find_input_error
from common.inferers.ensemble import EnsembleInferer
from common.networks.cga_unet import CGAUNet
from common.report.attention import draw_attention, draw_features, enlarge, match_grid, study_case
from common.report.bundle import read_bundle
from common.running import run


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
            features = image[:, :, ::2, ::2, ::2].clone()
            self.attention(image, features)
            features.zero_()  # networks reuse memory
        return image * self.weight


def meta(scan: Any) -> MetaTensor:
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(scan.image)), affine=torch.from_numpy(scan.affine))


def test_study_keeps_what_went_in_and_out(scan: Any) -> None:
    image = meta(scan)
    study = study_case(Network(Doubling()), SimpleInferer(), image)
    assert study.before is not None and study.after is not None and study.attention is not None
    assert np.array_equal(study.image, scan.image) and np.array_equal(study.affine, scan.affine)
    assert np.array_equal(study.after, 2 * study.before)
    assert np.array_equal(study.attention, study.image[:, ::2, ::2, ::2])
    assert study.probabilities == pytest.approx(torch.softmax(torch.from_numpy(study.image), 0).numpy(), abs=0.01)


def test_of_an_ensemble_it_is_the_first_members_plain_view(scan: Any, tmp_path: Path) -> None:
    paths = [tmp_path / f"{weight}.pt" for weight in (1, 2)]
    for weight, path in enumerate(paths, start=1):
        torch.save({"weight": torch.full((1,), 0.01 * weight)}, path)
    network = Network(Doubling())
    inferer = EnsembleInferer(SimpleInferer(), network, list(map(str, paths)), flips=[0, 1, 2])
    study = study_case(network, inferer, meta(scan))
    assert study.attention is not None and np.array_equal(study.attention, study.image[:, ::2, ::2, ::2])
    single = [np.exp(0.01 * weight * scan.image.astype(float)) for weight in (1, 2)]
    assert study.probabilities == pytest.approx(sum(e / e.sum(0) for e in single) / 2, abs=1e-5)


def test_label_follows_crop_and_turn(scan: Any) -> None:
    """The preprocessed image has another grid than the scan."""
    turned = scan.turned("PIR")
    image = SpatialPad((8, 60, 8))(SpatialCrop(roi_start=(3, 4, 0), roi_end=(38, 44, 19))(meta(scan)))
    study = study_case(Network(None), SimpleInferer(), image)
    assert study.attention is None
    restored = match_grid(turned.label, turned.affine, study)
    assert restored.shape == (35, 60, 19) and (restored > 0).sum() == (scan.label > 0).sum()
    assert (study.image[0][restored == 3] > 150).all()
    assert draw_attention("a", study, None, None) == draw_features("a", study, None, None) == []


def test_study_is_what_inference_does(scan: Any) -> None:
    """The whole image in one pass, of any size; with smaller windows the probabilities are theirs and no map is."""
    torch.manual_seed(0)
    network, image = CGAUNet(features=(8, 8, 8, 16), blocks=(1, 1, 1, 1)).eval(), meta(scan)[:, 1:, :-2]
    whole = study_case(network, SlidingWindowInferer((-1, -1, -1), 1, 0.5, mode="gaussian"), image)
    with torch.inference_mode():
        expected = network(image.as_tensor()[None])[0]
    assert whole.probabilities == pytest.approx(expected.softmax(0).numpy(), abs=1e-5)
    assert whole.attention is not None and whole.attention.shape == (4, 5, 6, 3)
    windows = SlidingWindowInferer((24, 24, 16), 1, 0.5, mode="gaussian")
    parts = study_case(network, windows, image)
    with torch.inference_mode():
        expected = windows(image.as_tensor()[None], network)[0]
    assert parts.probabilities == pytest.approx(expected.softmax(0).numpy(), abs=1e-5)
    assert parts.attention is None and parts.before is None and parts.after is None


def test_study_of_the_bundle_is_its_prediction(
    folders: tuple[Path, Path], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "path", [*sys.path])
    torch.manual_seed(0)
    torch.save(CGAUNet().state_dict(), tmp_path / "model.pt")
    given = {"dataset_dir": str(folders[0]), "output_dir": str(tmp_path / "out"), "ckpt_dir": str(tmp_path)}
    run("cga_unet", "inference", **given, resample=False, device="cpu")
    bundle = read_bundle(repository / "bundles" / "cga_unet", tmp_path / "model.pt", resample=False)
    assert bundle.network is not None
    entry = recognise(folders[0]).cases[0]
    study = study_case(bundle.network, bundle.inferer, bundle.preprocessing(dict(entry))["image"])
    file = nib.load(tmp_path / "out" / f"{entry['case']}.nii.gz")
    prediction = match_grid(np.asarray(file.dataobj), file.affine, study)
    assert len(np.unique(prediction)) > 1 and np.array_equal(prediction, study.probabilities.argmax(axis=0))
    assert study.attention is not None and study.attention.shape[1:] == (4, 5, 2)


def test_members_of_a_bundle_are_its_weights(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for name in "ab":
        torch.save(CGAUNet().state_dict(), tmp_path / f"{name}.pt")
    bundle = read_bundle(repository / "bundles" / "cga_unet", members=f"{tmp_path}/*.pt", flips=[0])
    assert bundle.network is not None and not bundle.network.training and bundle.weights == "2 members"
    assert [path.name for path in bundle.inferer.members] == ["a.pt", "b.pt"]  # type: ignore[attr-defined]


def test_a_bundle_without_weights_is_still_named(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    shutil.copytree(repository / "bundles" / "cga_unet" / "configs", tmp_path / "cga_unet" / "configs")
    bundle = read_bundle(tmp_path / "cga_unet")
    assert bundle.name and bundle.network is None and bundle.weights == ""


def test_weights_among_the_overrides_are_the_checkpoint(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same word as inference has, with the same meaning."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    state = CGAUNet().state_dict()
    torch.save(state, tmp_path / "own.pt")
    bundle = read_bundle(repository / "bundles" / "cga_unet", weights=str(tmp_path / "own.pt"))
    assert bundle.network is not None and bundle.weights == "own.pt"
    assert all(torch.equal(value, state[name]) for name, value in bundle.network.state_dict().items())


@pytest.mark.parametrize(
    ("override", "line"),
    [("resample", "resample is 'false': give True or False"), ("epochs", "no id epochs to override")],
)
def test_overrides_are_checked(repository: Path, monkeypatch: pytest.MonkeyPatch, override: str, line: str) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(Exception) as raised:
        read_bundle(repository / "bundles" / "cga_unet", **{override: "false"})
    assert line in str(find_input_error(raised.value))


@pytest.mark.parametrize("shape", [(32, 16, 16), (30, 9, 17), (41, 8, 5)])
def test_cell_centres_lie_where_strides_put_them(shape: tuple[int, int, int]) -> None:
    """A ramp sampled at every eighth voxel comes back as the ramp, up to the last cell."""
    ramp = np.arange(float(shape[0]))[None, :, None, None] * np.ones((1, 1, *shape[1:]))
    back = enlarge(ramp[:, ::8, ::8, ::8], shape)
    last = (shape[0] - 1) // 8 * 8
    assert back.shape == ramp.shape
    assert back[0, : last + 1] == pytest.approx(ramp[0, : last + 1])
    assert back[0, last:] == pytest.approx(last)


def test_a_trained_networks_own_module_is_drawn(scan: Any) -> None:
    torch.manual_seed(0)
    network = CGAUNet(features=(8, 8, 8, 16), blocks=(1, 1, 1, 1))
    study = study_case(network, SimpleInferer(), meta(scan))
    assert study.attention is not None and study.attention.shape == (4, 5, 6, 3)
    label = match_grid(scan.label, scan.affine, study)
    names = [p.caption for p in draw_attention("a", study, label, None)]
    assert [name[-5:] for name in names] == ["round", "(NCR)", " (ED)", " (ET)"]
    features = draw_features("a", study, label, None)
    assert len(features) == 8 and features[0].caption.endswith("before") and features[1].caption.endswith("after")
    assert features[0].data != features[1].data
    plain = CGAUNet(features=(8, 8, 8, 16), blocks=(1, 1, 1, 1), update_classes=())
    assert draw_features("a", study_case(plain, SimpleInferer(), meta(scan)), label, None) == []
    assert not network.attention._forward_hooks  # type: ignore[union-attr]


def test_the_hook_is_gone_after_a_failure(scan: Any) -> None:
    network = Network(Doubling())
    network.weight = nn.Parameter(torch.ones(7))
    with pytest.raises(RuntimeError):
        study_case(network, SimpleInferer(), meta(scan))
    assert not network.attention._forward_hooks  # type: ignore[union-attr]
