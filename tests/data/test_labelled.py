"""Shares of the labels: by patient, nested, written down, and never none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.labelled import labelled_parts
from common.errors import InputError


def parts(training: int = 40, unlabelled: int = 0) -> dict[str, list[dict[str, object]]]:
    """Two sessions a patient."""
    cases = [{"case": f"sub-{n // 2}_ses-{n % 2}", "image": "i", "label": []} for n in range(2 * training)]
    more = [{"case": f"more-{n}", "image": "i"} for n in range(unlabelled)]
    return {"training": cases + more, "validation": [{"case": "v", "image": "i", "label": []}], "test": []}


def patients(cases: list[dict[str, str]]) -> list[str]:
    return sorted({case["case"].split("_")[0] for case in cases})


@given(st.integers(0, 10**6), st.floats(0.03, 1), st.floats(0.03, 1))
def test_smaller_shares_are_among_larger_ones(seed: int, one: float, other: float):
    small, large = (patients(labelled_parts(parts(), s, seed)["training"]) for s in sorted((one, other)))
    assert {*small} <= {*large} and len(small) == round(min(one, other) * 40)


def test_all_of_a_patient_or_nothing_and_the_rest_as_it_is():
    given = parts(unlabelled=3)
    drawn = labelled_parts(given, 0.05)
    assert len(drawn["training"]) == 4 and len(patients(drawn["training"])) == 2
    assert drawn["validation"] == given["validation"]
    assert len(labelled_parts(given, 1.0)["training"]) == 80
    assert patients(labelled_parts(given, 0.5, seed=1)["training"]) != patients(labelled_parts(given, 0.5)["training"])


def test_the_list_is_written_down(tmp_path: Path):
    drawn = labelled_parts(parts(), 0.1, 3, tmp_path / "a" / "labelled.json")
    told = json.loads((tmp_path / "a" / "labelled.json").read_text())
    names = [case["case"] for case in drawn["training"]]
    assert told == {"labelled_share": 0.1, "seed": 3, "training": sorted(names)} and len(names) == 8


def test_a_share_of_nobody(tmp_path: Path):
    with pytest.raises(InputError, match=r"labelled_share 0\.01 of 40 labelled training patients is none"):
        labelled_parts(parts(), 0.01, file=tmp_path / "labelled.json")
    assert not (tmp_path / "labelled.json").exists()


def test_no_labels_to_validate_on():
    given = parts()
    given["validation"] = [{"case": "v", "image": "i"}]
    with pytest.raises(InputError, match="none of the 1 validation images has a mask"):
        labelled_parts(given)


def test_an_evaluation_needs_its_part_alone():
    given = {"training": [{"case": "a", "image": "i"}], "validation": [], "test": [{"case": "v", "image": "i"}]}
    with pytest.raises(InputError, match="none of the 1 test images has a mask"):
        labelled_parts(given, needed=["test"])
    given["test"].append({"case": "w", "image": "i", "label": []})
    assert [case["case"] for case in labelled_parts(given, needed=["test"])["test"]] == ["w"]
