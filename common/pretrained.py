"""Moving pre-trained weights into a network, by name, and telling what moved and what stayed."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from .atomic import write_text
from .errors import InputError
from .networks.vision_transformer import TransformerBlocks
from .weights import read_state

__all__ = ["Transfer", "transfer_all_but", "transfer_blocks"]

logger = logging.getLogger(__name__)

_HIDDEN = "blocks.0.linear1.bias"
_PREFIX = "encoder."
"""Before the names of the blocks and the last norm in a file of `common.networks.masked_autoencoder`."""


class Transfer(NamedTuple):
    """What a transfer did, name by name.

    Attributes:
        moved: name in the file → name in the network.
        left: names in the file of what was left there.
        stayed: names in the network of what stayed as it was.
    """

    moved: dict[str, str]
    left: list[str]
    stayed: list[str]


def transfer_blocks(network: nn.Module, path: Path | str, record: Path | str = "") -> Transfer:
    """Move the pre-trained blocks and their last norm in a file into a network's vision transformer.

    Based on: Yang et al., "3D-TransUNet for Brain Metastases Segmentation in the BraTS2023 Challenge", section 2.4: the
    patch embedding and the decoder of the pre-training are thrown away, "and solely all transformer encoder blocks"
    begin with its weights. What moved and what stayed is logged in groups, and told name by name in a file.

    Args:
        network: with one `TransformerBlocks`.
        path: of weights that `pretrain.json` saved.
        record: JSON file for a `Transfer`; none where it is empty.

    Raises:
        InputError: the file is missing, damaged or of something else; the network has no such blocks; or the file's are
            of another width, depth or number of heads.
    """
    state, facts = read_state(path)
    pretrained = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
    if not pretrained:
        raise InputError(f"{path} holds no pre-trained blocks ({_PREFIX}…): give the weights that pretrain.json saved")
    found = [(name, module) for name, module in network.named_modules() if isinstance(module, TransformerBlocks)]
    if len(found) != 1:
        raise InputError(
            f"{path} can't be used: the network has no transformer encoder; leave --pretrained out, or take the "
            "variant encoder or both"
        )
    (place, blocks), own = found[0], found[0][1].state_dict()
    first = blocks.blocks[0]
    assert isinstance(first, nn.TransformerEncoderLayer)
    _check(path, pretrained, own, facts.get("encoder_heads"), first.self_attn.num_heads)
    blocks.load_state_dict(pretrained)
    into = {f"{place}.{name}" for name in own}
    transfer = Transfer(
        moved={f"{_PREFIX}{name}": f"{place}.{name}" for name in pretrained},
        left=[name for name in state if not name.startswith(_PREFIX)],
        stayed=[name for name in network.state_dict() if name not in into],
    )
    _tell(transfer, path, record)
    return transfer


def transfer_all_but(
    network: nn.Module,
    path: Path | str,
    head: str,
    record: Path | str = "",
    trained_with: Mapping[str, Any] | None = None,
) -> Transfer:
    """Move all pre-trained weights in a file into a network of the same layers, but for the last one's.

    Based on: Wang et al., "MPS-AMS", section 2: the U-Net that has learnt to reconstruct is the one that learns to
    segment. What moved and what stayed is logged, and told name by name in a file.

    Args:
        network: gets the weights.
        path: of weights that `pretrain.json` saved.
        head: name of the last layer.
        record: JSON file for a `Transfer`; none where it is empty.
        trained_with: id of a setting → value; where the pre-training had another, it is said so.

    Raises:
        InputError: the file is missing, damaged or of something else, of a network that was trained to segment, or its
            network has other features or channels.
    """
    state, facts = read_state(path)
    if facts.get("task", "reconstruction") != "reconstruction":
        raise InputError(f"{path} was trained for {facts['task']}: give the weights that pretrain.json saved")
    own = network.state_dict()
    moving = {name: value for name, value in state.items() if not name.startswith(f"{head}.")}
    wanted = {name: value for name, value in own.items() if not name.startswith(f"{head}.")}
    if not moving.keys() & wanted.keys():
        raise InputError(f"{path} holds no weights of this network: give those that pretrain.json saved")
    differing = _differing(moving, wanted)
    if differing:
        raise InputError(f"{path} is of another network: {differing}; pre-train with the same --features")
    for id, value in (trained_with or {}).items():
        if facts.get(id, value) != value:
            logger.warning("%s was pre-trained with %s %r, and this training has %r", path, id, facts[id], value)
    network.load_state_dict(moving, strict=False)
    transfer = Transfer(
        moved={name: name for name in moving},
        left=[name for name in state if name not in moving],
        stayed=[name for name in own if name not in moving],
    )
    _tell(transfer, path, record)
    return transfer


def _tell(transfer: Transfer, path: Path | str, record: Path | str) -> None:
    logger.info(
        "moved %d tensors from %s: %s",
        len(transfer.moved),
        path,
        _groups(name.removeprefix(_PREFIX) for name in transfer.moved),
    )
    logger.info("left in the file: %s; as they were drawn: %s", _groups(transfer.left), _groups(transfer.stayed))
    if record:
        write_text(Path(record), json.dumps({"from": str(path), **transfer._asdict()}, indent=1) + "\n")
        logger.info("each name is in %s", record)


def _differing(there: Mapping[str, torch.Tensor], here: Mapping[str, torch.Tensor]) -> str:
    """Which tensors differ in shape, or are only in the file or only in the network; empty where none does."""
    names = [name for name in {**here, **there} if _shape(there, name) != _shape(here, name)]
    if not names:
        return ""
    shapes = f"{_shape(there, names[0])} in the file, {_shape(here, names[0])} here"
    return f"{len(names)} tensors differ, such as {names[0]} ({shapes})"


def _check(
    path: Path | str,
    there: dict[str, torch.Tensor],
    here: dict[str, torch.Tensor],
    heads_there: int | None,
    heads_here: int,
) -> None:
    """Refuse blocks that aren't those of the network: which differ is told with both shapes."""
    if differing := _differing(there, here):
        raise InputError(
            f"{path} has {_size(there)}, the network {_size(here)}: {differing}; pre-train with the network's "
            "--encoder_layers, --encoder_width and --encoder_mlp, or leave --pretrained out"
        )
    if heads_there is not None and heads_there != heads_here:  # which no shape tells
        raise InputError(
            f"{path} was pre-trained with {heads_there} heads, and the network has {heads_here}: pre-train with "
            f"--encoder_heads {heads_here}"
        )


def _shape(state: Mapping[str, torch.Tensor], name: str) -> str:
    return "×".join(map(str, state[name].shape)) if name in state else "none"


def _size(state: dict[str, torch.Tensor]) -> str:
    layers = len({match[1] for name in state if (match := re.match(r"blocks\.(\d+)\.", name))})
    hidden = f" and {len(state[_HIDDEN])}" if _HIDDEN in state else ""
    return f"{layers} block{'s' * (layers != 1)} of width {_shape(state, 'norm.weight')}{hidden}"


def _groups(names: Iterable[str]) -> str:
    """Names gathered by their first part, that of numbered ones with the range: `blocks.0–11, norm`."""
    numbers: dict[str, list[int]] = {}
    for name in names:
        first, _, rest = name.partition(".")
        number = re.match(r"\d+", rest)
        numbers.setdefault(first, []).extend([int(number[0])] if number else [])
    told = []
    for first, of_first in numbers.items():
        low, high = (min(of_first), max(of_first)) if of_first else (None, None)
        span = "" if low is None else f".{low}" if low == high else f".{low}–{high}"
        told.append(first + span)
    return ", ".join(told) or "nothing"
