"""The table of settings: each row can be read, and is used."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from common.scoring import score
from common.settings import SETTINGS


def test_rows_are_sorted_and_short():
    assert list(SETTINGS) == sorted(SETTINGS)
    for name, setting in SETTINGS.items():
        assert re.fullmatch(r"[a-z_]+", name)
        assert "\n" not in setting.meaning and len(setting.meaning) <= 90, name
        assert not setting.meaning.endswith("."), name
        assert "\n" not in setting.rule.give, name


@pytest.mark.parametrize("name", SETTINGS)
def test_nonsense_is_refused_and_never_an_exception(name: str):
    """Whatever a command line may give is judged; an object is no value of any setting."""
    for value in (None, True, -2, 0.5, 7, "", "x", [], [0], ["a", None, 3], (1, 1, 1), {}, {"a": 1}, object()):
        assert SETTINGS[name].rule.holds(value) in (True, False)
    assert not SETTINGS[name].rule.holds(object())


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("inter_form", ["log", "bounded"], ["sum", "Log", ""]),
        ("lesion_preset", ["brats2023-gli", "fancl"], ["brats2023", ""]),
        ("prediction_convention", ["canonical", "decathlon", "1=ED,2=NCR,3=ET"], ["brats2023", "1=X", "", None]),
        ("reference_convention", ["brats2018", "4=ET"], ["4", "4=ET,"]),
    ],
)
def test_names_are_of_what_there_is(name: str, good: list[str], bad: list[str]):
    assert [value for value in [*good, *bad] if SETTINGS[name].rule.holds(value)] == good


def test_each_row_is_an_id_or_an_argument(repository: Path):
    ids = set(inspect.signature(score).parameters)
    for path in repository.glob("bundles/*/configs/*.json"):
        ids |= {id for id in json.loads(path.read_text())}
    text = "".join(path.read_text() for path in (repository / "common").glob("*.py") if path.name != "settings.py")
    ids |= {name for name in SETTINGS if re.search(rf"^    {name}: ", text, re.MULTILINE)}  # a verb's argument
    assert set(SETTINGS) <= ids
