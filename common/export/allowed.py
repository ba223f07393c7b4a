"""Of which packages a bundle's config may use what: a list of classes and functions that run no code they are given."""

from __future__ import annotations

import ast
import importlib
import keyword
import operator
from enum import Enum
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from monai.bundle.config_item import ComponentLocator

from .vendoring import PACKAGE, defines

__all__ = [
    "ATTRIBUTES",
    "BY_NAME",
    "IMPORTED",
    "is_own",
    "is_reader",
    "may_be_handed_on",
    "may_be_made",
    "may_be_used",
    "spelled_out",
]

IMPORTED = ("glob", "ignite", "itk", "math", "monai", "nibabel", "numpy", "torch", "os", "sys")
"""What a config may import; what it may use of these is another matter."""

BY_NAME = ("merger_cls", "reader", "writer")
"""Arguments whose value MONAI looks up anywhere in Python if it has a dot."""

ATTRIBUTES = {
    "all", "any", "argmax", "astype", "batch", "best_metric", "bool", "components", "copy", "count", "cpu", "cuda",
    "data", "dataset", "detach", "device", "dtype", "endswith", "engine", "epoch", "epoch_length", "eval", "float",
    "get", "index", "int", "item", "items", "iteration", "join", "keys", "last_epoch", "long", "lower", "masking",
    "max", "max_epochs", "mean", "members", "metrics", "min", "named_parameters", "ndim", "numpy", "output",
    "parameters", "permute", "raise_failures", "replace", "reshape", "run", "set_epoch", "shape", "sigmoid",
    "softmax", "split", "squeeze", "startswith", "state", "state_dict", "strip", "sum", "to", "tokens", "tolist",
    "train", "transpose", "unsqueeze", "upper", "values",
}  # fmt: skip
"""What an expression may ask of objects: of what else some have, modules are reached, code compiled, files written."""

# Modules, with all below them, of which the classes may be made: they compute, and read and write no files but logs.
_CLASSES = (
    "ignite.engine", "ignite.metrics", "monai.engines", "monai.handlers", "monai.inferers", "monai.losses",
    "monai.metrics", "monai.networks.blocks", "monai.networks.layers", "monai.networks.nets", "monai.optimizers",
    "monai.transforms", "monai.utils.enums", "torch.nn.modules", "torch.nn.parallel", "torch.optim",
)  # fmt: skip
# Classes of these that load what they are told to, or call what another package has of a name.
_BUT = (
    "ClearML", "CuCIM", "EncoderRegister", "LearningRateFinder", "LogfileHandler", "MLFlow", "Perceptual", "TextEncod",
    "TorchIO", "TorchVision", "Transchex", "Trt", "WSI",
)  # fmt: skip
_NAMED = {
    "ignite.handlers": {"EarlyStopping", "EMAHandler", "TerminateOnNan", "Timer"},
    "math": {"ceil", "cos", "exp", "floor", "log", "log2", "prod", "sin", "sqrt"},
    "monai.data": {
        "ArrayDataset", "CacheDataset", "DataLoader", "Dataset", "DistributedSampler",
        "GridPatchDataset", "ITKReader", "ITKWriter", "MetaTensor", "NibabelReader", "NibabelWriter", "NrrdReader",
        "PILReader", "PILWriter", "PatchDataset", "PatchIterd", "PydicomReader", "SmartCacheDataset",
        "ThreadDataLoader", "ZipDataset", "decollate_batch", "list_data_collate", "load_decathlon_datalist",
        "pad_list_data_collate", "partition_dataset", "partition_dataset_classes", "select_cross_validation_folds",
    },
    "monai.handlers": {"from_engine", "stopping_fn_from_loss", "stopping_fn_from_metric"},
    "monai.networks": {"one_hot"},
    "monai.utils": {"first", "set_determinism"},
    "nibabel": {"aff2axcodes", "as_closest_canonical", "load"},
    "nibabel.affines": {"apply_affine", "voxel_sizes"},
    "numpy": {
        "arange", "argmax", "array", "asarray", "clip", "concatenate", "exp", "linspace", "log", "max", "mean", "min",
        "ones", "sqrt", "stack", "sum", "unique", "zeros",
    },
    "torch": {
        "Generator", "arange", "argmax", "as_tensor", "cat", "device", "full", "linspace", "ones", "sigmoid",
        "softmax", "stack", "tensor", "where", "zeros",
    },
    "torch.amp": {"GradScaler"},
    "torch.cuda": {"current_device", "device_count", "is_available", "set_device"},
    "torch.distributed": {
        "barrier", "destroy_process_group", "get_rank", "get_world_size", "init_process_group", "is_available",
        "is_initialized",
    },
    "torch.nn": {"SyncBatchNorm.convert_sync_batchnorm"},
    "torch.utils.data": {
        "ConcatDataset", "DataLoader", "Dataset", "DistributedSampler", "RandomSampler", "SequentialSampler", "Subset",
        "TensorDataset", "WeightedRandomSampler", "random_split",
    },
    "torch.utils.tensorboard": {"SummaryWriter"},
}  # fmt: skip
_OF_PYTHON = {
    "glob.glob", "os.environ.get", "os.getcwd", "os.path.basename", "os.path.dirname", "os.path.exists", "os.path.join"
}  # fmt: skip
_READERS = {name for name in _NAMED["monai.data"] if name.endswith(("Reader", "Writer"))}
_LOCATOR = ComponentLocator(excludes=["monailabel"])  # it looks through all of MONAI once, when first asked


def may_be_made(name: str) -> bool:
    """Whether a `_target_` may be what a dotted name is."""
    thing = _find(name)
    return _is_named(thing) or _is_allowed_class(thing)


def may_be_used(name: str) -> bool:
    """Whether an expression may use what a dotted name is: of classes those alone that are named here.

    Components can be looked at with all that they are given; a call in an expression can't.
    """
    if name in _OF_PYTHON:
        return True
    thing = _find(name)
    return _is_plain(thing) or _is_named(thing) or (isinstance(thing, Enum) and _is_allowed_class(type(thing)))


def may_be_handed_on(name: str) -> bool:
    """Whether a `_target_` may be given to be called later, with whatever else."""
    return _is_named(_find(name))


def _find(name: str) -> Any:
    """What a dotted name is, None where that isn't of one of the packages.

    The thing itself is looked at, not how it is spelled: `torch.os` is another package.
    """
    root, *parts = name.split(".")
    if root not in ("ignite", "math", "monai", "nibabel", "numpy", "torch") or any(p.startswith("_") for p in parts):
        return None
    try:
        thing: Any = importlib.import_module(root)
        for part in parts:
            if not hasattr(thing, part) and isinstance(thing, ModuleType):
                importlib.import_module(f"{thing.__name__}.{part}")
            thing = getattr(thing, part)
            if isinstance(thing, ModuleType) and not thing.__name__.startswith(f"{root}."):
                return None
    except (ImportError, AttributeError):
        return None
    return thing


def _is_plain(thing: Any) -> bool:
    """Whether it is a value, or a type of numbers."""
    if isinstance(thing, type):
        return issubclass(thing, np.generic)
    return isinstance(thing, (bool, int, float, str, torch.dtype, torch.memory_format, torch.layout))


def _is_named(thing: Any) -> bool:
    """Whether it is one of `_NAMED`, whatever it is called here."""
    return callable(thing) and thing in _things()


@cache
def _things() -> list[Any]:
    """What `_NAMED` names; its modules are imported when this is first asked, not with this one."""
    return [
        operator.attrgetter(name)(importlib.import_module(module)) for module, names in _NAMED.items() for name in names
    ]


def _is_allowed_class(thing: Any) -> bool:
    if not isinstance(thing, type) or any(word in thing.__qualname__ for word in _BUT):
        return False
    return any(thing.__module__ == one or thing.__module__.startswith(f"{one}.") for one in _CLASSES)


def is_reader(name: str) -> bool:
    """Whether it is a reader or writer of MONAI's, and of those that read no pickles."""
    return name.removeprefix("monai.data.") in _READERS


def spelled_out(target: str) -> list[str]:
    """The dotted names that a `_target_` may stand for: MONAI finds its own components by their name alone."""
    if "." in target:
        return [target]
    modules = _LOCATOR.get_component_module_name(target) or []
    return [f"{module}.{target}" for module in ([modules] if isinstance(modules, str) else modules)]


def is_own(target: str, folder: Path) -> bool:
    """Whether a `_target_` is what a module itself defines: of a bundle's `scripts`, or of this project for its own."""
    root, *parts = target.split(".")
    project = Path(__file__).resolve().parents[2]
    if root == PACKAGE and folder.resolve().parent != project / "bundles":
        return False
    base = project / PACKAGE if root == PACKAGE else folder / "scripts"
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        return False
    for end in range(len(parts) - 1, 0, -1):
        file = base.joinpath(*parts[:end]).with_suffix(".py")
        if file.is_file():
            try:
                return defines(ast.parse(file.read_bytes()), parts[end:])
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                return False
    return False
