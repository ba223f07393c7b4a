"""What a training consists of, in plain words, so that one that goes on can be compared with how it began."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["differences", "fingerprint"]

_LONGEST, _MOST = 80, 20
_OF_EVERY_MODULE = set(vars(nn.Module()))

Facts = dict[str, dict[str, str]]
"""For each id, the places in it (`transforms#7#prob`) and what is there, as text."""


def fingerprint(parts: Mapping[str, Any]) -> Facts:
    """Describe objects by all that decides what they do.

    Components are described by their class and their attributes, down to the probability of a transform inside a
    transform; networks by their modules and the shapes of their weights, not by the weights; optimisers by their
    options; functions by their name, defaults and what they hold from around them, and those without a name by their
    code too, which differs from one version of Python to the next. Random states are left out. To be taken of objects
    that haven't worked yet: some keep what they did last.

    Args:
        parts: id → what is described; ids may be nested, as those of a config.
    """
    facts: Facts = {}
    for name, part in parts.items():
        if isinstance(part, Mapping):
            facts |= {f"{name}#{inner}": held for inner, held in fingerprint(part).items()}
        else:
            # Cut out, a place is never the very string that an optimiser has: pickle tells the same string from equal
            # ones, and checkpoints of equal trainings are to be equal to the bit.
            facts[name] = {place[1:]: text for place, text in _facts(part, "", ())}
    return facts


def differences(then: Facts, now: Facts) -> list[str]:
    """Each place that differs with its id and, where they are short, both values; of very many the first."""
    told = [
        _difference(f"{id}#{place}" if place else id, then.get(id, {}).get(place), now.get(id, {}).get(place))
        for id in then | now
        for place in then.get(id, {}) | now.get(id, {})
        if then.get(id, {}).get(place) != now.get(id, {}).get(place)
    ]
    return told if len(told) <= _MOST else [*told[:_MOST], f"{len(told) - _MOST} more places differ"]


def _difference(where: str, old: str | None, new: str | None) -> str:
    old, new = "nothing" if old is None else old, "nothing" if new is None else new
    return f"{where} ({old} then, {new} now)" if len(old) + len(new) <= _LONGEST else where


def _facts(value: Any, place: str, around: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """Places in a value (`#transforms#7#prob`), each with what is there; `around` are the objects that hold it."""
    if (plain := _plain(value)) is not None:
        yield place, plain
    elif id(value) not in around:
        kind, held = _held(value)
        if kind or not held:
            yield place, kind
        for name, item in held.items():
            yield from _facts(item, f"{place}#{name}", (*around, id(value)))


def _plain(value: Any) -> str | None:
    """The text of what holds nothing else; None for other things."""
    if isinstance(value, Enum):
        return repr(value.value)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        return repr(value)
    if isinstance(value, nn.Parameter):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        if value.ndim == 0:
            return repr(value.item())
        if isinstance(value, torch.Tensor):  # NumPy has no bfloat16
            content = value.detach().cpu().contiguous().view(torch.uint8).numpy()
        else:
            content = np.ascontiguousarray(value)
        return f"{value.dtype} {list(value.shape)} {hashlib.sha256(content.tobytes()).hexdigest()[:16]}"
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(item) for item in value]
        ordered = items if isinstance(value, list | tuple) else sorted(map(str, items))
        return None if None in items else f"[{', '.join(map(str, ordered))}]"
    if callable(value) and hasattr(value, "__qualname__"):
        return None if any(_around_function(value).values()) else _function(value)
    return None


def _function(function: Any) -> str:
    """A function's or class's name or, without one, what it does with which names and constants."""
    is_nameless = getattr(function, "__name__", "") == "<lambda>"
    return (
        _code(function.__code__) if is_nameless else f"{getattr(function, '__module__', None)}.{function.__qualname__}"
    )


def _code(code: CodeType) -> str:
    constants = [_code(item) if isinstance(item, CodeType) else _plain(item) for item in code.co_consts]
    names = [*code.co_names, *code.co_varnames, *code.co_freevars]
    return f"function of {names} {constants} {hashlib.sha256(code.co_code).hexdigest()[:16]}"


def _around_function(function: Any) -> dict[str, Any]:
    """What a function has beside its code: defaults, variables of the function around it, and a config's @ids."""
    inner = getattr(function, "__func__", function)  # of a method
    code = getattr(inner, "__code__", None)
    if code is None:
        return {}
    cells = {}
    for name, cell in zip(code.co_freevars, inner.__closure__ or (), strict=True):
        with suppress(ValueError):  # it is empty as yet
            cells[name] = cell.cell_contents
    resolved = inner.__globals__.get("__local_refs", {})  # MONAI's name for the contents of ids
    refs = {id: resolved[id] for id in code.co_consts if isinstance(id, str) and id in resolved}
    return {
        "defaults": {**dict(enumerate(inner.__defaults__ or ())), **(inner.__kwdefaults__ or {})},
        "around": cells,
        "ids": refs,
    }


def _held(value: Any) -> tuple[str, dict[Any, Any]]:
    """The kind of an object (none for containers), and what it consists of."""
    if isinstance(value, Mapping):
        return "", dict(value)
    if isinstance(value, Sequence):
        return "", dict(enumerate(value))
    if callable(value) and hasattr(value, "__qualname__"):
        return _function(value), _around_function(value)
    kind = type(value).__qualname__
    if isinstance(value, partial):
        return kind, {"func": value.func, "args": value.args, **value.keywords}
    if isinstance(value, torch.optim.Optimizer):
        groups = [{**group, "params": len(group["params"])} for group in value.param_groups]
        return kind, groups[0] if len(groups) == 1 else dict(enumerate(groups))
    if isinstance(value, Engine | ModuleType | logging.Logger | np.random.RandomState | np.random.Generator):
        return kind, {}
    # MONAI's transforms get a thread-local attribute when they are first used.
    attributes = {k: v for k, v in getattr(value, "__dict__", {}).items() if not isinstance(v, threading.local)}
    if isinstance(value, LRScheduler):
        # What begins with an underscore there is bookkeeping, which differs from one version of torch to the next.
        return kind, {name: item for name, item in attributes.items() if name[0] != "_" and name != "optimizer"}
    if isinstance(value, nn.Module):
        own = {name: item for name, item in attributes.items() if name not in _OF_EVERY_MODULE}
        return kind, {**own, **value._parameters, **value._buffers, **value._modules}
    return kind, dict(attributes)
