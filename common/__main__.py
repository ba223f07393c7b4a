"""The command line: `python -m common <verb>`, or `lesion-bundles <verb>`. Each verb is one call into a room."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from functools import partial, wraps
from io import StringIO
from typing import Any, get_args

import fire
from fire.core import FireExit
from fire.parser import DefaultParseValue

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


def _quoted(word: str) -> str:
    """A word, or an option's value, for Fire to hand over as typed: of 2024_1 and 1e5 it makes 20241 and 100000.0."""
    if not re.match("--|-[a-zA-Z]", word):
        return repr(word)
    option, equals, value = word.partition("=")
    return f"{option}={value!r}" if equals else word


def _value(word: Any) -> Any:
    """What Fire makes of a word; an option without a value is True already."""
    return DefaultParseValue(word) if isinstance(word, str) else word


def _parse(verbs: Mapping[str, Callable[..., None]]) -> list[partial[None]]:
    """The call that the command line asks for, if any; Fire's own help goes to the standard error.

    Raises:
        InputError: there is a word that the verb doesn't take; Fire itself would say so after it has called the verb.
            Or an option that takes text has no value.
    """
    calls: list[partial[None]] = []

    def postponed(verb: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(verb, eval_str=True)

        @wraps(verb)
        def note(*arguments: Any, **options: Any) -> None:
            bound = signature.bind(*arguments, **options)
            for name, given in bound.arguments.items():
                parameter = signature.parameters[name]
                if str in (parameter.annotation, *get_args(parameter.annotation)):
                    if isinstance(given, bool):
                        raise InputError(f"--{name} needs a value: write --{name} VALUE")
                elif parameter.kind is parameter.VAR_KEYWORD:
                    bound.arguments[name] = {id: _value(word) for id, word in given.items()}
                else:
                    bound.arguments[name] = _value(given)
            calls.append(partial(verb, *bound.args, **bound.kwargs))

        parameters = signature.parameters.values()
        if any(one.kind is one.POSITIONAL_OR_KEYWORD and one.default is one.empty for one in parameters):
            # Beside what it must have a verb takes options by their names alone, so that a stray word is none of them.
            named = [one if one.default is one.empty else one.replace(kind=one.KEYWORD_ONLY) for one in parameters]
            note.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]
        return note

    words = {_quoted(word): word for word in sys.argv[2:]}
    command = [*sys.argv[1:2], *map(_quoted, sys.argv[2:])]
    shown = StringIO()
    try:
        with redirect_stderr(shown):
            fire.Fire({name: postponed(verb) for name, verb in verbs.items()}, command, name="lesion-bundles")
    except FireExit as end:
        if end.code and calls:
            stray = end.trace.elements[-1].args[0]
            raise InputError(stray_word(words.get(stray, stray))) from None
        print(shown.getvalue(), end="", file=sys.stderr)
        raise
    return calls


if __name__ == "__main__":
    main()
