"""Zips of others: what they may not hold is refused before anything of them is unpacked."""

from __future__ import annotations

import errno
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from .errors import InputError

__all__ = ["open_archive"]

MOST_BYTES = 16 * 2**30
MOST_FILES = 100_000
_ENCRYPTED = 1
_LINK = 0o120000


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip, to be read in the block.

    Raises:
        InputError: it is none, truncated or damaged, also where that shows only in the block; it is encrypted, would
            unpack to more than 16 GiB or 100,000 files, or a name in it leads out of its folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_members(path, archive.infolist())
            yield archive
    except zipfile.BadZipFile as error:
        if zipfile.is_zipfile(path) or path.suffix.lower() == ".zip":
            raise InputError(f"{path}: is a truncated or damaged zip; copy or export it again") from error
        raise InputError(f"{path}: is neither a folder nor a zip; give a folder or a zip") from error
    except (zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{path}: is a damaged zip, or packed as can't be unpacked here; unpack it first") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space or set TMPDIR" if full else "check its permissions and the names in it"
        raise InputError(f"{path}: can't be unpacked ({error.strerror}); {remedy}") from error


def _refuse_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    # zipfile gives no more bytes of a member than its header says, so that the sum is a bound.
    size = sum(member.file_size for member in members)
    if size > MOST_BYTES or len(members) > MOST_FILES:
        limits = f"{MOST_BYTES // 2**30} GiB or {MOST_FILES} files"
        much = f"{size / 2**30:.0f} GiB in {len(members)} files, more than {limits}"
        raise InputError(f"{path}: would unpack to {much}; unpack what you want of it and give its folder")
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        leads_out = name.is_absolute() or ".." in name.parts or ":" in "".join(name.parts[:1])
        if leads_out or member.external_attr >> 16 & 0o170000 == _LINK:
            raise InputError(
                f"{path}: a file's name in the zip leads out of its folder; don't trust it, export it again"
            )
        if member.flag_bits & _ENCRYPTED:
            raise InputError(f"{path}: is encrypted; unpack it with its password and give the folder")
