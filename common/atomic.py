"""Files that are whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from .errors import InputError

__all__ = ["check_writable", "whole_file", "write_text"]

_REMEDY = "free some space or choose another folder, then run again: what is finished is kept"


@contextmanager
def whole_file(path: Path, durable: bool = False, remedy: str = _REMEDY) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to, and renames it to `path` when the block ends well.

    The folder is made. The temporary name begins with a dot, ends as `path` does, and is nobody else's. When the block
    fails the temporary file is removed, and an older file at `path` stays as it was.

    Args:
        path: the file.
        durable: also wait until the disk has it, so that it is whole after a power failure too.
        remedy: what the error advises.

    Raises:
        InputError: when the folder can't be written or the disk is full.
    """
    # The number says whose it is, and two machines, or threads, may have the same.
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if durable:
                _sync(temporary)
            os.replace(temporary, path)
            if durable:
                _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror or error}; {remedy}") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to a file that is whole or not there."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_writable(folder: Path) -> None:
    """Make a folder and try that a file can be written into it, before the work whose results it is for.

    Raises:
        InputError: the folder can't be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder} can't be written to: {error.strerror}; choose another folder") from error
