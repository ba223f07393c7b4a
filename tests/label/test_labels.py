"""Images and labels that are sent: a label is kept only where it fits its image, and an image only with its own."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import requests
from PIL import Image

from tests.label.server import BESIDE, Server, new_lines

pytestmark = [pytest.mark.label, pytest.mark.slow]


def put(server: Server, image: str, name: str, content: bytes, tag: str = "final") -> requests.Response:
    options: dict[str, Any] = {"params": {"image": image, "tag": tag}, "files": {"label": (name, content)}}
    return server.ask("PUT", "datastore/label", **options)


def packed(scan: nibabel.Nifti1Image, voxels: np.ndarray, affine: np.ndarray | None = None) -> bytes:
    return gzip.compress(nibabel.Nifti1Image(voxels, scan.affine if affine is None else affine).to_bytes())


def grey(voxels: np.ndarray, ending: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(voxels).save(file, ending)
    return file.getvalue()


def label_of(scan: nibabel.Nifti1Image, dtype: type = np.uint8) -> np.ndarray:
    label = np.zeros(scan.shape[:3], dtype)
    label[8:12, 8:12, 8:12] = 3
    return label


def with_value(label: np.ndarray, value: float) -> np.ndarray:
    label[0, 0, 0] = value
    return label


# Of a volume, what is wrong with a label and what is said of it.
UNFIT: dict[str, tuple[Callable[[nibabel.Nifti1Image], bytes], str]] = {
    "no image": (lambda scan: b"no image", "is not a gzip file"),
    "cut off": (lambda scan: packed(scan, np.random.default_rng(0).integers(0, 4, (32,) * 3, np.uint8))[:4000], ""),
    "another shape": (lambda scan: packed(scan, label_of(scan)[1:]), "its shape (31, 32, 32) is not"),
    "all modalities": (lambda scan: packed(scan, np.zeros((32, 32, 32, 4), np.uint8)), "its shape (32, 32, 32, 4)"),
    "elsewhere": (lambda scan: packed(scan, label_of(scan), scan.affine @ np.diag([-1, 1, 1, 1])), "its affine"),
    "four": (lambda scan: packed(scan, with_value(label_of(scan), 4)), "its value 4: the bundles know 0, 1, 2, 3"),
    "a half": (lambda scan: packed(scan, with_value(label_of(scan, np.float32), 0.5)), "its value 0.5"),
    "NaN": (lambda scan: packed(scan, with_value(label_of(scan, np.float32), np.nan)), "its value nan"),
}


def expect_refused(server: Server, image: str, name: str, content: bytes, told: str) -> None:
    answer, (line,) = new_lines(server, lambda: put(server, image, name, content))
    detail = answer.json()["detail"]
    assert answer.status_code == 422 and f"label of {image!r} can't be used: " in detail and told in detail
    assert detail in line and "\n" not in detail
    assert server.ask("GET", "datastore/label", params={"label": image, "tag": "final"}).status_code == 404


@pytest.mark.parametrize("what", UNFIT)
@pytest.mark.parametrize("image", ["oblique", BESIDE[0]])
def test_a_label_that_does_not_fit_a_volume(image: str, what: str, server: Server, studies: Path):
    """A 4D one, and one that has its modalities beside it."""
    make, told = UNFIT[what]
    expect_refused(server, image, "x.nii.gz", make(nibabel.load(studies / f"{image}.nii.gz")), told)
    assert not list((studies / "labels" / "final").iterdir())


@pytest.mark.parametrize("image", ["oblique", BESIDE[0]])
def test_a_label_that_fits_a_volume(image: str, server: Server, studies: Path):
    scan = nibabel.load(studies / f"{image}.nii.gz")
    for label in (label_of(scan), label_of(scan, np.float32)[..., None]):
        assert put(server, image, "x.nii.gz", packed(scan, label)).json() == {"image": image, "label": image}
    assert server.ask("DELETE", "datastore/label", params={"id": image, "tag": "final"}).status_code == 200
    server.wait_until(lambda: not server.ask("GET", "datastore/?output=train").json(), 30)


def test_labels_of_a_picture(server: Server, studies: Path):
    lesion = np.zeros((48, 64), np.uint8)
    lesion[10:20, 10:20] = 255
    unfit = {
        "not those of the image": grey(lesion.T.copy()),
        "in colours": grey(np.stack([lesion, lesion, lesion * 0], -1)),
        "of black and one grey": grey(np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)),
        "white on black": grey(lesion * 0 + 255),
        "cannot identify": b"no picture",
    }
    for told, content in unfit.items():
        expect_refused(server, "picture", "x.png", content, told)
    volume = nibabel.Nifti1Image(lesion, np.eye(4)).to_bytes()
    expect_refused(server, "picture", "x.nii", volume, "give a .png for a picture")
    expect_refused(server, "plain", "x.png", grey(lesion), "a .nii.gz for a volume")
    assert put(server, "picture", "x.png", grey(lesion)).status_code == 200
    assert server.ask("DELETE", "datastore/label", params={"id": "picture", "tag": "final"}).status_code == 200
    server.wait_until(lambda: not server.ask("GET", "datastore/?output=train").json(), 30)


def test_a_label_that_unpacks_to_much(server: Server):
    content = gzip.compress(nibabel.Nifti1Image(np.zeros((512, 512, 300), np.uint8), np.eye(4)).to_bytes(), 1)
    answer, (line,) = new_lines(server, lambda: put(server, "plain", "x.nii.gz", content))
    assert answer.status_code == 413 and "75 MiB unpacked, the limit is 64" in line


def test_an_image_that_has_labels_is_not_replaced(server: Server, studies: Path):
    """It is deleted first, and its labels with it."""
    scan = nibabel.load(studies / f"{BESIDE[0]}.nii.gz")
    content = (studies / f"{BESIDE[0]}.nii.gz").read_bytes()
    other = (studies / f"{BESIDE[1]}.nii.gz").read_bytes()

    def send(image: bytes) -> requests.Response:
        return server.ask("PUT", "datastore/image?image=new", files={"file": ("x.nii.gz", image)})

    assert send(content).status_code == send(content).status_code == 200
    assert put(server, "new", "x.nii.gz", packed(scan, label_of(scan))).status_code == 200
    answer, (line,) = new_lines(server, lambda: send(other))
    assert answer.status_code == 409 and "image 'new' has labels" in answer.json()["detail"]
    assert answer.json()["detail"] in line
    assert (studies / "new.nii.gz").read_bytes() == content
    assert server.ask("DELETE", "datastore/image?id=new").status_code == 200
    assert send(other).status_code == 200
    assert (studies / "new.nii.gz").read_bytes() == other
    assert not (studies / "labels" / "final" / "new.nii.gz").exists()
    assert server.ask("DELETE", "datastore/image?id=new").status_code == 200
    server.wait_until(lambda: "new" not in server.ask("GET", "datastore/?output=all").json()["objects"], 30)
