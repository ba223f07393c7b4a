"""One line for what a user can mend, the whole traceback for everything else."""

import pickle
import sys

import pytest
from torch.utils.data import DataLoader, Dataset

from common.errors import CaseError, InputError, exit_in_one_line, find_input_error


def test_case_error_names_case_file_reason_and_remedy():
    error = CaseError("case-1", "a/b.nii.gz", "is truncated", "copy it again")
    assert str(error) == "case case-1, a/b.nii.gz: is truncated; copy it again"
    assert str(CaseError("case-1", None, "no label", "give one")) == "case case-1: no label; give one"


def test_message_is_one_line():
    assert "\n" not in str(InputError("first\n   second"))


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


def test_hook_shows_other_errors_whole(monkeypatch: pytest.MonkeyPatch):
    shown = []
    monkeypatch.setattr(sys, "__excepthook__", lambda *args: shown.append(args))
    error = RuntimeError("a defect")
    exit_in_one_line(RuntimeError, error, None)
    assert shown == [(RuntimeError, error, None)]
