"""Cases that lack modalities are usable ones where that is wanted, and are read with zeros in their place."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from common.data.case_files import MissingModality
from common.data.labels import CHANNELS
from common.data.layouts import list_cases, recognise
from common.data.missing import COMBINATIONS, leave_out_each
from common.data.pairs import find_references
from common.data.reading import read_image
from common.data.stream import cases_to_do
from common.data.writing import finish_layout, write_case
from common.errors import CaseError

FILES = {
    "brats2018": "{case}/{case}_{name}.nii.gz",
    "brats2023": "{case}/{case}-{name}.nii.gz",
    "nnunet": "imagesTr/{case}_{name}.nii.gz",
    "bids": "{case}/anat/{case}_{name}.nii.gz",
    "datalist": "images/{case}_{name}.nii.gz",
}
NAMES = {
    "brats2018": ("t1", "t1ce", "t2", "flair"),
    "brats2023": CHANNELS,
    "nnunet": ("0000", "0001", "0002", "0003"),
    "bids": ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR"),
    "datalist": CHANNELS,
}


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 900, (4, 5, 6, 7)).astype(np.int16)


def write(folder: Path, layout: str, images: np.ndarray, missing: tuple[str, ...]) -> None:
    """Two cases, the second without some modalities."""
    names = ["sub-1", "sub-2"]
    for name in names:
        write_case(folder, layout, name, images, (images[0] % 4).astype(np.uint8), np.eye(4))
    finish_layout(folder, layout, names)
    gone = [FILES[layout].format(case="sub-2", name=NAMES[layout][CHANNELS.index(channel)]) for channel in missing]
    for file in gone:
        (folder / file).unlink()
    if layout == "datalist":
        path = folder / "datalist.json"
        content = json.loads(path.read_text())
        content["training"][1]["image"] = [file for file in content["training"][1]["image"] if file not in gone]
        path.write_text(json.dumps(content))


MISSING = [("t1c",), ("t1n", "t2f"), ("t1n", "t1c", "t2w")]


@pytest.mark.parametrize(("layout", "missing"), product(FILES, MISSING))
def test_incomplete_case_of_each_layout(tmp_path: Path, images: np.ndarray, layout: str, missing: tuple[str, ...]):
    write(tmp_path / "data", layout, images, missing)
    with pytest.raises(CaseError, match=r"^case sub-2, "):
        list_cases(tmp_path / "data")
    complete, problem = cases_to_do(str(tmp_path / "data"), str(tmp_path / "out"))
    assert complete["case"] == "sub-1"
    assert str(problem).endswith(", or, with weights trained with modality_dropout, say --missing_modalities True")
    cases = cases_to_do(str(tmp_path / "data"), str(tmp_path / "out"), missing_modalities=True)
    assert [case["case"] for case in cases] == ["sub-1", "sub-2"]
    assert "missing" not in cases[0]
    assert cases[1]["missing"] == " ".join(missing)
    assert cases[1].keys() == {*cases[0].keys(), "missing"} - {"section"}
    array, affine = read_image(cases[1])
    expected = images * np.array([channel not in missing for channel in CHANNELS]).reshape(4, 1, 1, 1)
    np.testing.assert_array_equal(array, expected)
    np.testing.assert_array_equal(affine, np.eye(4))


def test_case_without_any_modality_stays_an_error(tmp_path: Path, images: np.ndarray):
    write(tmp_path / "data", "brats2023", images, CHANNELS)
    _, problem = cases_to_do(str(tmp_path / "data"), str(tmp_path / "out"), missing_modalities=True)
    assert isinstance(problem, CaseError)
    assert not isinstance(problem, MissingModality)


def test_files_that_do_not_tell_what_they_are(tmp_path: Path, images: np.ndarray):
    write(tmp_path, "brats2023", images, ())
    write_case(tmp_path / "whole", "flat", "4d_t2w", images, None, np.eye(4))
    entries = [
        {"image": "whole/4d_t2w.nii.gz"},
        {"image": ["sub-1/sub-1-t1n.nii.gz", "sub-2/sub-2-t1n.nii.gz"]},
        {"image": [f"sub-1/sub-1-{name}.nii.gz" for name in (*CHANNELS, "seg")]},
    ]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    whole, *problems = cases_to_do(str(tmp_path / "list.json"), str(tmp_path / "out"), missing_modalities=True)
    assert whole["case"] == "4d_t2w" and "missing" not in whole  # no list: one file of all four, whatever its name
    assert [str(problem).split(": ")[1] for problem in problems] == [
        "2 images are listed; list the four of t1n, t1c, t2w, t2f",
        "5 images are listed; list the four of t1n, t1c, t2w, t2f",
    ]


def test_references_need_only_labels(tmp_path: Path, images: np.ndarray):
    """Those of incomplete cases count; a name that is there twice, once incomplete, is an error."""
    write(tmp_path / "data", "brats2023", images, ("t1c", "t2f"))
    references = find_references(tmp_path / "data")
    assert list(references) == ["sub-1", "sub-2"] and references["sub-2"]["missing"] == "t1c t2f"
    assert [case["case"] for case in list_cases(tmp_path / "data", missing_modalities=True)] == ["sub-1", "sub-2"]
    files = [f"sub-1/sub-1-{name}.nii.gz" for name in CHANNELS]
    entries = [{"image": files, "case": "a"}, {"image": files[:2], "case": "a"}]
    (tmp_path / "data" / "list.json").write_text(json.dumps({"training": entries}))
    with pytest.raises(CaseError, match=r"^case a, .*: the same case is there twice"):
        list_cases(tmp_path / "data" / "list.json", missing_modalities=True)


@pytest.mark.parametrize("layout", ["brats2023", "decathlon", "flat"])
def test_each_combination_of_a_complete_case(tmp_path: Path, images: np.ndarray, layout: str):
    """15 of them; what is left out is zeros in files of their own and in one file alike."""
    write_case(tmp_path, layout, "sub-1", images, None, np.eye(4))
    finish_layout(tmp_path, layout, ["sub-1"])
    cases = leave_out_each(recognise(tmp_path).cases)
    assert len(cases) == len(COMBINATIONS) == len(set(COMBINATIONS)) == 15
    assert COMBINATIONS[0] == ()
    for case, missing in zip(cases, COMBINATIONS, strict=True):
        expected = images * np.array([channel not in missing for channel in CHANNELS]).reshape(4, 1, 1, 1)
        np.testing.assert_array_equal(read_image(case)[0], expected)


def test_modality_that_is_left_out_is_not_read(tmp_path: Path, images: np.ndarray):
    write(tmp_path, "brats2023", images, ())
    (tmp_path / "sub-1" / "sub-1-t1c.nii.gz").write_text("an error page")
    case = list_cases(tmp_path)[0]
    with pytest.raises(CaseError, match=r"t1c\.nii\.gz: is not a NIfTI file"):
        read_image(case)
    assert not read_image({**case, "missing": "t1c"})[0][1].any()
