"""Checks of a configuration's settings before anything heavy starts."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .data.partition import PARTS
from .errors import InputError, exit_in_one_line

__all__ = ["check_arguments", "check_processes", "check_settings", "check_shares"]

_Rule = tuple[Callable[[Any], bool], str]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_three(value: Any, each: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(map(each, value))


def _rules() -> dict[str, _Rule]:
    """Setting → what holds for a good value, and what to give, as the error words it."""
    switch: _Rule = lambda value: isinstance(value, bool), "True or False"
    name: _Rule = lambda value: isinstance(value, str), "a name"
    path: _Rule = lambda value: isinstance(value, str | os.PathLike), "a path, such as ./2020"
    count: _Rule = lambda value: _is_whole(value) and value > 0, "a whole number above zero"
    whole: _Rule = lambda value: _is_whole(value) and value >= 0, "a whole number, zero or above"
    number: _Rule = _is_number, "a number"
    above_zero: _Rule = lambda value: _is_number(value) and value > 0, "a number above zero"
    not_negative: _Rule = lambda value: _is_number(value) and value >= 0, "a number, zero or above"
    share: _Rule = lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"
    groups: dict[str, tuple[_Rule, str]] = {
        "names": (name, "inter_form lesion_preset prediction_convention reference_convention"),
        "switches": (
            switch,
            "allow_missing amp hard_attention ignore_affine overwrite resample save_probabilities source_labels",
        ),
        "paths": (path, "ckpt_dir ckpt_path dataset_dir output_dir partition_file predictions_dir"),
        "counts": (count, "batch_size epochs patches_per_case val_interval"),
        "whole numbers": (whole, "attention_rate inter_start minimum_enhancing num_workers seed"),
        "weights": (number, "attention_weight cross_entropy_weight dice_weight inter_weight"),
        "rates": (above_zero, "learning_rate"),
        "decays": (not_negative, "poly_power weight_decay"),
        "shares": (share, "cache_rate"),
    }
    rules = {setting: rule for rule, settings in groups.values() for setting in settings.split()}
    return rules | {
        "evaluate_on": (lambda value: value in PARTS, f"one of {', '.join(PARTS)}"),
        "fractions": (lambda value: _are_three(value, share[0]), 'three numbers from 0 to 1, such as "[0.7,0.1,0.2]"'),
        "out": (lambda value: isinstance(value, str) and value != "", "a folder, such as ./scores"),
        "overlap": (lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 to below 1"),
        "patch_size": (
            lambda value: _are_three(value, count[0]),
            'three whole numbers of voxels above zero, such as "[128,128,128]"',
        ),
        "spacing": (lambda value: _are_three(value, above_zero[0]), 'three millimetre values above zero, "[1,1,1]"'),
        "update_classes": (
            lambda value: isinstance(value, list | tuple) and all(map(whole[0], value)),
            'a list of classes, such as "[0,1,2,3]"',
        ),
        "window_size": (
            lambda value: _are_three(value, lambda size: size == -1 or count[0](size)),
            'three whole numbers of voxels above zero, or -1 for the whole scan, such as "[-1,-1,-1]"',
        ),
    }


def _device_problem(device: Any) -> str | None:
    try:
        torch.empty(1, device=device)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError):
        return f"device {device} was asked for and there is none here: leave --device out, or say --device cpu"
    return None


def _problems(settings: Mapping[str, Any]) -> list[str]:
    rules = _rules()
    return [f"{name} is {v!r}: give {rules[name][1]}" for name, v in settings.items() if not rules[name][0](v)]


def check_arguments(**arguments: Any) -> None:
    """Check the arguments of a verb by the rules for settings; those that are None weren't given.

    Raises:
        InputError: all that is wrong, in one line.
        KeyError: an argument that there is no rule for.
    """
    if problems := _problems({name: value for name, value in arguments.items() if value is not None}):
        raise InputError("; ".join(problems))


def check_settings(device: str | torch.device, metadata: Mapping[str, Any], **settings: Any) -> None:
    """Check what a workflow sets, and have errors that a user can mend printed as one line from here on.

    A command line's values arrive as whatever they look like: `false` is a word, which Python takes for true, and `64`
    is no list of three.

    Args:
        device: where the network runs.
        metadata: the bundle's metadata.json.
        settings: any of the ids that the bundles have in common, such as `epochs` or `patch_size`, with its value.

    Raises:
        InputError: all that is wrong, in one line.
        KeyError: a setting that this function has no rule for.
    """
    sys.excepthook = exit_in_one_line
    problems = [problem] if (problem := _device_problem(device)) else []
    problems += _problems(settings)
    outputs = metadata.get("network_data_format", {}).get("outputs", {})
    if not outputs.get("pred", {}).get("channel_def"):
        problems.append(
            "metadata.json names no labels: add network_data_format.outputs.pred.channel_def, such as {'3': 'ET'}"
        )
    if problems:
        raise InputError("; ".join(problems))


def check_processes() -> None:
    """Check that torchrun (or another launcher that sets the same variables) started this process.

    Raises:
        InputError: it didn't.
    """
    if missing := [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise InputError(
            f"multi_gpu_train trains in several processes, and {missing[0]} isn't set: start it with "
            "torchrun --standalone --nproc_per_node N -m monai.bundle run …, or leave multi_gpu_train.json out"
        )


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
