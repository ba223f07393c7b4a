"""What a bundle's configs would run, told before any of it is run."""

from __future__ import annotations

import ast
import configparser
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from monai.bundle import ConfigParser

from ..errors import InputError, describe_cause
from .vendoring import PACKAGE

__all__ = ["TRUSTED", "findings"]

TRUSTED = ("ignite", "itk", "math", "monai", "nibabel", "numpy", "torch")
"""Packages whose functions a config may call; a bundle's own code is in `scripts`, this project's in its package."""

# What these packages have that runs code it is given, or fetches some.
_RUNS_CODE = (
    "torch.load", "torch.hub", "torch.package", "torch.jit.load", "torch.utils.cpp_extension",
    "torch.utils.model_zoo", "torch.ops", "torch.classes", "torch.distributed.run", "torch.distributed.launch",
    "torch.serialization", "numpy.load", "numpy.f2py", "numpy.ctypeslib", "numpy.distutils", "monai.bundle",
    "monai.apps", "monai.utils.module", "monai.auto3dseg", "monai.fl", "monai.data.torchscript_utils"
)  # fmt: skip
_BUILTINS = {
    "abs", "all", "any", "bool", "dict", "enumerate", "float", "int", "isinstance", "len", "list", "max", "min",
    "range", "round", "set", "sorted", "str", "sum", "tuple", "zip", "True", "False", "None"
}  # fmt: skip
# Of modules that aren't trusted as a whole.
_ALLOWED = {"os.environ.get", "sys.path.insert(0, bundle_root)"}
_REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")
_ARGUMENTS = r"\(\s*(sys\.(stdout|stderr)\s*,?)?\s*\)|\{\s*\}"


def findings(folder: Path) -> Iterator[str]:
    """One line for each thing in a bundle's configs that would run what isn't trusted.

    Raises:
        InputError: the folder has no configs.
    """
    files = sorted(
        path for path in (folder / "configs").glob("*") if path.suffix in (".json", ".yaml", ".yml", ".conf")
    )
    if not files:
        raise InputError(f"no configs in {folder}: give the folder of a bundle, which has configs/")
    contents = {file: _read(file) for file in files}
    # A config may lie over others, and use what those import.
    imports = _imports([*contents.values()])
    for file, content in contents.items():
        lines = _of_logging(content) if file.suffix == ".conf" else _of_config(content, "", imports)
        yield from (f"{file}: {line}" for line in lines)


def _read(file: Path) -> Any:
    try:
        if file.suffix == ".conf":
            parser = configparser.RawConfigParser()
            parser.read_string(file.read_text())
            return {section: dict(parser.items(section)) for section in parser.sections()}
        return json.loads(file.read_text()) if file.suffix == ".json" else ConfigParser.load_config_file(file)
    except Exception as error:  # of whatever a hostile file makes a parser raise
        raise InputError(f"{file} can't be read: {describe_cause(error)}; get the bundle again") from error


def _imports(configs: Any) -> dict[str, set[str]]:
    """Alias → dotted names of all that configs import, wherever."""
    found: dict[str, set[str]] = {}
    for text in _strings(configs):
        if (tree := _parsed(text)) is not None and tree.body and isinstance(tree.body[0], (ast.Import, ast.ImportFrom)):
            node = tree.body[0]
            prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                whole = prefix + alias.name
                known_as = alias.asname or alias.name.split(".")[0]
                found.setdefault(known_as, set()).add(whole if prefix or alias.asname else whole.split(".")[0])
    return found


def _strings(config: Any) -> Iterator[str]:
    if isinstance(config, Mapping):
        config = [*config.values()]
    if isinstance(config, list):
        for value in config:
            yield from _strings(value)
    elif isinstance(config, str):
        yield config


def _of_config(config: Any, id: str, imports: Mapping[str, set[str]]) -> Iterator[str]:
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == "_target_" and isinstance(value, str) and value.startswith(("$", "@", "%")):
                yield f"{id or 'the top'} makes what only a run can tell: {value}"
            elif key == "_target_" and isinstance(value, str):
                yield from _of_name(value, f"{id or 'the top'} makes {value}")
            yield from _of_config(value, f"{id}#{key}" if id else str(key), imports)
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from _of_config(value, f"{id}#{index}", imports)
    elif isinstance(config, str) and config.startswith("$"):
        yield from _of_expression(config, id, imports)
    elif isinstance(config, str) and config.startswith("%") and "/" in config.replace("\\", "/"):
        yield f"{id} is read from another file: {config}"


def _parsed(text: str) -> ast.Module | None:
    """An expression, with references as names; None where it is none, or can't be read."""
    if not text.startswith("$"):
        return None
    try:
        return ast.parse(_REFERENCE.sub(lambda found: re.sub(r"#|::", "__", found[1]), text[1:]).strip())
    except (SyntaxError, ValueError):
        return None


def _of_expression(text: str, id: str, imports: Mapping[str, set[str]]) -> Iterator[str]:
    tree = _parsed(text)
    if tree is None:
        yield f"{id} can't be read: {text}"
        return
    node = tree.body[0] if tree.body else None
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for name in names:
            if name.split(".")[0] not in (*TRUSTED, "os", "sys"):
                yield f"{id} imports {name}"
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    yield from _of_name(f"{name}.{alias.name}", f"{id} imports {name}.{alias.name}")
        return
    known = {re.sub(r"#|::", "__", one) for one in _REFERENCE.findall(text)}
    bound = {inner.id for inner in ast.walk(tree) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)}
    bound |= {inner.arg for inner in ast.walk(tree) if isinstance(inner, ast.arg)}
    for inner in _outermost(tree):
        name = ast.unparse(inner)
        root = name.split(".")[0]
        if any(part.startswith("_") for part in name.split(".")[1:]):
            yield f"{id} reaches inside by {name}: {text}"
        elif root in imports:
            for whole in sorted(module + name[len(root) :] for module in imports[root]):
                if not {whole, ast.unparse(tree)} & _ALLOWED:
                    yield from _of_name(whole, f"{id} uses {whole}: {text}")
        elif root not in _BUILTINS | bound | known:
            yield f"{id} uses {root}: {text}"


def _outermost(tree: ast.AST) -> Iterator[ast.Name | ast.Attribute]:
    """Names with the attributes that follow them, as long as they go; and attributes of anything else."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            base: ast.AST = node
            while isinstance(base, ast.Attribute):
                base = base.value
            if isinstance(base, ast.Name):
                yield node
                continue
            if isinstance(node, ast.Attribute):
                yield ast.Attribute(value=ast.Name(id="None"), attr=node.attr)
        yield from _outermost(node)


def _of_name(name: str, told: str) -> Iterator[str]:
    """`told`, unless a dotted name is of a trusted package, and of nothing in it that runs other code."""
    root, *parts = name.split(".")
    if root in ("scripts", PACKAGE) or not parts:  # without a dot it is one of MONAI's own
        return
    if root not in TRUSTED or any(name == one or name.startswith(f"{one}.") for one in _RUNS_CODE):
        yield told
        return
    thing: Any = importlib.import_module(root)
    for depth, part in enumerate(parts):
        if not hasattr(thing, part):
            try:
                importlib.import_module(".".join([root, *parts[: depth + 1]]))
            except ImportError:
                return  # it isn't there, so it runs nothing
        thing = getattr(thing, part)
        home = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
        if isinstance(home, str) and home.split(".")[0] not in TRUSTED:
            yield told
            return


def _of_logging(sections: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Python's logging evaluates what its configuration gives as class and arguments."""
    for section, values in sections.items():
        for key in ("class", "args", "kwargs"):
            value = values.get(key, "")
            fine = r"(logging\.)?(handlers\.)?\w+" if key == "class" else _ARGUMENTS
            if value and not re.fullmatch(fine, value):
                yield f"{section} runs {value}"
