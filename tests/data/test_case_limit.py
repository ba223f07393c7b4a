"""The folder of prepared cases keeps within its limit, and a disk that is full stops no training."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from monai.transforms import Compose

from common.data import case_dataset
from common.data.case_dataset import CaseDataset
from common.data.layouts import list_cases
from common.data.order import Draw
from common.errors import InputError

ENTRY_BYTES = 14**3 * 17  # of the tensors alone: four channels of float32 and a label of uint8

Make = Callable[..., CaseDataset]


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").iterdir())


def limit(count: float) -> float:
    """Room for that many entries, in GiB."""
    return count * (ENTRY_BYTES + 14_000) / 2**30


def test_least_recently_used_entries_make_room(
    make: Make, transforms: Callable[..., Compose], three_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make()
    old = {name: next(e for e in entries(tmp_path) if torch.load(e)["case"] == name) for name in "abc"}
    for age, name in enumerate("cab"):
        os.utime(old[name], ns=(10**18 - age, old[name].stat().st_mtime_ns))
    for other in ("model.pt", f"{'0' * 63}.pt", "notes"):
        (tmp_path / "cache" / other).write_bytes(bytes(10**6))
        os.utime(tmp_path / "cache" / other, (0, 0))
    monkeypatch.setattr(case_dataset, "_RUN_STARTED", 10**18 + 1)
    make(list_cases(three_cases)[:1], transforms(axes="LPS"), cache_gib=limit(3.2))
    names = {torch.load(e)["case"] for e in old.values() if e.exists()}
    assert names == {"a", "c"}
    assert {"model.pt", "notes", f"{'0' * 63}.pt"} <= {path.name for path in entries(tmp_path)}


def test_use_is_noted(make: Make, tmp_path: Path):
    """By this project: most file systems note the time of the first reading only, or none."""
    make()
    for entry in entries(tmp_path):
        os.utime(entry, (0, 10))
    data = make()
    assert all(entry.stat().st_atime > 10**9 and entry.stat().st_mtime == 10 for entry in entries(tmp_path))
    assert len([data[index] for index in range(3)]) == 3


def test_damaged_entry_is_told_once_though_there_is_no_room(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    make()
    for entry in entries(tmp_path):
        entry.write_bytes(bytes(ENTRY_BYTES))
    with caplog.at_level(logging.WARNING):
        data = make(cache_gib=limit(0.5))
        assert len(data[0]) == len(data[0]) == 2
    assert len([message for message in caplog.messages if "is damaged" in message]) == 1


def test_what_this_run_uses_stays(make: Make, prepared: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A folder too small for the data set keeps what fits, instead of replacing it in each epoch."""
    with caplog.at_level(logging.WARNING):
        data = make(cache_gib=limit(2))
        kept = entries(tmp_path)
        assert len(kept) == 2
        prepared.clear()
        for _ in range(2):
            for index in range(3):
                assert len(data[index]) == 2
    assert len(prepared) == 2
    assert len(set(prepared)) == 1
    assert entries(tmp_path) == kept
    assert len(caplog.messages) == 1
    assert "is full" in caplog.messages[0]
    assert "raise --cache_gib" in caplog.messages[0]


def test_a_full_folder_costs_nothing_more(make: Make, monkeypatch: pytest.MonkeyPatch):
    """No case is serialised in vain, again and again."""
    data = make(cache_gib=limit(2))
    monkeypatch.setattr(torch, "save", lambda *arguments: pytest.fail("serialised"))
    assert len([data[index] for index in range(3)]) == 3


def test_the_folder_is_not_gone_through_for_each_entry(
    make: Make, three_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    looks = []
    iterdir = Path.iterdir

    def look(folder: Path) -> Iterator[Path]:
        looks.append(folder)
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", look)
    (case, *_) = list_cases(three_cases)
    make([{**case, "case": str(number)} for number in range(40)], cache_gib=limit(400))
    assert looks.count(tmp_path / "cache") < 5
    looks.clear()
    make([{**case, "case": str(number)} for number in range(100, 130)], cache_gib=limit(50))
    assert looks.count(tmp_path / "cache") >= 10
    assert len(entries(tmp_path)) >= 49
    assert sum(entry.stat().st_size for entry in entries(tmp_path)) <= limit(50) * 2**30


def test_nothing_is_kept_without_a_limit(make: Make, prepared: list[str], tmp_path: Path):
    data = make(cache_gib=0)
    assert not prepared
    assert len(data[0]) == len(data[0]) == 2
    assert prepared == ["a", "a"]
    assert not (tmp_path / "cache").exists()


def test_full_disk_costs_no_more_than_the_entries(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def fail(path: Path, content: memoryview) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    expected = make(cache_gib=0)[Draw(0, 1)]
    monkeypatch.setattr(Path, "write_bytes", fail)
    with caplog.at_level(logging.WARNING):
        data = make()
        for _ in range(2):
            sample = data[Draw(0, 1)][0]
            assert torch.equal(sample["image"], expected[0]["image"])
    assert len(caplog.messages) == 1
    assert "can't be written: No space left on device" in caplog.messages[0]


def test_folder_that_cannot_be_written(make: Make, tmp_path: Path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(InputError, match=r"cache can't be written to: .*; choose another folder"):
        make()
