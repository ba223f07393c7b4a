"""What stands before MONAI Label's server: which hosts it answers to, what of a request is let through, one line each.

MONAI Label trusts whoever asks: it answers to any name, hands on whatever a request says, and where that isn't what it
expects says "Internal Server Error", with a traceback in the log.
"""

from __future__ import annotations

import argparse
import logging
import re
import reprlib
from collections.abc import Callable
from typing import Any

import torch
from fastapi import FastAPI, HTTPException
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.others.generic import name_to_device
from plain_names import refuse
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("lesion_bundles")

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_EXTENSIONS = (".nii", ".nii.gz", ".nrrd")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
# Others can't be written, by ITK.
_DTYPES = ("uint8", "int16", "uint16", "float32")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_yes_or_no(value: Any) -> bool:
    return isinstance(value, bool)


def _is_device(value: Any) -> bool:
    """A name, or the list of them that the server itself offers, of which the first is taken."""
    try:
        return torch.device(name_to_device(value)).type in ("cpu", "cuda")
    except (RuntimeError, TypeError, AttributeError, LookupError):
        return False


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


# What a request may say, whether a value is one, and what to give instead.
_ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("model", "image", "strategy", "label_tag", "gpus"), (_is_text, "a text")),
    **dict.fromkeys(("save_label", "result_compress", "multi_gpu"), (_is_yes_or_no, "true or false")),
    "images": (lambda value: isinstance(value, str | list) and all(map(_is_text, value)), "a text, or a list of ids"),
    "device": (_is_device, "cpu, cuda or cuda:0"),
    "logging": (lambda value: _is_text(value) and value.upper() in _LEVELS, f"one of {', '.join(_LEVELS)}"),
    "result_extension": (lambda value: value in _EXTENSIONS, f"one of {', '.join(_EXTENSIONS)}"),
    "result_dtype": (lambda value: value in _DTYPES, f"one of {', '.join(_DTYPES)}"),
    "max_epochs": (lambda value: _is_whole(value, 1), "a whole number from 1"),
    "max_batch_size": (lambda value: _is_whole(value, 0), "a whole number from 0"),
    "val_split": (lambda value: isinstance(value, int | float) and 0 <= value < 1, "a number from 0 to below 1"),
}


def known(request: dict[str, Any]) -> dict[str, Any]:
    """What is known of a request, checked; the rest, such as a client's id, goes no further.

    MONAI Label would make entries of a bundle's data of it.
    """
    kept = {name: value for name, value in request.items() if name in _ENTRIES}
    for name, value in kept.items():
        is_one, words = _ENTRIES[name]
        if not is_one(value):
            raise refuse(422, f"{name} {reprlib.repr(value)}: give {words}")
    return kept


def _checked(run: Callable[..., Any]) -> Callable[..., Any]:
    """MONAI Label's start of a training or a batch, which then fails where nobody looks."""

    def run_checked(
        method: str,
        request: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
        force_sync: bool = False,
        enqueue: bool = False,
    ) -> Any:
        if force_sync:  # the bundle's settings of the log would replace the server's, for good
            raise refuse(422, "run_sync isn't offered: ask without it, and then for the status")
        return run(method, known({**(request or {}), **(params or {})}), enqueue=enqueue)

    return run_checked


class OneLine:
    """Answers to what fails in MONAI Label's own code, and refuses what no bundle has a use for."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_answered = False

        async def send_noted(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        what = f"{scope['method']} {scope['path']}"
        try:
            if re.fullmatch(r"(PUT|DELETE) .*/model/[^/]*/?", what):
                # MONAI Label would put any file in the place of the weights, before anything is checked.
                raise refuse(403, "weights aren't taken or deleted here: put them into models/model.pt of the bundle")
            await self.app(scope, receive, send_noted)
        except HTTPException as error:
            await JSONResponse({"detail": error.detail}, error.status_code)(scope, receive, send)
        except Exception as error:
            if is_answered:
                raise
            status, line = _told(error)
            line = " ".join(f"{what}: {line}".split())
            logger.error("%s", line, exc_info=error if status == 500 else None)
            await JSONResponse({"detail": line}, status)(scope, receive, send)


def _told(error: Exception) -> tuple[int, str]:
    """The status that it is answered with, and what is said."""
    if isinstance(error, MONAILabelException):
        is_missing = isinstance(error, ImageNotFoundException | LabelNotFoundException)
        return 404 if is_missing else 422, error.msg
    # What a bundle raises doesn't come here, and MONAI Label's endpoints raise these of what isn't JSON, or no object.
    is_theirs = isinstance(error, ValueError | TypeError | AssertionError)
    return 422 if is_theirs else 500, f"{type(error).__name__}: {error}"


def _hosts(more: str) -> list[str]:
    """Names that a request may call the server by, beside those of `--conf hosts`; a port isn't looked at.

    A page of the web whose name leads to this machine could read the answers otherwise.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-i", "--host", default="")  # as MONAI Label has it, which keeps it to itself
    host = parser.parse_known_args()[0].host
    told = [] if host in ("", "0.0.0.0", "::") else [f"[{host}]" if ":" in host else host]
    return [*_LOOPBACK, *told, *(name.strip() for name in more.split(",") if name.strip())]


def guard(app: FastAPI, hosts: str, limit: int) -> None:
    """Put all that before MONAI Label's server, which is about to listen.

    Args:
        app: the server.
        hosts: more names of it, with commas between.
        limit: bytes of an upload.
    """
    app.user_middleware[:] = [  # MONAI Label's own lets any page of the web read the answers
        Middleware(TrustedHostMiddleware, allowed_hosts=_hosts(hosts), www_redirect=False),
        Middleware(OneLine),
    ]
    app.middleware_stack = RequestBodyLimitMiddleware(app.build_middleware_stack(), max_body_size=limit)
    AsyncTask.run = staticmethod(_checked(AsyncTask.run))
