"""Fills a folder with generated images: the record first, then every case, on all cores."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from ..atomic import write_text
from ..errors import InputError

__all__ = ["RECORD_FILE", "check_cases", "fill_folder"]

RECORD_FILE = "phantoms.json"
"""In the folder of the data set: what it was made with, and the record of every case, by name."""

Item = TypeVar("Item")


def check_cases(cases: int) -> None:
    """Refuse a number of cases that can't be made.

    Raises:
        InputError: it is no integer, or below 1.
    """
    if isinstance(cases, bool) or not isinstance(cases, int) or cases < 1:
        raise InputError(f"cases {cases!r}: give how many phantoms to make, an integer of at least 1")


def fill_folder(
    folder: Path, record: Mapping[str, Any], items: Sequence[Item], write: Callable[[Item], object]
) -> None:
    """Write the record, then each item, with a progress bar on stderr.

    Args:
        folder: a new or empty one, or one that has this same record.
        record: what the folder is made with, fit for JSON.
        items: one a case.
        write: writes a case; called from several threads.

    Raises:
        InputError: the folder holds something else.
    """
    _claim(folder, json.dumps(record, indent=1) + "\n")
    # Threads and not processes: numpy, scipy and zlib let go of the interpreter's lock in what takes long here, and
    # a process would first have to import all that the caller's main module imports.
    with ThreadPoolExecutor(_cores()) as pool:
        done = pool.map(write, items)
        for _ in tqdm(done, total=len(items), desc="phantoms", unit="case", file=sys.stderr):
            pass


def _claim(folder: Path, record: str) -> None:
    """Put the record into the folder before any case, so that an interrupted run can be told from foreign files."""
    path = folder / RECORD_FILE
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for the phantoms")
    if path.is_file():
        if path.read_text() != record:
            raise InputError(f"{folder} holds phantoms made with other arguments; give a new folder or delete this one")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} holds other files; give a new or empty folder for the phantoms")
    write_text(path, record)


def _cores() -> int:
    """The cores that this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
