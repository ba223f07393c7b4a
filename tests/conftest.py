"""Fixtures that many tests share."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def real_scans() -> Path:
    """The folder of real scans beside the checkout; tests that need it are skipped where it isn't there."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not (folder / "brats2020").is_dir():
        pytest.skip(f"no real scans at {folder}")
    return folder


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds a port of this machine that nobody listens on."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            return probe.getsockname()[1]

    return find


class Fork:
    """A function in a process and session of its own, forked from this one, which saves the seconds of importing."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        status = 1
        try:
            os.setsid()
            function()
            status = 0
        except KeyboardInterrupt:
            status = 130
        except SystemExit as error:
            status = int(str(error.code))
        finally:
            os._exit(status)

    def wait_for(self, condition: Callable[[], object], seconds: float = 30) -> None:
        """Until something is so, which it must become within a time and while the process runs."""
        until = time.monotonic() + seconds
        while not condition():
            assert not self._ended(), f"ended with {self._status}"
            assert time.monotonic() < until, f"not so after {seconds} s"
            time.sleep(0.02)

    def status(self, seconds: float = 30) -> int:
        """With which it ends within a time, negative for the signal that ended it."""
        until = time.monotonic() + seconds
        while not self._ended():
            assert time.monotonic() < until, f"still running after {seconds} s"
            time.sleep(0.02)
        assert self._status is not None
        return self._status

    def kill(self) -> None:
        """If it still runs."""
        if not self._ended():
            os.kill(self.pid, signal.SIGKILL)
            self.status()

    def _ended(self) -> bool:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status is not None


@pytest.fixture
def in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Fork]]:
    """Runs functions as a `Fork` each; neither these nor what they start outlive the test, however it ends."""
    monkeypatch.setenv("STARTED_BY_TEST", str(tmp_path))
    forks: list[Fork] = []

    def start(function: Callable[[], object]) -> Fork:
        forks.append(Fork(function))
        return forks[-1]

    yield start
    for fork in forks:
        fork.kill()
    # Processes in sessions of their own, whose parent may be gone, are found by what they inherited.
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"STARTED_BY_TEST={tmp_path}".encode() in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGKILL)
