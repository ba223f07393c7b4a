"""Reconstructions: the right voxels are the network's, and the page shows each modality that there is."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer
from PIL import Image

from common.losses.masked_reconstruction import MaskedReconstructionLoss, standardise
from common.networks.masked_autoencoder import MaskedAutoencoder
from common.networks.patches import gather_tokens, patchify
from common.report.reconstruction import MASK_COLOUR, draw_reconstruction, reconstruct, write_reconstruction_page

SIZE, PATCH, TOKENS = (4, 16, 16), (1, 4, 4), 64
HOSTILE = "<script>alert(3)<b>"


def sample(seed: int = 0, missing: int | None = None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(4, *SIZE, generator=generator)
    if missing is not None:
        image[missing] = 0
    noise = torch.rand(TOKENS, generator=generator)
    return {"image": MetaTensor(image, affine=torch.diag(torch.tensor([2.0, 1, 1, 1]))), "noise": noise}


def masked_of(given: dict[str, torch.Tensor]) -> torch.Tensor:
    """The numbers (1, 48) of three quarters of the tokens."""
    return given["noise"].argsort()[:48].sort().values[None]


@pytest.mark.parametrize("normalise", [True, False])
def test_a_perfect_prediction_gives_the_image(normalise: bool):
    given = sample(missing=2)
    image, masked = given["image"].as_tensor()[None], masked_of(given)
    target = gather_tokens(patchify(image, PATCH), masked)
    weights = (torch.arange(4) != 2).repeat_interleave(16)[None, None].float()
    predicted = standardise(target, weights)[0] if normalise else target
    made, _ = reconstruct(predicted, masked, image, MaskedReconstructionLoss(PATCH, normalise))
    torch.testing.assert_close(made[:, [0, 1, 3]], image[:, [0, 1, 3]])


def test_masked_voxels_are_those_of_the_masked_tokens():
    given = sample()
    image, masked = given["image"].as_tensor()[None], masked_of(given)
    predicted = torch.full((1, 48, 64), 7.0)
    made, hidden = reconstruct(predicted, masked, image, MaskedReconstructionLoss(PATCH, normalise=False))
    places = [*itertools.product(range(4), range(4), range(4))]
    for token, (z, y, x) in enumerate(places):
        block = (slice(None), slice(None), z, slice(4 * y, 4 * y + 4), slice(4 * x, 4 * x + 4))
        seen = token not in masked[0].tolist()
        assert bool(hidden[block].any()) == bool(hidden[block].all()) == (not seen)
        assert torch.equal(made[block], image[block]) if seen else bool((made[block] == 7).all())


def colours(picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB")).astype(int)


def test_pictures_show_what_is_masked_where_it_is():
    """Of the slice with most brain only the upper left token is visible."""
    image = torch.zeros(4, *SIZE)
    image[:, 2] = torch.linspace(1, 2, 256).reshape(16, 16)
    hidden = torch.ones(SIZE, dtype=torch.bool)
    hidden[2, :4, :4] = False
    made = torch.zeros(4, *SIZE)
    affine = torch.diag(torch.tensor([2.0, 1, 1, 1]))
    place, rows = draw_reconstruction("a", MetaTensor(image, affine=affine), made, hidden)
    assert place == "Axial, slice 3 of 4 of the crop" and len(rows) == 4 and {len(row) for row in rows} == {3}
    assert [picture.caption for picture in rows[0]] == ["T1, original", "T1, masked", "T1, reconstructed"]
    shown = colours(rows[0][1])
    mask = np.array([int(MASK_COLOUR[i : i + 2], 16) for i in (1, 3, 5)])
    is_mask = (np.abs(shown - mask) < 12).all(axis=2)
    edge = len(shown) // 4
    assert is_mask[edge + 8 :, edge + 20 : -30].mean() > 0.85  # but for the letters at the sides
    assert not is_mask[30 : edge - 8, 30 : edge - 8].any()


def test_missing_modalities_are_not_drawn():
    given = sample(missing=1)
    _, rows = draw_reconstruction("a", given["image"], given["image"].as_tensor(), torch.zeros(SIZE) > 0)
    assert [row[0].caption.split(",")[0] for row in rows] == ["T1", "T2", "FLAIR"]


class Held(list):
    """Samples with the cases that they are of."""

    @property
    def data(self) -> list[dict[str, str]]:
        return [{"case": f"{HOSTILE}{number}"} for number in range(len(self))]


def test_page(tmp_path: Path):
    network = MaskedAutoencoder(4, SIZE, PATCH, 24, 1, 3, 48, decoder_width=12, decoder_heads=2).train()
    held = Held(sample(seed, missing=3) for seed in range(5))
    loss = MaskedReconstructionLoss(PATCH)
    given = {"device": "cpu", "epochs": 7}
    page = write_reconstruction_page(network, SimpleInferer(), held, loss, out=tmp_path / "a.html", **given)
    text = page.read_text("utf-8")
    assert text.count("<img") == 4 * 3 * 3 and HOSTILE not in text
    assert "The first 4 of 5 cases are shown." in text and "put back" in text
    assert "48 of 64" in text and "1×4×4" in text and network.training
    told = [float(value) for value in re.findall(r"loss (\d\.\d{3})", text)]
    network.eval()
    with torch.no_grad():
        image, noise = held[0]["image"].as_tensor()[None], held[0]["noise"][None]
        assert told[0] == pytest.approx(float(loss(network(image, noise), image)), abs=6e-4)
    again = write_reconstruction_page(network, SimpleInferer(), held, loss, out=tmp_path / "b.html", **given)
    assert again.read_text("utf-8") == text


def test_nothing_held_out(tmp_path: Path):
    network = SimpleNamespace(training=True)
    out = tmp_path / "a.html"
    done = write_reconstruction_page(network, SimpleInferer(), Held(), MaskedReconstructionLoss(), "cpu", out, 1)
    assert done is None and not out.exists()
