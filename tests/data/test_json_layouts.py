from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from common.data.layouts import list_cases, recognise
from common.errors import InputError

CHANNEL_NAMES = {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}
LABELS = {"background": 0, "edema": 1, "necrosis": 2, "enhancing tumor": 3}


def touch(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


def describe(folder: Path, content: object, name: str = "dataset.json") -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder / name


def error_of(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        recognise(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_decathlon_case_names_may_end_in_four_digits(tmp_path):
    names = [f"case_{index:04d}" for index in range(4)]
    touch(tmp_path, *(f"{folder}/{name}.nii.gz" for name in names for folder in ("imagesTr", "labelsTr")))
    entries = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    describe(tmp_path, {"modality": CHANNEL_NAMES, "labels": LABELS, "training": entries})
    found = recognise(tmp_path)
    assert (found.name, found.problems) == ("decathlon", [])
    assert [case["case"] for case in found.cases] == names


@pytest.mark.parametrize("names", ["channel_names", "modality"])
def test_nnunet_folder_with_nothing_but_test_cases(tmp_path, names):
    touch(tmp_path, *(f"imagesTs/a_{index:04d}.nii.gz" for index in range(4)))
    describe(tmp_path, {names: CHANNEL_NAMES, "labels": LABELS, "training": [], "test": ["./imagesTs/a.nii.gz"]})
    found = recognise(tmp_path)
    assert (found.name, [case["case"] for case in found.cases], found.problems) == ("nnunet", ["a"], [])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ([1], 'is no description of a data set; give {"channel_names": …, "labels": …}'),
        (
            {"channel_names": {"T1": 0}},
            "channels {'T1': 0} are not the four that are needed; name them T1, T1ce, T2 and FLAIR",
        ),
        ({"channel_names": 4}, "channels 4 are not the four that are needed; name them T1, T1ce, T2 and FLAIR"),
        (
            {"channel_names": CHANNEL_NAMES, "labels": ["ET"]},
            '"labels" is [\'ET\']; give the name and value of each, like {"edema": 1, …}',
        ),
        (
            {"channel_names": CHANNEL_NAMES, "labels": {"ET": "three"}},
            "label 'ET': 'three' is not a whole number; give the value that the label maps have",
        ),
    ],
)
def test_a_description_that_cannot_be_understood(tmp_path, content, line):
    touch(tmp_path, *(f"imagesTr/a_{index:04d}.nii.gz" for index in range(4)))
    file = describe(tmp_path, content)
    assert error_of(tmp_path) == f"{file}: {line}"


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"test": 3}, '"test" is no list; make it one of {"image": …, "label": …}'),
        ({"label_convention": 3}, '"label_convention" is 3; give a name or a list like "1=ED,2=NCR,3=ET"'),
    ],
)
def test_a_datalist_that_cannot_be_understood(tmp_path, more, line):
    touch(tmp_path, "x/a.nii.gz")
    file = describe(tmp_path, {"training": [{"image": "x/a.nii.gz"}], **more})
    assert error_of(tmp_path) == f"{file}: {line}"


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"label": ["b.nii.gz"]}, "case a, {file}: \"label\" is ['b.nii.gz']; give the path of one file"),
        (
            {"channels": ["CT"]},
            "case a: {file}: channels CT are not the four that are needed; name them T1, T1ce, T2 and FLAIR; "
            "mend the entry",
        ),
        (
            {"label_convention": ["ET"]},
            'case a: {file}: "label_convention" is [\'ET\']; give a name or a list like "1=ED,2=NCR,3=ET"; '
            "mend the entry",
        ),
        ({"image": [1, 2, 3, 4]}, 'an entry without "image"; give {{"image": …, "label": …}}'),
    ],
)
def test_a_wrong_entry_leaves_the_others(tmp_path, wrong, line):
    touch(tmp_path, "x/a.nii.gz", "x/b.nii.gz")
    file = describe(tmp_path, {"training": [{"image": "x/a.nii.gz", **wrong}, {"image": "x/b.nii.gz"}]})
    found = recognise(file)
    assert [case["case"] for case in found.cases] == ["b"]
    [problem] = map(str, found.problems)
    assert problem.endswith(line.format(file=file))


@pytest.mark.parametrize("content", ["{", '{"training": [{"image": "a.nii.gz"}], "channels": 3}'])
def test_a_broken_json_file_beside_another_layout_is_left_alone(tmp_path, content):
    touch(tmp_path, *(f"A/A-{channel}.nii.gz" for channel in ("t1n", "t1c", "t2w", "t2f")))
    (tmp_path / "notes.json").write_text(content)
    assert recognise(tmp_path).name == "brats2023"


def test_division_of_a_datalist_is_not_used_and_that_is_said(tmp_path, caplog):
    touch(tmp_path, *(f"x/{name}.nii.gz" for name in "abc"))
    lists = {"training": "a", "validation": "b", "test": "c"}
    file = describe(tmp_path, {part: [{"image": f"x/{name}.nii.gz"}] for part, name in lists.items()})
    with caplog.at_level(logging.WARNING):
        assert [case["section"] for case in list_cases(tmp_path)] == ["training", "training", "test"]
    assert caplog.messages == [f'{file}: its own "validation" is not used as such; all its cases are divided anew']
