"""Pictures of every kind that one meets, and masks that fit them or don't."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.pictures import is_picture, read_mask, read_picture
from common.errors import CaseError
from tests.data.dicom_files import ct_file, ultrasound_file

GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("grey.png", Image.fromarray(GREY)),
        ("colour.bmp", Image.fromarray(np.stack([GREY] * 3, -1))),
        ("alpha.png", Image.fromarray(np.dstack([GREY, GREY, GREY, GREY // 2]))),
        ("grey_alpha.PNG", Image.fromarray(np.dstack([GREY, GREY // 2]), mode="LA")),
        ("palette.png", Image.fromarray(GREY).convert("P")),
        ("deep.tif", Image.fromarray(GREY.astype(np.uint16) * 200)),
        ("float.tiff", Image.fromarray(GREY.astype(np.float32) / 7)),
    ],
)
def test_each_kind_of_picture_has_its_greys(tmp_path: Path, name: str, picture: Image.Image):
    picture.save(tmp_path / name)
    assert is_picture(tmp_path / name)
    found = read_picture("a", tmp_path / name)
    assert found.dtype == np.float32
    scale = {"deep.tif": 200, "float.tiff": 1 / 7}.get(name, 1)
    np.testing.assert_allclose(found, GREY.astype(np.float32) * scale, rtol=1e-6)


def test_a_jpeg_and_its_turn(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    smooth = np.outer(np.linspace(0, 250, 32), np.ones(16)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", exif=exif, quality=95)
    found = read_picture("a", tmp_path / "a.jpg")
    assert found.shape == (16, 32)
    assert np.abs(found - np.rot90(smooth, -1)).max() < 12


def test_a_dicom_image_is_a_picture(tmp_path: Path):
    colours = np.dstack([GREY, GREY // 2, GREY * 0])
    Image.fromarray(colours).save(tmp_path / "a.png")
    for name in ("a.dcm", "A.DCM", "IM0001"):
        file = ultrasound_file(tmp_path / name, colours)
        assert is_picture(file)
        np.testing.assert_array_equal(read_picture("a", file), read_picture("a", tmp_path / "a.png"))
    with pytest.raises(CaseError, match="is a mask as DICOM file; save it as PNG"):
        read_mask("a", [ct_file(tmp_path / "a_mask.dcm", GREY)], (4, 6))


def test_not_to_be_read(tmp_path: Path):
    def told(content: bytes | None, name: str = "a.jpg") -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(CaseError) as error:
            read_picture("a", tmp_path / name)
        assert str(error.value).startswith(f"case a, {tmp_path}/{name}: ")
        return error.value.reason

    assert told(None, "none.png") == "does not exist"
    assert told(b"no picture") == "is no picture, or damaged"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(tmp_path / "whole.jpg")
    assert told((tmp_path / "whole.jpg").read_bytes()[:900]).startswith("can't be read (")


def test_masks_are_put_together(tmp_path: Path):
    first, second = np.zeros((2, 4, 6), np.uint8)
    first[0, :3], second[2:, 4] = 255, 1
    Image.fromarray(first).save(tmp_path / "first.png")
    Image.fromarray(np.dstack([second * 9] * 3 + [second * 0])).save(tmp_path / "second.png")
    Image.fromarray(first > 0).save(tmp_path / "one_bit.png")
    found = read_mask("a", [tmp_path / "first.png", tmp_path / "second.png"], (4, 6))
    np.testing.assert_array_equal(found, (first > 0) | (second > 0))
    np.testing.assert_array_equal(read_mask("a", [tmp_path / "one_bit.png"], (4, 6)), first > 0)
    assert not read_mask("a", [], (4, 6)).any()


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (np.zeros((4, 7), np.uint8), "the mask and its picture differ in size: 7×4 and 6×4 pixels"),
        (np.stack([GREY, GREY, GREY * 0], -1), "is a mask in colours"),
        (GREY, "is a mask with 23 greys beside black"),
        (np.full((4, 6), 255, np.uint8), "is a mask without black: lesion everywhere"),
    ],
)
def test_masks_that_are_refused(tmp_path: Path, mask: np.ndarray, told: str):
    Image.fromarray(mask).save(tmp_path / "mask.png")
    with pytest.raises(CaseError) as error:
        read_mask("a", [tmp_path / "mask.png"], (4, 6))
    assert error.value.reason == told


def test_pages(tmp_path: Path):
    page = Image.fromarray(GREY)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(CaseError, match="holds 2 pages; save each as a picture of its own"):
        read_picture("a", tmp_path / "a.tif")
