"""What a folder or zip holds as a study, and what of it is told."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import archives
from common.data import dicom
from common.data.dicom_rules import find_channels
from common.data.dicom_study import open_study
from common.data.dicom_volume import read_volume
from common.errors import InputError
from tests.data.dicom_studies import SECRETS, enhanced_series, mr_series, mr_study

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, of files that are out of form


def refusal(path: Path, number: int | None = None) -> str:
    """Why a study can't be opened: one line that begins with what the user gave and tells nothing of the patient."""
    with pytest.raises(InputError) as error, open_study(path, number):
        pass
    said = str(error.value)
    assert said.startswith(f"{path}: ") and "\n" not in said
    assert not any(secret in said.removeprefix(str(path)).lower() for secret in SECRETS)
    return said.removeprefix(f"{path}: ")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mr_study(tmp_path_factory.mktemp("study"))


def zipped(study: Path, path: Path, **more: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(study.rglob("*.dcm")):
            archive.write(file, f"Planted^Petronella/{file.relative_to(study)}")
        for name, text in more.items():
            archive.writestr(name, text)
    return path


def test_series_of_a_folder(study: Path):
    with open_study(study) as found:
        assert [str(series) for series in found.series] == [
            "series 1 (localizer, 3 slices)",
            "series 2 (t1 se tra …, 8 slices)",
            "series 3 (t2 tse tra, 8 slices)",
            "series 4 (t2 flair tra, 8 slices)",
            "series 5 (… diff … trace, 8 slices)",
            "series 6 (t1 mprage sag km, 10 slices)",
        ]


def test_files_of_other_kinds_and_copies_are_left_alone(study: Path, tmp_path: Path):
    copy = shutil.copytree(study, tmp_path / "study")
    for name in ("DICOMDIR", "notes.txt", ".hidden.dcm", "__MACOSX/._a.dcm"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("of another kind")
    shutil.copytree(copy / "Planted_2", copy / "again")
    (copy / "Planted_3" / "Planted_3_000.dcm").rename(copy / "IM1")
    with open_study(study) as found, open_study(copy) as other:
        assert list(map(str, found.series)) == list(map(str, other.series))


def test_a_zip_is_the_folder(study: Path, tmp_path: Path):
    with open_study(study) as found, open_study(zipped(study, tmp_path / "a.zip", notes="text", DICOMDIR="x")) as other:
        assert (found.uid, list(map(str, found.series))) == (other.uid, list(map(str, other.series)))
        unpacked = Path(other.series[0].headers[0].filename).parent
        assert not any(secret in str(file).lower() for file in unpacked.rglob("*") for secret in SECRETS)
    assert not unpacked.exists()


@pytest.mark.parametrize("name", ["../evil.dcm", "/etc/evil.dcm", "a/../../evil.dcm", "..\\evil.dcm", "C:\\evil.dcm"])
def test_a_zip_that_leads_out_of_its_folder(study: Path, tmp_path: Path, name: str):
    assert refusal(zipped(study, tmp_path / "a.zip", **{name: "x"})).startswith("a file's name in the zip leads out")
    assert [file.name for file in tmp_path.rglob("*")] == ["a.zip"]


def test_zips_that_cannot_be_unpacked(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    content = zipped(study, tmp_path / "a.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[:-3000])
    assert refusal(tmp_path / "cut.zip").startswith("is a truncated or damaged zip")
    (tmp_path / "hurt.zip").write_bytes(content[:300] + b"hurt" + content[304:])
    assert "damaged zip" in refusal(tmp_path / "hurt.zip")
    (tmp_path / "other.tar").write_bytes(b"something else")
    assert refusal(tmp_path / "other.tar").startswith("is neither a folder nor a zip")
    assert refusal(tmp_path / "none").startswith("does not exist")
    encrypted = bytearray(content)
    for signature, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        encrypted[content.index(signature) + place] |= 1
    (tmp_path / "secret.zip").write_bytes(encrypted)
    assert refusal(tmp_path / "secret.zip").startswith("is encrypted")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.dcm", bytes(5 * 2**20))
    monkeypatch.setattr(archives, "MOST_BYTES", 4 * 2**20)
    assert refusal(tmp_path / "bomb.zip").startswith("would unpack to 0 GiB in 1 files, more than")


def test_two_studies_are_numbered_by_date(tmp_path: Path):
    mr_series(tmp_path / "a", 2, study="late")
    mr_series(tmp_path / "b", 3, study="early", StudyDate="20230102")
    line = "holds 2 studies (by date, the earliest first: 1: 1 series, 8 files; 2: 1 series, 8 files); choose with"
    assert refusal(tmp_path).startswith(line)
    assert refusal(tmp_path, 3) == "holds 2 of studies, no number 3; give --study_number 1 to 2"
    for number, name in ((1, "3"), (2, "2")):
        with open_study(tmp_path, number) as found:
            assert [series.name for series in found.series] == [name]


def test_series_of_one_number_get_letters(tmp_path: Path):
    for number in (2, 3, 4):
        mr_series(tmp_path, number, SeriesNumber=None if number == 4 else 7)
    with open_study(tmp_path) as found:
        assert [series.name for series in found.series] == ["0", "7a", "7b"]


def test_folders_that_hold_no_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert refusal(tmp_path).startswith("holds no DICOM file")
    files = mr_series(tmp_path, 2)
    files[3].write_bytes(files[3].read_bytes()[:60])
    assert refusal(tmp_path).startswith("one of its files, number 4 of 8 by name, is no DICOM file, or damaged")
    files[3].unlink()
    mr_series(tmp_path / "b", 3, SeriesInstanceUID=None)
    assert refusal(tmp_path).startswith("a file lacks SeriesInstanceUID")
    monkeypatch.setattr(dicom, "_INSTALLED", False)
    assert refusal(tmp_path).endswith("pip install highdicom python-gdcm")


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its slices aren't left out in silence."""
    folder = mr_series(tmp_path, 2)[0].parent
    scandir = os.scandir

    def closed(path: str) -> object:  # to root, who may run this, every folder is open
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    mr_series(tmp_path / "open", 3)
    assert refusal(tmp_path) == "one of its folders can't be read (Permission denied); check its permissions"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_is_told_in_a_line_without_the_patient(tmp_path: Path, data: st.DataObject):
    folder = tmp_path / "study"
    shutil.rmtree(folder, ignore_errors=True)
    if data.draw(st.booleans()):
        path = mr_series(folder, 6, shape=(4, 5, 5))[2]
    else:
        path = enhanced_series(folder, 6, range(5), shape=(4, 5, 5))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(100, len(content)))])
    try:
        with open_study(folder) as found:
            for series in found.series:
                read_volume("a", folder, series)
            find_channels(found, {})
    except InputError as error:
        told = str(error).replace(str(folder), "").lower()
        assert "\n" not in told and not any(secret in told for secret in SECRETS)


def test_descriptions_are_told_without_names(tmp_path: Path):
    mr_series(tmp_path, 2, SeriesDescription="T1 Petronella 4711 19610203 post GD")
    mr_series(tmp_path, 3, SeriesDescription="ÄÖ^Планета", ProtocolName="T2")
    mr_series(tmp_path, 4, SeriesDescription=None, ProtocolName="T2 FLAIR")
    with open_study(tmp_path) as found:
        assert [str(series) for series in found.series] == [
            "series 2 (t1 … post gd, 8 slices)",
            "series 3 (8 slices)",
            "series 4 (t2 flair, 8 slices)",
        ]


def test_a_file_that_is_read_is_not_written(study: Path):
    path = next(study.rglob("*.dcm"))
    before = path.read_bytes()
    with open_study(study):
        pass
    assert path.read_bytes() == before and "PRIVATE PLANTED" in str(pydicom.dcmread(path))
