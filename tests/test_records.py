"""What was run is written down beside the results, and how it ended."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch

from common import __version__, records
from common.errors import CaseError, InputError
from common.records import own_record, recorded


def content(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_record_says_what_ran(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["lesion-bundles", "run", "x"])
    problem = CaseError("b", None, "is damaged", "replace it")
    facts = {"settings": {"seed": 3}, "data": [{"case": "a", "image": Path("a.nii")}, problem]}
    with recorded(tmp_path / "new", "train", facts) as path:
        assert content(path)["outcome"] == "running"
        assert content(path)["ended"] is None
        assert own_record(tmp_path / "new") == path
    assert path == tmp_path / "new" / "run-train-1.json"
    record = content(path)
    assert record["outcome"] == "finished"
    assert record["started"] <= record["ended"]
    assert record["command"] == ["lesion-bundles", "run", "x"]
    assert record["versions"]["torch"] == torch.__version__
    assert record["versions"]["lesion-bundles"] == __version__
    assert record["settings"] == {"seed": 3}
    assert record["data"] == [{"case": "a", "image": "a.nii"}, "case b: is damaged; replace it"]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True).stdout.strip()
    if commit:  # an unpacked archive has none
        assert record["git"]["commit"] == commit
        assert record["git"]["changed"] in (True, False)


def test_no_record_destroys_another(tmp_path: Path):
    for number in (1, 2):
        with recorded(tmp_path, "train", {"number": number}):
            pass
    with recorded(tmp_path, "evaluate", {"number": 3}):
        pass
    numbers = {path.name: content(path)["number"] for path in tmp_path.iterdir()}
    assert numbers == {"run-train-1.json": 1, "run-train-2.json": 2, "run-evaluate-1.json": 3}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (KeyboardInterrupt(), "stopped"),
        (SystemExit(130), "stopped"),
        (InputError("no scans", "no disk"), "no scans; no disk"),
        (KeyError("a defect"), "KeyError: 'a defect'"),
    ],
)
def test_outcome(tmp_path: Path, error: BaseException, outcome: str):
    with pytest.raises(type(error)), recorded(tmp_path, "train", {}) as path:
        raise error
    assert content(path)["outcome"] == outcome
    assert content(path)["ended"] is not None


def test_of_two_errors_the_first_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, text: str) -> None:
        raise InputError("the disk is full")

    with pytest.raises(KeyError), recorded(tmp_path, "train", {}):
        monkeypatch.setattr(records, "write_text", full)
        raise KeyError("a defect")


def test_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match=r"taken can't be written to"), recorded(tmp_path / "taken", "train", {}):
        raise AssertionError("the block must not run")


def test_record_of_another_process_is_not_ones_own(tmp_path: Path):
    """Not even one that was killed, and whose number this process has got."""
    left = {"process": os.getpid(), "outcome": "running"}
    (tmp_path / "run-train-1.json").write_text(json.dumps(left))
    assert own_record(tmp_path) is None
    with recorded(tmp_path, "train", {}) as path:
        (tmp_path / "run-evaluate-1.json").write_text(json.dumps(left))
        assert own_record(tmp_path) == path
        assert own_record(tmp_path.parent) is None
    assert own_record(tmp_path) is None


def test_runs_that_begin_at_once_have_records_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each has looked for a free number before any has written."""
    both = Barrier(8)
    monkeypatch.setattr(records, "check_writable", lambda folder: both.wait(timeout=30))

    def keep(number: int) -> Path:
        with recorded(tmp_path, "train", {"number": number}) as path:
            both.wait(timeout=30)
        return path

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(keep, range(8)))
    assert [content(path)["number"] for path in paths] == list(range(8))


def test_record_that_cannot_be_written_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, text: str) -> None:
        raise InputError("the disk is full")

    monkeypatch.setattr(records, "write_text", full)
    with pytest.raises(InputError, match="full"), recorded(tmp_path, "train", {}):
        raise AssertionError("the block must not run")
    assert not list(tmp_path.iterdir())


def test_checkout_of_something_else_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An environment in the folder of another project: its commit says nothing of this package."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "__init__.py").write_text("")
    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))
    with recorded(tmp_path, "train", {}) as path:
        assert content(path)["git"] is None
