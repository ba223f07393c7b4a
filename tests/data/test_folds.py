from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.folds import draw_folds, fold_cases, folds_table, lesion_volumes
from common.data.layouts import list_cases
from common.data.partition import PARTS, partition_cases, patient_of
from common.data.phantoms import make_phantoms
from common.errors import InputError

volumes = st.dictionaries(
    st.builds("BraTS-MET-{:05d}-{:03d}".format, st.integers(0, 60), st.integers(0, 2)),
    st.floats(0, 200),
    min_size=1,
    max_size=80,
)


def patients(names: list[str]) -> set[str]:
    return {patient_of(name) for name in names}


@given(volumes, st.integers(2, 10), st.integers(0, 99), st.floats(0.01, 0.99), st.randoms(use_true_random=False))
def test_laws(volumes, folds, seed, share, random):
    load = {p: np.mean([v for name, v in volumes.items() if patient_of(name) == p]) for p in patients(list(volumes))}
    largest_test = -(-len(load) // folds)
    if len(load) < folds or len(load) - largest_test < 2:
        with pytest.raises(InputError, match=f"^{len(load)} patients are too few for {folds} folds: "):
            draw_folds(volumes, folds, seed, share)
        return
    drawn = draw_folds(volumes, folds, seed, share)
    shuffled = dict(random.sample(list(volumes.items()), len(volumes)))
    assert draw_folds(shuffled, folds, seed, share) == drawn
    assert len(drawn) == folds
    assert Counter(name for parts in drawn for name in parts["test"]) == dict.fromkeys(volumes, 1)
    for parts in drawn:
        assert tuple(parts) == PARTS
        assert sorted(name for names in parts.values() for name in names) == sorted(volumes)
        assert all(names and names == sorted(names) for names in parts.values())
        apart = [patients(names) for names in parts.values()]
        assert sum(map(len, apart)) == len(load)
        others = len(load) - len(apart[2])
        assert len(apart[1]) == min(max(1, round(share * others)), others - 1)
    order = sorted(load, key=lambda patient: (load[patient], patient))
    for count in range(1, len(order) + 1):
        tested = [len(patients(parts["test"]) & set(order[:count])) for parts in drawn]
        assert max(tested) - min(tested) <= 1, "the folds aren't alike in lesion load"


def test_validation_is_alike_too_and_no_fold_gets_the_largest_of_every_run():
    volumes = {f"c{index:03d}": float(index) for index in range(100)}
    drawn = draw_folds(volumes, 5, validation_share=0.25)
    for parts in drawn:
        others = sorted(parts["training"] + parts["validation"])
        assert sorted(others.index(name) // 4 for name in parts["validation"]) == list(range(20))
    place = [[int(name[1:]) % 5 for name in parts["test"]] for parts in drawn]
    assert all(len(set(of_fold)) > 2 for of_fold in place)
    assert draw_folds(volumes, 5, seed=1) != drawn


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    make_phantoms(folder, cases=7, shape=24, layout="brats2018")
    return folder


def test_volumes_are_those_of_the_label_maps(dataset: Path):
    cases = list_cases(dataset, labelled=True)
    volumes = lesion_volumes(cases)
    for case in cases:
        image = nibabel.Nifti1Image.from_filename(case["label"])
        voxel = np.prod(image.header.get_zooms())
        assert volumes[case["case"]] == pytest.approx((np.asarray(image.dataobj) > 0).sum() * voxel / 1000)


def test_file_is_written_once_and_read_by_the_partition(dataset: Path, tmp_path: Path):
    cases, file = list_cases(dataset, labelled=True), tmp_path / "run" / "folds.json"
    drawn = fold_cases(cases, file, folds=3, seed=4)
    written = file.read_bytes()
    assert fold_cases(cases[::-1], file, folds=3, seed=4) == drawn and file.read_bytes() == written
    content = json.loads(written)
    assert content["seed"] == 4 and content["validation_share"] == 0.1 and content["folds"] == drawn
    assert str(tmp_path) not in written.decode() and str(dataset) not in written.decode()
    for fold, names in enumerate(drawn):
        parts = partition_cases(cases, file, seed=1, must_exist=True, fold=fold)
        assert {part: [case["case"] for case in of] for part, of in parts.items()} == names
        assert partition_cases(cases, file, fold=fold) == parts
    lines = folds_table(file, drawn).splitlines()
    assert lines[0] == f"{file}: 3 folds of 7 cases" and len(lines) == 4
    median = np.median([content["lesion_ml"][name] for name in drawn[1]["test"]])
    assert lines[2].endswith(f"{len(drawn[1]['test'])} test; median lesion volume in test {median:.3g} ml")
    file.write_text(json.dumps({"folds": drawn}))
    assert fold_cases(cases, file, folds=3, seed=9) == drawn
    assert "median" not in folds_table(file, drawn)


def error_of(*args: object, **options: object) -> str:
    with pytest.raises(InputError) as error:
        fold_cases(*args, **options)
    return str(error.value)


def test_a_label_map_that_cannot_be_read_is_named(dataset: Path, tmp_path: Path):
    cases = [dict(case) for case in list_cases(dataset, labelled=True)]
    for case in cases[:2]:
        case["label"] = str(tmp_path / f"{case['case']}.nii.gz")
        Path(case["label"]).write_bytes(b"damaged")
    with pytest.raises(InputError) as error:
        fold_cases(cases, tmp_path / "folds.json")
    for line, case in zip(error.value.problems, cases[:2], strict=True):
        assert line.startswith(f"case {case['case']}, {case['label']}: is not a NIfTI file")
    assert not (tmp_path / "folds.json").exists()


def test_a_file_of_other_folds_is_refused(dataset: Path, tmp_path: Path):
    cases, file = list_cases(dataset, labelled=True), tmp_path / "folds.json"
    drawn = fold_cases(cases, file, folds=3)
    anew = "mend it, or divide anew into another file"
    assert error_of(cases, file, folds=5).startswith(f"{file}: holds 3 folds and not 5; ")
    assert error_of(cases, file, folds=3, seed=1).startswith(f"{file}: was drawn with seed 0 and not 1; leave --seed")
    assert "was drawn with validation_share 0.1 and not 0.2" in error_of(cases, file, folds=3, validation_share=0.2)
    gone = cases[0]["case"]
    assert error_of(cases[1:], file, folds=3) == f"{file}, fold 0: lists {gone}, which the data set lacks; {anew}"
    line = error_of([*cases, {**cases[0], "case": "new"}], file, folds=3)
    assert line == f"{file}, fold 0: does not list new, which the data set has; {anew}"
    file.write_text(json.dumps({"folds": [*drawn, drawn[1]]}))
    assert f"{drawn[1]['test'][0]} is in the test part of 2 folds, not of one; {anew}" in error_of(cases, file, folds=4)
    file.write_text(json.dumps({"folds": drawn[:2]}))
    assert f"is in the test part of 0 folds, not of one; {anew}" in error_of(cases, file, folds=2)
    for content in ({"folds": []}, {"parts": drawn[0]}):
        file.write_text(json.dumps(content))
        assert error_of(cases, file, folds=3).startswith(f"{file}: holds no folds; leave --fold out where")
    file.write_text('{"folds": [3]}')
    assert error_of(cases, file, folds=3) == (
        f"{file}, fold 0: is no partition (lists of names as training, validation, test); {anew}"
    )


def test_the_partition_names_what_it_lacks(dataset: Path, tmp_path: Path):
    cases, file = list_cases(dataset, labelled=True), tmp_path / "folds.json"
    with pytest.raises(InputError, match=r"^no folds at .*: draw them with python -m common folds DATASET_DIR --out"):
        partition_cases(cases, file, fold=0)
    fold_cases(cases, file, folds=3)
    with pytest.raises(InputError, match=r"folds\.json: has no fold 3; give --fold a number from 0 to 2$"):
        partition_cases(cases, file, fold=3)
    with pytest.raises(InputError, match=r"folds\.json: holds folds; say which one with --fold$"):
        partition_cases(cases, file)
