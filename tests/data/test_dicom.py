"""DICOM images as greys, and masks of them that refer to them."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, EnhancedCTImageStorage, JPEGBaseline8Bit, RLELossless, SegmentationStorage

from common.data import dicom, dicom_segmentation
from common.data.dicom import is_dicom, read_dicom
from common.data.dicom_segmentation import write_segmentation
from common.errors import CaseError
from tests.data.dicom_files import FRAME, SERIES, STUDY, ct_file, dicom_file, ultrasound_file, x_ray_file

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, of files that are out of form

GREY = np.random.default_rng(0).integers(0, 2000, (5, 7)).astype(np.int16)
COLOURS = np.random.default_rng(1).integers(0, 255, (5, 7, 3)).astype(np.uint8)
MASK = (GREY > 1000).astype(np.uint8)


def refusal(path: Path, write: bool = False, mask: np.ndarray = MASK) -> str:
    """Why a file can't be read, or no mask of it be written; the one line starts with case and file."""
    with pytest.raises(CaseError) as error:
        if write:
            write_segmentation(path.parent / "out.dcm", mask, "a", path, "finder", "run")
        else:
            read_dicom("a", path)
    assert str(error.value).startswith(f"case a, {path}: ") and "\n" not in str(error.value)
    return error.value.reason


def test_ct_is_in_hounsfield_units(tmp_path: Path):
    found = read_dicom("a", ct_file(tmp_path / "a.dcm", GREY, RescaleSlope=2, RescaleIntercept=-1000))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, GREY * 2.0 - 1000)


def test_the_table_of_a_modality(tmp_path: Path):
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4, 10, 16], "US"
    table.add_new("LUTData", "OW", np.array([5, 50, 500, 5000], np.uint16).tobytes())
    pixels = np.array([[9, 10, 11], [12, 13, 14]], np.uint16)
    found = read_dicom("a", dicom_file(tmp_path / "a.dcm", pixels, ModalityLUTSequence=[table]))
    assert found.tolist() == [[5, 5, 50], [500, 5000, 5000]]


def test_an_enhanced_image_says_its_rescaling_in_its_frame(tmp_path: Path):
    group, scaling = Dataset(), Dataset()
    scaling.RescaleSlope, scaling.RescaleIntercept, scaling.RescaleType = 2, -1000, "HU"
    group.PixelValueTransformationSequence = [scaling]
    entries = {"SOPClassUID": EnhancedCTImageStorage, "NumberOfFrames": 1, "SharedFunctionalGroupsSequence": [group]}
    np.testing.assert_array_equal(read_dicom("a", dicom_file(tmp_path / "a.dcm", GREY, **entries)), GREY * 2.0 - 1000)


@pytest.mark.parametrize("scaling", [{}, {"RescaleSlope": 2, "RescaleIntercept": -7}])
def test_where_least_is_white_values_are_turned_around(tmp_path: Path, scaling: dict[str, float]):
    found = read_dicom("a", x_ray_file(tmp_path / "a.dcm", GREY.astype(np.uint16), **scaling))
    values = GREY * scaling.get("RescaleSlope", 1.0) + scaling.get("RescaleIntercept", 0)
    np.testing.assert_array_equal(found, values.min() + values.max() - values)


def test_colours_become_grey_as_those_of_a_png(tmp_path: Path):
    grey = np.asarray(Image.fromarray(COLOURS).convert("L"))
    np.testing.assert_array_equal(read_dicom("a", ultrasound_file(tmp_path / "a.dcm", COLOURS)), grey)
    bits = {f"{colour}PaletteColorLookupTableDescriptor": [256, 0, 16] for colour in ("Red", "Green", "Blue")}
    ramp = (np.arange(256, dtype=np.uint16) * 256).tobytes()
    tables = {f"{colour}PaletteColorLookupTableData": ramp for colour in ("Red", "Green", "Blue")}
    indices = dicom_file(tmp_path / "b.dcm", grey, "PALETTE COLOR", **bits, **tables)
    np.testing.assert_array_equal(read_dicom("a", indices), grey)


def test_packed_pixels(tmp_path: Path):
    file = pydicom.dcmread(ct_file(tmp_path / "a.dcm", GREY))
    file.compress(RLELossless)
    file.save_as(tmp_path / "rle.dcm")
    np.testing.assert_array_equal(read_dicom("a", tmp_path / "rle.dcm"), GREY - 1024.0)

    smooth = np.asarray(Image.fromarray(COLOURS).resize((64, 48)))
    file = pydicom.dcmread(ultrasound_file(tmp_path / "b.dcm", smooth))
    packed = io.BytesIO()
    Image.fromarray(smooth).save(packed, "JPEG", quality=95)
    file.PixelData, file.PhotometricInterpretation = encapsulate([packed.getvalue()]), "YBR_FULL_422"
    file.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    file.save_as(tmp_path / "jpeg.dcm")
    grey = np.asarray(Image.fromarray(smooth).convert("L"), np.float32)
    assert np.abs(read_dicom("a", tmp_path / "jpeg.dcm") - grey).max() < 6
    file.file_meta.TransferSyntaxUID = MPEG2MPML
    file.save_as(tmp_path / "unknown.dcm")
    assert refusal(tmp_path / "unknown.dcm").startswith("is packed as MPEG2 Main Profile / Main Level")


def test_names_of_dicom_files(tmp_path: Path):
    content = ct_file(tmp_path / "a.DCM", GREY).read_bytes()
    for name in ("IM0001", "1.2.840.11", "DICOMDIR", "notes.txt"):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "README").write_text("of another kind")
    assert {path.name for path in tmp_path.iterdir() if is_dicom(path)} == {"a.DCM", "IM0001", "1.2.840.11"}
    assert not is_dicom(tmp_path) and not is_dicom(tmp_path / "none")


def test_not_to_be_read(tmp_path: Path):
    whole = ct_file(tmp_path / "a.dcm", GREY)
    (tmp_path / "cut.dcm").write_bytes(whole.read_bytes()[:-20])
    (tmp_path / "short.dcm").write_bytes(whole.read_bytes()[:400])
    (tmp_path / "other.dcm").write_bytes(b"no DICOM")
    assert refusal(ct_file(tmp_path / "clip.dcm", GREY, NumberOfFrames=12)) == "holds 12 frames"
    assert refusal(ct_file(tmp_path / "report.dcm", GREY, PixelData=None)) == "holds no image, or is truncated"
    assert refusal(ct_file(tmp_path / "mask.dcm", GREY, SOPClassUID=SegmentationStorage)).startswith("is a DICOM Segm")
    assert refusal(tmp_path / "cut.dcm").startswith(
        "its image can't be read (The number of bytes of pixel data is less"
    )
    assert refusal(tmp_path / "short.dcm") == "holds no image, or is truncated"
    assert refusal(tmp_path / "other.dcm") == "is no DICOM file, or damaged"
    assert refusal(tmp_path / "none.dcm") == "does not exist"
    assert refusal(tmp_path) == "can't be read (Is a directory)"


def test_without_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = ct_file(tmp_path / "a.dcm", GREY)
    monkeypatch.setattr(dicom, "_INSTALLED", False)
    for write in (False, True):
        assert refusal(path, write) == "is a DICOM file, which needs more packages"
    with pytest.raises(CaseError, match=r"pip install highdicom python-gdcm$"):
        read_dicom("a", path)


def test_a_mask_refers_to_its_image(tmp_path: Path):
    source = ct_file(tmp_path / "a.dcm", GREY)
    write_segmentation(tmp_path / "out" / "a.dcm", MASK, "a", source, "MPS-AMS", "run")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.dcm"]
    found, image = highdicom.seg.segread(tmp_path / "out" / "a.dcm"), pydicom.dcmread(source)
    np.testing.assert_array_equal(found.get_pixels_by_source_instance([image.SOPInstanceUID])[0, ..., 0], MASK)
    assert (found.PatientID, found.StudyInstanceUID, found.FrameOfReferenceUID) == ("4711", STUDY, FRAME)
    assert found.SeriesInstanceUID != SERIES and found.InstanceNumber == image.InstanceNumber
    assert found.SeriesDescription == "Lesions found by MPS-AMS"
    segment = found.get_segment_description(1)
    kind = segment.segmented_property_type
    assert (kind.value, kind.scheme_designator, kind.meaning) == ("52988006", "SCT", "Lesion")
    assert segment.algorithm_identification.name == "MPS-AMS"
    shared, own = found.SharedFunctionalGroupsSequence[0], found.PerFrameFunctionalGroupsSequence[0]
    assert own.PlanePositionSequence[0].ImagePositionPatient == image.ImagePositionPatient
    measures = shared.PixelMeasuresSequence[0]
    assert (measures.PixelSpacing, measures.SliceThickness) == (image.PixelSpacing, 3)
    assert "SpacingBetweenSlices" not in measures


def test_images_of_one_series_get_masks_of_one_series(tmp_path: Path):
    for name in ("a", "b"):
        ct_file(tmp_path / f"{name}.dcm", GREY)
    ct_file(tmp_path / "c.dcm", GREY, SeriesInstanceUID="1.2.3")
    written = {}
    for name, run in (("a", "one"), ("b", "one"), ("c", "one"), ("a", "two")):
        write_segmentation(tmp_path / "out.dcm", MASK, "x", tmp_path / f"{name}.dcm", "finder", run)
        written[name, run] = pydicom.dcmread(tmp_path / "out.dcm")
    series = {key: file.SeriesInstanceUID for key, file in written.items()}
    assert series["a", "one"] == series["b", "one"]
    assert len(set(series.values())) == 3
    assert len({file.SOPInstanceUID for file in written.values()}) == 4


@pytest.mark.parametrize("mask", [MASK * 0, MASK * 0 + 1])
def test_masks_of_nothing_and_of_all(tmp_path: Path, mask: np.ndarray):
    write_segmentation(tmp_path / "out.dcm", mask, "a", ct_file(tmp_path / "a.dcm", GREY), "finder", "run")
    np.testing.assert_array_equal(highdicom.seg.segread(tmp_path / "out.dcm").pixel_array, mask)


@pytest.mark.parametrize(
    "entries",
    [
        *(
            {name: None}
            for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
        ),
        dict.fromkeys(dicom_segmentation._MAY_BE_EMPTY),
        {"PatientSex": "W", "PatientBirthDate": "in spring", "StudyTime": "noon"},
        {"PatientName": "SMITH", "InstanceNumber": -4, "SeriesNumber": None},
    ],
)
def test_images_that_lack_something_or_are_out_of_form(tmp_path: Path, entries: dict[str, str | None]):
    write_segmentation(tmp_path / "out.dcm", MASK, "a", ct_file(tmp_path / "a.dcm", GREY, **entries), "finder", "run")
    found = highdicom.seg.segread(tmp_path / "out.dcm")
    np.testing.assert_array_equal(found.pixel_array, MASK)
    assert found.FrameOfReferenceUID == FRAME


@pytest.mark.parametrize("place", [{}, {"PixelSpacing": [0.1, 0.1]}])
def test_images_that_lie_nowhere(tmp_path: Path, place: dict[str, list[float]]):
    sources = [ultrasound_file(tmp_path / "us.dcm", COLOURS, **place)]
    sources += [x_ray_file(tmp_path / "dx.dcm", GREY.astype(np.uint16), **place)]
    for source in sources:
        write_segmentation(tmp_path / "out.dcm", MASK, "a", source, "finder", "run")
        found = highdicom.seg.segread(tmp_path / "out.dcm")
        np.testing.assert_array_equal(found.pixel_array, MASK)
        assert found.SourceImageSequence[0].ReferencedSOPInstanceUID == pydicom.dcmread(source).SOPInstanceUID


def test_masks_that_are_refused(tmp_path: Path):
    lacking = ct_file(tmp_path / "a.dcm", GREY, StudyInstanceUID=None)
    assert refusal(lacking, write=True) == "lacks StudyInstanceUID, which its mask must refer to"
    floating = ct_file(tmp_path / "b.dcm", GREY, FrameOfReferenceUID=None)
    reason = "a DICOM Segmentation can't refer to it (FrameOfReferenceUID is missing)"
    assert refusal(floating, write=True) == reason
    other = ct_file(tmp_path / "c.dcm", GREY)
    assert refusal(other, True, MASK.T).endswith("differ in size: 5×7 and 7×5 pixels")
    assert not (tmp_path / "out.dcm").exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_is_told_in_a_line_without_the_patient(tmp_path: Path, data: st.DataObject):
    path = ct_file(tmp_path / "a.dcm", GREY)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(100, len(content)))])
    for attempt in (
        lambda: read_dicom("a", path),
        lambda: write_segmentation(tmp_path / "out.dcm", MASK, "a", path, "finder", "run"),
    ):
        try:
            attempt()
        except CaseError as error:
            assert not any(word in str(error) for word in ("\n", "Doe", "Jane", "4711", "19610203"))


def test_nothing_of_the_patient_is_logged(tmp_path: Path):
    """In a process of its own, as pytest takes warnings for itself."""
    ct_file(tmp_path / "a.dcm", GREY, PatientName="SMITH", PatientBirthDate="in spring", PatientID="x" * 99)
    code = f"""
import logging, numpy, pathlib
from common.data.dicom import read_dicom
from common.data.dicom_segmentation import write_segmentation
logging.basicConfig(level=logging.DEBUG)
source = pathlib.Path({str(tmp_path)!r}, "a.dcm")
write_segmentation(source.parent / "out.dcm", numpy.zeros((5, 7), numpy.uint8), "a", source, "finder", "run")
source.write_bytes(source.read_bytes()[:-20])
try:
    read_dicom("a", source)
except ValueError:
    print("refused")
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == ("refused\n", "")
