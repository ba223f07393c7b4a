"""The newest sound checkpoint is found, the last two are kept, and nothing is lost or half there."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import pytest
import torch

from common.errors import InputError
from common.handlers.checkpoint_folder import CheckpointFolder


def content(iteration: int) -> dict:
    weights = {"weights": torch.full((1000,), iteration)}
    return {"iteration": iteration, "epoch": iteration // 4, "configuration": {}, "objects": weights}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With checkpoints 9 and 10."""
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    checkpoints.begin()
    for iteration in (8, 9, 10):
        checkpoints.save(content(iteration))
    return tmp_path / "checkpoints"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_two_are_kept_and_the_newest_is_taken(folder: Path):
    assert files(folder) == ["iteration-10.pt", "iteration-9.pt"]
    found = CheckpointFolder(folder, resume=True)
    assert (found.iteration, found.epoch) == (10, 2)
    assert found.newest is not None and (found.newest["objects"]["weights"] == 10).all()


def test_at_the_beginning(folder: Path):
    begun = CheckpointFolder(folder)
    assert (begun.newest, begun.iteration, begun.epoch) == (None, 0, 0)


def test_nothing_to_go_on_from(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        begun = CheckpointFolder(tmp_path / "none", resume=True)
    assert (begun.newest, begun.iteration) == (None, 0)
    assert "no checkpoint in" in caplog.text and "starts from the beginning" in caplog.text
    begun.begin()
    assert files(tmp_path / "none") == []


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "one bit of a tensor":
        place = whole.rindex(bytes(torch.full((4,), int(path.stem.split("-")[1])).numpy()))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    elif how == "cut off":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(pickle.dumps({"iteration": 10}))


@pytest.mark.parametrize("how", ["one bit of a tensor", "cut off", "empty", "a pickle"])
def test_a_damaged_one_is_told_and_the_one_before_taken(folder: Path, caplog: pytest.LogCaptureFixture, how: str):
    damage(folder / "iteration-10.pt", how)
    found = CheckpointFolder(folder, resume=True)
    assert found.iteration == 9
    assert "iteration-10.pt is damaged" in caplog.text
    found.begin()
    # The damaged one counts for nothing: of those that come, and of the sound one, the last two are kept.
    found.save(content(9))
    assert files(folder) == ["iteration-9.pt"]
    found.save(content(10))
    assert files(folder) == ["iteration-10.pt", "iteration-9.pt"]
    assert CheckpointFolder(folder, resume=True).iteration == 10


def test_all_damaged(folder: Path):
    for path in folder.iterdir():
        damage(path, "cut off")
    with pytest.raises(InputError, match=r"all checkpoints in .* are damaged; start anew, without --resume"):
        CheckpointFolder(folder, resume=True)


@pytest.mark.parametrize("held", [{"model": torch.zeros(1)}, torch.zeros(1)], ids=["weights", "a tensor"])
def test_a_sound_file_that_is_no_checkpoint(folder: Path, held: object):
    torch.save(held, folder / "iteration-11.pt")
    with pytest.raises(InputError, match=r"iteration-11\.pt is no checkpoint of a training: move it away, then run"):
        CheckpointFolder(folder, resume=True)


def test_one_that_the_disk_does_not_give_is_not_damaged(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Else the one before it would be taken, and this one, which is sound, removed after it."""

    def refuse(path: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"iteration-10\.pt can't be read: Input/output error; mend that"):
        CheckpointFolder(folder, resume=True)
    assert files(folder) == ["iteration-10.pt", "iteration-9.pt"]


def refused(folder: Path) -> bool:
    """Whether a second process isn't let in."""
    child = os.fork()
    if not child:
        try:
            CheckpointFolder(folder)
        except InputError as error:
            os._exit(1 if "is being worked on" in str(error) and len(error.problems) == 1 else 2)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_one_training_at_a_time(tmp_path: Path):
    first = CheckpointFolder(tmp_path / "checkpoints")
    assert refused(tmp_path / "checkpoints")
    first.begin()
    first.save(content(1))
    assert refused(tmp_path / "checkpoints")
    assert files(tmp_path) == [".lock", "checkpoints"] and files(tmp_path / "checkpoints") == ["iteration-1.pt"]
    assert not refused(tmp_path / "elsewhere" / "checkpoints")
    first.end()
    assert not refused(tmp_path / "checkpoints")


def test_a_process_that_loads_data_holds_nothing(tmp_path: Path):
    """It outlives for some seconds a training that kill -9 ended, which may go on at once."""
    first = CheckpointFolder(tmp_path / "checkpoints")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    first.end()
    try:
        assert not refused(tmp_path / "checkpoints")
    finally:
        os.close(writing)
        os.waitpid(child, 0)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_nothing_pickled_is_executed(folder: Path, tmp_path: Path):
    torch.save({**content(11), "extra": Payload(tmp_path / "executed")}, folder / "iteration-11.pt")
    assert CheckpointFolder(folder, resume=True).iteration == 10
    assert not (tmp_path / "executed").exists()


def test_what_could_not_be_read_again_is_not_written(folder: Path, tmp_path: Path):
    before = files(folder)
    with pytest.raises(pickle.UnpicklingError):
        CheckpointFolder(folder, resume=True).save({**content(11), "extra": Payload(tmp_path / "executed")})
    assert files(folder) == before
    assert not (tmp_path / "executed").exists()


def test_an_earlier_training_is_set_aside(folder: Path):
    for number in (1, 2):
        begun = CheckpointFolder(folder)
        begun.begin()
        assert files(folder) == []
        begun.save(content(number))
    assert files(folder.parent) == [".lock", "checkpoints", "checkpoints.previous-1", "checkpoints.previous-2"]
    assert files(folder.parent / "checkpoints.previous-1") == ["iteration-10.pt", "iteration-9.pt"]
    assert files(folder.parent / "checkpoints.previous-2") == ["iteration-1.pt"]


def test_one_that_goes_on_stays(folder: Path):
    (folder / ".123-iteration-11.pt").write_text("half")
    found = CheckpointFolder(folder, resume=True)
    found.begin()
    assert files(folder) == ["iteration-10.pt", "iteration-9.pt"]
    found.save(content(11))
    assert files(folder) == ["iteration-10.pt", "iteration-11.pt"]


def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        InputError,
        match=r"iteration-11\.pt can't be written: No space left on device; free some space, then .* --resume True",
    ):
        CheckpointFolder(folder, resume=True).save(content(11))
    assert files(folder) == ["iteration-10.pt", "iteration-9.pt"]
