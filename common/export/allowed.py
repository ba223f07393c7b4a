"""Of which packages a bundle's config may use what: those parts of the field's that run no code that they are given."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from monai.bundle.config_item import ComponentLocator

from .vendoring import PACKAGE

__all__ = ["IMPORTED", "is_allowed", "is_own", "spelled_out"]

IMPORTED = ("ignite", "itk", "math", "monai", "nibabel", "numpy", "torch", "os", "sys")
"""What a config may import; what it may use of these is another matter."""

# Modules, with all below them, whose classes and functions may be used.
_MODULES = (
    "ignite.engine", "ignite.handlers", "ignite.metrics", "math", "monai.data", "monai.engines", "monai.handlers",
    "monai.inferers", "monai.losses", "monai.metrics", "monai.networks", "monai.optimizers", "monai.transforms",
    "monai.utils.enums", "monai.visualize", "nibabel.affines", "nibabel.nifti1", "nibabel.orientations", "torch.amp",
    "torch.cuda", "torch.distributed.distributed_c10d", "torch.nn", "torch.optim", "torch.utils.data",
    "torch.utils.tensorboard",
)  # fmt: skip
# Of these modules nothing: they load pickles or programs, or take names of things elsewhere.
_BUT = (
    "monai.data.torchscript_utils", "monai.data.utils.pickle_operations", "monai.data.utils.pickle_hashing",
    "monai.networks.trt_compiler", "monai.networks.utils", "torch.cuda.memory", "torch.cuda._", "torch.nn.modules._",
    "torch.utils.data.backward_compatibility",
)  # fmt: skip
_NAMED = {
    "os.environ.get", "monai.utils.set_determinism", "monai.utils.misc.set_determinism", "nibabel.load", "torch.device",
    "torch.Generator", "torch.compile", "torch.tensor", "torch.as_tensor", "torch.zeros", "torch.ones", "torch.full",
    "torch.arange", "torch.linspace", "torch.stack", "torch.cat", "torch.where", "torch.sigmoid", "torch.softmax",
    "torch.argmax", "numpy.array", "numpy.asarray", "numpy.zeros", "numpy.ones", "numpy.arange", "numpy.linspace",
    "numpy.clip", "numpy.exp", "numpy.log", "numpy.sqrt", "numpy.mean", "numpy.stack", "numpy.concatenate",
}  # fmt: skip
# They call what another package has of a name that they are given.
_BY_NAME = ("TorchVision", "TorchIO")
_LOCATOR = ComponentLocator(excludes=["monailabel"])  # it looks through all of MONAI once, when first asked


def is_allowed(name: str) -> bool:
    """Whether a config may use what a dotted name is: a class, function or plain value that runs no other code.

    The thing itself is looked at, not how it is spelled: `torch.os.system` is of `os`.
    """
    root, *parts = name.split(".")
    if name in _NAMED:
        return True
    if root not in ("ignite", "math", "monai", "nibabel", "numpy", "torch") or any(p.startswith("_") for p in parts):
        return False
    try:
        thing: Any = importlib.import_module(root)
        for part in parts:
            if not hasattr(thing, part) and isinstance(thing, ModuleType):
                importlib.import_module(f"{thing.__name__}.{part}")
            thing = getattr(thing, part)
            if isinstance(thing, ModuleType) and not thing.__name__.startswith(f"{root}."):
                return False
    except (ImportError, AttributeError):
        return False
    return _is_allowed_thing(thing)


def _is_allowed_thing(thing: Any) -> bool:
    if isinstance(thing, ModuleType):
        return False
    if isinstance(thing, (bool, int, float, str, torch.dtype, torch.memory_format, torch.layout)):
        return True
    if isinstance(thing, type) and issubclass(thing, np.generic):
        return True
    named = thing if hasattr(thing, "__qualname__") else type(thing)  # such as a member of an enumeration
    module, own = getattr(named, "__module__", None), named.__qualname__
    if not isinstance(module, str):
        return False
    whole = f"{module}.{own}"
    if any(word in own for word in _BY_NAME) or any(whole.startswith(one) for one in _BUT):
        return False
    return whole in _NAMED or any(module == one or module.startswith(f"{one}.") for one in _MODULES)


def spelled_out(target: str) -> list[str]:
    """The dotted names that a `_target_` may stand for: MONAI finds its own components by their name alone."""
    if "." in target:
        return [target]
    modules = _LOCATOR.get_component_module_name(target) or []
    return [f"{module}.{target}" for module in ([modules] if isinstance(modules, str) else modules)]


def is_own(target: str, folder: Path) -> bool:
    """Whether a `_target_` is what a module itself defines, in `scripts` of a bundle or in this project."""
    root, *parts = target.split(".")
    base = {"scripts": folder / "scripts", PACKAGE: Path(__file__).resolve().parents[1]}[root]
    for end in range(len(parts) - 1, 0, -1):
        file = base.joinpath(*parts[:end]).with_suffix(".py")
        if file.is_file():
            return _defines(ast.parse(file.read_text(encoding="utf-8")), parts[end:])
    return False


def _defines(tree: ast.AST, path: list[str]) -> bool:
    """Whether classes and functions of these names lie in one another there."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    found = [node for node in ast.iter_child_nodes(tree) if isinstance(node, kinds) and node.name == path[0]]
    return bool(found) and (len(path) == 1 or _defines(found[-1], path[1:]))
