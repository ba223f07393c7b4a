from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from common.data.labels import CHANNELS, CONVENTIONS
from common.data.layouts import list_cases, recognise
from common.data.reading import read_image, read_label
from common.data.writing import WRITABLE_LAYOUTS, finish_layout, write_case
from common.errors import CaseError, InputError

AFFINE = np.array([[-1.0, 0, 0, 5], [0, -1.2, 0, 7], [0, 0, 2, -3], [0, 0, 0, 1]])
SHAPE = (5, 6, 7)


def images_and_label(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(-50, 900, (4, *SHAPE)).astype(np.int16), random.integers(0, 4, SHAPE).astype(np.uint8)


def write(
    folder: Path, layout: str, names: tuple[str, ...] = ("one-1", "two_2", "three"), unlabelled: str = ""
) -> Path:
    for seed, name in enumerate(names):
        images, label = images_and_label(seed)
        write_case(folder, layout, name, images, None if name == unlabelled else label, AFFINE)
    finish_layout(folder, layout, names)
    return folder


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def brats(folder: Path, case: str, ending: str = ".nii.gz", without: str = "") -> None:
    for what in ("t1", "t1ce", "t2", "flair", "seg"):
        if what != without:
            touch(folder / case / f"{case}_{what}{ending}")


def error_of(call, *args, **options) -> str:
    with pytest.raises(InputError) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("layout", WRITABLE_LAYOUTS)
def test_every_layout_round_trips(tmp_path, layout):
    names = ("one-1", "two_2", "three")
    found = recognise(write(tmp_path, layout, names, unlabelled="three"))
    assert found.name == ("brats2018" if layout == "brats2021" else layout) and found.problems == []
    expected = sorted("sub-" + n.replace("-", "").replace("_", "") if layout == "bids" else n for n in names)
    assert [case["case"] for case in found.cases] == expected
    by_name = {case["case"].removeprefix("sub-").replace("-", "").replace("_", ""): case for case in found.cases}
    for seed, name in enumerate(names):
        case, (images, label) = by_name[name.replace("-", "").replace("_", "")], images_and_label(seed)
        json.dumps(case)
        read, affine = read_image(case)
        assert np.array_equal(read, images) and np.allclose(affine, AFFINE)
        assert ("label" in case) == (name != "three")
        if "label" in case:
            assert np.array_equal(read_label(case)[0], label)


@pytest.mark.parametrize("layout", WRITABLE_LAYOUTS)
def test_same_content_gives_same_bytes_and_no_leftovers(tmp_path, layout):
    first, second = write(tmp_path / "a", layout), write(tmp_path / "b", layout)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    assert not any(file.name.startswith(".") for file in files)
    packed = [first / file for file in files if file.suffix == ".gz"]
    assert all(path.read_bytes()[4:8] == bytes(4) for path in packed), "the time of writing is in the file"


def test_failed_write_leaves_nothing(tmp_path):
    images, _ = images_and_label(0)
    (tmp_path / "c").write_text("a file where the case's folder should be")
    line = error_of(write_case, tmp_path, "brats2023", "c", images, None, AFFINE)
    assert line.startswith(f"{tmp_path}/c/c-t1n.nii.gz can't be written: File exists; ")
    assert [path.name for path in tmp_path.rglob("*")] == ["c"]
    assert "layout 'dicom' is unknown" in error_of(write_case, tmp_path, "dicom", "c", images, None, AFFINE)


def test_brats_2018_has_two_grades_and_unpacked_files(tmp_path):
    brats(tmp_path / "HGG", "Brats18_A_1", ".nii")
    brats(tmp_path / "LGG", "Brats18_B_1", ".nii.gz")
    found = recognise(tmp_path)
    assert (found.name, found.convention) == ("brats2018", "brats2018")
    assert [case["case"] for case in found.cases] == ["Brats18_A_1", "Brats18_B_1"]
    endings = [Path(path).name for path in found.cases[0]["image"]]
    assert endings == [f"Brats18_A_1_{what}.nii" for what in ("t1", "t1ce", "t2", "flair")]


@pytest.mark.parametrize(
    "name", ["BraTS-GLI-00000-000", "BraTS-MET-00110-000", "BraTS-MEN-1-0", "BraTS-SSA-2-0", "BraTS-PED-3-0"]
)
def test_brats_2023_names(tmp_path, name):
    for channel in (*CHANNELS, "seg"):
        touch(tmp_path / name / f"{name}-{channel}.nii.gz")
    [case] = list_cases(tmp_path)
    assert [Path(path).name for path in case["image"]] == [f"{name}-{channel}.nii.gz" for channel in CHANNELS]
    assert case["label"].endswith("-seg.nii.gz") and case["label_convention"] == "canonical"


def test_folder_of_one_case(tmp_path):
    brats(tmp_path, "A")
    assert [case["case"] for case in list_cases(tmp_path / "A")] == ["A"]


def test_missing_modality_leaves_the_others(tmp_path):
    brats(tmp_path, "A", without="t1ce")
    brats(tmp_path, "B")
    brats(tmp_path, "C", without="flair")
    found = recognise(tmp_path)
    assert [case["case"] for case in found.cases] == ["B"]
    lines = [
        f"case A, {tmp_path}/A: modality t1c is missing; add the file or take the case out",
        f"case C, {tmp_path}/C: modality t2f is missing; add the file or take the case out",
    ]
    assert list(map(str, found.problems)) == lines
    assert error_of(list_cases, tmp_path) == f"{lines[0]}; {lines[1]}"
    shutil.rmtree(tmp_path / "C")
    with pytest.raises(CaseError) as error:
        list_cases(tmp_path)
    assert str(error.value) == lines[0]


@pytest.mark.parametrize(
    ("layout", "name"),
    [("nnunet", "labelsTr/two_2"), ("flat", "labels/two_2"), ("flat", "two_2_seg"), ("flat", "two_2")],
)
def test_file_of_one_case_that_is_there_twice(tmp_path: Path, layout: str, name: str):
    if layout == "nnunet":
        write(tmp_path, layout)
    else:
        touch(tmp_path / "one.nii.gz")
        touch(tmp_path / "two_2.nii.gz")
    first = touch(tmp_path / f"{name}.nii")
    touch(tmp_path / f"{name}.nii.gz")
    found = recognise(tmp_path)
    assert "two_2" not in {case["case"] for case in found.cases}
    assert len(found.cases) >= 1
    lines = [str(problem) for problem in found.problems]
    assert lines == [f"case two_2, {first}: the same file is there twice, also as {first}.gz; keep one of them"]


def test_label_without_an_image(tmp_path: Path):
    touch(tmp_path / "a.nii.gz")
    label = touch(tmp_path / "b_seg.nii.gz")
    found = recognise(tmp_path)
    assert [case["case"] for case in found.cases] == ["a"]
    line = f"case b, {label}: is a label without an image; add b.nii.gz, or take the label out"
    assert list(map(str, found.problems)) == [line]


def test_duplicates(tmp_path):
    brats(tmp_path / "HGG", "A")
    brats(tmp_path / "LGG", "A")
    first, second = (f"{tmp_path}/{grade}/A/A_flair.nii.gz" for grade in ("HGG", "LGG"))
    assert (
        error_of(list_cases, tmp_path)
        == f"case A, {first}: the same case is there twice, also as {second}; keep one of them"
    )
    shutil.rmtree(tmp_path / "LGG")
    twice = touch(tmp_path / "HGG" / "A" / "A_t2.nii")
    line = error_of(list_cases, tmp_path)
    assert line == f"case A, {twice}: the same file is there twice, also as {twice}.gz; keep one of them"


def test_labels_where_they_are_needed(tmp_path):
    brats(tmp_path, "A", without="seg")
    brats(tmp_path, "B")
    assert len(list_cases(tmp_path)) == 2
    line = error_of(list_cases, tmp_path, labelled=True)
    assert line == f"case A, {tmp_path}/A/A_t1.nii.gz: has no label; add it or take the case out"


@pytest.mark.parametrize("layout", ["decathlon", "nnunet", "datalist"])
def test_test_section_needs_no_label(tmp_path, layout):
    write(tmp_path, layout, unlabelled="two_2")
    assert len(list_cases(tmp_path)) == 3
    assert [case["case"] for case in list_cases(tmp_path, labelled=True)] == ["one-1", "three"]


def test_only_test_cases_is_no_training_set(tmp_path):
    write(tmp_path, "decathlon", ("one",), unlabelled="one")
    line = error_of(list_cases, tmp_path, labelled=True)
    assert line == f"{tmp_path}: holds no case with a label; add labels, or name another folder"


def test_bids_sessions_labels_and_masks(tmp_path):
    for session in ("ses-01", "ses-02"):
        anat, name = tmp_path / "sub-a1" / session / "anat", f"sub-a1_{session}"
        for what in ("T1w", "ce-gd_T1w", "acq-tse_T2w", "FLAIR", "desc-brain_mask"):
            touch(anat / f"{name}_{what}.nii.gz")
    touch(tmp_path / "sub-a1" / "ses-01" / "func" / "sub-a1_ses-01_task-rest_bold.nii.gz")
    for maker in ("manual_masks", "fmriprep"):
        anat = tmp_path / "derivatives" / maker / "sub-a1" / "ses-02" / "anat"
        touch(anat / "sub-a1_ses-02_desc-lesion_dseg.nii.gz")
    touch(tmp_path / "derivatives" / "fmriprep" / "sub-a1" / "ses-01" / "anat" / "sub-a1_ses-01_dseg.nii.gz")
    touch(tmp_path / "derivatives" / "prep" / "sub-a1" / "ses-01" / "anat" / "sub-a1_ses-01_desc-preproc_T1w.nii.gz")
    first, second = list_cases(tmp_path)
    assert (first["case"], second["case"]) == ("sub-a1_ses-01", "sub-a1_ses-02")
    assert "label" not in first and "/manual_masks/" in second["label"]
    assert [Path(path).name for path in first["image"]] == [
        f"sub-a1_ses-01_{what}.nii.gz" for what in ("T1w", "ce-gd_T1w", "acq-tse_T2w", "FLAIR")
    ]


def test_decathlon_channels_and_labels(tmp_path):
    case = list_cases(write(tmp_path, "decathlon"))[0]
    assert case["channels"] == ["t2f", "t1n", "t1c", "t2w"] and case["label_convention"] == "decathlon"
    touch(tmp_path / "imagesTr" / "._one-1.nii.gz")
    (tmp_path / "imagesTr" / "three.nii.gz").unlink()
    line = error_of(list_cases, tmp_path)
    assert line == (
        f"case three, {tmp_path}/imagesTr/three.nii.gz: is listed in dataset.json and does not exist; "
        "add the file or mend the list"
    )


def test_nnunet_channels_come_from_their_names(tmp_path):
    description = json.loads((write(tmp_path, "nnunet") / "dataset.json").read_text())
    description["channel_names"] = {"0": "FLAIR", "1": "T2", "2": "T1gd", "3": "T1"}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    case = list_cases(tmp_path)[0]
    assert [Path(path).name[-11:-7] for path in case["image"]] == ["0003", "0002", "0001", "0000"]
    description["channel_names"] = {"0": "CT"}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    assert error_of(recognise, tmp_path) == (
        f"{tmp_path}/dataset.json: channels CT are not the four that are needed; name them T1, T1ce, T2 and FLAIR"
    )
    (tmp_path / "dataset.json").unlink()
    line = error_of(recognise, tmp_path)
    assert line == f"{tmp_path}/dataset.json: is missing, so the order of the channels is unknown; add it"


def test_first_version_of_nnunet_is_not_taken_for_the_decathlon(tmp_path):
    write(tmp_path, "nnunet", ("a",))
    old = {
        "modality": {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"},
        "labels": {"0": "background", "1": "necrosis", "2": "edema", "3": "enhancing tumor"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(old))
    assert (recognise(tmp_path).name, recognise(tmp_path).convention) == ("nnunet", "canonical")


def datalist(folder: Path, entries: list, **more: object) -> Path:
    file = folder / "list.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"training": entries, **more}))
    return file


def test_datalist_puts_named_files_in_order(tmp_path):
    brats(tmp_path / "scans", "A")
    files = [f"../scans/A/A_{what}.nii.gz" for what in ("flair", "t1ce", "t1", "t2")]
    file = datalist(tmp_path / "lists", [{"image": files, "label": "../scans/A/A_seg.nii.gz", "fold": 0}])
    [case] = list_cases(file)
    assert [Path(path).name for path in case["image"]] == [f"A_{what}.nii.gz" for what in ("t1", "t1ce", "t2", "flair")]
    assert case["case"] == "A" and list_cases(tmp_path / "lists")[0]["image"] == case["image"]


def test_datalist_of_unnamed_files_channels_and_convention(tmp_path):
    for name in "abcd":
        touch(tmp_path / "x" / f"{name}.nii.gz")
    entry = {"image": [f"x/{name}.nii.gz" for name in "abcd"], "case": "patient 1", "label_convention": "brats2018"}
    [case] = list_cases(datalist(tmp_path, [entry], channels=["flair", "t1", "t1ce", "t2"]))
    assert [Path(path).name[0] for path in case["image"]] == ["b", "c", "d", "a"]
    assert (case["case"], case["label_convention"]) == ("patient 1", "brats2018")


def test_bad_entries_are_named(tmp_path):
    for name in ("a/x.nii.gz", "b/x.nii.gz", "y.nii.gz"):
        touch(tmp_path / name)
    entries = [
        {"image": "a/x.nii.gz"},
        {"image": "b/x.nii.gz"},
        {"label": "y.nii.gz"},
        {"image": ["y.nii.gz", "y.nii.gz"]},
    ]
    file = datalist(tmp_path, [*entries, {"image": "y.nii.gz"}, {"image": "y.nii.gz", "case": "../y"}])
    found = recognise(file)
    assert [case["case"] for case in found.cases] == ["y"]
    lines = sorted(map(str, found.problems))
    assert [line.split(";")[0] for line in lines] == [
        f"case ../y, {file}: the name can't be that of a file",
        f"case x, {tmp_path}/a/x.nii.gz: the same case is there twice, also as {tmp_path}/b/x.nii.gz",
        f"case y, {file}: 2 images are listed",
        f"case {{'label': 'y.nii.gz'}}, {file}: an entry without \"image\"",
    ]


def test_flat_labels_of_monai_label_and_beside(tmp_path):
    for name in ("a.nii.gz", "b.nii", "b_seg.nii.gz", "c.nii.gz", "labels/c.nii.gz", "labels/final/a.nii.gz"):
        touch(tmp_path / name)
    touch(tmp_path / "labels" / "original" / "c.nii.gz")
    labels = {case["case"]: case["label"].removeprefix(f"{tmp_path}/") for case in list_cases(tmp_path)}
    assert labels == {"a": "labels/final/a.nii.gz", "b": "b_seg.nii.gz", "c": "labels/c.nii.gz"}
    touch(tmp_path / "a.nii")
    assert "case a" in error_of(list_cases, tmp_path)


def test_folders_that_fit_nothing(tmp_path):
    assert error_of(recognise, tmp_path / "no") == (
        f"{tmp_path}/no: is no folder; give the folder that holds the cases, or a datalist's JSON file"
    )
    line = error_of(recognise, tmp_path)
    assert line == f"{tmp_path}: holds no .nii or .nii.gz file; give the folder that holds the cases"
    file = touch(tmp_path / "ct" / "1" / "scan.nii.gz")
    line = error_of(recognise, tmp_path)
    assert line.startswith(
        f"{tmp_path}: no known layout, e.g. {file} fits none of: BraTS 2018 to 2021: <case>/<case>_t1"
    )
    (tmp_path / "broken.json").write_text("{")
    assert error_of(recognise, tmp_path).startswith(f"{tmp_path}/broken.json: is not JSON")


def test_two_layouts_in_one_folder(tmp_path):
    brats(tmp_path, "A")
    for channel in CHANNELS:
        touch(tmp_path / "B" / f"B-{channel}.nii.gz")
    assert error_of(recognise, tmp_path) == (
        f"{tmp_path}: more than one layout fits (brats2018, brats2023); keep one in the folder, "
        "or give the path of the datalist's JSON file"
    )
    shutil.rmtree(tmp_path / "B")
    file = datalist(tmp_path, [{"image": "A"}])
    assert "(brats2018, datalist)" in error_of(recognise, tmp_path)
    assert [case["case"] for case in list_cases(file)] == ["A"]


def test_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    line = error_of(recognise, tmp_path)
    assert line == f"{tmp_path}: can't be listed (Permission denied); check its permissions"


def test_hidden_files_and_links(tmp_path):
    brats(tmp_path / "store", "A")
    data = tmp_path / "data"
    data.mkdir()
    (data / "A").symlink_to(tmp_path / "store" / "A")
    (data / "loop").symlink_to(data)
    touch(data / "._A_t1.nii.gz")
    touch(data / ".cache" / "B_t1.nii.gz")
    touch(data / "__MACOSX" / "A" / "A_t1.nii.gz")
    assert [case["case"] for case in list_cases(data)] == ["A"]
    os.remove(tmp_path / "store" / "A" / "A_t1.nii.gz")
    (tmp_path / "store" / "A" / "A_t1.nii.gz").symlink_to(tmp_path / "nowhere")
    assert "modality t1n is missing" in error_of(list_cases, data)


def test_real_scans_are_recognised(real_scans):
    glioma, metastasis = recognise(real_scans / "brats2020"), recognise(real_scans / "brats_mets2023")
    assert (glioma.name, len(glioma.cases)) == ("brats2018", 2) and glioma.convention in CONVENTIONS
    assert (metastasis.name, len(metastasis.cases)) == ("brats2023", 1)
    assert all("label" in case for case in glioma.cases) and "label" not in metastasis.cases[0]
