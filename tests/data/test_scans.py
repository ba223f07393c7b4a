"""Cases without labels, from folders with and without them, of any mix of modalities."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from common.data.labels import CHANNELS
from common.data.layouts import list_scans
from common.data.phantoms import make_phantoms
from common.data.reading import read_image
from common.data.writing import WRITABLE_LAYOUTS
from common.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_phantoms(str(tmp_path / "data"), cases=3, layout="brats2023", shape=24, seed=1)
    return tmp_path / "data"


def test_labels_are_left_out_and_it_is_said(folder: Path, caplog: pytest.LogCaptureFixture):
    next(folder.rglob("*-seg.nii.gz")).unlink()
    with caplog.at_level(logging.INFO):
        cases = list_scans(folder)
    assert [sorted(case) for case in cases] == [["case", "image"]] * 3
    assert caplog.messages == [f"2 of 3 cases in {folder} have labels, which are ignored"]


def test_damaged_labels_are_ignored_too(folder: Path):
    for path in folder.rglob("*-seg.nii.gz"):
        path.write_bytes(b"no label")
    assert len(list_scans(folder)) == 3


def test_any_mix_of_modalities(folder: Path, caplog: pytest.LogCaptureFixture):
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    for path in folder.rglob("*-seg.nii.gz"):
        path.unlink()
    (folder / names[0] / f"{names[0]}-t1c.nii.gz").unlink()
    for modality in ("t1n", "t1c", "t2w"):
        (folder / names[1] / f"{names[1]}-{modality}.nii.gz").unlink()
    with caplog.at_level(logging.INFO):
        cases = list_scans(folder)
    assert [case.get("missing", "") for case in cases] == ["t1c", "t1n t1c t2w", ""]
    assert caplog.messages == ["2 of 3 cases lack modalities, which are zeros and don't count"]
    for case in cases:
        image, _ = read_image(case)
        assert [bool(channel.any()) for channel in image] == [name not in case.get("missing", "") for name in CHANNELS]


@pytest.mark.parametrize("layout", [layout for layout in WRITABLE_LAYOUTS if layout not in ("decathlon", "datalist")])
def test_every_layout_that_lists_no_labels(layout: str, tmp_path: Path):
    make_phantoms(str(tmp_path / "data"), cases=2, layout=layout, shape=24)
    for path in (tmp_path / "data").rglob("*.nii.gz"):
        if "seg" in path.name or path.parent.name.startswith("labels"):
            path.unlink()
    cases = list_scans(tmp_path / "data")
    assert len(cases) == 2
    assert np.isfinite(read_image(cases[0])[0]).all()


def test_nothing_there(tmp_path: Path):
    with pytest.raises(InputError, match=r"holds no \.nii"):
        list_scans(tmp_path)
