"""Of which packages a bundle's config may use what: a list of classes and functions that run no code they are given."""

from __future__ import annotations

import ast
import importlib
import keyword
import operator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from monai.bundle.config_item import ComponentLocator

from .vendoring import PACKAGE, defines

__all__ = ["BY_NAME", "IMPORTED", "is_allowed", "is_own", "reads_or_writes", "spelled_out"]

IMPORTED = ("ignite", "itk", "math", "monai", "nibabel", "numpy", "torch", "os", "sys")
"""What a config may import; what it may use of these is another matter."""

BY_NAME = ("reader", "writer")
"""Arguments whose value MONAI looks up anywhere in Python if it has a dot."""

# Modules, with all below them, of which the classes may be made: they compute, and read and write no files but logs.
_CLASSES = (
    "ignite.engine", "ignite.metrics", "monai.engines", "monai.handlers", "monai.inferers", "monai.losses",
    "monai.metrics", "monai.networks.blocks", "monai.networks.layers", "monai.networks.nets", "monai.optimizers",
    "monai.transforms", "monai.utils.enums", "torch.nn.modules", "torch.nn.parallel", "torch.optim",
)  # fmt: skip
# Classes of these that load what they are told to, or call what another package has of a name.
_BUT = (
    "ClearML",
    "CuCIM",
    "LearningRateFinder",
    "MLFlow",
    "Perceptual",
    "TextEncod",
    "TorchIO",
    "TorchVision",
    "Transchex",
    "Trt",
    "WSI",
)
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
    "monai.utils": {"set_determinism"},
    "nibabel": {"aff2axcodes", "as_closest_canonical", "load"},
    "nibabel.affines": {"apply_affine", "voxel_sizes"},
    "numpy": {
        "arange", "argmax", "array", "asarray", "clip", "concatenate", "exp", "linspace", "log", "max", "mean", "min",
        "ones", "sqrt", "stack", "sum", "unique", "zeros",
    },
    "torch": {
        "Generator", "arange", "argmax", "as_tensor", "cat", "compile", "device", "full", "linspace", "ones", "sigmoid",
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
# They take names of a reader or writer, and are made as components alone, where these can be looked at.
_FILES = ("LoadImage", "SaveImage")
_LOCATOR = ComponentLocator(excludes=["monailabel"])  # it looks through all of MONAI once, when first asked


def is_allowed(name: str) -> bool:
    """Whether a config may use what a dotted name is: a class, function or plain value that runs no other code.

    The thing itself is looked at, not how it is spelled: `torch.os.system` is of `os`.
    """
    root, *parts = name.split(".")
    if name == "os.environ.get":
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
    return _is_plain(thing) or _is_named(thing) or _is_allowed_class(thing)


def _is_plain(thing: Any) -> bool:
    """Whether it is a value, or a type of numbers."""
    if isinstance(thing, type):
        return issubclass(thing, np.generic)
    return isinstance(thing, (bool, int, float, str, torch.dtype, torch.memory_format, torch.layout))


def _is_named(thing: Any) -> bool:
    """Whether it is one of `_NAMED`, whatever it is called here."""
    return callable(thing) and any(
        thing == operator.attrgetter(name)(importlib.import_module(module))
        for module, names in _NAMED.items()
        for name in names
    )


def _is_allowed_class(thing: Any) -> bool:
    kind = type(thing) if isinstance(thing, Enum) else thing
    if not isinstance(kind, type) or any(word in kind.__qualname__ for word in _BUT):
        return False
    return any(kind.__module__ == one or kind.__module__.startswith(f"{one}.") for one in _CLASSES)


def reads_or_writes(name: str) -> bool:
    """Whether it is a transform for files, which looks up its reader or writer by name."""
    return name.rpartition(".")[2].startswith(_FILES)


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
