"""Folders of generated ultrasound and CT: what is written, that it reads back, and what is refused."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from common.data import phantom_folder
from common.data.ct_phantom import NeckCT
from common.data.ct_rendering import ct_affine, render_ct
from common.data.image_layouts import list_images
from common.data.image_phantoms import make_image_phantoms
from common.data.phantom_fields import Fields
from common.data.phantom_folder import RECORD_FILE
from common.data.pictures import read_mask, read_picture
from common.data.ultrasound_record import Ultrasound
from common.data.ultrasound_rendering import render_ultrasound
from common.errors import InputError

SMALL: dict[str, Any] = {"ultrasound": 64, "ct": (48, 48, 8)}


@pytest.mark.parametrize("kind", ["ultrasound", "ct"])
def test_first_cases_of_a_larger_set_are_those_of_a_smaller(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_image_phantoms(tmp_path / "many", kind, cases=9, seed=3, size=SMALL[kind])
    monkeypatch.setattr(phantom_folder, "_cores", lambda: 1)
    make_image_phantoms(tmp_path / "few", kind, cases=4, seed=3, size=SMALL[kind])
    make_image_phantoms(tmp_path / "other", kind, cases=4, seed=4, size=SMALL[kind])
    files = [path.relative_to(tmp_path / "few") for path in (tmp_path / "few").rglob("*.[pn][ni][gi]*")]
    assert len(files) >= 8
    for file in files:
        assert filecmp.cmp(tmp_path / "few" / file, tmp_path / "many" / file, shallow=False)
        if "mask" not in file.name:
            assert not filecmp.cmp(tmp_path / "few" / file, tmp_path / "other" / file, shallow=False)
    few, many = (json.loads((tmp_path / name / RECORD_FILE).read_text())["cases"] for name in ("few", "many"))
    assert few == {case: many[case] for case in few}


@pytest.mark.parametrize("kind", ["ultrasound", "ct"])
def test_second_run_gives_the_same_bytes_and_mends_an_interrupted_one(kind: str, tmp_path: Path):
    make_image_phantoms(str(tmp_path), kind, cases=3, size=SMALL[kind])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    next(path for path in before if path.name != RECORD_FILE).unlink()
    make_image_phantoms(tmp_path, kind, cases=3, size=SMALL[kind])
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_ultrasound_reads_back_in_busi_layout(tmp_path: Path):
    make_image_phantoms(tmp_path, "ultrasound", cases=16, seed=2, size=64)
    record = json.loads((tmp_path / RECORD_FILE).read_text())
    assert record["kind"] == "ultrasound" and record["size"] == 64
    cases = list_images(tmp_path)
    numbers = {"benign": 6, "malignant": 6, "normal": 4}
    expected = {f"{kind} ({number + 1})" for kind, count in numbers.items() for number in range(count)}
    assert {case["case"] for case in cases} == set(record["cases"]) == expected and len(cases) == 16
    several, shapes = 0, set()
    for case in cases:
        phantom = Ultrasound.from_dict(record["cases"][case["case"]])
        path = Path(case["image"])
        assert path.parent.name == phantom.kind and path.name.startswith(f"{phantom.kind} (")
        image, masks = render_ultrasound(phantom, 64)
        assert Image.open(path).mode == "L"
        np.testing.assert_array_equal(read_picture("a", path), image)
        lesion = read_mask("a", case["label"], image.shape)
        # A mask for each lesion, and a black one where there is none.
        assert len(case["label"]) == max(len(masks), 1)
        assert lesion.any() == (phantom.kind != "normal")
        np.testing.assert_array_equal(lesion, np.any([mask > 0 for mask in masks] or [image * 0], axis=0))
        several += len(masks) > 1
        shapes.add(image.shape)
    assert several > 0 and len(shapes) > 8


def test_ct_reads_back_in_hecktor_layout(tmp_path: Path):
    make_image_phantoms(tmp_path, "ct", cases=2, seed=2, size=[48, 56, 8])  # type: ignore[arg-type]
    record = json.loads((tmp_path / RECORD_FILE).read_text())
    assert record["size"] == [48, 56, 8] and list(record["cases"]) == ["HN001", "HN002"]
    cases = list_images(tmp_path)
    assert [case["case"] for case in cases] == ["HN001", "HN002"]
    for case in cases:
        assert case["image"] == str(tmp_path / f"{case['case']}_ct.nii.gz")
        assert case["label"] == [str(tmp_path / f"{case['case']}_gtvt.nii.gz")]
        image, tumour = (nibabel.load(path) for path in (case["image"], case["label"][0]))
        assert image.get_data_dtype() == np.int16 and tumour.get_data_dtype() == np.uint8
        np.testing.assert_allclose(image.affine, ct_affine((48, 56, 8)), atol=1e-4)
        np.testing.assert_array_equal(image.affine, tumour.affine)
        expected = render_ct(NeckCT.from_dict(record["cases"][case["case"]]), (48, 56, 8))
        for read, rendered in zip((image, tumour), expected, strict=True):
            np.testing.assert_array_equal(np.asarray(read.dataobj), rendered)


@pytest.mark.parametrize(("kind", "size"), [("ultrasound", 256), ("ct", [128, 128, 24])])
def test_sizes_that_are_not_given(kind: str, size: Any, tmp_path: Path):
    make_image_phantoms(tmp_path / "default", kind, cases=1)
    assert json.loads((tmp_path / "default" / RECORD_FILE).read_text())["size"] == size
    make_image_phantoms(tmp_path / "number", "ct", cases=1, size=50)
    assert json.loads((tmp_path / "number" / RECORD_FILE).read_text())["size"] == [50, 50, 24]


def test_field_has_a_knot_distance_for_each_axis():
    axis = np.linspace(-100, 100, 400, dtype=np.float32)
    values = Fields(3).field("a", (3.0, 12.0), (axis, axis))
    assert values.shape == (400, 400) and abs(values.mean()) < 0.1 and 0.85 < values.std() < 1.15
    rough, smooth = (np.abs(np.diff(values, axis=one)).mean() for one in (0, 1))
    assert rough > 2.5 * smooth
    assert Fields(3).field("b", 5, (axis,)).shape == (400,)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"kind": "xray"}, "kind of image 'xray' is not known; choose one of ultrasound, ct"),
        ({"cases": 0}, "cases 0: give how many phantoms to make"),
        ({"cases": True}, "cases True: give how many phantoms to make"),
        ({"seed": -1}, "seed of a phantom must be an integer of at least 0, not -1"),
        ({"seed": 0.5, "kind": "ct"}, "seed of a phantom must be an integer of at least 0, not 0.5"),
        ({"size": 32}, "size 32 of an ultrasound image: give one integer from 64 to 1024"),
        ({"size": (64, 64)}, "size (64, 64) of an ultrasound image"),
        ({"size": "big"}, "size 'big' of an ultrasound image"),
        ({"kind": "ct", "size": 16}, "size 16 of a CT: give X,Y,Z, integers from 48 to 512 and slices from 8 to 256"),
        ({"kind": "ct", "size": (64, 64)}, "size (64, 64) of a CT"),
        ({"kind": "ct", "size": (64, 64, 2)}, "size (64, 64, 2) of a CT"),
        ({"kind": "ct", "size": (64, 64, 8.5)}, "size (64, 64, 8.5) of a CT"),
        ({"kind": "ct", "size": "big"}, "size 'big' of a CT"),
    ],
)
def test_bad_arguments_are_one_line_and_write_nothing(arguments: dict[str, Any], line: str, tmp_path: Path):
    with pytest.raises(InputError) as caught:
        make_image_phantoms(tmp_path / "new", **{"kind": "ultrasound", "cases": 1, **arguments})
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_foreign_folders_are_left_alone(tmp_path: Path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="foreign holds other files; give a new or empty folder"):
        make_image_phantoms(tmp_path / "foreign", "ct", cases=1)
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.txt"]
    make_image_phantoms(tmp_path / "phantoms", "ultrasound", cases=1, size=64)
    with pytest.raises(InputError, match="holds phantoms made with other arguments"):
        make_image_phantoms(tmp_path / "phantoms", "ct", cases=1)
