"""From a study to a case and back: what `dicom_in` writes, what `dicom_seg` writes, and what both say."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from monai.transforms import Compose

from common.data.dicom_regions import read_regions
from common.data.dicom_study import Series, open_study
from common.data.dicom_volume import locate
from common.data.layouts import list_cases
from common.dicom_cases import dicom_in, dicom_seg
from common.errors import InputError
from common.transforms.load import LoadScand
from tests.data.dicom_studies import (
    CHANNELS,
    SAGITTAL,
    SECRETS,
    enhanced_series,
    label_of,
    mr_series,
    mr_study,
    refusal,
    uid,
    values_at,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, of files that are out of form

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mr_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def case(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the one case of the study."""
    out = tmp_path_factory.mktemp("cases")
    dicom_in(str(study), str(out))
    (folder,) = out.iterdir()
    return folder


@pytest.fixture
def edited(study: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the study in which series are replaced."""

    def edit(*numbers: int) -> Path:
        copy = shutil.copytree(study, tmp_path / "edited")
        for number in numbers:
            shutil.rmtree(copy / f"Planted_{number}")
        return copy

    return edit


def series_of(study: Path) -> list[Series]:
    with open_study(study) as opened:
        return opened.series


def expect_label(path: Path, label: np.ndarray, affine: np.ndarray) -> None:
    """A Segmentation gives back a label map, voxel by voxel, whatever order it has inside."""
    found = highdicom.seg.segread(path)
    space = {"coordinate_system": "PATIENT", "frame_of_reference_uid": found.FrameOfReferenceUID}
    wanted = highdicom.Volume(array=label, affine=LPS @ affine, **space)
    volume = found.get_volume(combine_segments=True, allow_missing_positions=True)
    np.testing.assert_array_equal(volume.match_geometry(wanted).array, label)


def test_a_study_becomes_a_case_on_one_grid(case: Path):
    (listed,) = list_cases(case.parent)
    assert listed["case"] == case.name
    scan = Compose([LoadScand("image")])(listed)["image"]
    indices = np.stack(np.meshgrid(*map(np.arange, scan.shape[1:]), indexing="ij"), axis=-1)
    points = nibabel.affines.apply_affine(LPS @ np.asarray(scan.affine), indices)
    # The others' slices lie at z -12 to 9 mm and are 3 mm thick; their rows lie at y -14 to 12 mm.
    between, last = ((points[..., 1] <= 12) & inside for inside in (points[..., 2] <= 9, points[..., 2] > 9))
    for values, number in zip(np.asarray(scan), CHANNELS.values(), strict=True):
        wrong = np.abs(values - values_at(points, number))
        assert between.mean() > 0.8 and wrong[between].max() <= 1
        assert last.any() and wrong[last].max() <= 12 * 1.5
    np.testing.assert_array_equal(scan[1], values_at(points, CHANNELS["t1c"]))


def test_what_is_written_of_a_study(case: Path):
    record = json.loads((case / "dicom.json").read_text())
    assert (record["study"], record["grid"], record["frame_of_reference"]) == (uid("one"), "t1c", uid("one", "frame"))
    found = {channel: (entry["series"], entry["resampled"]) for channel, entry in record["series"].items()}
    assert found == {channel: (uid("one", number), channel != "t1c") for channel, number in CHANNELS.items()}


def test_nothing_tells_of_the_patient(
    study: Path, case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    caplog.set_level("DEBUG")
    dicom_in(str(study), str(tmp_path / "cases"))
    label, _ = label_of(case)
    dicom_seg(str(label), str(study), "cga_unet", str(tmp_path / "seg.dcm"))
    said = capsys.readouterr()
    for line in (said.out + said.err + caplog.text).lower().splitlines():
        assert not any(secret in line.replace(str(study).lower(), "") for secret in SECRETS), line
    for path in (tmp_path / "cases").rglob("*"):
        content = b"" if path.is_dir() else path.read_bytes()
        content += gzip.decompress(content) if path.suffix == ".gz" else b""
        text = (str(path.relative_to(tmp_path)) + content.decode("latin-1")).lower()
        assert not any(secret in text for secret in SECRETS), path


def test_a_zip_gives_the_same_files(study: Path, case: Path, tmp_path: Path):
    archive = shutil.make_archive(str(tmp_path / "study"), "zip", study)
    dicom_in(archive, str(tmp_path / "cases"))
    for path in case.iterdir():
        assert path.read_bytes() == (tmp_path / "cases" / case.name / path.name).read_bytes()


def test_names_and_grids(study: Path, tmp_path: Path):
    dicom_in(str(study), str(tmp_path), case="a7", grid="t2f")
    (listed,) = list_cases(tmp_path)
    shapes = {nibabel.load(path).shape for path in listed["image"]}
    assert (listed["case"], shapes) == ("a7", {(12, 14, 8)})
    other = mr_study(tmp_path / "other", study="two")
    assert "is there already, of another study; give another --case" in refusal(dicom_in, other, tmp_path, case="a7")
    for name in ("../a", "a/b", "a\nb", "a\n", "a\\b", "a b", ".a", "..", ""):
        said = refusal(dicom_in, study, tmp_path, case=name)
        assert said == f"--case {name!r}: can't be a case's name; give one of letters, digits, '.', '-' and '_'"
    assert "--grid flair: is no modality; give one of t1n, t1c" in refusal(dicom_in, study, tmp_path, grid="flair")
    dicom_in(str(study), str(tmp_path), case="a7")  # the same study again
    assert nibabel.load(listed["image"][3]).shape == (14, 12, 10)


def test_series_that_are_not_aligned(edited: Callable[..., Path], tmp_path: Path):
    copy = edited(3, 4)
    mr_series(copy, 3, FrameOfReferenceUID="1.2.3")
    mr_series(copy, 4, origin=(200, -14, -12))
    said = refusal(dicom_in, copy, tmp_path / "out")
    assert (
        "t2w, series 3 (t2 tse tra, 8 slices), and t1c, series 6 (t1 mprage sag km, 10 slices), are of different"
        in said
    )
    assert "nothing says that they are aligned; register them" in said
    assert "t2f, series 4 (t2 flair tra, 8 slices), lies beside t1c" in said
    assert not (tmp_path / "out").exists()


def test_a_series_that_covers_little(edited: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture):
    copy = edited(3)
    mr_series(copy, 3, shape=(14, 12, 2), origin=(-15, -14, -6))
    dicom_in(str(copy), str(tmp_path / "out"), t2w=3)
    assert "t2w, series 3 (t2 tse tra, 2 slices), covers 25% of t1c, and is 0 elsewhere" in caplog.text
    (listed,) = list_cases(tmp_path / "out")
    assert 0.2 < (np.asarray(nibabel.load(listed["image"][2]).dataobj) != 0).mean() < 0.3


def test_nothing_is_written_where_a_slice_is_damaged(edited: Callable[..., Path], tmp_path: Path):
    copy = edited()
    slice_ = copy / "Planted_4" / "Planted_4_005.dcm"
    slice_.write_bytes(slice_.read_bytes()[:-10])
    assert "slice 6 of series 4 (t2 flair tra, 8 slices) can't be read" in refusal(dicom_in, copy, tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("zeros", "size", "told"),
    [
        (0.0, 2, "0% of the voxels are 0"),
        (0.42, 2, "42% of the voxels are 0"),
        (0.65, 20, "65% of the voxels are 0, and all others measure up to 3.8 litres"),
        (0.65, 2, ""),
        (0.82, 20, ""),  # 1.9 litres
    ],
)
def test_a_skull_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, zeros: float, size: float, told: str):
    values = np.full((8, 14, 12), 100, np.int16)
    values.flat[: round(zeros * values.size)] = 0
    for number in CHANNELS.values():
        mr_series(tmp_path / "study", number, spacing=(size, size, size), values=values)
    dicom_in(str(tmp_path / "study"), str(tmp_path / "out"))
    assert ("the skull seems to be there: in one series " + told in caplog.text) if told else not caplog.text
    assert ("HD-BET" in caplog.text) == bool(told)


@pytest.mark.parametrize("axes", ["", "RAS", "PIR", "LSA"])
def test_a_label_map_comes_back_whatever_its_axes(study: Path, case: Path, tmp_path: Path, axes: str):
    path, label = label_of(case, axes)
    dicom_seg(str(path), str(study), "cga_unet", str(tmp_path / "seg.dcm"))
    expect_label(tmp_path / "seg.dcm", label, nibabel.load(next(case.glob("*-t1c.nii.gz"))).affine)


def test_a_picture_of_what_was_written(study: Path, case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, label = label_of(case)
    drawn = {}
    monkeypatch.setattr("common.dicom_cases.write_segmentation_picture", lambda *given: drawn.update(enumerate(given)))
    dicom_seg(str(path), str(study), "cga_unet", str(tmp_path / "seg.dcm"), picture=str(tmp_path / "seg.png"))
    _, values, written, affine, segments = drawn.values()
    scan = nibabel.load(next(case.glob("*-t1c.nii.gz")))
    np.testing.assert_array_equal(values, scan.get_fdata())
    np.testing.assert_array_equal(written, label)
    np.testing.assert_allclose(affine, scan.affine)
    assert segments == {1: "Necrotic and non-enhancing core", 2: "Edema", 3: "Enhancing tumour"}
    # What is drawn is what the file holds, not what it was made of.
    place = locate("a", study, next(series for series in series_of(study) if series.name == "6"))
    segmentation = pydicom.dcmread(tmp_path / "seg.dcm")
    segmentation.PixelData = bytes(len(segmentation.PixelData))
    segmentation.save_as(tmp_path / "seg.dcm")
    assert not read_regions(tmp_path / "seg.dcm", place).any()


def test_what_a_segmentation_says(study: Path, case: Path, tmp_path: Path):
    path, label = label_of(case)
    dicom_seg(str(path), str(study), "cga_unet", str(tmp_path / "seg.dcm"))
    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert (found.StudyInstanceUID, found.FrameOfReferenceUID) == (uid("one"), uid("one", "frame"))
    assert (str(found.PatientName), found.PatientID) == ("Planted^Petronella", "ID-PLANTED-4711")
    assert "PRIVATE" not in str(found)
    (referenced,) = found.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == uid("one", 6) and len(referenced.ReferencedInstanceSequence) == 10
    kinds = [segment.segmented_property_type for segment in found.SegmentSequence]
    assert [(kind.value, kind.scheme_designator) for kind in kinds] == [
        ("C81175", "NCIt"), ("79654002", "SCT"), ("C113842", "NCIt")
    ]  # fmt: skip
    metadata = json.loads((Path("bundles") / "cga_unet" / "configs" / "metadata.json").read_text())
    for segment in found.SegmentSequence:
        assert segment.AnatomicRegionSequence[0].CodeValue == "12738006"
        identification = segment.algorithm_identification
        assert (identification.name, identification.version) == (metadata["name"], metadata["version"])
    source = pydicom.dcmread(study / "Planted_6" / "Planted_6_007.dcm")
    frames = found.get_pixels_by_source_instance(
        [source.SOPInstanceUID], combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(frames[0], label[:, :, 7].T)


@pytest.mark.parametrize("value", [0, 2])
def test_label_maps_of_nothing_and_of_one_label(study: Path, case: Path, tmp_path: Path, value: int):
    scan = nibabel.load(next(case.glob("*-t1c.nii.gz")))
    label = np.full(scan.shape, value, np.uint8)
    nibabel.save(nibabel.Nifti1Image(label, scan.affine), tmp_path / "a.nii.gz")
    dicom_seg(str(tmp_path / "a.nii.gz"), str(study), "cga_unet", str(tmp_path / "seg.dcm"))
    expect_label(tmp_path / "seg.dcm", label, scan.affine)


def test_lesions_of_a_bundle_of_one_label(study: Path, case: Path, tmp_path: Path):
    path, label = label_of(case)
    refused = refusal(dicom_seg, path, study, "mps_ams", tmp_path / "seg.dcm")
    assert "holds 2, which mps_ams doesn't tell; name the bundle that made it" in refused
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image((label > 1).astype(np.uint8), image.affine), tmp_path / "b.nii.gz")
    dicom_seg(str(tmp_path / "b.nii.gz"), str(study), "mps_ams", str(tmp_path / "seg.dcm"))
    expect_label(tmp_path / "seg.dcm", (label > 1).astype(np.uint8), image.affine)
    (segment,) = highdicom.seg.segread(tmp_path / "seg.dcm").SegmentSequence
    assert segment.segmented_property_type.value == "52988006"


def test_an_enhanced_image_and_back(edited: Callable[..., Path], tmp_path: Path):
    copy = edited(6)
    place = {"shape": (12, 14, 10), "orientation": SAGITTAL, "spacing": (2, 2, 2), "origin": (9, -13, 10)}
    enhanced_series(copy, 6, order=[3, 0, 9, 1, 6, 2, 5, 4, 8, 7], **place)
    dicom_in(str(copy), str(tmp_path / "out" / "cases"))
    (case,) = (tmp_path / "out" / "cases").iterdir()
    path, label = label_of(case)
    dicom_seg(str(path), str(copy), "cga_unet", str(tmp_path / "seg.dcm"))
    expect_label(tmp_path / "seg.dcm", label, nibabel.load(path).affine)
    assert conformity(tmp_path / "seg.dcm") == []


def test_label_maps_that_belong_nowhere(study: Path, case: Path, tmp_path: Path):
    path, label = label_of(case)
    shifted = nibabel.load(path).affine.copy()
    shifted[0, 3] += 0.5
    nibabel.save(nibabel.Nifti1Image(label, shifted), tmp_path / "a.nii.gz")
    said = refusal(dicom_seg, tmp_path / "a.nii.gz", study, "cga_unet", tmp_path / "seg.dcm")
    assert "14×12×10 voxels that are those of none of series 1 (localizer" in said
    assert "no bundle unet: give" in refusal(dicom_seg, path, study, "unet", tmp_path / "seg.dcm")
    assert "has no series 9 for --series" in refusal(dicom_seg, path, study, "cga_unet", tmp_path / "s.dcm", series=9)
    nibabel.save(nibabel.Nifti1Image(label + 1, nibabel.load(path).affine), tmp_path / "b.nii.gz")
    assert "label value 4 is outside" in refusal(
        dicom_seg, tmp_path / "b.nii.gz", study, "cga_unet", tmp_path / "s.dcm"
    )
    assert not list(tmp_path.glob("*.dcm"))


def test_series_of_one_grid(edited: Callable[..., Path], tmp_path: Path):
    """The T1c is referred to where it is one of several; otherwise the user says which."""
    copy = edited(6)
    mr_series(copy, 6)
    dicom_in(str(copy), str(tmp_path / "out" / "cases"))
    (case,) = (tmp_path / "out" / "cases").iterdir()
    path, _ = label_of(case)

    def referred() -> str:
        found = highdicom.seg.segread(tmp_path / "seg.dcm")
        return found.ReferencedSeriesSequence[0].SeriesInstanceUID

    dicom_seg(str(path), str(copy), "cga_unet", str(tmp_path / "seg.dcm"))
    assert referred() == uid("one", 6)
    shutil.rmtree(copy / "Planted_6")
    said = refusal(dicom_seg, path, copy, "cga_unet", tmp_path / "seg.dcm")
    assert (
        "its voxels are those of series 2 (t1 se tra …, 8 slices), series 3" in said and "choose with --series" in said
    )
    dicom_seg(str(path), str(copy), "cga_unet", str(tmp_path / "seg.dcm"), series=3)
    assert referred() == uid("one", 3)


def test_a_segmentation_beside_its_series_is_none_of_them(edited: Callable[..., Path], case: Path, tmp_path: Path):
    copy, (path, label) = edited(6), label_of(case)
    for number in (6, 7):  # neither is recognised, and only one lies where the label map does
        place = {
            "shape": (12, 14, 10),
            "orientation": SAGITTAL,
            "spacing": (2, 2, 2),
            "origin": (9 + number - 6, -13, 10),
        }
        mr_series(copy, number, SeriesDescription="Planted", RepetitionTime=None, **place)
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.ones_like(label), image.affine), tmp_path / "b.nii.gz")
    for name in ("first", "second"):
        dicom_seg(str(tmp_path / "b.nii.gz"), str(copy), "mps_ams", str(tmp_path / f"{name}.dcm"))
        shutil.copy(tmp_path / f"{name}.dcm", copy)
    found = highdicom.seg.segread(copy / "second.dcm")
    assert found.ReferencedSeriesSequence[0].SeriesInstanceUID == uid("one", 6)
    dicom_in(str(copy), str(tmp_path / "cases"), t1c=6)


def test_series_that_lack_what_need_not_be_said(edited: Callable[..., Path], case: Path, tmp_path: Path):
    copy, (path, label) = edited(6), label_of(case)
    place = {"shape": (12, 14, 10), "orientation": SAGITTAL, "spacing": (2, 2, 2), "origin": (9, -13, 10)}
    empty = {"SliceThickness": None, "PatientID": None, "PatientSex": "W", "StudyTime": "noon", "StudyID": None}
    files = mr_series(copy, 6, **place, **empty)
    dicom_seg(str(path), str(copy), "cga_unet", str(tmp_path / "seg.dcm"))
    expect_label(tmp_path / "seg.dcm", label, nibabel.load(path).affine)
    for file in files:
        content = pydicom.dcmread(file)
        del content.SOPClassUID
        content.save_as(file)
    said = refusal(dicom_seg, path, copy, "cga_unet", tmp_path / "none.dcm")
    assert "a DICOM Segmentation can't refer to it (SOPClassUID is missing); export series 6" in said
    assert not any(secret in said.replace(str(copy), "").lower() for secret in SECRETS)


def test_a_study_given_as_a_folder_of_cases(study: Path):
    with pytest.raises(InputError, match="make cases of its studies: lesion-bundles dicom_in STUDY --out DIR") as error:
        list_cases(study)
    assert str(error.value).endswith("(of the project Lesion Bundles)")


def conformity(path: Path) -> list[str]:
    """What dciodvfy finds against the standard."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy isn't installed")
    said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    return [line for line in (said.stdout + said.stderr).splitlines() if line.startswith(("Error", "Warning"))]


def test_the_standard_is_kept(study: Path, case: Path, tmp_path: Path):
    path, _ = label_of(case)
    dicom_seg(str(path), str(study), "cga_unet", str(tmp_path / "seg.dcm"))
    assert conformity(tmp_path / "seg.dcm") == []
