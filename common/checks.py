"""Checks of a configuration's settings before anything heavy starts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from .errors import InputError, exit_in_one_line

__all__ = ["check_settings", "check_shares"]


def _all_positive(values: Sequence[float]) -> bool:
    return len(values) == 3 and all(float(value) > 0 for value in values)


def check_settings(
    device: str | torch.device,
    metadata: Mapping[str, Any],
    patch_size: Sequence[int] = (1, 1, 1),
    window_size: Sequence[int] = (-1, -1, -1),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    switches: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Check what every workflow sets, and have errors that a user can mend printed as one line from here on.

    Args:
        device: where the network runs.
        metadata: the bundle's metadata.json.
        patch_size: patch in training in voxels, three numbers.
        window_size: window of inference in voxels, three numbers; -1 is the whole scan along that axis.
        spacing: voxel size in mm that scans are resampled to, three numbers.
        switches: name → value of settings that are on or off. A command line's `false` arrives as a word, which
            Python takes for true.

    Raises:
        InputError: all that is wrong, in one line.
    """
    sys.excepthook = exit_in_one_line
    problems = []
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        problems.append(
            f"device {device} was asked for and there is none here: leave --device out, or say --device cpu"
        )
    if not _all_positive(patch_size):
        problems.append(f"patch_size {list(patch_size)} is not three numbers above zero")
    if not _all_positive([1 if size == -1 else size for size in window_size]):
        problems.append(f"window_size {list(window_size)} is not three numbers above zero, or -1 for the whole scan")
    if not _all_positive(spacing):
        problems.append(f"spacing {list(spacing)} is not three millimetre values above zero")
    outputs = metadata.get("network_data_format", {}).get("outputs", {})
    if not outputs.get("pred", {}).get("channel_def"):
        problems.append(
            "metadata.json names no labels: add network_data_format.outputs.pred.channel_def, such as {'3': 'ET'}"
        )
    for name, value in switches.items():
        if not isinstance(value, bool):
            problems.append(f"{name} is {value!r}: say --{name} True or --{name} False")
    if problems:
        raise InputError("; ".join(problems))


def check_shares(data: Mapping[str, Sequence[Any]], processes: int) -> None:
    """Check that each of several training processes gets at least one case to train and one to validate on.

    Args:
        data: part → cases, from `common.data.partition`.
        processes: how many train together.

    Raises:
        InputError: a part has fewer cases than there are processes.
    """
    for part in ("training", "validation"):
        if len(data[part]) < processes:
            raise InputError(
                f"{len(data[part])} {part} cases for {processes} processes: each needs one; start fewer processes, or "
                "give that part more cases with --fractions and a new --partition_file"
            )
