"""Which images are still to be done, and what must not be written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.data.image_stream import images_to_do, mask_file
from common.data.phantoms import make_phantoms
from common.data.stream import CaseStream
from common.errors import CaseError, InputError


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def to_do(data: Path, output: Path, **arguments) -> list[str]:
    """Names of the cases, and those of problems in brackets."""
    found = images_to_do(str(data), str(output), **arguments)
    return [f"({item.case})" if isinstance(item, CaseError) else item["case"] for item in found]


def test_masks_are_left_out(tmp_path: Path):
    data = files(
        tmp_path / "in", "benign/benign (1).PNG", "benign/benign (1)_mask.png", "lone_mask.png", "normal/n.jpg"
    )
    assert images_to_do(str(data), str(tmp_path / "out")) == [
        {"case": "benign (1)", "image": str(data / "benign" / "benign (1).PNG")},
        {"case": "n", "image": str(data / "normal" / "n.jpg")},
    ]


@pytest.mark.parametrize(
    ("image", "mask"),
    [("a.png", "a.png"), ("a.JPG", "a.png"), ("a.dcm", "a.dcm"), ("a.nii", "a.nii.gz"), ("a.nii.gz", "a.nii.gz")],
)
def test_finished_images_are_left_out(tmp_path: Path, image: str, mask: str, caplog: pytest.LogCaptureFixture):
    data = files(tmp_path / "in", image, image.replace("a", "b"))
    assert to_do(data, tmp_path / "out") == ["a", "b"]
    assert mask_file(tmp_path / "out", "a", str(data / image)) == tmp_path / "out" / mask
    files(tmp_path / "out", mask)
    with caplog.at_level("INFO"):
        assert to_do(data, tmp_path / "out") == ["b"]
    assert caplog.messages[0].startswith("1 of 2 images are finished already")
    assert to_do(data, tmp_path / "out", overwrite=True) == ["a", "b"]


def test_images_of_one_name_write_no_mask_twice(tmp_path: Path):
    """One that is refused doesn't stop the others."""
    data = files(tmp_path / "in", "a.png", "a.jpg", "b.png", "1/c.png", "2/c.png")
    assert to_do(data, tmp_path / "out") == ["1-c", "2-c", "b", "(a)"]
    stream = CaseStream(images_to_do(str(data), str(tmp_path / "out")), lambda case: case["case"])
    assert list(stream) == ["1-c", "2-c", "b"]
    with pytest.raises(InputError, match=r"1 of 4 cases failed: case a, .*a\.jpg: the same image is there twice"):
        stream.raise_failures()


def test_one_image(tmp_path: Path):
    data = files(tmp_path, "a (1).PNG", "b.png")
    assert to_do(data / "a (1).PNG", tmp_path / "out") == ["a (1)"]


def test_one_modality_of_volumes(tmp_path: Path):
    make_phantoms(str(tmp_path / "in"), cases=2, shape=24, layout="brats2018")
    broken = sorted((tmp_path / "in").iterdir())[0]
    next(broken.glob("*_flair.nii.gz")).unlink()
    assert len(to_do(tmp_path / "in", tmp_path / "out")) == 2
    assert len(to_do(tmp_path / "in", tmp_path / "out", modality="t2f")) == 1


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("in", "holds the scans"),
        ("in/images", "holds files of case a"),
        ("in/out", "where masks would pass for images"),
    ],
)
def test_masks_among_images(tmp_path: Path, output: str, told: str):
    data = files(tmp_path / "in", "images/a.png")
    with pytest.raises(InputError, match=f"{told}; write the predictions elsewhere with --output_dir DIR"):
        images_to_do(str(data), str(tmp_path / output))
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "in")
    with pytest.raises(InputError, match="write the predictions elsewhere"):
        images_to_do(str(link), str(tmp_path / output))


def test_nothing_to_predict(tmp_path: Path):
    with pytest.raises(InputError, match="holds masks and no image"):
        images_to_do(str(files(tmp_path / "in", "a_mask.png")), str(tmp_path / "out"))
    with pytest.raises(InputError, match="holds the scans"):
        images_to_do(str(tmp_path / "in" / "a_mask.png"), str(tmp_path / "in"))
