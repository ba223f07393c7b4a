"""The files of a training's checkpoints: written whole, the last two kept, the newest sound one found again."""

from __future__ import annotations

import io
import logging
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from ..atomic import check_writable, free_name, is_sound_archive, whole_file
from ..claim import claimed
from ..errors import InputError, find_memory_error
from ..processes import rank

__all__ = ["GO_ON", "CheckpointFolder"]

logger = logging.getLogger(__name__)

GO_ON = "free some space, then type the same command again with --resume True"
"""What helps a training that can't write its files."""

_KEPT = 2
_NEEDED = {"iteration", "epoch", "configuration"}
_NAME = re.compile(r"iteration-(\d+)\.pt")


class CheckpointFolder:
    """A folder of checkpoints `iteration-<n>.pt`, of which the newest is read at once where a training is to go on.

    A checkpoint is a dictionary of tensors and plain values that has at least `iteration` and `epoch`, the numbers of
    those that are done, and the `configuration`; nothing pickled is ever executed. One that is damaged is told, and the
    one before it is taken.

    The folder around it, which has the training's other files too, is this process's until `end`: two trainings there
    would remove one another's checkpoints.

    Args:
        folder: where they are.
        resume: go on from the newest; else from the beginning.

    Attributes:
        newest: the checkpoint to go on from; None to begin.
        iteration: of that checkpoint, 0 at the beginning.
        epoch: likewise.

    Raises:
        InputError: there are checkpoints, and all are damaged, or the newest can't be read or is something else; or
            another training works there.
    """

    def __init__(self, folder: Path | str, resume: bool = False) -> None:
        self.folder = Path(folder)
        self._claim = ExitStack()
        if rank() == 0:
            check_writable(self.folder.parent)
            self._claim.enter_context(claimed(self.folder.parent, inherited=False))
        self._kept: list[Path] = []
        self.newest = self._read_newest() if resume else None
        self.iteration: int = self.newest["iteration"] if self.newest else 0
        self.epoch: int = self.newest["epoch"] if self.newest else 0
        if resume and self.newest is None:
            logger.info("no checkpoint in %s: the training starts from the beginning", self.folder)

    def _read_newest(self) -> dict[str, Any] | None:
        paths = _checkpoints(self.folder)
        for path in reversed(paths):
            content = _read(path)
            if content is not None:
                if not isinstance(content, dict) or not content.keys() >= _NEEDED:
                    raise InputError(f"{path} is no checkpoint of a training: move it away, then run again")
                self._kept = [path]
                return content
            logger.warning("%s is damaged, as after a crash: the checkpoint before it is taken", path)
        if paths:
            raise InputError(f"all checkpoints in {self.folder} are damaged; start anew, without --resume")
        return None

    def begin(self) -> None:
        """Make the folder ready for a training: without one to go on from, what an earlier training left is set aside.

        Raises:
            InputError: the folder can't be written to.
        """
        if self.newest is None and _checkpoints(self.folder):
            previous = self.folder.rename(free_name(self.folder))
            logger.info("the checkpoints of an earlier training are kept in %s", previous)
        check_writable(self.folder)
        for leftover in self.folder.glob(".*.pt"):
            leftover.unlink()

    def end(self) -> None:
        """Let others work there."""
        self._claim.close()

    def save(self, content: dict[str, Any]) -> Path:
        """Write a checkpoint, whole and on the disk when this returns, and remove all but the last two.

        Raises:
            InputError: it can't be written.
        """
        path = self.folder / f"iteration-{content['iteration']}.pt"
        buffer = io.BytesIO()  # given a path, torch hides why it can't write
        torch.save(content, buffer)
        with whole_file(path, durable=True, remedy=GO_ON) as temporary:
            temporary.write_bytes(buffer.getbuffer())
            # What only a pickle could hold is to be noticed now, and not when the checkpoint is needed.
            torch.load(temporary, weights_only=True, mmap=True)
        self._kept = [*(kept for kept in self._kept if kept != path), path][-_KEPT:]
        for old in _checkpoints(self.folder):
            if old not in self._kept:
                old.unlink()
        return path


def _checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    named = {path: match for path in folder.glob("*.pt") if (match := _NAME.fullmatch(path.name))}
    return sorted(named, key=lambda path: int(named[path][1]))


def _read(path: Path) -> dict[str, Any] | None:
    """The content of a checkpoint, on the CPU; None where the file is damaged.

    Raises:
        InputError: the disk doesn't give the file, which may be sound.
    """
    try:
        file = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}; mend that, then run again") from error
    if not is_sound_archive(file):
        return None
    try:
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make torch raise almost anything
        if find_memory_error(error) is not None:
            raise
        return None
