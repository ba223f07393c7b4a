"""A bad case is told and left out; finished ones are passed over; predictions meet their references."""

import json
import logging
import time
from pathlib import Path

import numpy as np
import pytest

from common.data.missing import write_note
from common.data.stream import CaseStream, cases_to_do, pair_predictions
from common.data.writing import write_case
from common.errors import CaseError, InputError


def prepare(item: dict) -> dict:
    if item["case"] == "bad":
        try:
            raise CaseError("bad", "bad.nii.gz", "is truncated", "copy it again")
        except CaseError as error:
            raise RuntimeError("applying transform") from error
    if item["case"] == "defect":
        raise KeyError("defect")
    return {**item, "prepared": True}


def test_bad_case_is_left_out_and_listed(caplog: pytest.LogCaptureFixture):
    listed = CaseError("listed", None, "modality t1c is missing", "add it")
    stream = CaseStream([{"case": "a"}, {"case": "bad"}, listed, {"case": "b"}], prepare)
    with caplog.at_level(logging.ERROR):
        assert [item["case"] for item in stream] == ["a", "b"]
    assert caplog.messages == [
        "case bad, bad.nii.gz: is truncated; copy it again",
        "case listed: modality t1c is missing; add it",
    ]
    with pytest.raises(InputError, match=r"2 of 4 cases failed: case bad, .* \| case listed: "):
        stream.raise_failures()


def test_no_failures_raise_nothing():
    stream = CaseStream([{"case": "a"}], prepare)
    list(stream)
    stream.raise_failures()


def test_defect_in_the_code_is_not_swallowed():
    with pytest.raises(KeyError):
        list(CaseStream([{"case": "defect"}], prepare))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 9, (4, 5, 5, 5)).astype(np.int16)
    for name, label in (("a", images[0] % 4), ("b", images[0] % 4), ("c", None)):
        write_case(tmp_path / "data", "brats2023", name, images, label, np.eye(4))
    return tmp_path / "data"


def test_case_predicted_without_a_modality_that_is_there_now(dataset: Path, tmp_path: Path):
    out = tmp_path / "out"
    for name, missing in (("a", "t1c t2f"), ("b", "t1c")):
        write_note(out, name, missing)
        (out / f"{name}.nii.gz").write_text("")
        (dataset / name / f"{name}-t1c.nii.gz").unlink()
    cases = cases_to_do(str(dataset), str(out), missing_modalities=True)
    assert [case["case"] for case in cases] == ["a", "c"]


def test_a_note_has_no_place_where_another_file_has_its_name(dataset: Path, tmp_path: Path):
    (dataset / "a" / "a-t1c.nii.gz").unlink()
    for name in "ab":
        (tmp_path / f"{name}.json").write_text('{"scanner": 3}')
    *cases, problem = cases_to_do(str(dataset), str(tmp_path), missing_modalities=True)
    assert [case["case"] for case in cases] == ["b", "c"]
    assert str(problem).startswith(f"case a, {tmp_path}/a.json: is there and tells something else")


def test_finished_cases_are_passed_over(dataset: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.nii.gz").write_text("")
    names = [case["case"] for case in cases_to_do(str(dataset), str(tmp_path / "out"))]
    assert names == ["a", "c"]
    assert len(cases_to_do(str(dataset), str(tmp_path / "out"), overwrite=True)) == 3
    assert len(cases_to_do(str(dataset), str(tmp_path / "out"), probabilities=True)) == 3
    (tmp_path / "out" / "b_probabilities.nii.gz").write_text("")
    assert len(cases_to_do(str(dataset), str(tmp_path / "out"), probabilities=True)) == 2
    assert len(cases_to_do(str(dataset), str(tmp_path / "out"), probabilities=True, uncertainty=True)) == 3
    (tmp_path / "out" / "b_entropy.nii.gz").write_text("")
    assert len(cases_to_do(str(dataset), str(tmp_path / "out"), probabilities=True, uncertainty=True)) == 2


@pytest.mark.parametrize("folder", [".", "a", "labels", "labels/final", "labelsTs", "derivatives/labels/sub-1"])
def test_predictions_never_go_among_the_scans(dataset: Path, folder: str):
    with pytest.raises(InputError, match="write the predictions elsewhere with --output_dir DIR"):
        cases_to_do(str(dataset), str(dataset / folder), overwrite=True)
    (dataset / "list.json").write_text(json.dumps({"training": [{"image": "a", "case": "a"}]}))
    with pytest.raises(InputError, match="write the predictions elsewhere with --output_dir DIR"):
        cases_to_do(str(dataset / "list.json"), str(dataset / folder), overwrite=True)
    (dataset / "list.json").unlink()
    assert cases_to_do(str(dataset), str(dataset / "predictions"))


def test_next_case_is_prepared_while_the_last_is_used():
    prepared = []
    stream = iter(CaseStream([{"case": name} for name in "abc"], lambda item: prepared.append(item["case"]) or item))
    assert next(stream)["case"] == "a"
    deadline = time.monotonic() + 10
    while "b" not in prepared and time.monotonic() < deadline:
        time.sleep(0.01)
    assert prepared == ["a", "b"]  # and no further: a scan takes hundreds of megabytes
    assert [item["case"] for item in stream] == ["b", "c"]


def test_incomplete_case_is_in_the_list_as_its_error(dataset: Path, tmp_path: Path):
    (dataset / "b" / "b-t1c.nii.gz").unlink()
    cases = cases_to_do(str(dataset), str(tmp_path))
    assert [case["case"] for case in cases if isinstance(case, dict)] == ["a", "c"]
    assert "modality t1c is missing" in str(cases[-1])


def test_prediction_that_is_there_twice(tmp_path: Path):
    for name in ("a.nii", "a.nii.gz"):
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=r"a\.nii: the same prediction is there twice, also as .*a\.nii\.gz; keep one"):
        pair_predictions(str(tmp_path), [{"case": "a", "label": "a-seg.nii.gz", "image": []}])


def test_predictions_are_paired_by_case(tmp_path: Path):
    cases = [{"case": "a", "label": "a-seg.nii.gz", "label_convention": "brats2018", "image": []}, {"case": "c"}]
    (tmp_path / "a.nii").write_text("")
    assert pair_predictions(str(tmp_path), cases, "decathlon") == [
        {
            "case": "a",
            "label": "a-seg.nii.gz",
            "label_convention": "brats2018",
            "image": str(tmp_path / "a.nii"),
            "image_convention": "decathlon",
        }
    ]


def test_missing_predictions_are_all_named(tmp_path: Path):
    cases = [{"case": name, "label": "x"} for name in "abc"]
    (tmp_path / "b.nii.gz").write_text("")
    with pytest.raises(InputError, match=r"no prediction in .* for a, c: predict these cases first"):
        pair_predictions(str(tmp_path), cases)


def test_nothing_to_compare_with(tmp_path: Path):
    with pytest.raises(InputError, match="none of the cases has a label"):
        pair_predictions(str(tmp_path), [{"case": "a"}])


def test_case_whose_convention_cannot_say_a_class_is_an_error(dataset: Path, tmp_path: Path):
    entries = [
        {"case": name, "image": f"data/{name}", "label_convention": convention}
        for name, convention in (("a", "brats2018"), ("b", "1=ED,3=ET"))
    ]
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps({"training": entries}))
    assert [case["case"] for case in cases_to_do(str(listed), str(tmp_path / "out"))] == ["a", "b"]
    done, refused = cases_to_do(str(listed), str(tmp_path / "out"), source_labels=True)
    assert done["case"] == "a"
    line = "case b: its label convention '1=ED,3=ET' has no value for NCR; leave --source_labels out"
    assert str(refused) == line


def test_no_memory_for_one_case():
    def prepare_within_limits(item: dict) -> dict:
        if item["case"] == "huge":
            raise MemoryError
        return item

    stream = CaseStream([{"case": "huge"}, {"case": "a"}], prepare_within_limits)
    assert [item["case"] for item in stream] == ["a"]
    assert [str(failure) for failure in stream.failures] == [
        "case huge: memory ran out while it was prepared; free some memory, or see whether resampling makes it larger "
        "than you meant"
    ]


def test_failure_of_a_case_that_comes_several_times_is_told_once(caplog: pytest.LogCaptureFixture):
    stream = CaseStream([{"case": "bad"}] * 3, prepare)
    assert not list(stream)
    assert len(caplog.messages) == len(stream.failures) == 1
