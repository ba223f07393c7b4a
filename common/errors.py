"""Errors that a user can act on: one line with the case, the file, the reason and what to do."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from traceback import format_exception_only
from types import TracebackType

import torch

__all__ = [
    "CaseError",
    "InputError",
    "describe_cause",
    "exit_in_one_line",
    "exit_with_cause",
    "find_input_error",
    "find_memory_error",
]


class InputError(ValueError):
    """Something the user gave is wrong and the user can mend it.

    Whatever stands between it and the command line (MONAI and ignite wrap exceptions) is left out of what is printed.

    Args:
        problems: usually one; each in one line: what is wrong, where, and what to do. On the command line each is
            printed on a line of its own, in the exception's text they stand one after another.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*(" ".join(str(problem).split()) for problem in problems))

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, one line each."""
        return self.args

    def __str__(self) -> str:
        return "; ".join(self.problems)


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


# What gloo and NCCL say when they wait for a process that is no more.
_LOST_PROCESS = re.compile("Connection (closed by peer|reset by peer|was likely closed)|remote process exit")

_WORKER = re.compile(r"^Original (?:Traceback .+?^)?([A-Za-z_][\w.]*(?:: [^\n]+)?)$", re.MULTILINE | re.DOTALL)
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


def describe_cause(error: BaseException) -> str:
    """What an exception was raised from at last, in one line: its type and text. MONAI's own say only what it built."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = "".join(format_exception_only(error))
    # A DataLoader's worker hands over the text of its traceback, the first cause first.
    if in_worker := _WORKER.search(text):
        text = in_worker[1]
    return " ".join(text.split())


def exit_in_one_line(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """A `sys.excepthook` that prints each problem that a user can mend as one line; any other error is shown whole."""
    if not _print_problems(error):
        sys.__excepthook__(kind, error, traceback)


def exit_with_cause(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """A `sys.excepthook` that prints one line of any other error too, for a command that has the option --debug."""
    if not _print_problems(error):
        print(f"error: {describe_cause(error)}; --debug shows the traceback", file=sys.stderr)


def _print_problems(error: BaseException) -> bool:
    """Print each problem that a user can mend as one line; False where there is none."""
    found = find_input_error(error)
    if found is None and (memory := find_memory_error(error)) is not None:
        found = InputError(
            f"memory ran out ({str(memory) or type(memory).__name__}); make the patches or windows smaller, "
            "in training also --batch_size or --num_workers"
        )
    if found is None and int(os.environ.get("WORLD_SIZE", 1)) > 1 and any(map(_is_lost_process, _chain(error))):
        found = InputError("another process of this training has ended, and so this one does; the reason is that one's")
    if found is None and isinstance(error, KeyboardInterrupt):
        found = InputError("stopped; what was finished is kept")
    for problem in found.problems if found is not None else ():
        print(f"error: {problem}", file=sys.stderr)
    return found is not None


def _is_lost_process(error: BaseException) -> bool:
    """Whether another process is what was lost, and not a file or a server."""
    return not isinstance(error, OSError) and _LOST_PROCESS.search(str(error)) is not None
