from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.partition import PARTS, partition_cases, patient_of
from common.errors import InputError


def cases_of(*names: str) -> list[dict]:
    return [{"case": name, "image": f"{name}.nii.gz"} for name in names]


def names_of(parts: dict[str, list[dict]]) -> dict[str, list[str]]:
    return {part: [case["case"] for case in cases] for part, cases in parts.items()}


def drawn(cases: list[dict], **options: object) -> dict[str, list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        return names_of(partition_cases(cases, Path(folder) / "parts.json", **options))


names = st.lists(
    st.builds("BraTS-MET-{:05d}-{:03d}".format, st.integers(0, 40), st.integers(0, 3)),
    min_size=1,
    max_size=60,
    unique=True,
)


@given(names, st.integers(0, 99), st.randoms(use_true_random=False))
def test_laws(names, seed, random):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = drawn(cases_of(*names), seed=seed)
        shuffled = random.sample(names, len(names))
        assert drawn(cases_of(*shuffled), seed=seed) == parts
    assert tuple(parts) == PARTS
    assert {name for part in parts.values() for name in part} == set(names)
    assert all(parts.values()) and all(part == sorted(part) for part in parts.values())
    patients = {part: {patient_of(name) for name in members} for part, members in parts.items()}
    for part in PARTS:
        assert {name for name in names if patient_of(name) in patients[part]} == set(parts[part])
    if len({patient_of(name) for name in names}) >= 3:
        assert sum(map(len, parts.values())) == len(names)
        assert sum(map(len, patients.values())) == len(set().union(*patients.values()))


def test_sizes_and_seeds():
    cases = cases_of(*(f"c{index:03d}" for index in range(100)))
    parts = drawn(cases)
    assert [len(parts[part]) for part in PARTS] == [70, 10, 20]
    assert drawn(cases, seed=1) != parts
    assert [len(part) for part in drawn(cases, fractions=(0.8, 0.2, 0)).values()] == [80, 20, 0]
    assert [len(part) for part in drawn(cases_of("a", "b", "c")).values()] == [1, 1, 1]
    assert [len(part) for part in drawn(cases_of("a", "b"), fractions=(0.8, 0.2, 0)).values()] == [1, 1, 0]


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("BraTS-MET-00110-000", "BraTS-MET-00110"),
        ("BraTS-GLI-00001-101", "BraTS-GLI-00001"),
        ("sub-01_ses-02", "sub-01"),
        ("sub-01", "sub-01"),
        ("TCGA-DU-7294", "TCGA-DU-7294"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
    ],
)
def test_patient_in_the_name(case, patient):
    assert patient_of(case) == patient


def test_one_and_two_patients():
    with pytest.warns(UserWarning, match="parts share them"):
        assert drawn(cases_of("a")) == {"training": ["a"], "validation": ["a"], "test": ["a"]}
    with pytest.warns(UserWarning, match="parts share them"):
        parts = drawn(cases_of("a", "b"))
    assert parts["training"] != parts["validation"] == parts["test"]


def test_file_is_reused_and_holds_names_only(tmp_path):
    file = tmp_path / "run" / "parts.json"
    first = partition_cases(cases_of(*"abcdef"), file)
    assert [path.name for path in file.parent.iterdir()] == ["parts.json"]
    content = json.loads(file.read_text())
    assert content["seed"] == 0 and content["parts"] == names_of(first) and "nii" not in file.read_text()
    assert partition_cases(cases_of(*"abcdef"), file, (0.5, 0.2, 0.3), seed=5, must_exist=True) == first
    content["parts"]["training"], content["parts"]["test"] = content["parts"]["test"], content["parts"]["training"]
    file.write_text(json.dumps({"parts": content["parts"]}))
    assert names_of(partition_cases(cases_of(*"fedcba"), file, seed=5)) == content["parts"]


def error_of(*args: object, **options: object) -> str:
    with pytest.raises(InputError) as error:
        partition_cases(*args, **options)
    return str(error.value)


def test_a_file_of_other_cases_is_refused(tmp_path):
    file, remedy = tmp_path / "parts.json", "mend it, or divide anew into another file"
    partition_cases(cases_of(*"abcdef"), file)
    before = file.read_bytes()
    line = error_of(cases_of(*"abcdefgh"), file)
    assert line == f"{file}: does not list g, h, which the data set has; {remedy}"
    assert error_of(cases_of(*"abcde"), file) == f"{file}: lists f, which the data set lacks; {remedy}"
    assert error_of(cases_of(*"abcdefghijklmn"), file).startswith(f"{file}: does not list g, h, i, j, k and 3 more, ")
    line = error_of(cases_of(*"abcdef"), file, seed=1)
    assert line.startswith(f"{file}: was drawn with seed 0 and not 1; leave --seed as it was, or divide anew into")
    assert "was drawn with fractions [0.7, 0.1, 0.2]" in error_of(cases_of(*"abcdef"), file, (0.6, 0.2, 0.2))
    assert file.read_bytes() == before
    no_names = '{"parts": {"training": [{}], "validation": [], "test": []}}'
    for text in ("{}", '{"parts": {"training": []}}', '{"parts": 3}', no_names):
        file.write_text(text)
        assert error_of(cases_of("a"), file).startswith(f"{file}: is no partition (lists of names as training, valid")
    file.write_text("[]")
    assert error_of(cases_of("a"), file) == f"{file}: holds neither a partition nor folds; {remedy}"
    file.write_text('{"parts": {"training": ["a", "a"], "validation": [], "test": []}}')
    assert error_of(cases_of("a"), file) == f"{file}: lists a case twice in training; {remedy}"
    file.write_text("{")
    assert error_of(cases_of("a"), file).startswith(f"{file}: is not JSON")


def test_a_file_that_shares_a_patient_is_refused(tmp_path):
    file = tmp_path / "parts.json"
    names = ["sub-01_ses-01", "sub-01_ses-02", "sub-02", "sub-03"]
    parts = {"training": names[:1], "validation": ["sub-02"], "test": [names[1], "sub-03"]}
    file.write_text(json.dumps({"parts": parts}))
    remedy = "mend it, or divide anew into another file"
    line = f"{file}: patient sub-01 is in training and in test; {remedy}"
    assert error_of(cases_of(*names), file) == line
    few = {"training": ["a"], "validation": ["b"], "test": ["b"]}
    file.write_text(json.dumps({"parts": few}))
    assert names_of(partition_cases(cases_of("a", "b"), file)) == few


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0, 0.5, 0.5), (1.2, -0.1, -0.1), (0.5, 0.2, 0.2), (float("nan"), 0, 1)]
)
def test_bad_fractions(tmp_path, fractions):
    assert error_of(cases_of("a"), tmp_path / "p.json", fractions).startswith("fractions [")
    assert not list(tmp_path.iterdir())


def test_no_cases_and_repeated_names(tmp_path):
    assert error_of([], tmp_path / "p.json") == "there are no cases to divide; name a folder that holds some"
    assert error_of(cases_of("a", "a"), tmp_path / "p.json") == "two cases have the same name; name them apart"


def test_file_that_cannot_be_written(tmp_path):
    (tmp_path / "a file").touch()
    assert "can't be written" in error_of(cases_of("a", "b", "c"), tmp_path / "a file" / "parts.json")


def test_msconvlstm_atts_parts_are_its_papers(repository: Path):
    config = json.loads((repository / "bundles" / "msconvlstm_att" / "configs" / "train.json").read_text())
    parts = drawn(cases_of(*(f"BraTS-GLI-{number:05d}-000" for number in range(285))), fractions=config["fractions"])
    assert [len(parts[part]) for part in PARTS] == [225, 30, 30]
