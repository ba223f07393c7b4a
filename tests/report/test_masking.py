"""The page of masks: likely lesions, masks that grow, reconstructions, and the network as it was."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer
from PIL import Image

from common.losses.masked_pixels import MaskedPixelLoss
from common.networks.adaptive_masking import AdaptiveMasking
from common.networks.masked_unet import MaskedUNet
from common.report import masking
from common.report.masking import LESION_COLOUR, MASK_COLOUR, shown_epochs, write_masking_page
from common.report.pictures import Picture

HOSTILE = "<script>alert(3)<b>"


class Held(list):
    """Samples, each with the case and slice that it is of."""

    samples = ((0, 0, 3), (0, 0, 4), *((number, 0, 0) for number in range(1, 7)))
    data = tuple({"case": f"{HOSTILE}{number}"} for number in range(7))


def held(count: int = 8) -> Held:
    made = Held()
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        image = 0.2 * torch.randn(1, 32, 32, generator=generator)
        image[:, 8:16, 16:24] += 3
        made.append({"image": image, "noise": torch.rand(16, generator=generator)})
    return made


def network(**arguments: object) -> MaskedUNet:
    torch.manual_seed(0)
    return MaskedUNet(features=(4, 4, 8, 8, 8), masking=AdaptiveMasking((8, 8), **arguments))


@pytest.mark.parametrize(("epochs", "shown"), [(800, [1, 28, 800]), (2, [1, 2]), (1, [1])])
def test_shown_epochs(epochs: int, shown: list[int]):
    assert shown_epochs(epochs) == shown


def drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: MaskedUNet, **arguments: object
) -> list[list[Picture]]:
    pages = []
    monkeypatch.setattr(masking, "render_template", lambda name, page: pages.append(page) or "")
    given = {"dataset": held(), "loss": MaskedPixelLoss(), "device": "cpu", "out": tmp_path / "a.html", "epochs": 800}
    write_masking_page(made, SimpleInferer(), **{**given, **arguments})
    return [image.pictures for image in pages[0].images]


def share_of(picture: Picture, colour: str) -> float:
    pixels = np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB")).astype(int)
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(pixels - wanted) < 12).all(axis=2).mean())


def test_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pictures = drawn(monkeypatch, tmp_path, network())
    assert len(pictures) == 6
    captions = [picture.caption for picture in pictures[0]]
    assert captions == [
        "image", "likely lesion: 1 patch", "epoch 1: 25% masked", "epoch 28: 53% masked", "epoch 800: 81% masked",
        "validation: 75% masked", "reconstructed",
    ]  # fmt: skip
    shares = [share_of(picture, MASK_COLOUR) for picture in pictures[0][2:6]]
    assert shares == pytest.approx([4 / 16, 8 / 16, 12 / 16, 12 / 16], abs=0.03)
    assert share_of(pictures[0][0], MASK_COLOUR) < 0.01
    red = np.asarray(Image.open(io.BytesIO(pictures[0][1].data)).convert("RGB")).astype(int)
    size = len(red)
    inside = red[size // 4 + 6 : size // 2 - 6, size // 2 + 6 : 3 * size // 4 - 6]
    assert (inside[..., 0] - inside[..., 2]).mean() > 80 > abs(red[:, : size // 3, 0] - red[:, : size // 3, 2]).mean()
    assert LESION_COLOUR != MASK_COLOUR


def test_background_is_black_though_the_brain_may_be_below_it():
    image = np.zeros((16, 16))
    image[4:12, 4:12] = np.linspace(-3, -1, 64).reshape(8, 8)
    picture = masking._picture("slice", image, image, "image")
    shown = np.asarray(Image.open(io.BytesIO(picture.data)).convert("L")).astype(int)
    size = len(shown)
    assert shown[: size // 5].max() < 20 and shown[5 * size // 8 : 11 * size // 16, size // 2].min() > 150


def test_without_selection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    captions = [p.caption for p in drawn(monkeypatch, tmp_path, network(select=False, adaptive=False), epochs=1)[0]]
    assert captions == ["image", "epoch 1: 75% masked", "validation: 75% masked", "reconstructed"]


def test_page(tmp_path: Path):
    made = network().train()
    given = {"dataset": held(), "loss": MaskedPixelLoss(), "device": "cpu", "epochs": 9}
    page = write_masking_page(made, SimpleInferer(), out=tmp_path / "a.html", **given)
    text = page.read_text("utf-8")
    assert HOSTILE not in text and text.count("<img") == 6 * 7 and made.training
    assert "6 of 8 images are shown" in text and "slice 4" in text and "slice 1<" not in text
    again = write_masking_page(made, SimpleInferer(), out=tmp_path / "b.html", **given)
    assert again.read_text("utf-8") == text


def test_nothing_held_out(tmp_path: Path):
    out = tmp_path / "a.html"
    none = SimpleNamespace(training=True)
    assert write_masking_page(none, SimpleInferer(), held(0), MaskedPixelLoss(), "cpu", out, 1) is None
    assert not out.exists()
