"""Errors that a user can act on: one line with the case, the file, the reason and what to do."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import torch

__all__ = ["CaseError", "InputError", "exit_in_one_line", "find_input_error", "find_memory_error"]


class InputError(ValueError):
    """Something the user gave is wrong and the user can mend it.

    The message is one line: what is wrong, where, and what to do. Whatever stands between it and the command line
    (MONAI and ignite wrap exceptions) is left out of what is printed.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


class CaseError(InputError):
    """One case can't be used; the others still can.

    Args:
        case: name of the case.
        path: the file (or folder) at fault, None where no single file is.
        reason: what is wrong with it.
        remedy: what the user can do about it.
    """

    def __init__(self, case: str, path: Path | str | None, reason: str, remedy: str) -> None:
        self.case, self.path, self.reason, self.remedy = case, path, reason, remedy
        where = f"case {case}, {path}" if path is not None else f"case {case}"
        super().__init__(f"{where}: {reason}; {remedy}")

    def __reduce__(self) -> tuple[type[CaseError], tuple[str, Path | str | None, str, str]]:
        return type(self), (self.case, self.path, self.reason, self.remedy)


_IN_TRACEBACK = re.compile(r"^[\w.]+\.(?:InputError|CaseError): (.+)$", re.MULTILINE)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def find_input_error(error: BaseException) -> InputError | None:
    """The outermost InputError among an exception and what it was raised from, or None: it knows most of the case."""
    found = next((link for link in _chain(error) if isinstance(link, InputError)), None)
    if found is None:
        # A DataLoader's worker hands over no exception but the text of its traceback, outermost last.
        texts = [text for link in _chain(error) for text in _IN_TRACEBACK.findall(str(link))]
        found = InputError(texts[-1]) if texts else None
    return found


def find_memory_error(error: BaseException) -> BaseException | None:
    """That among an exception and what it was raised from which is for want of memory, on a GPU or the CPU, or None."""
    # PyTorch's allocator for the CPU raises no type of its own.
    return next(
        (
            link
            for link in _chain(error)
            if isinstance(link, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(link)
        ),
        None,
    )


def exit_in_one_line(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """A `sys.excepthook` that prints what a user can mend as one line; any other exception is shown whole."""
    found = find_input_error(error)
    if found is None and (memory := find_memory_error(error)) is not None:
        found = InputError(
            f"memory ran out ({str(memory) or type(memory).__name__}); make the patches or windows smaller, "
            "in training also --batch_size or --cache_rate"
        )
    if found is None and issubclass(kind, KeyboardInterrupt):
        found = InputError("stopped; what was finished is kept")
    if found is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        print(f"error: {found}", file=sys.stderr)
