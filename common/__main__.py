"""The command line: `python -m common <verb>`, or `lesion-bundles <verb>`. Each verb is one call into a room."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from functools import partial, wraps
from io import StringIO
from typing import Any

import fire
from fire.core import FireExit

from .cross_validation import cross_validate, write_folds
from .data.describe import data
from .data.image_phantoms import make_image_phantoms
from .data.phantoms import make_phantoms
from .demo import demo
from .dicom_cases import dicom_in, dicom_seg
from .errors import InputError, exit_in_one_line
from .export.bundle import export
from .export.checking import check
from .overrides import stray_word
from .report.build import report
from .report.label_efficiency import label_efficiency
from .running import run
from .scoring import score


def main() -> None:
    """Run the verb that the command line names."""
    sys.excepthook = exit_in_one_line
    verbs: dict[str, Callable[..., None]] = {
        "run": run,
        "cross_validate": cross_validate,
        "folds": write_folds,
        "phantoms": make_phantoms,
        "image_phantoms": make_image_phantoms,
        "data": data,
        "dicom_in": dicom_in,
        "dicom_seg": dicom_seg,
        "score": score,
        "label_efficiency": label_efficiency,
        "report": report,
        "check": check,
        "export": export,
        "demo": demo,
    }
    for call in _parse(verbs):
        call()


def _parse(verbs: Mapping[str, Callable[..., None]]) -> list[Callable[[], None]]:
    """The call that the command line asks for, if any; Fire's own help goes to the standard error.

    Raises:
        InputError: there is a word that the verb doesn't take; Fire itself would say so after it has called the verb.
    """
    calls: list[Callable[[], None]] = []

    def postponed(verb: Callable[..., None]) -> Callable[..., None]:
        @wraps(verb)
        def note(*arguments: Any, **options: Any) -> None:
            calls.append(partial(verb, *arguments, **options))

        return note

    shown = StringIO()
    try:
        with redirect_stderr(shown):
            fire.Fire({name: postponed(verb) for name, verb in verbs.items()}, name="lesion-bundles")
    except FireExit as end:
        if end.code and calls:
            raise InputError(stray_word(end.trace.elements[-1].args[0])) from None
        print(shown.getvalue(), end="", file=sys.stderr)
        raise
    return calls


if __name__ == "__main__":
    main()
