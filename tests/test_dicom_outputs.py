"""What `dicom_in` and `dicom_seg` leave as it was: what they read, and cases of earlier runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import pytest

from common import dicom_cases
from common.dicom_cases import dicom_in, dicom_seg
from tests.data.dicom_studies import CHANNELS, SECRETS, label_of, mr_study, refusal

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, of files that are out of form


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mr_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def label(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A label map of the one case of the study."""
    out = tmp_path_factory.mktemp("cases") / "cases"
    dicom_in(str(study), str(out))
    (folder,) = out.iterdir()
    return label_of(folder)[0]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_read_is_not_replaced(study: Path, label: Path, tmp_path: Path):
    copy, label = shutil.copytree(study, tmp_path / "study"), Path(shutil.copy(label, tmp_path))
    archive = Path(shutil.make_archive(str(tmp_path / "study"), "zip", copy))
    elsewhere = tmp_path / "elsewhere" / "Planted.dcm"
    elsewhere.parent.mkdir()
    slice_ = copy / "Planted_2" / "Planted_2_003.dcm"
    slice_.rename(elsewhere)
    slice_.symlink_to(elsewhere)
    link = tmp_path / "link"
    link.symlink_to(copy)
    before, out = contents(tmp_path), tmp_path / "out" / "seg.dcm"

    def refused(call: Callable[..., None], *arguments: object, **options: object) -> str:
        said = refusal(call, *arguments, **options)
        assert contents(tmp_path) == before and not out.parent.exists()
        assert not any(secret in said.replace(str(tmp_path), "").lower() for secret in SECRETS)
        return said

    for place in (slice_, copy / "Planted_3" / "Planted_3_001.dcm", copy / "new.dcm", link / "new.dcm", elsewhere):
        assert refused(dicom_seg, label, copy, "cga_unet", place) == (
            f"--out: lies in {copy}, and would become a part of the study; give another place"
        )
        assert "--picture: lies in" in refused(dicom_seg, label, copy, "cga_unet", out, picture=place)
    assert f"--out: lies in {archive}" in refused(dicom_seg, label, archive, "cga_unet", archive)
    said = refused(dicom_seg, label, copy, "cga_unet", label)
    assert said == f"--out: is {label}, the label map itself; give another file"
    assert "--picture: is" in refused(dicom_seg, label, copy, "cga_unet", out, picture=label)
    assert "is the file of --out; give another" in refused(dicom_seg, label, copy, "cga_unet", out, picture=out)
    for place in (copy, copy / "cases", link):
        assert refused(dicom_in, copy, place).startswith(f"--out: lies in {copy}, and would")
    assert f"--out: lies in {archive}" in refused(dicom_in, archive, archive)


def test_a_place_that_cannot_be_written_is_told_first(study: Path, label: Path, tmp_path: Path):
    said = refusal(dicom_seg, label, study, "cga_unet", tmp_path)
    assert said == f"--out {tmp_path}: is a folder; name a file in it"
    said = refusal(dicom_seg, label, study, "cga_unet", tmp_path / "seg.dcm", picture=tmp_path)
    assert said == f"--picture {tmp_path}: is a folder; name a file in it"
    (tmp_path / "file").touch()
    said = refusal(dicom_seg, label, study, "cga_unet", tmp_path / "seg.dcm", picture=tmp_path / "file" / "seg.png")
    assert f"{tmp_path / 'file'} can't be written to" in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("at", [*CHANNELS, *(f"putting {channel}" for channel in CHANNELS), "the record"])
def test_a_case_is_never_of_two_runs(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str):
    """Stopped while a volume or the record is written, or put in its place, and run again."""
    folder = tmp_path / "a7"
    dicom_in(str(study), str(tmp_path), case="a7", grid="t2f")
    before = contents(folder)

    def stop_at(wanted: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def stopping(*given: Any) -> Any:
            if wanted in str(given[0]):
                raise KeyboardInterrupt
            return call(*given)

        return stopping

    with monkeypatch.context() as patch:
        if at.startswith("putting "):
            patch.setattr(Path, "replace", stop_at(at.removeprefix("putting "), Path.replace))
        elif at == "the record":
            patch.setattr(dicom_cases, "_write_record", stop_at("dicom.json", dicom_cases._write_record))
        else:
            patch.setattr(dicom_cases, "write_nifti", stop_at(f"-{at}.nii.gz", dicom_cases.write_nifti))
        with pytest.raises(KeyboardInterrupt):
            dicom_in(str(study), str(tmp_path), case="a7")
    assert [path.name for path in tmp_path.iterdir()] == ["a7"]
    if at in CHANNELS:
        assert contents(folder) == before
    else:
        assert "series" not in json.loads((folder / "dicom.json").read_text())
        shapes = {nibabel.load(path).shape for path in folder.glob("*.nii.gz")}
        assert shapes <= {(14, 12, 10)}
    dicom_in(str(study), str(tmp_path), case="a7")
    assert json.loads((folder / "dicom.json").read_text())["grid"] == "t1c"
    assert {nibabel.load(path).shape for path in folder.glob("*.nii.gz")} == {(14, 12, 10)}
