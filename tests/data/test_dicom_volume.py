"""Series as volumes: slices by their positions, and what is no stack of slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import MPEG2MPML, RLELossless, generate_uid

from common.data.dicom_rules import kind_of
from common.data.dicom_study import open_study
from common.data.dicom_volume import locate, read_volume
from common.errors import CaseError
from tests.data.dicom_studies import AXIAL, SAGITTAL, SECRETS, enhanced_series, mr_series, values_at

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, of files that are out of form

OBLIQUE = tuple(np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0][:2].ravel().tolist())
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def volume(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine (RAS) of the one series in a folder."""
    with open_study(folder) as study:
        (series,) = study.series
        return read_volume("a", folder, series), locate("a", folder, series).affine


def expect_right(folder: Path, number: int = 2, tolerance: float = 0) -> None:
    """Each voxel is what the phantom measures where the affine says that it is."""
    voxels, affine = volume(folder)
    indices = np.stack(np.meshgrid(*map(np.arange, voxels.shape), indexing="ij"), axis=-1)
    points = nibabel.affines.apply_affine(LPS @ affine, indices)
    assert np.abs(voxels - values_at(points, number)).max() <= tolerance


def refusal(folder: Path) -> str:
    with pytest.raises(CaseError) as error:
        volume(folder)
    start = f"case a, {folder}: "
    said = str(error.value).removeprefix(start)
    assert str(error.value).startswith(start) and "\n" not in said
    assert not any(secret in said.lower() for secret in SECRETS)
    return said


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, (-1, 0, 0, 0, 1, 0), OBLIQUE])
def test_orientations(tmp_path: Path, orientation: tuple[float, ...]):
    mr_series(tmp_path, 2, orientation=orientation)
    expect_right(tmp_path, tolerance=1)  # of rounding: positions in files have ten digits
    assert volume(tmp_path)[0].shape == (12, 14, 8)


def test_neither_names_nor_numbers_order_slices(tmp_path: Path):
    files = mr_series(tmp_path, 2, each=lambda index: {"InstanceNumber": 8 - index})
    expect_right(tmp_path)
    for index, file in enumerate(files):
        file.rename(file.with_name(f"{(index * 5) % 8}.dcm"))
    expect_right(tmp_path)
    assert np.isclose(np.linalg.norm(volume(tmp_path)[1][:3, 2]), 3)


def test_slices_may_have_scalings_of_their_own(tmp_path: Path):
    files = mr_series(tmp_path, 2)
    for index, file in enumerate(files):
        content = pydicom.dcmread(file)
        content.PixelData = ((content.pixel_array.astype(int) + index) * 2).astype(np.int16).tobytes()
        content.RescaleSlope, content.RescaleIntercept = 0.5, -index
        content.save_as(file)
    expect_right(tmp_path)


def test_an_enhanced_image_whose_frames_are_in_any_order(tmp_path: Path):
    enhanced_series(tmp_path, 2, order=[3, 0, 7, 1, 6, 2, 5, 4], orientation=SAGITTAL)
    expect_right(tmp_path, tolerance=1)  # stored values are halves


def pack(files: list[Path], syntax: str) -> None:
    for file in files:
        content = pydicom.dcmread(file)
        content.compress(syntax)
        content.save_as(file)


def test_packed_by_rle(tmp_path: Path):
    pack(mr_series(tmp_path, 2), RLELossless)
    expect_right(tmp_path)


@pytest.mark.parametrize("name", ["JPEGLosslessProcess14_1", "JPEG2000Lossless", "JPEGLSLossless"])
def test_packed_as_archives_do(tmp_path: Path, name: str):
    gdcm = pytest.importorskip("gdcm")
    for file in mr_series(tmp_path, 2):
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(file))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(file))
        assert writer.Write()
    assert pydicom.dcmread(file).file_meta.TransferSyntaxUID.is_compressed
    expect_right(tmp_path)


def test_packed_as_nothing_can_unpack(tmp_path: Path):
    files = mr_series(tmp_path, 2)
    pack(files[3:4], RLELossless)
    content = pydicom.dcmread(files[3])
    content.file_meta.TransferSyntaxUID = MPEG2MPML
    content.save_as(files[3])
    assert refusal(tmp_path) == (
        "slice 4 of series 2 (t1 se tra …, 8 slices) is packed as MPEG2 Main Profile / Main Level, which nothing "
        "installed here can unpack; unpack it with `gdcmconv --raw`, or install what can: pip install python-gdcm"
    )


def test_gantry_tilt(tmp_path: Path):
    mr_series(tmp_path, 2, each=lambda index: {"ImagePositionPatient": [-15, -14 + index * 0.8, -12 + index * 3]})
    assert "is tilted: its slices are shifted against each other, by 14.9°" in refusal(tmp_path)


def test_a_missing_slice(tmp_path: Path):
    files = mr_series(tmp_path, 2)
    files[4].unlink()
    assert "has a gap: 1 slice is missing between others; export the whole series again" in refusal(tmp_path)
    files[2].unlink()
    assert "has a gap: 2 slices are missing between others" in refusal(tmp_path)


def test_uneven_steps(tmp_path: Path):
    mr_series(tmp_path, 2, each=lambda index: {"ImagePositionPatient": [-15, -14, index * 3 + (index > 4) * 1.3]})
    assert "has slices 3.00 to 4.30 mm apart, not evenly" in refusal(tmp_path)


def test_rounded_positions_are_even(tmp_path: Path):
    mr_series(tmp_path, 2, spacing=(2, 2.5, 1.05), each=lambda index: {
        "ImagePositionPatient": [-15, -14, round(-12 + index * 1.05, 2)]})  # fmt: skip
    assert volume(tmp_path)[0].shape == (12, 14, 8)


def test_a_slice_that_is_shifted_sideways(tmp_path: Path):
    mr_series(tmp_path, 2, each=lambda index: {"ImagePositionPatient": [-15 + (index == 4), -14, index * 3]})
    assert "has slices that are shifted sideways" in refusal(tmp_path)


def test_a_volume_that_is_said_to_be_huge(tmp_path: Path):
    mr_series(tmp_path / "a", 2, Rows=60000, Columns=60000)
    assert refusal(tmp_path / "a") == (
        "series 2 (t1 se tra …, 8 slices) says that it holds 60000×60000×8 voxels: 107.3 GiB, and 4 GiB is the most; "
        "export it again, or choose another series"
    )
    mr_series(tmp_path / "b", 2, Rows=16384, Columns=8192)  # 4 GiB: refused only as they are read
    assert "can't be read: it is truncated" in refusal(tmp_path / "b")


def test_several_acquisitions_in_one_series(tmp_path: Path):
    mr_series(tmp_path, 2, each=lambda index: {"ImagePositionPatient": [-15, -14, index // 2 * 3]})
    assert "has 4 of its slices in a place where another is (several echoes or acquisitions" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ({"ImageOrientationPatient": list(SAGITTAL)}, "directions"),
        ({"PixelSpacing": [2, 3]}, "pixel sizes"),
        ({"Rows": 12, "Columns": 14}, "sizes"),
    ],
)
def test_mixed_slices(tmp_path: Path, entries: dict[str, Any], what: str):
    mr_series(tmp_path, 2, each=lambda index: entries if index == 3 else {})
    assert f"mixes slices of different {what}; split it by these, or choose another series" in refusal(tmp_path)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_missing_entries(tmp_path: Path, keyword: str):
    mr_series(tmp_path, 2, each=lambda index: {keyword: None} if index == 3 else {})
    assert f"can't be placed: one of its slices lacks {keyword}; export it again" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("keyword", "kind", "value", "reason"),
    [
        ("Rows", "US", [14, 14], "holds files that are no images"),
        ("Columns", "US", [12, 12], "holds files that are no images"),
        ("Columns", "LO", "none", "holds files that are no images"),
        ("Rows", "SS", -5, "holds files that are no images"),
        ("Rows", "IS", "9" * 20, "mixes slices of different sizes"),
        ("NumberOfFrames", "IS", [1, 2], "slice 1 of series 2 (t1 se tra …, 8 slices) can't be read"),
        ("NumberOfFrames", "LO", "one", "can't be read"),
        ("NumberOfFrames", "SS", -2, "can't be read"),
        ("SeriesNumber", "FD", float("inf"), ""),
        ("PixelSpacing", "DS", ["2", "2", "2"], "lacks PixelSpacing"),
        ("ImagePositionPatient", "LO", "here", "lacks ImagePositionPatient"),
        ("PerFrameFunctionalGroupsSequence", "SS", 3, ""),
        ("SharedFunctionalGroupsSequence", "US", [3, 3], ""),
    ],
)
def test_entries_of_another_form(tmp_path: Path, keyword: str, kind: str, value: Any, reason: str):
    """What isn't needed of it counts as left out."""
    files = mr_series(tmp_path, 2)
    content = pydicom.dcmread(files[0])
    content[keyword] = pydicom.DataElement(pydicom.datadict.tag_for_keyword(keyword), kind, value)
    content.save_as(files[0])
    if reason:
        assert reason in refusal(tmp_path)
    else:
        expect_right(tmp_path)
    with open_study(tmp_path) as study:
        assert kind_of(study.series[0]) == "t1n"


def test_frames_of_reference(tmp_path: Path):
    mr_series(tmp_path / "a", 2, FrameOfReferenceUID=None)
    assert "has no frame of reference (FrameOfReferenceUID)" in refusal(tmp_path / "a")
    mr_series(tmp_path / "b", 2, each=lambda index: {"FrameOfReferenceUID": generate_uid()} if index == 3 else {})
    assert "mixes slices of 2 frames of reference" in refusal(tmp_path / "b")


def test_not_to_be_read(tmp_path: Path):
    files = mr_series(tmp_path / "cut", 2)
    files[5].write_bytes(files[5].read_bytes()[:-20])
    assert "slice 6 of series 2 (t1 se tra …, 8 slices) can't be read: it is truncated" in refusal(tmp_path / "cut")
    mr_series(tmp_path / "one", 2, shape=(14, 12, 1))
    assert "is no volume" in refusal(tmp_path / "one")
    mr_series(tmp_path / "colours", 2, PhotometricInterpretation="RGB")
    assert "isn't grey with bright as more (MONOCHROME2)" in refusal(tmp_path / "colours")
    mr_series(tmp_path / "frames", 2, NumberOfFrames=3)
    assert "holds 8 files of several frames" in refusal(tmp_path / "frames")
    mr_series(tmp_path / "zero", 2, PixelSpacing=[0, 0])
    assert "pixels of no size" in refusal(tmp_path / "zero")
    path = enhanced_series(tmp_path / "enhanced", 2, range(8))
    content = pydicom.dcmread(path)
    del content.PerFrameFunctionalGroupsSequence
    content.save_as(path)
    assert "doesn't say where they lie" in refusal(tmp_path / "enhanced")
