"""Label maps meet their references by the name of the case; what doesn't fit is named."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.data.pairs import find_label_maps, find_references, pair_label_maps
from common.data.writing import WRITABLE_LAYOUTS, finish_layout, write_case
from common.errors import InputError

AFFINE = np.diag([1.0, 1.2, 2.0, 1.0])
SHAPE = (6, 7, 8)


def label_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, SHAPE).astype(np.uint8)


def save(path: Path, label: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(label, affine), path)
    return path


@pytest.fixture
def references(tmp_path: Path) -> Path:
    for seed, name in enumerate("abc"):
        save(tmp_path / "truth" / f"{name}.nii.gz", label_of(seed))
    return tmp_path / "truth"


def error_of(call: object, *arguments: object, **options: object) -> str:
    with pytest.raises(InputError) as error:
        call(*arguments, **options)  # type: ignore[operator]
    return str(error.value)


@pytest.mark.parametrize("layout", WRITABLE_LAYOUTS)
def test_references_in_every_layout(tmp_path: Path, layout: str):
    images = np.random.default_rng(0).integers(0, 99, (4, *SHAPE)).astype(np.int16)
    names = ("one", "two")
    for seed, name in enumerate(names):
        write_case(tmp_path / "data", layout, name, images, label_of(seed), AFFINE)
    finish_layout(tmp_path / "data", layout, names)
    found = find_references(tmp_path / "data")
    assert len(found) == 2
    for seed, name in enumerate(sorted(found)):
        save(tmp_path / "predictions" / f"{name}.nii.gz", label_of(seed))
    pairs, missing, surplus = pair_label_maps(tmp_path / "predictions", found)
    assert not missing and not surplus
    for pair in pairs:
        maps = pair.read()
        np.testing.assert_array_equal(maps.prediction, maps.reference)
        np.testing.assert_allclose(maps.affine, AFFINE)


def test_spacing_is_the_float32_of_the_predictions_header(references: Path, tmp_path: Path):
    save(tmp_path / "p" / "a.nii.gz", label_of(0), np.diag([1.0, 1.2003, 2.0, 1.0]))
    pairs, *_ = pair_label_maps(tmp_path / "p", {"a": find_references(references)["a"]})
    assert pairs[0].read().spacing == (1.0, float(np.float32(1.2003)), 2.0)


@pytest.mark.parametrize("kind", ["nifti2", "unpacked"])
def test_files_that_are_not_what_their_name_says(references: Path, tmp_path: Path, kind: str):
    """NIfTI-2, whose header states spacings in float64, and a .nii.gz that isn't packed."""
    affine = np.diag([1.0, 1.2003, 2.0, 1.0])
    image = (nibabel.Nifti2Image if kind == "nifti2" else nibabel.Nifti1Image)(label_of(0), affine)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.nii.gz").write_bytes(image.to_bytes())
    pairs, *_ = pair_label_maps(tmp_path / "p", {"a": find_references(references)["a"]})
    spacing = pairs[0].read(ignore_affine=True).spacing
    assert spacing == (1.0, 1.2003 if kind == "nifti2" else float(np.float32(1.2003)), 2.0)


def test_label_values_of_brats_of_either_kind(references: Path, tmp_path: Path):
    save(tmp_path / "p" / "a.nii.gz", np.where(label_of(0) == 3, 4, label_of(0)).astype(np.uint8))
    only = {"a": find_references(references)["a"]}
    for convention in ("brats", "brats2018"):
        maps = pair_label_maps(tmp_path / "p", only, convention)[0][0].read()
        np.testing.assert_array_equal(maps.prediction, maps.reference)
    line = error_of(pair_label_maps(tmp_path / "p", only, "canonical")[0][0].read)
    assert "a.nii.gz: label value 4 is outside the convention 'canonical'" in line


def test_unpaired_cases_are_named_both_ways(references: Path, tmp_path: Path):
    for name in ("a", "d", "e"):
        save(tmp_path / "p" / f"{name}.nii.gz", label_of(0))
    truth = find_references(references)
    line = error_of(pair_label_maps, tmp_path / "p", truth)
    assert f"{tmp_path}/p: no prediction for b, c; no reference for d, e; add them, or say --allow-missing" in line
    pairs, missing, surplus = pair_label_maps(tmp_path / "p", truth, allow_missing=True)
    assert ([pair.case for pair in pairs], missing, surplus) == (["a", "b", "c"], ["b", "c"], ["d", "e"])
    maps = pairs[1].read()
    assert not maps.prediction.any() and maps.reference.any() and maps.spacing == pytest.approx((1, 1.2, 2))
    line = error_of(pair_label_maps, tmp_path / "p", {"b": truth["b"]}, allow_missing=True)
    assert "no file is named for a case, such as b.nii.gz" in line


def test_folders(references: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert "none: is no folder" in error_of(find_label_maps, tmp_path / "none")
    assert "empty: holds no label map" in error_of(find_label_maps, tmp_path / "empty")
    assert "empty: holds no .nii or .nii.gz file" in error_of(find_references, tmp_path / "empty")
    for beside in ("probabilities", "entropy", "variance"):
        save(references / f"a_{beside}.nii.gz", label_of(0))
    assert sorted(find_label_maps(references)) == ["a", "b", "c"]
    save(references / "b.nii", label_of(0))
    assert "case b" in error_of(find_label_maps, references) and "twice" in error_of(find_label_maps, references)


@pytest.mark.parametrize(
    ("label", "affine", "line"),
    [
        (label_of(0)[1:], AFFINE, r"shape 5×7×8 is not that of .*truth/a.nii.gz \(6×7×8\); resample it"),
        (
            label_of(0),
            np.eye(4),
            r"affine differs from that of .*truth/a.nii.gz by up to 1; resample .* --ignore-affine",
        ),
        (label_of(0) / np.float32(2), AFFINE, "is not a whole number"),
        (label_of(0)[..., None].repeat(2, -1), AFFINE, "is 4D"),
        (label_of(0) + np.uint8(7), AFFINE, "is outside the convention"),
    ],
    ids=["shape", "affine", "fractions", "4D", "values"],
)
def test_predictions_that_do_not_fit(
    references: Path, tmp_path: Path, label: np.ndarray, affine: np.ndarray, line: str
):
    path = save(tmp_path / "p" / "a.nii.gz", label, affine)
    pairs, *_ = pair_label_maps(tmp_path / "p", {"a": find_references(references)["a"]}, "brats")
    with pytest.raises(InputError, match=line) as error:
        pairs[0].read()
    assert str(error.value).startswith(f"case a, {path}: ")
    if "affine" in line:
        assert pairs[0].read(ignore_affine=True).prediction.any()
