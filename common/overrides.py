"""Overrides of a config's ids: MONAI takes one that nothing reads in silence; here it is told, with the nearest id."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping
from copy import deepcopy
from difflib import get_close_matches
from pydoc import locate
from typing import Any

from monai.bundle import ConfigComponent, ConfigParser, ReferenceResolver

__all__ = ["SECTIONS", "by_depth", "stray_word", "unknown_ids"]

SECTIONS = ("_meta_", "imports", "bundle_root", "check", "initialize", "run", "finalize")
"""Ids at the top of a config that aren't meant to be overridden."""


def by_depth(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides in the order in which they hold together: a component before its arguments, else as typed."""
    return dict(sorted(overrides.items(), key=lambda item: len(ReferenceResolver.split_id(item[0]))))


def stray_word(word: str) -> str:
    """What to say of a word that belongs to no option, such as epochs=2, or the second 64 in --patch_size 64 64."""
    id, equals, value = str(word).partition("=")
    if id.startswith("-"):
        return f"unknown option {id}: --help shows them all"
    if equals:
        return f"{word} is no option: write --{id} {shlex.quote(value)}"
    return f"{word} is no option: write --ID VALUE, and a list in one word, such as [64,64,64]"


def unknown_ids(parser: ConfigParser, overrides: Mapping[str, Any]) -> dict[str, str]:
    """Which ids of overrides replace nothing and would be read by nothing, each with a line on what to do.

    A nested id (`optimizer#betas`) may be new where it names an argument that the component takes; where the component
    is overridden too it is the new one's that counts.

    Args:
        parser: the config before the overrides; it stays as it is.
        overrides: id → value, as typed.
    """
    unknown = {}
    overridden = ConfigParser(deepcopy(parser.get()))
    for id, value in by_depth(overrides).items():
        if (problem := _problem(overridden, id)) is not None:
            unknown[id] = problem
        else:
            overridden[id] = deepcopy(value)
    return unknown


def _problem(parser: ConfigParser, id: str) -> str | None:
    if id == "bundle_root":
        return "--bundle_root: the bundle is the first argument; give its folder there"
    parts = ReferenceResolver.split_id(id)
    config = parser.get()
    for depth, part in enumerate(parts):
        known = _known(config, parser)
        if known is None:
            return None
        if part not in known:
            shown = [name for name in known if not name.startswith("_") and (depth or name not in SECTIONS)]
            if like := get_close_matches(part, shown, n=1):
                return f"unknown id '{id}': did you mean '{'#'.join([*parts[:depth], *like, *parts[depth + 1 :]])}'?"
            hint = (
                f"in {parts[depth - 1]} there is {', '.join(shown) or 'nothing'}" if depth else "--list shows them all"
            )
            return f"unknown id '{id}': {hint}"
        config = parser.get(ReferenceResolver.sep.join(parts[: depth + 1]))
    return None


def _known(config: Any, parser: ConfigParser) -> list[str] | None:
    """The keys that a part of a config has or, where it is a component, can have; None where that can't be told."""
    if isinstance(config, list):
        return [str(index) for index in range(len(config))]
    if not isinstance(config, dict):
        return []
    if not ConfigComponent.is_instantiable(config):
        return list(config)
    component = locate(ConfigComponent(config, locator=parser.locator).resolve_module_name())
    try:
        arguments = inspect.signature(component).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):  # it isn't found, or is a built-in type
        return None
    if any(argument.kind is argument.VAR_KEYWORD for argument in arguments):
        return None
    return list(dict.fromkeys([*config, *(argument.name for argument in arguments), *ConfigComponent.non_arg_keys]))
