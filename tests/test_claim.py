"""A folder is one command's; `tests/test_jobs.py` has what its processes inherit."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from common.claim import claimed
from common.errors import InputError


def refused(folder: Path, inherited: bool) -> bool:
    """Whether another process, which has no descriptor of the lock's, is turned away."""
    child = os.fork()
    if not child:
        try:
            with claimed(folder, inherited):
                os._exit(0)
        except InputError:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


@pytest.mark.parametrize("inherited", [True, False])
def test_held_as_long_as_the_block(tmp_path: Path, inherited: bool):
    with claimed(tmp_path, inherited):
        assert refused(tmp_path, inherited)
    assert not refused(tmp_path, inherited)


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with claimed(tmp_path, inherited=False):
        assert "nothing keeps a second command out of it (Function not implemented)" in caplog.text
