"""Records of runs: what was run, with what, on what, and how it ended; a JSON file beside the results."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import torch

from . import __version__
from .atomic import check_writable, write_text
from .errors import InputError, describe_cause, find_input_error

__all__ = ["is_unfinished", "own_record", "read_newest", "recorded"]

_kept: list[Path] = []  # the records that this process is keeping

_PACKAGES = ("torch", "monai", "pytorch-ignite", "numpy", "scipy", "nibabel")


@contextmanager
def recorded(folder: Path, workflow: str, facts: Mapping[str, Any]) -> Iterator[Path]:
    """Keep a record of what happens in the block, as `<folder>/run-<workflow>-<number>.json` with the next number free.

    It is written when the block begins, with outcome "running", and again when it ends, with "finished", "stopped", or
    what went wrong; "running" stays where the process is killed.

    Args:
        folder: where the results are; it is made.
        workflow: goes into the file's name.
        facts: what to record beside the command, the versions, the machine and the times.

    Yields:
        The path of the record.

    Raises:
        InputError: it can't be written.
    """
    check_writable(folder)
    record = {
        "workflow": workflow,
        "outcome": "running",
        "started": _now(),
        "ended": None,
        "command": sys.argv,
        "folder": os.getcwd(),
        "process": os.getpid(),
        "versions": _versions(),
        "git": _git(),
        "machine": {"name": platform.node(), "system": platform.platform(), "threads": torch.get_num_threads()},
        **facts,
    }

    def write(**ending: Any) -> None:
        write_text(path, json.dumps({**record, **ending}, indent=1, default=str) + "\n")

    path = next(path for number in count(1) if _take(path := folder / f"run-{workflow}-{number}.json"))
    try:
        write()
    except InputError:
        path.unlink(missing_ok=True)
        raise
    _kept.append(path)
    try:
        yield path
    except BaseException as error:
        # Of two errors the first is the reason.
        with suppress(InputError):
            write(outcome=_outcome(error), ended=_now())
        raise
    finally:
        _kept.remove(path)
    write(outcome="finished", ended=_now())


def own_record(folder: Path) -> Path | None:
    """The record in a folder that this process is keeping, inside `recorded`, or None."""
    return next((path for path in reversed(_kept) if path.parent.resolve() == folder.resolve()), None)


def _take(path: Path) -> bool:
    """Make an empty file, unless there is one: of runs that begin at once each gets a name of its own."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _outcome(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "stopped"
    if (found := find_input_error(error)) is not None:
        return str(found)
    return describe_cause(error)


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "lesion-bundles": __version__, **packages}


def _git() -> dict[str, Any] | None:
    """Commit of the checkout that this package is in, and whether files differ from it; None where it is in none."""

    def git(*words: str) -> str:
        folder = Path(__file__).resolve().parent
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.strip()

    try:
        # Installed into an environment, the package may lie inside a checkout of something else.
        git("ls-files", "--error-unmatch", "__init__.py")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def read_newest(folder: Path, workflow: str) -> dict[str, Any]:
    """The record of a workflow's last run into a folder; empty where there is none."""
    records = folder.glob(f"run-{workflow}-*.json")
    newest = max(records, key=lambda path: int(path.stem.rpartition("-")[2]), default=None)
    return dict(json.loads(newest.read_text())) if newest is not None else {}


def is_unfinished(folder: Path, workflow: str) -> bool:
    """Whether there is such a record, and it doesn't say that the run has finished."""
    return read_newest(folder, workflow).get("outcome", "finished") != "finished"
