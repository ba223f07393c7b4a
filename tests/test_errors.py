"""One line for what a user can mend, the whole traceback for everything else."""

import pickle
import sys

import pytest
from torch.utils.data import DataLoader, Dataset

from common.errors import (
    CaseError,
    InputError,
    describe_cause,
    exit_in_one_line,
    exit_with_cause,
    find_input_error,
)


def test_case_error_names_case_file_reason_and_remedy():
    error = CaseError("case-1", "a/b.nii.gz", "is truncated", "copy it again")
    assert str(error) == "case case-1, a/b.nii.gz: is truncated; copy it again"
    assert str(CaseError("case-1", None, "no label", "give one")) == "case case-1: no label; give one"


def test_message_is_one_line():
    assert "\n" not in str(InputError("first\n   second"))


def test_several_problems_are_several_lines(capsys: pytest.CaptureFixture[str]):
    error = pickle.loads(pickle.dumps(InputError("first", "second\nthing")))
    assert error.problems == ("first", "second thing")
    assert str(error) == "first; second thing"
    exit_in_one_line(InputError, wrapped(error), None)
    assert capsys.readouterr().err == "error: first\nerror: second thing\n"


def test_case_error_survives_a_worker_process():
    error = pickle.loads(pickle.dumps(CaseError("c", "f", "r", "m")))
    assert (error.case, error.path, error.reason, error.remedy) == ("c", "f", "r", "m")


def wrapped(reason: Exception) -> BaseException:
    try:
        try:
            raise reason
        except Exception as error:
            raise RuntimeError("applying transform failed") from error
    except RuntimeError as error:
        return error


def test_input_error_is_found_below_what_wraps_it():
    assert str(find_input_error(wrapped(InputError("the reason")))) == "the reason"
    assert find_input_error(RuntimeError("other")) is None


class Refusing(Dataset):
    """Fails as a transform inside a MONAI data set does."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        try:
            raise CaseError("c", "f.nii.gz", "is truncated", "copy it again")
        except CaseError as error:
            raise RuntimeError("applying transform") from error


@pytest.mark.parametrize("workers", [0, 1])
def test_error_is_found_behind_a_worker_process(workers: int):
    with pytest.raises(RuntimeError) as raised:
        list(DataLoader(Refusing(), num_workers=workers))
    assert str(find_input_error(raised.value)) == "case c, f.nii.gz: is truncated; copy it again"


def test_outermost_input_error_tells_most():
    try:
        try:
            raise InputError("value 4 is outside")
        except InputError as error:
            raise CaseError("c", "f", str(error), "mend it") from None
    except CaseError as error:
        assert str(find_input_error(error)) == "case c, f: value 4 is outside; mend it"


def test_hook_prints_one_line(capsys: pytest.CaptureFixture[str]):
    error = wrapped(InputError("the reason"))
    exit_in_one_line(type(error), error, None)
    assert capsys.readouterr().err == "error: the reason\n"


def test_hook_names_want_of_memory_and_interruption(capsys: pytest.CaptureFixture[str]):
    error = wrapped(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 EB"))
    exit_in_one_line(type(error), error, None)
    line = capsys.readouterr().err
    assert (
        line.startswith("error: memory ran out (DefaultCPUAllocator: can't allocate memory") and line.count("\n") == 1
    )
    exit_in_one_line(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == "error: stopped; what was finished is kept\n"


@pytest.mark.parametrize(
    "text",
    [
        "[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:34694. Check the logs",
        "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown or crash?",
        "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.",
        "NCCL error: remote process exited or there was a network error",
    ],
)
def test_hook_names_the_end_of_another_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    error = wrapped(RuntimeError(text))
    exit_in_one_line(type(error), error, None)
    line = capsys.readouterr().err
    assert line == "error: another process of this training has ended, and so this one does; the reason is that one's\n"


LOST = "Connection reset by peer"


@pytest.mark.parametrize(
    ("processes", "lost"),
    [("1", RuntimeError(LOST)), (None, RuntimeError(LOST)), ("2", ConnectionResetError(104, LOST))],
)
def test_lost_connection_to_something_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, processes: str | None, lost: Exception
):
    """In a single process, or to a file or a server."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if processes is not None:
        monkeypatch.setenv("WORLD_SIZE", processes)
    error = wrapped(lost)
    exit_with_cause(type(error), error, None)
    printed = capsys.readouterr().err
    assert printed.endswith("Connection reset by peer; --debug shows the traceback\n"), printed


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (KeyError("a defect"), "KeyError: 'a defect'"),
        (
            TypeError("'<=' not supported\n  between float and str"),
            "TypeError: '<=' not supported between float and str",
        ),
        (AssertionError(), "AssertionError"),
    ],
)
def test_hook_for_a_command_with_debug(capsys: pytest.CaptureFixture[str], reason: Exception, line: str):
    error = wrapped(reason)
    exit_with_cause(type(error), error, None)
    assert capsys.readouterr().err == f"error: {line}; --debug shows the traceback\n"
    exit_with_cause(InputError, InputError("first", "second"), None)
    assert capsys.readouterr().err == "error: first\nerror: second\n"


class Defective(Refusing):
    """Fails by a defect, wrapped as a transform's errors are."""

    def __getitem__(self, index: int) -> None:
        raise RuntimeError("applying transform") from KeyError("a defect")


@pytest.mark.parametrize("workers", [0, 1])
def test_cause_in_a_worker_process(workers: int):
    with pytest.raises(RuntimeError) as raised:
        next(iter(DataLoader(Defective(), num_workers=workers)))
    assert describe_cause(raised.value) == "KeyError: 'a defect'"


def test_hook_shows_other_errors_whole(monkeypatch: pytest.MonkeyPatch):
    shown = []
    monkeypatch.setattr(sys, "__excepthook__", lambda *args: shown.append(args))
    error = RuntimeError("a defect")
    exit_in_one_line(RuntimeError, error, None)
    assert shown == [(RuntimeError, error, None)]
