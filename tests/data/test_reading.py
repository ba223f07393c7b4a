from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.data import MetaTensor

from common.data.layouts import list_cases
from common.data.reading import read_image, read_label
from common.errors import CaseError

SHAPE = (5, 6, 7)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
NAMES = ("t1n", "t1c", "t2w", "t2f")


def voxels(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9, 900, shape).astype(np.int16)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def make_case(folder: Path, ending: str = ".nii.gz") -> dict:
    paths = [save(folder / f"p-{name}{ending}", voxels(seed)) for seed, name in enumerate(NAMES)]
    label = save(folder / f"p-seg{ending}", (voxels(9) % 4).astype(np.uint8))
    return {"case": "p", "image": [str(path) for path in paths], "label": str(label), "label_convention": "canonical"}


def set_header(path: Path, offset: int, form: str, *values: float) -> None:
    """Change bytes of the header, which nibabel would not write."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(gzip.compress(content))


def line_of(call, case: dict, folder: Path) -> str:
    with pytest.raises(CaseError) as error:
        call(case)
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{folder}/", "")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_four_files(tmp_path, ending):
    scan, affine = read_image(make_case(tmp_path, ending))
    assert scan.dtype == np.float32 and affine.dtype == np.float64 and scan.shape == (4, *SHAPE)
    assert all(np.array_equal(scan[seed], voxels(seed)) for seed in range(4)) and np.array_equal(affine, AFFINE)
    assert scan.flags.writeable


def test_folder_of_a_case(tmp_path):
    case = make_case(tmp_path)
    assert np.array_equal(read_image({"image": str(tmp_path)})[0], read_image(case)[0])
    assert read_label({**case, "image": str(tmp_path)})[0].shape == SHAPE


def test_4d_file_with_its_own_channel_order(tmp_path):
    path = save(tmp_path / "p.nii.gz", voxels(shape=(*SHAPE, 4)))
    expected = np.moveaxis(voxels(shape=(*SHAPE, 4)), -1, 0)
    assert np.array_equal(read_image({"image": path})[0], expected)
    reordered = read_image({"image": path, "channels": ["t2f", "t1n", "t1c", "t2w"]})[0]
    assert np.array_equal(reordered, expected[[1, 2, 3, 0]])


@pytest.mark.parametrize(
    "kind", ["scaled", "float64", "big-endian", "int32", "nifti2", "members", "misnamed", "4th axis", "extended"]
)
def test_ways_that_files_are_stored(tmp_path, kind):
    case = make_case(tmp_path)
    path, expected = Path(case["image"][0]), voxels(0).astype(np.float32)
    if kind == "scaled":
        set_header(path, 112, "<ff", 0.5, 10.0)
        expected = expected / 2 + 10
    elif kind in ("float64", "int32"):
        save(path, voxels(0).astype(kind))
    elif kind == "4th axis":
        save(path, voxels(0)[..., None])
    elif kind == "nifti2":
        nibabel.save(nibabel.Nifti2Image(voxels(0), AFFINE), path)
    elif kind == "extended":
        image = nibabel.Nifti1Image(voxels(0), AFFINE)
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a history of processing" * 99))
        nibabel.save(image, path)
    elif kind == "big-endian":
        header = nibabel.Nifti1Header(endianness=">")
        header.set_data_dtype(">i2")
        nibabel.save(nibabel.Nifti1Image(voxels(0), AFFINE, header), path)
        assert gzip.decompress(path.read_bytes())[:4] == b"\0\0\x01\x5c"
    elif kind == "members":
        content = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]) + gzip.compress(b""))
    elif kind == "misnamed":
        path.write_bytes(gzip.decompress(path.read_bytes()))
    assert np.array_equal(read_image(case)[0][0], expected)


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def with_value(value: float) -> np.ndarray:
    array = voxels(1).astype(np.float32)
    array[2, 3, 4] = value
    return array


ROTATED = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
FLAT = np.diag([1.0, 1.0, 0.0, 1.0])
AGAIN = "copy or download it again"
SPACING = "write it again with a true spacing"
BAD_IMAGES = {
    "missing": (lambda p: p.unlink(), "does not exist; add the file or take the case out"),
    "truncated": (lambda p: cut(p, 0.6), f"is truncated or damaged; {AGAIN}"),
    "truncated in its header": (lambda p: cut(p, 0.05), f"is truncated or damaged; {AGAIN}"),
    "truncated, not packed": (
        lambda p: p.write_bytes(gzip.decompress(p.read_bytes())[:-10]),
        f"is truncated; {AGAIN}",
    ),
    "damaged": (
        lambda p: p.write_bytes(p.read_bytes()[:-6] + b"\x12\x34" + p.read_bytes()[-4:]),
        f"is truncated or damaged; {AGAIN}",
    ),
    "text": (
        lambda p: p.write_text("<html>404</html>" * 99),
        "is not a NIfTI file; replace it by the scan as .nii.gz",
    ),
    "packed text": (
        lambda p: p.write_bytes(gzip.compress(b"no scan" * 99)),
        "is not a NIfTI file; replace it by the scan as .nii.gz",
    ),
    "empty": (lambda p: p.write_bytes(b""), "is empty; replace it by the scan as .nii.gz"),
    "shape": (
        lambda p: save(p, voxels(1, (5, 6, 8))),
        "shape 5×6×8 is not that of p-t1n.nii.gz (5×6×7); resample it",
    ),
    "affine": (
        lambda p: save(p, voxels(1), ROTATED),
        "affine differs from that of p-t1n.nii.gz by up to 1; resample it to that file",
    ),
    "4D": (
        lambda p: save(p, voxels(1, (*SHAPE, 4))),
        "is 4D (5×6×7×4) where 3D is expected; give one file a modality",
    ),
    "2D": (lambda p: save(p, voxels(1, (5, 6))), "is 2D (5×6) where 3D is expected; give one file a modality"),
    "NaN": (
        lambda p: save(p, with_value(np.nan)),
        "holds NaN or infinite values; replace them, e.g. by 0 outside the brain",
    ),
    "infinity": (
        lambda p: save(p, with_value(-np.inf)),
        "holds NaN or infinite values; replace them, e.g. by 0 outside the brain",
    ),
    "constant": (
        lambda p: save(p, np.full(SHAPE, 7, np.int16)),
        "every voxel is 7; give the scan itself, or take the case out",
    ),
    "spacing 0": (lambda p: set_header(p, 80, "<f", 0.0), f"spacing 0, 1, 2 mm; {SPACING}"),
    "spacing below 0": (lambda p: set_header(p, 84, "<f", -1.0), f"spacing 1, -1, 2 mm; {SPACING}"),
    "spacing NaN": (lambda p: set_header(p, 88, "<f", float("nan")), f"spacing 1, 1, nan mm; {SPACING}"),
    "flat affine": (
        lambda p: set_header(p, 280, "<12f", *FLAT[:3].ravel()),
        "its affine can't be inverted; write it again with a true orientation and spacing",
    ),
    "quaternion": (
        lambda p: (set_header(p, 252, "<2h", 1, 0), set_header(p, 256, "<3f", 1.0, 1.0, 1.0)),
        "its affine can't be inverted; write it again with a true orientation and spacing",
    ),
    "colours": (
        lambda p: save(p, np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        "voxels of type [('R', 'u1'), ('G', 'u1'), ('B', 'u1')]; convert it to numbers, one a voxel",
    ),
    "a folder": (
        lambda p: (p.unlink(), p.mkdir()),
        "can't be read (Is a directory); check the file and its permissions",
    ),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_image(tmp_path, kind):
    case = make_case(tmp_path)
    spoil, reason = BAD_IMAGES[kind]
    spoil(tmp_path / "p-t1c.nii.gz")
    assert line_of(read_image, case, tmp_path) == f"case p, p-t1c.nii.gz: {reason}"


@pytest.mark.parametrize("kind", [kind for kind in BAD_IMAGES if kind not in ("shape", "affine")])
def test_bad_first_image(tmp_path, kind):
    case = make_case(tmp_path)
    BAD_IMAGES[kind][0](tmp_path / "p-t1n.nii.gz")
    assert line_of(read_image, case, tmp_path).startswith("case p, p-t")


def test_sizes_in_a_header_that_lie(tmp_path):
    case = make_case(tmp_path)
    set_header(tmp_path / "p-t1c.nii.gz", 42, "<3h", 32000, 32000, 32000)
    assert line_of(read_image, case, tmp_path) == f"case p, p-t1c.nii.gz: is truncated; {AGAIN}"
    set_header(tmp_path / "p-t1c.nii.gz", 42, "<3h", 5, -6, 7)
    assert "is not a NIfTI file" in line_of(read_image, case, tmp_path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_shape_of_the_first_file_asks_for_no_more_memory_than_the_file_can_fill(tmp_path, ending):
    case = make_case(tmp_path, ending)
    content = bytearray(nibabel.Nifti1Image(voxels(), AFFINE).to_bytes())
    struct.pack_into("<3h", content, 42, 32000, 32000, 32000)
    first = tmp_path / f"p-t1n{ending}"
    first.write_bytes(gzip.compress(content) if ending == ".nii.gz" else content)
    for call in (read_image, read_label):
        line = line_of(call, case, tmp_path)
        assert line == f"case p, {first.name}: is truncated; {AGAIN}"
    struct.pack_into("<8h", content, 40, 7, *[32000] * 7)  # more voxels than 64 bits count
    first.write_bytes(content)
    assert line_of(read_image, {"case": "p", "image": str(first)}, tmp_path).endswith(f"is truncated; {AGAIN}")


def test_affines_that_differ_by_rounding_are_the_same(tmp_path):
    case = make_case(tmp_path)
    save(tmp_path / "p-t2w.nii.gz", voxels(2), AFFINE + 5e-4 * (np.arange(16).reshape(4, 4) < 12))
    assert np.array_equal(read_image(case)[1], AFFINE)


@pytest.mark.parametrize(
    ("shape", "found"), [(SHAPE, "3D (5×6×7)"), ((*SHAPE, 3), "4D (5×6×7×3)"), ((*SHAPE, 1, 4), "5D (5×6×7×1×4)")]
)
def test_3d_or_other_channels_where_4d_is_expected(tmp_path, shape, found):
    path = save(tmp_path / "p.nii.gz", voxels(shape=shape))
    assert line_of(read_image, {"image": str(path)}, tmp_path) == (
        f"case p, p.nii.gz: is {found} where 4D with 4 channels is expected; "
        "give one file with t1n, t1c, t2w, t2f, or the four files"
    )


def test_constant_channel_of_a_4d_file(tmp_path):
    array = voxels(shape=(*SHAPE, 4))
    array[..., 2] = 0
    path = save(tmp_path / "p.nii.gz", array)
    assert "every voxel is 0" in line_of(read_image, {"image": str(path)}, tmp_path)


def test_wrong_number_of_files_and_empty_folder(tmp_path):
    case = make_case(tmp_path)
    line = line_of(read_image, {**case, "image": case["image"][:2]}, tmp_path)
    assert line == "case p, p-t1n.nii.gz: 2 files; give the four of t1n, t1c, t2w, t2f"
    empty = tmp_path / "q"
    empty.mkdir()
    assert line_of(read_image, {"image": empty}, tmp_path) == "case q, q: no modality files here; name another folder"
    (tmp_path / "p-t2f.nii.gz").rename(empty / "p-t2f.nii.gz")
    assert "modality t1n, t1c, t2w is missing" in line_of(read_image, {"image": empty}, tmp_path)


def label_array(value: float, dtype: type = np.uint8) -> np.ndarray:
    label = np.zeros(SHAPE, dtype)
    label[1, 2, 3] = value
    return label


BAD_LABELS = {
    "value": (
        lambda p: save(p, label_array(4)),
        "label value 4 is outside the convention 'canonical' (values 0, 1, 2, 3); "
        "mend the label or name its convention",
    ),
    "float": (
        lambda p: save(p, label_array(0.7, np.float32)),
        "label value 0.7 is not a whole number; mend the label or name its convention",
    ),
    "shape": (
        lambda p: save(p, np.zeros((5, 6, 6), np.uint8)),
        "shape 5×6×6 is not that of p-t1n.nii.gz (5×6×7); resample it",
    ),
    "affine": (
        lambda p: save(p, label_array(1), np.diag([-1.0, 1, 2, 1])),
        "affine differs from that of p-t1n.nii.gz by up to 2; resample it to that file",
    ),
    "4D": (
        lambda p: save(p, np.zeros((*SHAPE, 3), np.uint8)),
        "is 4D (5×6×7×3) where 3D is expected; give one label map",
    ),
    "truncated": (lambda p: cut(p, 0.5), f"is truncated or damaged; {AGAIN}"),
    "missing": (lambda p: p.unlink(), "does not exist; add the file or take the case out"),
}


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_bad_label(tmp_path, kind):
    case = make_case(tmp_path)
    BAD_LABELS[kind][0](tmp_path / "p-seg.nii.gz")
    assert line_of(read_label, case, tmp_path) == f"case p, p-seg.nii.gz: {BAD_LABELS[kind][1]}"


def test_label_against_a_loaded_image(tmp_path):
    case = make_case(tmp_path)
    scan, affine = read_image(case)
    assert read_label({**case, "image": MetaTensor(scan, affine=affine)})[0].shape == SHAPE
    moved = MetaTensor(scan, affine=affine + np.eye(4) * 0.5)
    assert "affine differs from that of the image" in line_of(read_label, {**case, "image": moved}, tmp_path)


def test_labels_of_whole_floats_and_of_another_convention(tmp_path):
    case = make_case(tmp_path)
    save(Path(case["label"]), label_array(4, np.float64))
    label, affine = read_label({**case, "label_convention": "brats2018"})
    assert label.dtype == np.uint8 and label[1, 2, 3] == 3 and np.array_equal(affine, AFFINE)
    assert line_of(read_label, {"case": "p"}, tmp_path) == "case p: has no label; add one or take the case out"


def test_real_scans(real_scans):
    for case in [*list_cases(real_scans / "brats2020"), *list_cases(real_scans / "brats_mets2023")]:
        scan, affine = read_image(case)
        for channel, path in zip(scan, case["image"], strict=True):
            image = nibabel.load(path)
            assert np.array_equal(channel, np.asanyarray(image.dataobj)) and np.array_equal(affine, image.affine)
        if "label" in case:
            stored = np.asanyarray(nibabel.load(case["label"]).dataobj)
            assert np.array_equal(read_label(case)[0], np.where(stored == 4, 3, stored))
    assert np.array_equal(np.diag(affine), [1, 1, 1, 1])  # the metastasis case; the glioma cases have -1, -1, 1


def test_real_scan_cut_short(real_scans, tmp_path):
    folder = tmp_path / "TCGA-FG-6692"
    shutil.copytree(real_scans / "brats2020" / folder.name, folder, copy_function=shutil.copyfile)
    cut(folder / f"{folder.name}_t2.nii.gz", 0.9)
    line = line_of(read_image, list_cases(folder)[0], folder)
    assert line == f"case {folder.name}, {folder.name}_t2.nii.gz: is truncated or damaged; {AGAIN}"
