"""Files that are whole or not there."""

from __future__ import annotations

import csv
import io
import os
import secrets
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from .errors import InputError

__all__ = ["check_writable", "free_name", "is_sound_archive", "whole_file", "write_rows", "write_text"]

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


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file with a header, whole or not at all.

    Args:
        path: the file.
        columns: keys that each row has.
        rows: one a line.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def free_name(path: Path) -> Path:
    """`<stem>.previous-1<suffix>` beside a path, or the next number that nothing has, for what is to be set aside."""
    numbered = (path.with_name(f"{path.stem}.previous-{number}{path.suffix}") for number in count(1))
    return next(file for file in numbered if not file.exists())


def is_sound_archive(file: Path | BinaryIO) -> bool:
    """Whether a file that `torch.save` wrote is whole, by its checksums; torch itself checks none.

    Raises:
        OSError: it can't be read, and may be whole.
        MemoryError: likewise.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (OSError, MemoryError):
        raise
    except Exception:  # damaged headers make zipfile raise almost anything
        return False


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
