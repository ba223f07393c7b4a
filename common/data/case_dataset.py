"""Cases prepared once: what the transforms of a training make of a case before anything is drawn is kept on disk."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
import re
import time
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.data import MetaTensor, PersistentDataset
from monai.transforms import Compose, RandomizableTrait
from tqdm import tqdm

from ..atomic import check_writable, is_sound_archive, whole_file
from ..errors import InputError, find_input_error
from ..fingerprint import fingerprint
from ..processes import count, rank
from .order import Draw

__all__ = ["CaseDataset"]

logger = logging.getLogger(__name__)

_PACKAGE = Path(__file__).resolve().parents[1]
_RUN_STARTED = time.time_ns()
_FILES = ("image", "label", "curriculum")
_ENTRY = re.compile(
    r"(\.\d+-[0-9a-f]{8}-)?[0-9a-f]{64}\.pt"
)  # with a number, the temporary file of a process that was killed


class CaseDataset(PersistentDataset):
    """MONAI's PersistentDataset with entries that belong to the content of a case's files, are whole, and have a limit.

    What the transforms up to the first random one make of a case is kept in a folder. An entry's name is a digest of
    the content of the case's files, of what its dictionary says beside them, of these transforms with all that they
    are set to, and of the code that they run: a changed file, transform or version makes a new entry, a data set that
    moved finds its old ones (whose metadata name the old files). Processes and runs may share the folder. A damaged
    entry is told and made again. Entries are mapped into memory: a random crop reads only its part, and processes that
    use the same case share the memory.

    PersistentDataset names entries for paths, keeps damaged ones and all old ones, moves new ones in from the folder
    for temporary files, which needn't be on the same disk, and can't load, as `weights_only`, the metadata that MONAI's
    own transforms leave.

    Cases that have no entry are prepared when the data set is made, as far as there is room for them: a bad one among
    these is found then and not hours later. Of several processes each prepares its share.

    Args:
        data: dictionaries of cases, see `common.data.case_files`.
        transform: what is done to a case; from its first random transform on it is done each time.
        cache_dir: folder of the entries, made where it isn't there.
        cache_gib: the most that all entries in the folder may take, in GiB. Those that this run doesn't use make room,
            the least recently used first; a case for which there is no room is prepared each time. 0 keeps nothing.
        num_workers: threads that prepare cases when the data set is made.

    Raises:
        InputError: the folder can't be written to, or cases can't be used; all of them are named.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Compose,
        cache_dir: Path | str,
        cache_gib: float = 100,
        num_workers: int = 0,
    ) -> None:
        super().__init__(data, transform, cache_dir=None)
        self.folder, self.limit = Path(cache_dir), int(cache_gib * 2**30)
        self._digests: dict[str, tuple[tuple[int, ...], str]] = {}
        self._whole: set[tuple[str, int]] = set()
        self._started = _RUN_STARTED
        self._full = self._told = False
        self._allowance = 0
        if self.limit:
            check_writable(self.folder)
            first_random = self.transform.get_index_of_first(lambda one: isinstance(one, RandomizableTrait))
            self._preparation = [fingerprint({"transforms": self.transform.transforms[:first_random]}), _code()]
            self._fill(max(1, num_workers))

    def __getitem__(self, index: Any) -> Any:
        """The sample at an index; a `Draw` also seeds the random transforms, and says whether to show foreground."""
        if isinstance(index, Draw):
            self.transform.set_random_state(seed=index.seed)
        return super().__getitem__(index)

    def prepared(self, index: int) -> Any:
        """A sample before anything random."""
        return self._cachecheck(self.data[index])

    def _transform(self, index: Any) -> Any:
        prepared = self.prepared(index)
        if isinstance(index, Draw) and index.foreground:
            prepared = {**prepared, "foreground": True}
        return self._post_transform(prepared)

    def set_data(self, data: Sequence[Mapping[str, Any]]) -> None:
        """Take other cases; the folder stays as it is, since others may use it."""
        self.data = data

    def _cachecheck(self, item_transformed: Mapping[str, Any]) -> Any:
        if not self.limit:
            return self._prepare(item_transformed)
        entry = self._entry(item_transformed)
        try:
            kept = self._load(entry)
        except OSError as error:
            self._tell(f"{entry} can't be read: {error.strerror or error}")
            return self._prepare(item_transformed)
        if kept is None:
            kept = self._prepare(item_transformed)
            self._keep(entry, kept)
        return kept

    def _prepare(self, case: Mapping[str, Any]) -> Any:
        return _plain(self._pre_transform(deepcopy(case)))

    def _fill(self, threads: int) -> None:
        cases = self.data[rank() :: count()]

        def fill(case: Mapping[str, Any]) -> InputError | None:
            try:
                entry = self._entry(case)
                if not self._full and _touch(entry) is None:
                    self._keep(entry, self._prepare(case))
            except Exception as error:
                if (found := find_input_error(error)) is None:
                    raise
                return found
            return None

        with ThreadPoolExecutor(threads) as pool:
            done = tqdm(pool.map(fill, cases), "preparing", len(cases), unit="case", leave=False, disable=rank() > 0)
            failures = [failure for failure in done if failure is not None]
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise InputError(*map(str, failures))

    def _entry(self, case: Mapping[str, Any]) -> Path:
        """Where what is made of a case is kept."""
        said = {key: value for key, value in case.items() if key not in _FILES}
        content = {key: self._content(case[key]) for key in _FILES if case.get(key) is not None}
        key = json.dumps([fingerprint(said), content, self._preparation], sort_keys=True)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.pt"

    def _content(self, given: Any) -> list[Any]:
        """Digests of a file, of several, or of all in a folder, there with their names."""
        if isinstance(given, list | tuple):
            return [self._content(one) for one in given]
        path = Path(given)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            return [[file.relative_to(path).as_posix(), self._digest(file)] for file in files]
        return [self._digest(path)]

    def _digest(self, path: Path) -> str:
        """Of a file's content, read again only where the file system says that it changed; empty where it can't be."""
        try:
            status = path.stat()
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            known = self._digests.get(os.fspath(path))
            if known is None or known[0] != stamp:
                with path.open("rb") as file:
                    known = stamp, hashlib.file_digest(file, "sha256").hexdigest()
                self._digests[os.fspath(path)] = known
        except OSError:
            return ""  # the loading transform says what is wrong with it
        return known[1]

    def _load(self, entry: Path) -> Any:
        """What is kept; None where nothing is, or where it was damaged and is gone.

        Raises:
            OSError: it can't be read now, as where no file descriptors are left; it may well be whole.
        """
        try:
            if (written := _touch(entry)) is None:
                return None
            if (entry.name, written) not in self._whole:
                # Mapping would only tell a missing end.
                if not is_sound_archive(entry):
                    raise zipfile.BadZipFile
                self._whole.add((entry.name, written))
            return torch.load(entry, mmap=True, weights_only=True)
        except FileNotFoundError:  # another process made room
            return None
        except (zipfile.BadZipFile, pickle.UnpicklingError) as error:
            logger.warning("%s is damaged and made again (%s)", entry, type(error).__name__)
            with suppress(PermissionError):
                entry.unlink(missing_ok=True)
            return None
        except RuntimeError as error:  # of an entry whose checksums hold: it can't be opened or mapped
            raise OSError(str(error)) from error

    def _keep(self, entry: Path, prepared: Any) -> None:
        """Write an entry if there is room; a disk that is full costs the entry and no more.

        Where there was no room once, nothing more is tried.
        """
        if self._full:
            return
        buffer = io.BytesIO()
        torch.save(prepared, buffer)
        if not self._make_room(buffer.getbuffer().nbytes):
            self._full = True
            self._tell(f"{self.folder} is full ({self.limit / 2**30:g} GiB); raise --cache_gib, or let it be slower")
            return
        try:
            with whole_file(entry) as temporary:
                temporary.write_bytes(buffer.getbuffer())
        except InputError as error:
            self._full = True
            self._tell(str(error))
        else:
            if (written := _touch(entry)) is not None:
                self._whole.add((entry.name, written))

    def _tell(self, problem: str) -> None:
        if not self._told:
            logger.warning("some cases are prepared each time that they are used: %s", problem)
        self._told = True

    def _make_room(self, needed: int) -> bool:
        """Delete entries that this run hasn't used, the least recently used first, until there is room.

        The folder isn't gone through for each entry: a part of what is free may be written without looking again, so
        small that sixteen processes which do so at once keep within the limit.
        """
        self._allowance -= needed
        if self._allowance >= 0:
            return True
        found = []
        for file in filter(lambda file: _ENTRY.fullmatch(file.name), self.folder.iterdir()):
            with suppress(FileNotFoundError):  # another process makes room, too
                status = file.stat()
                found.append((status.st_atime_ns, status.st_size, file))
        free = self.limit - needed - sum(size for _, size, _ in found)
        for used, size, file in sorted(found):
            if free >= 0 or used >= self._started:
                break
            with suppress(PermissionError):  # another user's, in a folder where only owners delete
                file.unlink(missing_ok=True)
                free += size
        self._allowance = max(0, free // 16)
        return free >= 0


@lru_cache
def _code() -> str:
    """A digest of what else decides what a case becomes: this project's reading and transforms, and the libraries."""
    digest = hashlib.sha256(f"{monai.__version__} {torch.__version__} {np.__version__}".encode())
    for file in sorted([*_PACKAGE.glob("data/*.py"), *_PACKAGE.glob("transforms/*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _touch(entry: Path) -> int | None:
    """Note that an entry is used; when it was written, None where it isn't there."""
    try:
        written = entry.stat().st_mtime_ns
        with suppress(PermissionError):  # another user's, who shares the folder
            os.utime(entry, ns=(time.time_ns(), written))  # many file systems note no reading
    except FileNotFoundError:
        return None
    return written


def _plain(value: Any) -> Any:
    """A prepared case with what `weights_only` refuses replaced: arrays by tensors, words of MONAI's by strings.

    Tensors no longer are views of larger ones, which would be written whole.
    """
    if isinstance(value, torch.Tensor):
        own = value.clone(memory_format=torch.contiguous_format)
        if isinstance(own, MetaTensor):
            own.meta, own.applied_operations = _plain(own.meta), _plain(own.applied_operations)
        return own
    if isinstance(value, np.ndarray | np.generic):
        return torch.as_tensor(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return str(value) if isinstance(value, str) else value
