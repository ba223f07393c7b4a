"""What a bundle's configs would run, told before any of it is run."""

from __future__ import annotations

import ast
import builtins
import configparser
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from ..errors import InputError, describe_cause
from .allowed import (
    ATTRIBUTES,
    BY_NAME,
    IMPORTED,
    is_own,
    is_reader,
    may_be_handed_on,
    may_be_made,
    may_be_used,
    spelled_out,
)
from .vendoring import PACKAGE

__all__ = ["findings"]

_BUILTINS = {
    "abs", "all", "any", "bool", "dict", "enumerate", "float", "int", "isinstance", "len", "list", "max", "min",
    "range", "round", "set", "sorted", "str", "sum", "tuple", "zip",
}  # fmt: skip
_REFERENCES = "__local_refs"  # what MONAI evaluates in place of `@id`
_PATH = f"sys.path.insert(0, {_REFERENCES}['bundle_root'])"
# Keys by which one config reaches into another, and those that are looked at together with what is beside them.
_SEPARATORS = re.compile("#|::")
_TOGETHER = {"_target_", "_mode_", *BY_NAME}
# What MONAI gives to every expression.
_GIVEN = {"monai": {"monai"}, "torch": {"torch"}, "np": {"numpy"}, "numpy": {"numpy"}}
_MOST_ITEMS, _DEEPEST, _LONGEST = 100_000, 60, 20_000
_ARGUMENTS = r"\(\s*(sys\.(stdout|stderr)\s*,?)?\s*\)|\{\s*\}"
_EXPRESSIONS = (
    ast.Expression, ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Starred, ast.Call, ast.keyword,
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Lambda,
    ast.arguments, ast.arg, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.JoinedStr,
    ast.FormattedValue, ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip


def findings(folder: Path) -> Iterator[str]:
    """One line for each thing in a bundle's configs that would run what isn't allowed.

    Allowed are literals, operators, a few of Python's functions, what `common.export.allowed` names of the field's
    packages, and classes and functions of the bundle's own code. It is no sandbox: what is allowed can still read and
    write files that a config names, and a bundle's own code does what it likes.

    Raises:
        InputError: the folder has no configs.
    """
    files = sorted(
        path for path in (folder / "configs").rglob("*") if path.suffix.lower() in (".json", ".yaml", ".yml", ".conf")
    )
    if not files:
        raise InputError(f"no configs in {folder}: give the folder of a bundle, which has configs/")
    contents = {file: _read(file) for file in files}
    # A config may lie over others, and use what those import.
    imports = _imports([*contents.values()])
    for file, content in contents.items():
        is_logging = file.suffix.lower() == ".conf"
        if file.stem == "metadata":  # below an id of their own MONAI evaluates these, too
            yield from (
                f"{file}: has an expression: {text}" for text in _strings(content) if text.startswith(("$", "%", "@"))
            )
        lines = _of_logging(content) if is_logging else _Config(folder, imports).lines(content, "")
        yield from (f"{file}: {line}" for line in lines)


def _read(file: Path) -> Any:
    try:
        if file.suffix.lower() == ".conf":
            parser = configparser.RawConfigParser()
            parser.read_string(file.read_text())
            return {section: dict(parser.items(section)) for section in parser.sections()}
        content = ConfigParser.load_config_file(file)
        _check_size(content)
        return content
    except Exception as error:  # of whatever a hostile file makes a parser raise
        raise InputError(f"{file} can't be read: {describe_cause(error)}; get the bundle again") from error


def _check_size(config: Any) -> None:
    """Raise a ValueError if a config is larger than any honest one: YAML lets few lines stand for billions of items."""
    waiting, count = [(config, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if count > _MOST_ITEMS or depth > _DEEPEST:
            raise ValueError(f"it has more than {_MOST_ITEMS} items, or more than {_DEEPEST} levels")
        if isinstance(item, str) and len(item) > _LONGEST:
            raise ValueError(f"it has a string of more than {_LONGEST} characters")
        below = item.values() if isinstance(item, Mapping) else item if isinstance(item, list) else ()
        waiting += [(one, depth + 1) for one in below]


def _imports(config: Any) -> dict[str, set[str]]:
    """Alias → dotted names of all that configs import, wherever."""
    found = {alias: set(names) for alias, names in _GIVEN.items()}
    for text in _strings(config):
        node = _import_in(text)
        if node is not None:
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


def _import_in(text: str) -> ast.Import | ast.ImportFrom | None:
    """The import that an expression is for MONAI, which looks at its first statement."""
    try:
        first = ast.parse(text[1:]).body[:1] if text.startswith("$") else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # which is told of the expression
    return first[0] if first and isinstance(first[0], (ast.Import, ast.ImportFrom)) else None


class _Config:
    """Looks through a config.

    Args:
        folder: the bundle's.
        imports: alias → dotted names of all configs' imports.
    """

    def __init__(self, folder: Path, imports: Mapping[str, set[str]]) -> None:
        self.folder, self.imports = folder, imports

    def lines(self, config: Any, id: str) -> Iterator[str]:
        """What isn't allowed in an item and all below it."""
        if isinstance(config, Mapping):
            for key, value in config.items():
                yield from self._of_key(str(key), value, config, id)
                yield from self.lines(value, f"{id}#{key}" if id else str(key))
        elif isinstance(config, list):
            for index, value in enumerate(config):
                yield from self.lines(value, f"{id}#{index}")
        elif isinstance(config, str):
            yield from self._of_string(config, id)

    def _of_key(self, key: str, value: Any, config: Mapping[str, Any], id: str) -> Iterator[str]:
        where = id or "the top"
        last = _SEPARATORS.split(key)[-1].lstrip("+")
        if not id and _SEPARATORS.split(key)[0].lstrip("+") == "imports":
            if key != "imports" or not isinstance(value, list) or not all(map(_import_in, map(str, value))):
                yield f"imports holds something else: {key} {value}"
        elif not id and last == "bundle_root" and value != ".":
            yield f"{where} says where modules are: bundle_root {value}"
        elif re.search(r"\.(json|ya?ml)\b", key, re.IGNORECASE):
            yield f"{where} has the name of a file for an id: {key}"
        elif last in _TOGETHER and last != key:
            yield f"{where} changes a part of another config, which can't be looked at alone: {key}"
        elif key.startswith("+") and isinstance(value, Mapping) and _TOGETHER & {*value}:
            yield f"{where} changes parts of another config, which can't be looked at alone: {key}"
        elif last == "_target_":
            yield from self._of_target(value, where)
        elif last == "_mode_" and value != "default":
            target = str(config.get("_target_"))
            handed_on = is_own(target, self.folder) if _is_of_bundles(target) else may_be_handed_on(target)
            if value != "callable" or not handed_on:
                yield f"{where} hands on what is called with what only a run can tell: _mode_ {value} of {target}"
        elif last in BY_NAME and not _is_reader(value):
            yield f"{where} looks up a {last} that isn't one of MONAI's: {value}"
        elif (last in ("allow_pickle", "_debug_") and value is not False) or (last == "compile_kwargs" and value):
            yield f"{where} has {last} {value}, which reads pickles, debugs, or starts a compiler that it names"

    def _of_string(self, text: str, id: str) -> Iterator[str]:
        try:
            resolved = ConfigParser.resolve_relative_ids(_SEPARATORS.sub("::", id), text)
        except ValueError:
            yield f"{id} can't be read: {text}"
            return
        if text.startswith("$"):
            yield from self._of_expression(text, resolved, id)
        elif text.startswith("%"):
            file, item = ConfigParser.split_path_id(resolved[1:])
            if file or not item:
                yield f"{id} is read from another file, or is all of this one: {text}"
            elif "imports" in resolved:
                yield f"{id} reaches a module: {text}"
        elif text.startswith("@") and "imports" in resolved:
            yield f"{id} reaches a module: {text}"

    def _of_target(self, target: Any, id: str) -> Iterator[str]:
        if not isinstance(target, str) or target.startswith(("$", "@", "%")):
            yield f"{id} makes what only a run can tell: {target}"
        elif _is_of_bundles(target):
            if not is_own(target, self.folder):
                yield f"{id} makes {target}, which no module of its own defines"
        elif not (names := spelled_out(target)) or not all(map(may_be_made, names)):
            yield f"{id} makes {target}"

    def _of_expression(self, text: str, resolved: str, id: str) -> Iterator[str]:
        node = _import_in(text)
        if node is not None:
            yield from self._of_import(node, id)
            return
        if _REFERENCES in text:
            yield f"{id} reaches into MONAI's references: {text}"
            return
        try:
            references = sorted(ReferenceResolver.id_matcher.findall(resolved), key=len, reverse=True)
            for one in references:  # as MONAI does before it evaluates what results
                resolved = resolved.replace(one, f"{_REFERENCES}['{one[1:]}']")
            tree = ast.parse(resolved[1:].strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            yield f"{id} can't be read: {text}"
            return
        if ast.unparse(tree) == _PATH and self.imports.get("sys") == {"sys"}:
            return
        for told in self._of_tree(tree):
            yield f"{id} {told}: {text}"

    def _of_import(self, node: ast.Import | ast.ImportFrom, id: str) -> Iterator[str]:
        if id.split("#")[0] != "imports":
            yield f"{id} imports outside of imports: {ast.unparse(node)}"
        for alias in node.names:
            name = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
            whole_module = isinstance(node, ast.Import) and name.split(".")[0] in IMPORTED
            if not whole_module and not may_be_used(name):
                yield f"{id} imports {name}"

    def _of_tree(self, tree: ast.AST) -> Iterator[str]:
        bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        for name in sorted(bound & {*dir(builtins), *self.imports, _REFERENCES}):
            yield f"gives {name} another meaning"
        chains: set[ast.AST] = set()  # names with the attributes that follow them, which are looked at as a whole
        for node in ast.walk(tree):
            if not isinstance(node, _EXPRESSIONS):
                yield f"holds {type(node).__name__}"
            elif isinstance(node, ast.Call) and self._is_plain_compile(node):
                chains |= {*ast.walk(node.func)}
            elif isinstance(node, ast.Attribute) and node not in chains:
                base: ast.AST = node
                inner = []
                while isinstance(base, ast.Attribute):
                    inner.append(base)
                    base = base.value
                chains |= {*inner, base}
                if isinstance(base, ast.Name) and base.id in self.imports:
                    yield from self._of_module(ast.unparse(node))
                    continue
                if isinstance(base, ast.Name):
                    yield from self._of_bare(base.id, bound)
                if any(one.attr not in ATTRIBUTES for one in inner):
                    yield f"reaches inside by {ast.unparse(node)}"
            elif isinstance(node, ast.Name) and node not in chains:
                yield from self._of_bare(node.id, bound)
            elif isinstance(node, ast.Subscript) and _is_import(node):
                yield f"reaches a module by {ast.unparse(node)}"

    def _is_plain_compile(self, node: ast.Call) -> bool:
        """Whether it is torch.compile without options, which may name a compiler."""
        is_compile = ast.unparse(node.func) == "torch.compile" and self.imports["torch"] == {"torch"}
        return is_compile and len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], ast.Starred)

    def _of_bare(self, name: str, bound: set[str]) -> Iterator[str]:
        if name in self.imports:  # itself, not what is in it
            if not all(map(may_be_used, self.imports[name])):
                yield f"hands on {name}"
        elif name != _REFERENCES and name not in _BUILTINS and (name not in bound or name.startswith("_")):
            yield f"uses {name}"

    def _of_module(self, chain: str) -> Iterator[str]:
        alias, _, rest = chain.partition(".")
        for whole in sorted(f"{module}.{rest}" for module in self.imports[alias]):
            if not may_be_used(whole):
                yield f"uses {whole}"


def _is_of_bundles(target: str) -> bool:
    return target.split(".")[0] in ("scripts", PACKAGE) and "." in target


def _is_reader(value: Any) -> bool:
    """Whether it can only be a reader or writer of MONAI's, or several, also as components."""
    if isinstance(value, list):
        return all(map(_is_reader, value))
    if isinstance(value, Mapping):
        return is_reader(str(value.get("_target_")))
    # Without a dot MONAI looks among its own.
    return value is None or (isinstance(value, str) and (value.isidentifier() or is_reader(value)))


def _is_import(node: ast.Subscript) -> bool:
    """Whether it is a reference to an import, or may be one."""
    if not isinstance(node.value, ast.Name) or node.value.id != _REFERENCES:
        return False
    return not isinstance(node.slice, ast.Constant) or str(node.slice.value).startswith("imports")


def _of_logging(sections: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Python's logging evaluates what its configuration gives as class and arguments."""
    for section, values in sections.items():
        for key in ("class", "args", "kwargs"):
            value = values.get(key, "")
            fine = r"(logging\.)?(handlers\.)?\w+" if key == "class" else _ARGUMENTS
            if value and not re.fullmatch(fine, value):
                yield f"{section} runs {value}"
