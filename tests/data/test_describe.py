from __future__ import annotations

import numpy as np
import pytest

from common.data.describe import data, describe
from common.data.writing import finish_layout, write_case


def write(folder, layout: str, names: tuple[str, ...]) -> None:
    random = np.random.default_rng(0)
    for index, name in enumerate(names):
        images = random.integers(0, 99, (4, 5, 6, 7 + index // 2)).astype(np.int16)
        label = np.zeros(images.shape[1:], np.uint8)
        label[1, 1, : index + 1] = range(1, index + 2)
        write_case(folder, layout, name, images, label if index < 2 else None, np.diag([1, 1, 1.5, 1]))
    finish_layout(folder, layout, names)


def test_clean_folder(tmp_path, capsys):
    write(tmp_path, "brats2018", ("a", "b", "c"))
    data(str(tmp_path))
    assert capsys.readouterr().out.splitlines() == [
        "layout     BraTS 2018 to 2021: <case>/<case>_t1.nii.gz, _t1ce, _t2, _flair, _seg",
        "cases      3, of 3 patients",
        "labels     2 with, 1 without; convention brats2018",
        "values     0 (background) in 2, 1 (NCR) in 2, 2 (ED) in 1",
        "shapes     5×6×7 in 2, 5×6×8 in 1",
        "spacings   1×1×1.5 mm in 3",
        "problems   none",
    ]


def test_values_are_those_of_the_source(tmp_path):
    write(tmp_path, "decathlon", ("a", "b"))
    assert describe(tmp_path).values == {(0, "background"): 2, (2, "NCR"): 2, (1, "ED"): 1}


def test_every_problem_is_a_line_and_the_status_is_not_0(tmp_path, capsys):
    write(tmp_path, "brats2018", ("a", "b", "c", "d"))
    (tmp_path / "a" / "a_t2.nii.gz").write_bytes(b"")
    (tmp_path / "b" / "b_seg.nii.gz").write_text("no scan")
    (tmp_path / "c" / "c_flair.nii.gz").unlink()
    with pytest.raises(SystemExit) as stop:
        data(str(tmp_path))
    assert stop.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "cases      4, of 4 patients" and lines[6:] == [
        "problems   3",
        f"  case c, {tmp_path}/c: modality t2f is missing; add the file or take the case out",
        f"  case a, {tmp_path}/a/a_t2.nii.gz: is empty; replace it by the scan as .nii.gz",
        f"  case b, {tmp_path}/b/b_seg.nii.gz: is not a NIfTI file; replace it by the scan as .nii.gz",
    ]


def test_patients_are_counted_once(tmp_path):
    write(tmp_path, "brats2023", ("BraTS-MET-00001-000", "BraTS-MET-00001-001", "BraTS-MET-00002-000"))
    assert "cases      3, of 2 patients" in str(describe(tmp_path))


def test_real_scans(real_scans):
    found = describe(real_scans / "brats2020")
    assert found.problems == [] and found.shapes == {(240, 240, 155): 2} and found.spacings == {(1.0, 1.0, 1.0): 2}
    assert found.values[(4, "ET")] == 1
