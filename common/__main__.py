"""The command line: `python -m common <verb>`, or `lesion-bundles <verb>`. Each verb is one call into a room."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from functools import partial, wraps
from io import StringIO
from typing import Any, get_args

import fire
from fire.core import FireExit
from fire.decorators import SetParseFn

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


def _text(name: str, word: str) -> str:
    """What is typed for a parameter that takes text: Fire makes the numbers 20241 and 100000.0 of 2024_1 and 1e5."""
    if word in ("True", "False"):  # which is how Fire says that a flag has no value
        raise InputError(f"--{name} needs a value: write --{name} VALUE")
    return word


def _parse(verbs: Mapping[str, Callable[..., None]]) -> list[partial[None]]:
    """The call that the command line asks for, if any; Fire's own help goes to the standard error.

    Raises:
        InputError: there is a word that the verb doesn't take; Fire itself would say so after it has called the verb.
            Or an option that takes text has no value.
    """
    calls: list[partial[None]] = []

    def postponed(verb: Callable[..., None]) -> Callable[..., None]:
        @wraps(verb)
        def note(*arguments: Any, **options: Any) -> None:
            calls.append(partial(verb, *arguments, **options))

        for name, parameter in inspect.signature(verb, eval_str=True).parameters.items():
            if str in (parameter.annotation, *get_args(parameter.annotation)):
                if parameter.kind is parameter.VAR_POSITIONAL:
                    SetParseFn(str, None)(note)  # so Fire calls the words that have no name
                else:
                    SetParseFn(partial(_text, name), name)(note)
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
