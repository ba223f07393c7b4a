"""Reading a network's weights: strictly, and without running anything that a file holds."""

from __future__ import annotations

import json
import logging
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .atomic import whole_file
from .errors import InputError

try:
    import safetensors
except ImportError:  # the extra `export`
    _SAFETENSORS = False
else:
    _SAFETENSORS = True

__all__ = [
    "GENERATED",
    "default_weights",
    "load_weights",
    "no_weights",
    "read_facts",
    "read_state",
    "read_weights",
    "save_half",
    "tell_origin",
    "trained_setting",
]

logger = logging.getLogger(__name__)

GENERATED = "generated.pt"
"""Weights that come with a bundle: trained on generated scans alone."""


def read_weights(
    network: nn.Module, path: Path | str, trained_with: Mapping[str, Any] | None = None
) -> dict[str, torch.Tensor]:
    """Read the weights in a checkpoint, on the CPU, and check that each tensor fits a network, which stays as it is.

    Args:
        network: what the weights must be of.
        path: a state dict, or `{"model": state dict}` with anything plain beside it, written by `torch.save`; or a
            file of safetensors.
        trained_with: id of a setting → value that the weights must have been trained with, where the file says it:
            what changes a network's output and no tensor's shape. "task" is no setting, but what a network was trained
            for where that isn't in its shape.

    Raises:
        InputError: the file is missing, damaged, holds other objects than tensors, is of another network, or was
            trained with other settings.
    """
    state, facts = read_state(path)
    for id, value in (trained_with or {}).items():
        if id == "task" and facts.get(id, value) != value:
            raise InputError(f"{path} was trained for {facts[id]}, not for {value}: give other weights")
        if facts.get(id, value) != value:
            raise InputError(f"{path} was trained with {id} {facts[id]!r}: say --{id} {facts[id]!r}, not {value!r}")
    own = network.state_dict()
    wrong = sorted(own.keys() ^ state.keys())
    wrong += [key for key in own if key in state and own[key].shape != state[key].shape]
    if wrong:
        raise InputError(
            f"{path} is of another network: {len(wrong)} of {len(own)} tensors differ, such as {wrong[0]}; use the "
            "weights trained with this network_def"
        )
    return state


def read_state(path: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors in a checkpoint by name, on the CPU, of whatever network, and what `read_facts` gives.

    Raises:
        InputError: the file is missing or damaged, or holds other objects than tensors.
    """
    content = _read(Path(path))
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(map(_is_plain, state.values())):
        raise InputError(
            f"{path} holds no weights: expected a state dict of dense tensors, or one under the key 'model'"
        )
    return state, _facts(content)


def read_facts(path: Path | str) -> dict[str, Any]:
    """What a checkpoint says of how its weights were trained: id of a setting → value; empty where it says nothing.

    Raises:
        InputError: the file is missing or damaged.
    """
    return _facts(_read(Path(path), mapped=True))


def default_weights(folder: Path | str) -> str:
    """The weights in a folder that are used where none are named: `model.pt`, else those that came with the bundle.

    Where there are neither it is the path at which they were looked for.
    """
    own, generated = Path(folder, "model.pt"), Path(folder, GENERATED)
    return str(generated if generated.is_file() and not own.is_file() else own)


def trained_setting(id: str, default: Any, weights: str | Sequence[str]) -> Any:
    """The value of a setting that weights were trained with; the default where they don't say it.

    Files that aren't there or can't be read say nothing: what loads them tells what is wrong with them.

    Args:
        id: of the setting.
        default: its value otherwise.
        weights: a file, or the members of an ensemble, of which the first is asked: they have to be alike.
    """
    for pattern in [weights] if isinstance(weights, str) else weights:
        for path in (pattern, *sorted(glob(pattern, recursive=True))):
            if Path(path).is_file():
                with suppress(InputError):
                    return read_facts(path).get(id) or default
    return default


def save_half(weights: Path | str, path: Path | str) -> None:
    """Write weights in half precision (float16), with all that is said of them: a file of half the size.

    Raises:
        InputError: they can't be read, or the file can't be written.
    """
    state, facts = read_state(weights)
    halved = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    with whole_file(Path(path)) as temporary:
        torch.save({"model": halved, "trained_with": facts}, temporary)
    logger.info("in half precision: %s, %.1f MiB", path, Path(path).stat().st_size / 2**20)


def no_weights(path: Path | str) -> str:
    """What to say where there is no file of weights."""
    return f"no weights at {path}: train first, or give the path of the file that has them"


def _is_plain(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta


def _facts(content: Any) -> dict[str, Any]:
    facts = content.get("trained_with") if isinstance(content, dict) else None
    return facts if isinstance(facts, dict) else {}


def _read(path: Path, mapped: bool = False) -> Any:
    """What is in a file; mapped, tensors are read from the disk only where they are looked at."""
    if not path.is_file():
        raise InputError(no_weights(path))
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        if not _is_packed(path):
            mapped = mapped and zipfile.is_zipfile(path)  # those of older torch can't be
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds pickled objects or is damaged: it was not loaded and nothing in it was run; "
            "save the network's state dict alone"
        ) from error
    except Exception as error:  # damaged files make torch raise almost anything
        raise InputError(f"{path} is damaged or no checkpoint: get it again, or train again") from error
    # A small file may unpack to more than there is memory.
    raise InputError(f"{path} was packed, which torch.save doesn't do: get the file as it was saved")


def _is_packed(path: Path) -> bool:
    """Whether it is a zip, as torch writes them, but with something in it compressed."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())


def _read_safetensors(path: Path) -> dict[str, Any]:
    """The state and, where the file's metadata has it, what it was trained with: JSON under that name."""
    if not _SAFETENSORS:
        raise InputError(f"{path} needs one more package: pip install safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("trained_with", "{}"))
            return {"model": {name: file.get_tensor(name) for name in file.keys()}, "trained_with": facts}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError) as error:
        raise InputError(f"{path} is damaged or no file of safetensors: get it again") from error


def load_weights(network: nn.Module, path: Path | str, trained_with: Mapping[str, Any] | None = None) -> None:
    """Load a checkpoint into a network, on the device where it is; see `read_weights`."""
    network.load_state_dict(read_weights(network, path, trained_with))


def tell_origin(path: Path | str) -> None:
    """Log a warning where weights are such that no real scan had a part in."""
    if read_facts(path).get("data") == "generated scans":
        logger.warning(
            "%s: trained on generated scans alone. Experimental, for research: take what it finds for a proposal of "
            "the whole tumour",
            path,
        )
