"""The five exported bundles behind MONAI Label, over HTTP: what a viewer asks for.

The server runs in an environment of its own, which `make label-env` makes. Its folder is in $LESION_LABEL_ENV, or is
`.venv-label` of the checkout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.label.server import (
    BESIDE,
    FOUR_MODALITIES,
    TINY,
    WHOLE,
    Server,
)

pytestmark = [pytest.mark.label, pytest.mark.slow]


def test_info(server: Server):
    told = server.ask("GET", "info/").json()
    assert {*told["models"]} == {*told["trainers"]} == {*TINY}
    for name in TINY:
        labels = {"lesion": 1} if name == "mps_ams" else {"ncr": 1, "ed": 2, "et": 3}
        assert told["models"][name]["labels"] == labels
    assert {*told["strategies"]} == {"uncertainty", "random", "first"}
    assert told["datastore"]["total"] == len(WHOLE + BESIDE) + len(("picture", "bad"))


def test_bundles_that_cannot_be_served(server: Server):
    log = server.log.read_text()
    (weightless,) = [line for line in log.splitlines() if "weightless is left out" in line]
    assert "no models/model.pt in " in weightless
    (mistaken,) = [line for line in log.splitlines() if "mistaken is left out" in line]
    assert "is of another network: " in mistaken


def test_labels_are_those_of_the_bundles_themselves(server: Server, own: Path, studies: Path, tmp_path: Path):
    """All five by turns, twice: the second time is where another bundle's modules would be used."""
    for _ in range(2):
        for images in zip(WHOLE, BESIDE, strict=True):
            for bundle in TINY:
                image = images[bundle == "mps_ams"]
                label = server.infer(bundle, image, tmp_path / "label.nii.gz")
                scan = nibabel.load(studies / f"{image}.nii.gz")
                assert label.shape == scan.shape[:3] and label.get_data_dtype() == np.uint8
                np.testing.assert_allclose(label.affine, scan.affine, atol=1e-5)
                expected = nibabel.load(own / bundle / f"{image}.nii.gz")
                np.testing.assert_array_equal(label.dataobj, expected.dataobj)
                assert len(np.unique(label.dataobj)) > 1, bundle


def test_four_files_beside_the_one_that_is_looked_at(server: Server, studies: Path, tmp_path: Path):
    for bundle in FOUR_MODALITIES:
        label = server.infer(bundle, "first", tmp_path / "label.nii.gz")
        same = server.infer(bundle, "plain", tmp_path / "same.nii.gz")
        np.testing.assert_array_equal(label.dataobj, same.dataobj)
        np.testing.assert_allclose(label.affine, nibabel.load(studies / "first.nii.gz").affine, atol=1e-5)


def test_a_picture(server: Server, own: Path, tmp_path: Path):
    answer = server.ask("POST", "infer/mps_ams", params={"image": "picture", "output": "image"})
    assert answer.status_code == 200, answer.text
    (tmp_path / "label.png").write_bytes(answer.content)
    label = np.asarray(Image.open(tmp_path / "label.png"))
    assert label.shape == (48, 64) and {*np.unique(label)} == {0, 1}
    np.testing.assert_array_equal(label > 0, np.asarray(Image.open(own / "mps_ams" / "picture.png")) > 0)


def test_an_image_that_is_not_in_the_datastore(server: Server, own: Path, studies: Path, tmp_path: Path):
    with (studies / "oblique.nii.gz").open("rb") as file:
        answer = server.ask("POST", "infer/cga_unet", params={"output": "image"}, files={"file": ("x.nii.gz", file)})
    assert answer.status_code == 200, answer.text
    (tmp_path / "label.nii.gz").write_bytes(answer.content)
    expected = nibabel.load(own / "cga_unet" / "oblique.nii.gz")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "label.nii.gz").dataobj, expected.dataobj)


def test_four_files_that_are_sent(server: Server, own: Path, phantoms: list[dict[str, Any]], tmp_path: Path):
    """As a session, which a viewer opens for what isn't in the datastore."""
    files = [("files", (Path(path).name, Path(path).read_bytes())) for path in phantoms[0]["image"]]
    session = server.ask("PUT", "session/", files=files).json()["session_id"]
    answer = server.ask("POST", "infer/fancl", params={"session_id": session, "output": "image"})
    assert answer.status_code == 200, answer.text
    (tmp_path / "label.nii.gz").write_bytes(answer.content)
    expected = nibabel.load(own / "fancl" / "plain.nii.gz")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "label.nii.gz").dataobj, expected.dataobj)
    assert server.ask("DELETE", f"session/{session}").status_code == 200
