"""Masks of pictures, DICOM images and volumes are of the input's size and kind, wherever the network works."""

from __future__ import annotations

from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SliceInferer
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    CastToTyped,
    Compose,
    Invertd,
    Orientationd,
    Resized,
)
from PIL import Image

from common.data.image_stream import images_to_do
from common.data.stream import CaseStream
from common.errors import CaseError
from common.handlers.image_predictions import ImagePredictionSaver
from common.handlers.overlays import TILE_PIXELS
from common.transforms.load_slices import LoadSlicesd
from tests.data.dicom_files import ct_file, ultrasound_file

SIZE = 32  # of the network


class Bright(torch.nn.Module):
    """Finds what is brighter than 100."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image - 100


def predict(data: Path, output: Path, **arguments) -> CaseStream:
    """Runs an inference as the bundle's, of a network that needs no training."""
    preprocessing = Compose(
        [
            LoadSlicesd("image"),
            Orientationd("image", axcodes="SPL", labels=None),
            Resized("image", (-1, SIZE, SIZE), mode="trilinear", anti_aliasing=True),
        ]
    )
    stream = CaseStream(images_to_do(str(data), str(output), overwrite=True), preprocessing)
    postprocessing = Compose(
        [
            Activationsd("pred", sigmoid=True),
            Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True),
            AsDiscreted("pred", threshold=0.5),
            CastToTyped("pred", dtype=torch.uint8),
        ]
    )
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(stream, batch_size=1),
        network=Bright(),
        inferer=SliceInferer(roi_size=(SIZE, SIZE), spatial_dim=0, sw_batch_size=4),
        postprocessing=postprocessing,
        val_handlers=[ImagePredictionSaver(str(output), stream=stream, **arguments)],
    ).run()
    return stream


def blob(rows: int, columns: int) -> np.ndarray:
    """Where a picture is bright: in its lower left quarter."""
    bright = np.zeros((rows, columns), bool)
    bright[rows // 2 : -rows // 8, columns // 8 : columns // 3] = True
    return bright


def agree(found: np.ndarray, expected: np.ndarray) -> float:
    """The Dice score: the network works on another grid, which moves edges by up to a pixel."""
    assert found.shape == expected.shape
    return 2 * (found & expected).sum() / (found.sum() + expected.sum())


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["benign (1).PNG", "a.jpg", "a.bmp", "a.tif"])
def test_pictures(tmp_path: Path, name: str):
    (tmp_path / "in").mkdir()
    bright = blob(90, 120)
    Image.fromarray(np.where(bright, 200, 20).astype(np.uint8)).save(tmp_path / "in" / name)
    predict(tmp_path / "in", tmp_path / "out")
    assert names(tmp_path / "out") == [f"{Path(name).stem}.png"]
    with Image.open(tmp_path / "out" / f"{Path(name).stem}.png") as mask:
        assert (mask.mode, mask.size) == ("L", (120, 90))
        found = np.asarray(mask)
    assert set(np.unique(found)) == {0, 255}
    assert agree(found == 255, bright) > 0.9


def test_a_turned_picture_has_the_mask_of_how_it_is_looked_at(tmp_path: Path):
    (tmp_path / "in").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    bright = blob(90, 120)
    Image.fromarray(np.where(bright, 200, 20).astype(np.uint8)).save(tmp_path / "in" / "a.jpg", exif=exif)
    predict(tmp_path / "in", tmp_path / "out")
    with Image.open(tmp_path / "out" / "a.png") as mask:
        assert mask.size == (90, 120)
        assert agree(np.asarray(mask) > 0, np.rot90(bright, -1)) > 0.9


def test_dicom_images(tmp_path: Path):
    bright = blob(48, 40)
    slices = [ct_file(tmp_path / "in" / f"{name}.dcm", np.where(bright, 1324, 24).astype(np.int16)) for name in "ab"]
    picture = np.repeat(np.where(bright, 200, 20).astype(np.uint8)[..., None], 3, axis=2)
    slices.append(ultrasound_file(tmp_path / "in" / "IM3", picture, SeriesInstanceUID="1.2.3"))
    stream = predict(tmp_path / "in", tmp_path / "out", algorithm="Bright")
    assert not stream.failures and names(tmp_path / "out") == ["IM3.dcm", "a.dcm", "b.dcm"]
    series = []
    for source in slices:
        found, image = highdicom.seg.segread(tmp_path / "out" / f"{source.stem}.dcm"), pydicom.dcmread(source)
        assert agree(found.pixel_array > 0, bright) > 0.9
        assert found.SourceImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
        assert found.get_segment_description(1).algorithm_identification.name == "Bright"
        series.append(found.SeriesInstanceUID)
    assert series[0] == series[1] != series[2]


@pytest.mark.parametrize("axes", ["RAS", "LPI", "PSR"])
def test_volumes(tmp_path: Path, axes: str):
    """Found slice by slice in axial slices, and shown so, whatever the order of the file."""
    (tmp_path / "in").mkdir()
    bright = np.zeros((20, 24, 7), bool)  # along R, A, S
    bright[3:12, 10:20, 2:4] = True
    affine = nibabel.affines.from_matvec(np.diag([1.5, 1.25, 4]), [-9, 8, 7])
    scan = nibabel.Nifti1Image(np.where(bright, 200, 20).astype(np.int16), affine)
    turn = nibabel.orientations.axcodes2ornt(axes)
    scan = scan.as_reoriented(nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), turn))
    nibabel.save(scan, tmp_path / "in" / "a b.nii")
    predict(tmp_path / "in", tmp_path / "out", overlays=True)
    assert names(tmp_path / "out") == ["a b.nii.gz", "overlays/a b.png"]
    mask = nibabel.load(tmp_path / "out" / "a b.nii.gz")
    assert mask.get_data_dtype() == np.uint8 and set(np.unique(mask.dataobj)) == {0, 1}
    np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-5)
    assert agree(np.asarray(mask.dataobj) > 0, np.asarray(scan.dataobj) == 200) > 0.9

    with Image.open(tmp_path / "out" / "overlays" / "a b.png") as overlay:
        coloured = np.ptp(np.asarray(overlay).astype(int), axis=2) > 0
    assert coloured.shape == (TILE_PIXELS, 2 * TILE_PIXELS + 4)  # two slices of 30 mm each way
    places = np.argwhere(coloured[:, :TILE_PIXELS])
    # From the front to the back, and from the patient's right to the left.
    middle = (places.min(axis=0) + places.max(axis=0)) / 2 / TILE_PIXELS
    np.testing.assert_allclose(middle, [1 - 15 / 24, 1 - 7.5 / 20], atol=0.03)


def item(case: str, path: Path, shape: tuple[int, ...] = (1, 4, 6)) -> dict[str, object]:
    return {"case": case, "image": MetaTensor(torch.zeros(1, *shape), meta={"filename_or_obj": str(path)})}


def found(shape: tuple[int, ...] = (1, 4, 6)) -> dict[str, MetaTensor]:
    return {"pred": MetaTensor(torch.ones(1, *shape, dtype=torch.uint8))}


def test_a_mask_that_can_not_be_written_stops_no_other(tmp_path: Path):
    pixels = np.full((48, 40), 1324, np.int16)
    ct_file(tmp_path / "in" / "a.dcm", pixels, StudyInstanceUID=None)
    ct_file(tmp_path / "in" / "b.dcm", pixels)
    stream = predict(tmp_path / "in", tmp_path / "out")
    assert [failure.case for failure in stream.failures] == ["a"]  # type: ignore[attr-defined]
    assert names(tmp_path / "out") == ["b.dcm"]
    saver = ImagePredictionSaver(str(tmp_path / "other"))
    with pytest.raises(CaseError, match="lacks StudyInstanceUID"):
        saver.save_case(item("a", tmp_path / "in" / "a.dcm"), found((1, 48, 40)))


def test_files_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("L", (6, 4)).save(tmp_path / "a.png")
    saver = ImagePredictionSaver(str(tmp_path / "out"), overlays=True)
    saver.save_case(item("a", tmp_path / "a.png"), found())
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")}
    assert list(before) == ["a.png", "overlays/a.png"]

    def stop(self: Image.Image, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        saver.save_case(item("a", tmp_path / "a.png"), {"pred": found()["pred"] * 0})
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")} == before


def test_an_overlay_shows_the_picture_and_the_outline(tmp_path: Path):
    (tmp_path / "in").mkdir()
    bright = blob(90, 120)
    Image.fromarray(np.where(bright, 200, 20).astype(np.uint8)).save(tmp_path / "in" / "a.png")
    predict(tmp_path / "in", tmp_path / "out", overlays=True)
    assert names(tmp_path / "out") == ["a.png", "overlays/a.png"]
    with Image.open(tmp_path / "out" / "overlays" / "a.png") as overlay:
        colours = np.asarray(overlay).astype(int)
    scale = colours.shape[0] / 90
    coloured = np.ptp(colours, axis=2) > 0
    assert coloured.any() and coloured.mean() < 0.03
    rows, columns = np.nonzero(coloured)
    edges = np.array([rows.min(), rows.max(), columns.min(), columns.max()]) / scale
    expected = [np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))]
    expected = [edge for places in expected for edge in (places[0], places[-1] + 1)]
    assert np.abs(edges - expected).max() < 3
    middle = colours[int(60 * scale), int(25 * scale)]
    assert (middle > 240).all() and (colours[5, 5] < 15).all()


def test_overlays_show_the_window_of_ct(tmp_path: Path):
    pixels = np.full((16, 16), -900, np.int16)
    pixels[:, 4:8], pixels[:, 8:12], pixels[:, 12:] = 20, 60, 1500
    path = ct_file(tmp_path / "a.dcm", pixels, RescaleIntercept=0)
    greys = {}
    for name, window in (("plain", None), ("window", (0.0, 100.0))):
        saver = ImagePredictionSaver(str(tmp_path / name), overlays=True, window=window)
        saver.save_case(item("a", path), {"pred": found((1, 16, 16))["pred"] * 0})
        with Image.open(tmp_path / name / "overlays" / "a.png") as overlay:
            greys[name] = np.asarray(overlay.convert("L")).astype(int)[8, [144, 240]]  # within 20 and 60
    assert np.diff(greys["plain"]) < 10 and np.diff(greys["window"]) > 100


def test_an_overlay_of_an_earlier_prediction_goes(tmp_path: Path):
    Image.new("L", (6, 4)).save(tmp_path / "a.png")
    for overlays, left in ((True, ["a.png", "overlays/a.png"]), (False, ["a.png"])):
        ImagePredictionSaver(str(tmp_path / "out"), overlays).save_case(item("a", tmp_path / "a.png"), found())
        assert names(tmp_path / "out") == left
