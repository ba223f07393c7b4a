"""Folders that one command at a time works in, and work that one process at a time does."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError

if sys.platform != "win32":
    import fcntl

__all__ = ["by_turns", "claimed"]

logger = logging.getLogger(__name__)


@contextmanager
def claimed(folder: Path, inherited: bool = True) -> Iterator[int]:
    """Hold a folder, until the process ends, however it ends.

    Where the disk knows no such locks this is told, and nothing is held; nor is it on Windows.

    Args:
        folder: is there, and can be written to.
        inherited: processes that get the lock's file descriptor hold the folder too, until the last of them ends; else
            it is this process's alone, and those that load data for it and outlive it for some seconds don't count.

    Yields:
        The lock's file descriptor.

    Raises:
        InputError: others hold it, or `inherited` on Windows.
    """
    if sys.platform == "win32" and inherited:
        raise InputError("this needs Linux or macOS; on Windows run the folds one by one, with --fold")
    with (folder / ".lock").open("w") as file:
        if sys.platform != "win32":
            lock = fcntl.flock if inherited else fcntl.lockf
            try:
                lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                raise InputError(
                    f"{folder}: is being worked on, by another such command or by a process that one left behind; "
                    "wait for it, end it, or choose another folder"
                ) from None
            except OSError as error:
                logger.warning("%s: nothing keeps a second command out of it (%s)", folder, error.strerror)
        yield file.fileno()


@contextmanager
def by_turns(path: Path) -> Iterator[None]:
    """Let one process at a time into such a block: others wait until it has left, or has ended, however it ends.

    Where the disk knows no such locks this is told, and nobody waits; nor does anybody on Windows.

    Args:
        path: the lock's file, the same for all that are to take turns; it is made, and stays.
    """
    with path.open("w") as file:
        if sys.platform != "win32":
            try:
                fcntl.lockf(file, fcntl.LOCK_EX)
            except OSError as error:
                logger.warning("%s: processes don't wait for one another here (%s)", path, error.strerror)
        yield
