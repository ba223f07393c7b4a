"""Checks of a configuration's settings before anything heavy starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .errors import InputError, describe_cause, exit_in_one_line
from .networks.plain_unet import can_halve
from .settings import FEATURES, IMAGE_SIZE, PATCH_IN_PLANE, PATH, SETTINGS, VARIANT, WHOLE
from .weights import no_weights

__all__ = ["check_arguments", "check_processes", "check_settings", "check_shares", "check_slices", "size_problem"]


def _problems(settings: Mapping[str, Any]) -> list[str]:
    rules = {name: SETTINGS[name].rule for name in settings}
    return [f"{name} is {v!r}: give {rules[name].give}" for name, v in settings.items() if not rules[name].holds(v)]


def check_arguments(**arguments: Any) -> None:
    """Check the arguments of a verb by the rules for settings; those that are None weren't given.

    Raises:
        InputError: all that is wrong, one line each.
        KeyError: an argument that there is no rule for.
    """
    if problems := _problems({name: value for name, value in arguments.items() if value is not None}):
        raise InputError(*problems)


def check_settings(
    device: Any,
    metadata: Mapping[str, Any],
    unused: Collection[str] = (),
    settings: Mapping[str, Any] | None = None,
    **named: Any,
) -> dict[str, Any]:
    """Check what a workflow sets, and have errors that a user can mend printed as one line from here on.

    Where a hook of another's is in place already it stays: it may show more.

    A command line's values arrive as whatever they look like: `false` is a word, which Python takes for true, and `64`
    is no list of three.

    Args:
        device: where the network runs.
        metadata: the bundle's metadata.json.
        unused: settings that the workflow has from the config below it and does nothing with: not checked, and not
            offered by `common.running`.
        settings: more of those that are named, as one dictionary.
        named: any of the ids that the bundles have in common, such as `epochs` or `patch_size`, with its value.

    Returns:
        The settings but for those unused.

    Raises:
        InputError: all that is wrong, one line each.
        KeyError: a setting that `common.settings.SETTINGS` has no row for.
    """
    # Another exported bundle's in the same process knows none of this one's errors.
    others = getattr(sys.excepthook, "__name__", "") == exit_in_one_line.__name__
    if others or sys.excepthook is sys.__excepthook__:
        sys.excepthook = exit_in_one_line
    given = {name: value for name, value in {**named, **(settings or {})}.items() if name not in unused}
    problems = [*_problems({"device": device, **given}), *_weights_problems(given)]
    if given.get("save_uncertainty") and given.get("predictions_dir") == "":
        problems.append("save_uncertainty is True and predictions_dir is empty: give the folder that the maps go to")
    if given.get("mlflow_uri") and find_spec("mlflow") is None:
        packages = "mlflow-skinny alembic sqlalchemy"
        problems.append(f"mlflow_uri is set and MLflow isn't installed: pip install {packages}, or leave it out")
    problems += [*_size_problems(given), *_variant_problems(given), *_masking_problems(given), *_slice_problems(given)]
    outputs = metadata.get("network_data_format", {}).get("outputs", {})
    if not outputs.get("pred", {}).get("channel_def"):
        problems.append(
            "metadata.json names no labels: add network_data_format.outputs.pred.channel_def, such as {'3': 'ET'}"
        )
    if problems:
        raise InputError(*problems)
    return given


def _weights_problems(settings: Mapping[str, Any]) -> list[str]:
    path, members = settings.get("weights"), settings.get("members")
    if members:
        return []
    problems = []
    pretrained = settings.get("pretrained")
    if pretrained and PATH.holds(pretrained) and not Path(pretrained).is_file():
        problems.append(f"no pre-trained blocks at {pretrained}: run pretrain first, or leave --pretrained out")
    if pretrained and path:
        problems.append("pretrained and weights are given, and the weights would replace the blocks: give one of them")
    if settings.get("draw"):
        problems.append(f"draw is {settings['draw']} and members is empty: name the checkpoints to draw from")
    if path and PATH.holds(path) and not Path(path).is_file():
        problems.append(no_weights(path))
    if members is not None and path == "":
        problems.append("weights is empty: give the file of the network's weights, or members")
    return problems


def _size_problems(settings: Mapping[str, Any]) -> list[str]:
    """Sizes that a U-Net of so many `features` can't take. Mining has U-Nets of its own depths, and checks them."""
    features: Any = settings.get("features")
    if not FEATURES.holds(features) or "mining_depths" in settings:
        return []
    found = [size_problem(id, settings[id], len(features)) for id in ("patch_size", "window_size") if id in settings]
    return [problem for problem in found if problem]


def size_problem(id: str, sizes: Any, stages: int) -> str:
    """What is wrong with the sizes of a setting for a U-Net of so many stages; empty where nothing is."""
    if not SETTINGS[id].rule.holds(sizes):
        return ""  # which is told otherwise
    multiple = 2 ** (stages - 1)
    if can_halve([2 * multiple if size == -1 else size for size in sizes], multiple):
        return ""
    takes = f"takes multiples of {multiple}, not {multiple} along all three axes"
    return f"{id} {[*sizes]}: a network of {stages} stages {takes}"


def _variant_problems(settings: Mapping[str, Any]) -> list[str]:
    """Weights say which variant they are of, so that its name must be true."""
    variant = settings.get("variant")
    layers = [settings.get("encoder_layers"), settings.get("decoder_layers")]
    if not VARIANT.holds(variant) or not all(map(WHOLE.holds, layers)):
        return []
    true = {(True, False): "encoder", (False, True): "decoder", (True, True): "both", (False, False): "none"}
    name = true[bool(layers[0]), bool(layers[1])]
    if name == variant:
        return []
    return [
        f"variant is {variant!r}, and encoder_layers {layers[0]} with decoder_layers {layers[1]} is {name!r}: say that"
    ]


def _masking_problems(settings: Mapping[str, Any]) -> list[str]:
    """Patches that don't divide the images, or of which there are too few."""
    patch: Any = settings.get("masked_patch")
    image: Any = settings.get("image_size")
    if not PATCH_IN_PLANE.holds(patch) or not IMAGE_SIZE.holds(image):
        return []  # which is told otherwise
    counts = [size / edge for size, edge in zip(image, patch, strict=True)]
    if all(number == int(number) for number in counts) and prod(counts) >= 2:
        return []
    return [f"masked_patch {[*patch]}: must divide image_size {[*image]} into two patches or more"]


def _slice_problems(settings: Mapping[str, Any]) -> list[str]:
    """A range of axial slices where others are trained on, too."""
    if not settings.get("slice_range") or settings.get("planes") == ["axial"]:
        return []
    return [
        "slice_range counts axial slices, and planes has others: leave slice_range out, or say --planes \"['axial']\""
    ]


def check_processes() -> None:
    """Check that torchrun (or another launcher that sets the same variables) started this process.

    Raises:
        InputError: it didn't.
    """
    if missing := [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise InputError(
            f"this trains in several processes, and {missing[0]} isn't set: start it with torchrun --standalone "
            "--nproc_per_node N -m monai.bundle run …, or leave the config multi_gpu_… out"
        )


def check_slices(network: nn.Module, channels: int, crop_size: Sequence[int], classes: int) -> None:
    """Check that a network segments slices of a size, by one of zeros, before any scan is prepared.

    Args:
        network: left in the mode that it has.
        channels: of a slice.
        crop_size: rows and columns.
        classes: channels that it gives, at the slice's size.

    Raises:
        InputError: it doesn't.
    """
    training, name = network.training, type(network).__name__
    try:
        with torch.inference_mode():
            found = network.eval()(
                torch.zeros(1, channels, *crop_size, device=next(network.parameters(), torch.empty(0)).device)
            )
    except InputError:
        raise
    except Exception as error:  # of whatever network_def there is
        raise InputError(
            f"{name} doesn't take {channels} channels of crop_size {[*crop_size]}: {describe_cause(error)}; give "
            "another network_def, or, if it is the size that it doesn't take, multiples of 16"
        ) from error
    finally:
        network.train(training)
    shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
    if shape != (wanted := (1, classes, *crop_size)):
        raise InputError(f"{name} gives {shape} of a slice, not {wanted}: give another network_def")


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
