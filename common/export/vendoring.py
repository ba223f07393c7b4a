"""Which modules a bundle reaches, for their copy inside it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["PACKAGE", "defines", "names_in", "reached", "required"]

PACKAGE = "common"
_ROOT = Path(__file__).resolve().parents[1]


def names_in(config: Any) -> Iterator[str]:
    """Each name that a configuration takes of this package by `_target_`, such as "common.networks.cga_unet.CGAUNet".

    Raises:
        InputError: an expression names the package, which no copy under another name could mend.
    """
    if isinstance(config, dict):
        for key, value in config.items():
            if key == "_target_" and isinstance(value, str) and value.startswith(f"{PACKAGE}."):
                yield value
            else:
                yield from names_in(value)
    elif isinstance(config, list):
        for value in config:
            yield from names_in(value)
    elif isinstance(config, str) and config.startswith("$") and f"{PACKAGE}." in config:
        raise InputError(f"{config!r} names {PACKAGE} in an expression: reach it by _target_, so that it can be copied")


def reached(names: Iterable[str], root: Path = _ROOT) -> list[Path]:
    """The modules that hold these names, all that they import of the package, and the packages they lie in.

    Args:
        names: dotted, the package's own name first.
        root: the package's folder.

    Returns:
        files relative to `root`, sorted.

    Raises:
        InputError: a name isn't there, or a module imports the package by its name, not relatively.
    """
    found: set[Path] = set()
    waiting = [_module_with(name.split(".")[1:], root, name) for name in names]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        waiting += [folder / "__init__.py" for folder in file.parents]
        waiting += _imported(file, root)
    return sorted(found)


def required(files: Iterable[Path], root: Path = _ROOT) -> list[str]:
    """The top-level modules of other packages that these can't do without: not Python's own, nor what they try.

    Tried is what is imported inside `try`, or a `with` that suppresses what fails.
    """
    found = set()
    for file in files:
        tree = _tree(root / file)
        tried = {inner for node in ast.walk(tree) if isinstance(node, ast.Try | ast.With) for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if node in tried:
                continue
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.split(".")[0])
    return sorted(found - sys.stdlib_module_names)


def _module_with(parts: list[str], root: Path, name: str) -> Path:
    """The file of the module that a dotted path is of, or of what is defined there."""
    file = _module_of(parts, root, name)
    module = file.with_suffix("").parts
    inside = parts[len(module) - (module[-1] == "__init__") :]
    if inside and not defines(_tree(root / file), inside):
        raise InputError(f"{name}: no such class or function in {root / file}")
    return file


def defines(tree: ast.AST, path: list[str]) -> bool:
    """Whether classes and functions of these names lie in one another there."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    found = [node for node in ast.iter_child_nodes(tree) if isinstance(node, kinds) and node.name == path[0]]
    return bool(found) and (len(path) == 1 or defines(found[-1], path[1:]))


def _module_of(parts: list[str], root: Path, name: str) -> Path:
    """The file of the module that the longest beginning of a dotted path names."""
    for end in range(len(parts), 0, -1):
        path = Path(*parts[:end])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if (root / file).is_file():
                return file
    raise InputError(f"{name}: no such module in {root}")


def _imported(file: Path, root: Path) -> list[Path]:
    """The modules of the package that one of its files imports."""
    found = []
    for node in ast.walk(_tree(root / file)):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == root.name for alias in node.names):
            raise InputError(f"{root / file} imports {root.name} by its name: only relative imports can be copied")
        if not isinstance(node, ast.ImportFrom):
            continue
        if not node.level:
            if node.module and node.module.split(".")[0] == root.name:
                raise InputError(f"{root / file} imports {root.name} by its name: only relative imports can be copied")
            continue
        base = [*file.parts[: -node.level], *(node.module.split(".") if node.module else [])]
        for alias in node.names:
            parts = [*base, alias.name]
            # What is imported is a module of a package, or else something in a module.
            is_module = (root.joinpath(*parts).with_suffix(".py")).is_file() or root.joinpath(*parts).is_dir()
            wanted = parts if is_module else base
            if wanted:
                found.append(_module_of(wanted, root, ".".join([root.name, *wanted])))
            else:
                found.append(Path("__init__.py"))
    return found


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
