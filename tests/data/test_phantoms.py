"""Generated brains: what a record promises, that it can be replayed, and that data sets of them read back."""

from __future__ import annotations

import dataclasses
import filecmp
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import pdist

from common.data import phantom_folder
from common.data.layouts import recognise
from common.data.phantom_anatomy import build_anatomy
from common.data.phantom_drawing import MAX_DIAMETER
from common.data.phantom_fields import EXTENT, Fields, make_grid
from common.data.phantoms import (
    RECORD_FILE,
    Phantom,
    draw_phantom,
    make_phantoms,
    phantom_affine,
    render_phantom,
)
from common.data.reading import read_image, read_label
from common.errors import InputError

SMALL = (36, 36, 36)
DRAWS = 20


@pytest.fixture(scope="module", params=["metastases", "glioma"])
def rendered(request: pytest.FixtureRequest) -> list[tuple[Phantom, np.ndarray, np.ndarray]]:
    drawn = [draw_phantom(11, index, request.param) for index in range(DRAWS)]
    return [(phantom, *render_phantom(phantom, SMALL)) for phantom in drawn]


def test_record_survives_json_and_replays_to_the_bit() -> None:
    phantom = draw_phantom(5, 3)
    again = Phantom.from_dict(json.loads(json.dumps(phantom.to_dict())))
    assert again == phantom and hash(again) == hash(phantom)
    for first, second in zip(render_phantom(phantom, SMALL), render_phantom(again, SMALL), strict=True):
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**40), index=st.integers(0, 10**6), kind=st.sampled_from(["metastases", "glioma", "mixed"]))
def test_every_draw_keeps_its_ranges(seed: int, index: int, kind: str) -> None:
    phantom = draw_phantom(seed, index, kind)
    assert phantom == draw_phantom(seed, index, kind)
    assert kind in (phantom.kind, "mixed")
    assert phantom == Phantom.from_dict(json.loads(json.dumps(phantom.to_dict())))
    assert 1 <= len(phantom.lesions) <= (15 if phantom.kind == "metastases" else 2)
    for number, lesion in enumerate(phantom.lesions):
        assert 1.5 <= lesion.radius <= (20 if phantom.kind == "metastases" else 24)
        assert lesion.pattern == "none" or lesion.enhancing_level[1] >= 1.15
        for other in phantom.lesions[:number]:
            assert np.linalg.norm(np.subtract(lesion.centre, other.centre)) > lesion.radius + other.radius


def test_seed_and_index_each_give_another_brain() -> None:
    base, other_index, other_seed = (render_phantom(draw_phantom(*pair), SMALL)[0] for pair in ((0, 0), (0, 1), (1, 0)))
    for other in (other_index, other_seed):
        assert ((base > 0) != (other > 0)).any()
        assert np.mean(base[(base > 0) & (other > 0)] == other[(base > 0) & (other > 0)]) < 0.1


def test_mixed_draws_both_kinds() -> None:
    kinds = [draw_phantom(0, index).kind for index in range(40)]
    assert 10 <= kinds.count("glioma") <= 30


def test_images_are_skull_stripped_int16(rendered: list[tuple[Phantom, np.ndarray, np.ndarray]]) -> None:
    voxel = make_grid(SMALL).spacing ** 3
    for _, images, label in rendered:
        assert images.dtype == np.int16 and images.shape == (4, *SMALL)
        assert label.dtype == np.uint8 and label.shape == SMALL
        brain = images[0] > 0
        assert all(np.array_equal(image > 0, brain) for image in images) and images.min() == 0
        assert not label[~brain].any()
        assert 0.9e6 < brain.sum() * voxel < 1.7e6  # mm3, a brain's volume
        # Blank planes on every side: the head fits the image.
        assert not any(brain.take(end, axis).any() for axis in range(3) for end in (0, -1))
        assert ndimage.label(brain)[1] == 1 or np.bincount(ndimage.label(brain)[0].flat)[1:].max() > 0.97 * brain.sum()
        assert images.max() < np.iinfo(np.int16).max


def test_every_lesion_is_labelled_where_the_record_has_it(
    rendered: list[tuple[Phantom, np.ndarray, np.ndarray]],
) -> None:
    grid = make_grid(SMALL)
    for phantom, _, label in rendered:
        cores = np.isin(label, (1, 3))
        for lesion in phantom.lesions:
            voxel = np.rint(np.array(lesion.centre) / grid.spacing + (np.array(SMALL) - 1) / 2).astype(int)
            around = tuple(slice(max(i - 1, 0), i + 2) for i in voxel)
            assert cores[around].any()
            if lesion.pattern == "solid":
                assert (label[around] == 3).any()


def test_sizes_in_millimetres_hold() -> None:
    """The largest metastasis of a record has about the volume of its radius, in voxels of two sizes."""
    for index in range(3):
        phantom = draw_phantom(2, index, "metastases")
        phantom = dataclasses.replace(phantom, lesions=(dataclasses.replace(phantom.lesions[0], radius=14.0),))
        expected = 4 / 3 * np.pi * 14.0**3
        for size in (40, 56):
            label = render_phantom(phantom, (size, size, size))[1]
            core = np.isin(label, (1, 3))
            volume = core.sum() * make_grid(core.shape).spacing ** 3
            assert 0.45 * expected < volume < 1.8 * expected


def test_metastases_reach_the_largest_diameter_and_no_more() -> None:
    drawn = [draw_phantom(3, index, "metastases") for index in range(100)]
    assert max(lesion.longest for phantom in drawn for lesion in phantom.lesions) <= MAX_DIAMETER + 1e-9
    lengths = []
    for phantom in sorted(drawn, key=lambda one: one.lesions[0].longest)[-5:]:
        lesion = dataclasses.replace(phantom.lesions[0], centre=(34.0, 0.0, 25.0))
        label = render_phantom(dataclasses.replace(phantom, lesions=(lesion,)), (64, 64, 64))[1]
        lengths.append(pdist(np.argwhere(np.isin(label, (1, 3)))).max() * make_grid(label.shape).spacing)
    assert 35 < max(lengths) <= MAX_DIAMETER


def test_largest_metastasis_is_small_in_some_and_large_in_others() -> None:
    drawn = [draw_phantom(7, index, "metastases").lesions for index in range(200)]
    assert all(lesions[0].radius == max(lesion.radius for lesion in lesions) for lesions in drawn)
    largest = np.array([2 * lesions[0].radius for lesions in drawn])
    assert largest.min() < 6
    assert 0.07 < (largest < 10).mean() < 0.2
    assert 0.35 < (largest > 20).mean() < 0.6


def test_small_metastases_are_a_few_voxels() -> None:
    phantom = draw_phantom(2, 0, "metastases")
    lesion = dataclasses.replace(phantom.lesions[0], centre=(34.0, 0.0, 25.0), radius=2.5, pattern="solid", edema=0.0)
    label = render_phantom(dataclasses.replace(phantom, lesions=(lesion,)), (128, 128, 128))[1]
    assert np.unique(label).tolist() == [0, 3] and 10 < (label > 0).sum() < 45


def test_deep_nuclei_have_their_own_means() -> None:
    phantom = draw_phantom(1, 0, "glioma")
    plain = {"spread": (0.0, 0.0, 0.0), "noise": 0.0, "bias": 0.0, "gamma": 1.0, "blur": 0.3, "slice_blur": 0.3}
    looks = [dataclasses.replace(look, deep=(1.4, 0.5, 1.2), gain=1000.0, **plain) for look in phantom.appearance]
    phantom = dataclasses.replace(phantom, lesions=(), spots=(), appearance=tuple(looks))
    shape = (80, 80, 80)
    anatomy = build_anatomy(phantom, make_grid(shape), Fields(phantom.texture))
    np.testing.assert_array_less(anatomy.deep.sum(axis=0), 1 + 1e-5)
    image = render_phantom(phantom, shape)[0][3][anatomy.near]
    for nucleus, mean in zip(anatomy.deep, (1400, 500, 1200), strict=True):
        for side in (-1, 1):
            inside = (nucleus > 0.99) & (anatomy.grey + anatomy.fluid + anatomy.vessel == 0)
            inside &= anatomy.points[0] * side > 0
            assert inside.sum() > 20
            assert abs(np.median(image[inside]) / mean - 1) < 0.1


def test_labels_occur_as_often_as_in_patients(rendered: list[tuple[Phantom, np.ndarray, np.ndarray]]) -> None:
    necrosis, edema, enhancing = (np.mean([(label == value).any() for *_, label in rendered]) for value in (1, 2, 3))
    if rendered[0][0].kind == "metastases":
        assert enhancing == 1 and edema >= 0.5 and 0.2 <= necrosis < 1
    else:
        assert 0.5 <= enhancing < 1 and edema == 1 and necrosis >= 0.8


def test_regions_are_nested() -> None:
    """Necrosis lies inside the enhancing rim, and both inside the edema, where the record says whole ring and edema."""
    phantom = draw_phantom(1, 0, "metastases")
    lesion = dataclasses.replace(
        phantom.lesions[0], centre=(34.0, 0.0, 25.0), radius=14.0, pattern="ring", rim=5.0, gap=0.0, edema=14.0
    )
    lesion = dataclasses.replace(lesion, stretch=(1.0, 1.0, 1.0), irregularity=0.1)
    label = render_phantom(dataclasses.replace(phantom, lesions=(lesion,)), (56, 56, 56))[1]
    necrosis, core, whole = label == 1, np.isin(label, (1, 3)), label > 0
    assert necrosis.any()
    np.testing.assert_array_equal(ndimage.binary_dilation(necrosis) & ~core, False)
    shell = ndimage.binary_dilation(core) & ~core
    assert whole[shell].mean() > 0.9
    assert core.sum() < whole.sum()


def test_bright_spots_stay_background() -> None:
    with_spots = 0
    for index in range(5):
        phantom = dataclasses.replace(draw_phantom(3, index), lesions=())
        plain = dataclasses.replace(phantom, spots=(), caps=0.0)
        images, label = render_phantom(phantom, SMALL)
        assert not label.any()
        brighter = images[3].astype(float) > 1.15 * np.maximum(render_phantom(plain, SMALL)[0][3], 1)
        with_spots += int(brighter.any())
    assert with_spots >= 4


def test_lesions_can_be_seen(rendered: list[tuple[Phantom, np.ndarray, np.ndarray]]) -> None:
    """Enhancing tumour is bright in T1c and edema in FLAIR; yet a FLAIR threshold alone does not solve the task."""
    dice = []
    for _, images, label in rendered:
        brain = images[3] > 0
        z = [(image - image[brain].mean()) / image[brain].std() for image in images.astype(float)]
        if (label == 3).sum() > 20:
            assert z[1][label == 3].mean() > 0.3
        if (label == 2).sum() > 100:
            assert z[3][label == 2].mean() > 0.5
        parts, _ = ndimage.label(brain & (z[3] > 1.25))
        largest = parts == np.bincount(parts.flat, weights=(parts > 0).ravel()).argmax()
        dice.append(2 * (largest & (label > 0)).sum() / (largest.sum() + (label > 0).sum()))
    assert 0.35 < np.mean(dice) < 0.9


def test_t1_contrast_is_drawn_apart_from_t1c() -> None:
    levels = np.array([draw_phantom(0, index, "glioma").lesions[0].enhancing_level[:2] for index in range(80)])
    assert abs(np.corrcoef(levels.T)[0, 1]) < 0.25


def test_one_brain_at_two_image_sizes() -> None:
    """A record is a head in mm: finer voxels show the same brain and lesion."""
    phantom = draw_phantom(4, 1, "glioma")
    fine, coarse = (render_phantom(phantom, (size,) * 3)[1] > 0 for size in (64, 32))
    blocks = fine.reshape(32, 2, 32, 2, 32, 2).mean(axis=(1, 3, 5)) > 0.5
    assert 2 * (blocks & coarse).sum() / (blocks.sum() + coarse.sum()) > 0.85


def test_any_shape_holds_the_head_with_isotropic_voxels() -> None:
    shape = (36, 52, 44)
    images, label = render_phantom(draw_phantom(0, 0), shape)
    assert images.shape == (4, *shape) and label.any()
    affine = phantom_affine(shape)
    spacing = affine[0, 0]
    np.testing.assert_allclose(affine[:3, :3], spacing * np.eye(3))
    np.testing.assert_allclose(affine @ [*((np.array(shape) - 1) / 2), 1], [0, 0, 0, 1], atol=1e-9)
    assert all(size * spacing >= extent - 1e-9 for size, extent in zip(shape, EXTENT, strict=True))


def test_field_is_a_cubic_spline_of_unit_variance_by_name() -> None:
    axis = np.linspace(-70, 70, 60, dtype=np.float32)
    values = Fields(9).field("a", 5, (axis, axis, axis))
    assert values.dtype == np.float32 and abs(values.mean()) < 0.05 and 0.9 < values.std() < 1.1
    np.testing.assert_array_equal(values, Fields(9).field("a", 5, (axis, axis, axis)))
    assert np.abs(np.corrcoef(values.ravel(), Fields(9).field("b", 5, (axis, axis, axis)).ravel())[0, 1]) < 0.1
    # Values depend on the place alone, not on which other places are asked for.
    np.testing.assert_array_equal(values[10:20, 5:9, ::7], Fields(9).field("a", 5, (axis[10:20], axis[5:9], axis[::7])))


@pytest.mark.parametrize("layout", ["brats2018", "brats2021", "brats2023", "decathlon", "nnunet", "bids", "datalist"])
def test_data_set_reads_back(layout: str, tmp_path: Path) -> None:
    make_phantoms(tmp_path, cases=2, layout=layout, seed=4, shape=24)
    found = recognise(tmp_path)
    assert found.name == layout.replace("brats2021", "brats2018")
    assert len(found.cases) == 2 and not found.problems
    record = json.loads((tmp_path / RECORD_FILE).read_text())
    assert record["layout"] == layout and record["shape"] == [24, 24, 24]
    for index, case in enumerate(found.cases):
        phantom = Phantom.from_dict(record["cases"][case["case"]])
        assert phantom == draw_phantom(4, index)
        images, label = render_phantom(phantom, (24, 24, 24))
        read, affine = read_image(case)
        np.testing.assert_array_equal(read, images)
        np.testing.assert_array_equal(read_label(case)[0], label)
        np.testing.assert_allclose(affine, phantom_affine((24, 24, 24)), atol=1e-5)


def test_flat_layout_reads_back(tmp_path: Path) -> None:
    make_phantoms(tmp_path / "new", cases=1, layout="flat", shape=(24, 26, 28))
    (case,) = recognise(tmp_path / "new").cases
    np.testing.assert_array_equal(read_image(case)[0], render_phantom(draw_phantom(0, 0), (24, 26, 28))[0])


def test_bytes_depend_on_neither_number_of_cases_nor_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_phantoms(tmp_path / "many", cases=3, shape=24)
    monkeypatch.setattr(phantom_folder, "_cores", lambda: 1)
    make_phantoms(tmp_path / "few", cases=2, shape=24)
    files = [path for path in (tmp_path / "few").rglob("*.nii.gz")]
    assert len(files) == 10
    for path in files:
        assert filecmp.cmp(path, tmp_path / "many" / path.relative_to(tmp_path / "few"), shallow=False)


def test_second_run_gives_the_same_bytes_and_mends_an_interrupted_one(tmp_path: Path) -> None:
    make_phantoms(tmp_path, cases=2, layout="datalist", shape=24)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    next(tmp_path.rglob("*t1c.nii.gz")).unlink()
    (tmp_path / "datalist.json").unlink()
    make_phantoms(tmp_path, cases=2, layout="datalist", shape=24)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_progress_is_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_phantoms(tmp_path, cases=1, shape=24)
    out, err = capsys.readouterr()
    assert out == "" and "phantoms" in err and "1/1" in err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"layout": "dicom"}, "layout 'dicom' is not known; choose one of brats2018, "),
        ({"kind": "stroke"}, "kind of phantom 'stroke' is not known; choose one of metastases, glioma, mixed"),
        ({"shape": 8}, "shape 8 of a phantom: give one or three integers from 24 to 512"),
        ({"shape": (32, 32)}, "shape (32, 32) of a phantom"),
        ({"shape": 32.5}, "shape 32.5 of a phantom"),
        ({"shape": "big"}, "shape 'big' of a phantom"),
        ({"shape": (32, 32, 1000)}, "shape (32, 32, 1000) of a phantom"),
        ({"cases": 0}, "cases 0: give how many phantoms to make"),
        ({"cases": "many"}, "cases 'many': give how many phantoms to make"),
        ({"seed": -1}, "seed of a phantom must be an integer of at least 0, not -1"),
        ({"seed": 0.5}, "seed of a phantom must be an integer of at least 0, not 0.5"),
    ],
)
def test_bad_arguments_are_one_line_and_write_nothing(arguments: dict[str, object], line: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        make_phantoms(tmp_path / "new", **{"cases": 1, "shape": 24, **arguments})  # type: ignore[arg-type]
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="foreign holds other files; give a new or empty folder"):
        make_phantoms(tmp_path / "foreign", cases=1, shape=24)
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file is a file; give a folder"):
        make_phantoms(tmp_path / "file", cases=1, shape=24)
    make_phantoms(tmp_path / "phantoms", cases=1, shape=24)
    with pytest.raises(InputError, match="holds phantoms made with other arguments"):
        make_phantoms(tmp_path / "phantoms", cases=1, shape=24, seed=1)
