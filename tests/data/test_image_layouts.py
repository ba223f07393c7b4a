"""Folders of pictures and of volumes, and what of them can't be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.data.image_layouts import LoneMask, find_images, list_images
from common.data.phantoms import make_phantoms
from common.errors import InputError
from tests.data.dicom_files import ct_file


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def listed(folder: Path, **arguments) -> dict[str, tuple[str, list[str] | None]]:
    """Name → image and masks, relative to the folder."""
    found = {}
    for case in list_images(folder, **arguments):
        masks = [str(Path(mask).relative_to(folder)) for mask in case["label"]] if "label" in case else None
        found[case["case"]] = (str(Path(case["image"]).relative_to(folder)), masks)
    return found


def test_busi(tmp_path: Path):
    names = ["benign/benign (1).png", "benign/benign (1)_mask.png", "benign/benign (1)_mask_1.png"]
    names += ["malignant/malignant (1).png", "malignant/malignant (1)_mask.png", "normal/normal (1).png"]
    names += ["normal/normal (2).png", "normal/normal (2)_mask.png"]
    assert listed(files(tmp_path, *names)) == {
        "benign (1)": (names[0], names[1:3]),
        "malignant (1)": (names[3], names[4:5]),
        "normal (1)": (names[5], []),
        "normal (2)": (names[6], names[7:]),
    }


def test_images_and_masks_in_folders_of_their_own(tmp_path: Path):
    names = ["images/a.jpg", "images/B.PNG", "masks/a.png", "masks/b_mask.png", ".hidden/x.png", "images/.c.png"]
    assert listed(files(tmp_path, *names)) == {"a": (names[0], [names[2]]), "B": (names[1], [names[3]])}


def test_images_of_one_name_in_two_folders(tmp_path: Path):
    names = ["one/a.png", "one/a_mask.png", "two/a.png", "two/a_Mask.png"]
    assert listed(files(tmp_path, *names)) == {"one-a": (names[0], names[1:2]), "two-a": (names[2], names[3:])}


def test_dicom_images(tmp_path: Path):
    names = ["ct/a.dcm", "ct/a_mask.png", "us/1.2.840.1", "us/1.2.840.2"]
    files(tmp_path, *names[:2])
    for name in names[2:]:
        ct_file(tmp_path / name, np.zeros((2, 2), np.int16))
    assert listed(tmp_path) == {
        "a": (names[0], names[1:2]),
        "1.2.840.1": (names[2], None),
        "1.2.840.2": (names[3], None),
    }


def test_hecktor(tmp_path: Path):
    old = ["CHGJ007/CHGJ007_ct.nii.gz", "CHGJ007/CHGJ007_gtvt.nii.gz", "CHGJ007/CHGJ007_pt.nii.gz"]
    new = ["imagesTr/CHUM-001__CT.nii.gz", "imagesTr/CHUM-001__PT.nii.gz", "labelsTr/CHUM-001.nii.gz"]
    assert listed(files(tmp_path, *old, *new)) == {
        "CHGJ007": (old[0], old[1:2]),
        "CHUM-001": (new[0], new[2:]),
    }


def test_one_modality_of_brats(tmp_path: Path):
    make_phantoms(str(tmp_path), cases=2, shape=24, layout="brats2018")
    found = list_images(tmp_path, "t2f")
    assert [Path(case["image"]).name for case in found] == [f"{case['case']}_flair.nii.gz" for case in found]
    assert all(case["label_convention"] == "brats2018" and len(case["label"]) == 1 for case in found)
    with pytest.raises(InputError, match="modality 't3': give one of t1n, t1c, t2w, t2f"):
        list_images(tmp_path, "t3")


def test_volumes_with_masks_beside_them(tmp_path: Path):
    names = ["a.nii.gz", "a_mask.nii.gz", "b.nii", "b_seg.nii.gz", "c.nii.gz"]
    assert listed(files(tmp_path, *names)) == {
        "a": ("a.nii.gz", ["a_mask.nii.gz"]),
        "b": ("b.nii", ["b_seg.nii.gz"]),
        "c": ("c.nii.gz", None),
    }


def test_one_image_and_none(tmp_path: Path):
    files(tmp_path, "one (1).PNG", "two.nii.gz", "three.txt")
    for name, case in (("one (1).PNG", "one (1)"), ("two.nii.gz", "two")):
        assert find_images(tmp_path / name) == ([{"case": case, "image": str(tmp_path / name)}], [])
    for name in ("three.txt", "none"):
        with pytest.raises(InputError, match="is no folder and no image; give the folder"):
            find_images(tmp_path / name)


def test_problems_stand_beside_the_images(tmp_path: Path):
    files(tmp_path, "a.png", "b_mask.png", "c.png", "c.tif", "c_mask.png")
    cases, problems = find_images(tmp_path)
    assert [case["case"] for case in cases] == ["a"]
    assert {problem.case: isinstance(problem, LoneMask) for problem in problems} == {"b_mask": True, "c": False}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a.png", "b_mask.png"], "case b_mask, {0}/b_mask.png: is a mask without image; add the image or take it out"),
        (["a_mask.png", "sub/b_mask.png"], "case a_mask, {0}/a_mask.png: is a mask without image"),
        (["a.png", "a_mask.png", "A.PNG"], "case A, {0}/A.PNG: the same image is there twice, also as {0}/a.png"),
        (
            ["a.png", "a.jpg", "a_mask.png"],
            "case a, {0}/a.jpg: the same image is there twice, also as {0}/a.png; keep one ",
        ),
        (
            ["1/a.png", "2/a.png", "1-a.jpg"],
            "case 1-a, {0}/1-a.jpg: the same case is there twice, also as {0}/1/a.png; ",
        ),
        (
            ["p/x_ct.nii.gz", "q/x_ct.nii.gz"],
            "case x, {0}/p/x_ct.nii.gz: the same case is there twice, also as {0}/q/x_",
        ),
        (["x_ct.nii.gz", "y_gtvt.nii.gz"], "case y, {0}/y_gtvt.nii.gz: is a tumour without CT"),
        (["x_ct.nii.gz", "x_gtvt.nii.gz", "x.nii.gz"], "case x, {0}/x.nii.gz: is neither a CT, a PET nor a tumour"),
        (["notes.txt"], "{0}: holds no picture and no volume"),
        (["a.nii.gz", "qa/b.png"], "{0}: holds 1 pictures, such as {0}/qa/b.png, and 1 volumes, such as {0}/a.nii.gz"),
    ],
)
def test_not_to_be_used(tmp_path: Path, names: list[str], told: str):
    files(tmp_path, *names)
    with pytest.raises(InputError) as error:
        list_images(tmp_path)
    assert told.format(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_masks_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Also those without image, which don't matter then."""
    caplog.set_level("INFO")
    found = list_images(files(tmp_path, "a.png", "a_mask.png", "b.png", "c_mask.png"), masks=False)
    assert found == [{"case": name, "image": str(tmp_path / f"{name}.png")} for name in "ab"]
    assert f"1 of 2 images in {tmp_path} have masks, which are ignored" in caplog.text
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.png").unlink()
    with pytest.raises(InputError, match="holds masks and no image"):
        list_images(tmp_path, masks=False)


def test_masks_in_folders_of_other_names(tmp_path: Path):
    names = ["images/p1/x0.png", "images/p2/x0.png", "masks/p1/x0.png", "masks/p2/x0.png"]
    found = listed(files(tmp_path / "a", *names))
    assert found == {"images-p1-x0": (names[0], [names[2]]), "images-p2-x0": (names[1], [names[3]])}
    names = ["I0.jpg", "I0_segmentation.png", "I1.jpg", "GT/I1.png"]
    assert listed(files(tmp_path / "b", *names)) == {"I0": (names[0], [names[1]]), "I1": (names[2], [names[3]])}
    assert listed(files(tmp_path / "c", "normal/images/n.png")) == {"n": ("normal/images/n.png", [])}


def test_hecktor_of_2020(tmp_path: Path):
    names = ["CHGJ007_ct.nii.gz", "CHGJ007_ct_gtvt.nii.gz", "CHGJ007_pt.nii.gz", "CHGJ007_pt_gtvt.nii.gz"]
    assert listed(files(tmp_path / "a", *names)) == {"CHGJ007": (names[0], [names[1]])}
    names = ["imagesTr/CHUM-001__CT.nii.gz", "LabelsTr/chum-001.nii.gz"]
    assert listed(files(tmp_path / "b", *names)) == {"CHUM-001": (names[0], [names[1]])}
