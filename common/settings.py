"""What the bundles' settings mean, and which values are good: one table for the checks and for `run --list`.

A setting that a config has and that this table lacks is refused by `common.checks.check_settings`, so each new one gets
its row here.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from .data.labels import CHANNELS, CONVENTIONS, source_values
from .data.partition import PARTS
from .data.phantom_drawing import KINDS
from .data.phantom_variety import FEATURES as VARIETY
from .errors import InputError
from .inferers.ensemble import COMBINATIONS
from .inferers.slices import PLANES
from .metrics.lesion_wise import PRESETS
from .networks.feature_guided_attention import DIVISORS, NORMALISATIONS

__all__ = ["SETTINGS", "Rule", "Setting"]


class Rule(NamedTuple):
    """Whether a value is good, and what to give, as the error words it."""

    holds: Callable[[Any], bool]
    give: str


class Setting(NamedTuple):
    """One id of the configs, or one argument of a verb: the rule for its value, and its meaning in one line."""

    rule: Rule
    meaning: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value: Any, each: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and all(map(each, value))


def _is_device(value: Any) -> bool:
    try:
        torch.empty(1, device=value)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError):
        return False
    return True


def _is_convention(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(source_values(value))
    except InputError:
        return False


SWITCH = Rule(lambda value: isinstance(value, bool), "True or False")
PATH = Rule(lambda value: isinstance(value, str | os.PathLike) and os.fspath(value) != "", "a path, such as ./2020")
PATH_OR_NONE = Rule(lambda value: value == "" or PATH.holds(value), "a path, such as ./2020, or nothing")
COUNT = Rule(lambda value: _is_whole(value) and value > 0, "a whole number above zero")
WHOLE = Rule(lambda value: _is_whole(value) and value >= 0, "a whole number, zero or above")
NUMBER = Rule(_is_number, "a number")
POSITIVE = Rule(lambda value: _is_number(value) and value > 0, "a number above zero")
NOT_NEGATIVE = Rule(lambda value: _is_number(value) and value >= 0, "a number, zero or above")
SHARE = Rule(lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1")
BELOW_ONE = Rule(lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 to below 1")
INNER_SHARE = Rule(lambda value: _is_number(value) and 0 < value < 1, "a number above 0 and below 1")
FOLD = Rule(lambda value: _is_whole(value) and value >= -1, "the number of a fold, from 0, or -1 for none")
FOLDS = Rule(lambda value: _is_whole(value) and value >= 2, "a whole number of at least 2")
PART = Rule(lambda value: value in PARTS, f"one of {', '.join(PARTS)}")
DEVICE = Rule(_is_device, "one that this machine has, such as cpu, or leave it out")
AXES = Rule(
    lambda value: _is_list(value, lambda axis: _is_whole(axis) and 0 <= axis <= 2),
    'a list of 0, 1 and 2, such as "[0,1]"',
)
COMPILE = Rule(
    lambda value: value is False or (value is True and any(map(shutil.which, ("c++", "g++", "clang++")))),
    "False, or True where there is a C++ compiler (g++ or clang++)",
)
COMBINE = Rule(lambda value: isinstance(value, str) and value in COMBINATIONS, f"one of {', '.join(COMBINATIONS)}")
COMPONENTS = Rule(lambda value: value in ("", "C", "F", "CF"), "CF, C (curriculum), F (attention), or nothing")
DIVISOR = Rule(lambda value: value in DIVISORS, f"one of {', '.join(DIVISORS)}")
NORMALISATION = Rule(lambda value: value in NORMALISATIONS, f"one of {', '.join(NORMALISATIONS)}")
OPTIMIZER = Rule(lambda value: value in ("sgd", "adamw"), "sgd or adamw")
VARIANT = Rule(lambda value: value in ("encoder", "decoder", "both", "none"), "encoder, decoder, both or none")
FEATURES = Rule(
    lambda value: _is_list(value, COUNT.holds) and len(value) >= 3, 'three whole numbers or more, such as "[32,64,128]"'
)
DEPTHS = Rule(
    lambda value: (
        _is_list(value, lambda depth: COUNT.holds(depth) and depth >= 3)
        and 0 < len(value) == len({*value})
        and sorted(value) == list(value)
    ),
    'a list of rising whole numbers of at least 3, such as "[4,5,6]"',
)
STAGES = Rule(
    lambda value: _is_list(value, COUNT.holds) and len(value) > 0, 'a list of epochs above zero, such as "[80,80,340]"'
)
PATCH_IN_PLANE = Rule(
    lambda value: _is_list(value, COUNT.holds) and len(value) == 2, 'two whole numbers above zero, such as "[8,8]"'
)
INTER_FORM = Rule(lambda value: value in ("log", "bounded"), "log or bounded")
PRESET = Rule(lambda value: isinstance(value, str) and value in PRESETS, f"one of {', '.join(PRESETS)}")
CONVENTION = Rule(_is_convention, f"one of {', '.join(CONVENTIONS)}, or values and names such as 1=ED,2=NCR,3=ET")
FILES = Rule(
    lambda value: PATH.holds(value) or _is_list(value, PATH.holds),
    "a pattern such as 'folds/*/model.pt', or a list of paths",
)
MLFLOW = Rule(
    lambda value: isinstance(value, str) and not value.startswith("file:"),
    "a folder, sqlite:///FILE, or the address of an MLflow server",
)
CLASSES = Rule(
    lambda value: _is_list(value, WHOLE.holds) and len(set(value)) == len(value),
    'a list of different classes, such as "[0,1,2,3]"',
)
ATTENTION_RATE = Rule(lambda value: _is_whole(value) and value in (0, 2, 4, 8), "8, 4, 2, or 0 for none")
FRACTIONS = Rule(
    lambda value: _is_list(value, SHARE.holds) and len(value) == 3 and value[0] > 0 and abs(sum(value) - 1) < 1e-6,
    'three numbers from 0 to 1 that add up to 1, the first above 0, such as "[0.7,0.1,0.2]"',
)
SPACING = Rule(
    lambda value: _is_list(value, POSITIVE.holds) and len(value) == 3,
    'three millimetre values above zero, "[1,1,1]"',
)
SIZE = Rule(
    lambda value: _is_list(value, COUNT.holds) and len(value) == 3,
    'three whole numbers of voxels above zero, such as "[128,128,128]"',
)
WINDOW = Rule(
    lambda value: _is_list(value, lambda size: size == -1 or COUNT.holds(size)) and len(value) == 3,
    'three whole numbers of voxels above zero, or -1 for the whole scan, such as "[-1,-1,-1]"',
)

IMAGE_SIZE = Rule(
    lambda value: _is_list(value, lambda size: COUNT.holds(size) and size % 16 == 0 and size >= 32) and len(value) == 2,
    'two multiples of 16 from 32, such as "[224,224]"',
)
INTENSITY = Rule(
    lambda value: value == [] or (_is_list(value, _is_number) and len(value) == 2 and value[0] < value[1]),
    'the least value and a greater one, such as "[-160,240]", or "[]" for all',
)
CROP_SIZE = Rule(
    lambda value: _is_list(value, lambda size: COUNT.holds(size) and size % 2 == 0 and size >= 8) and len(value) == 2,
    'two even numbers from 8, such as "[190,190]"',
)
PIXEL_SIZE = Rule(
    lambda value: _is_list(value, POSITIVE.holds) and len(value) == 2, 'two millimetre values above zero, "[1,1]"'
)
SLICE_RANGE = Rule(
    lambda value: value == [] or (_is_list(value, WHOLE.holds) and len(value) == 2 and value[0] < value[1]),
    'the first slice, counted from 0, and the one after the last, such as "[30,120]", or "[]" for all',
)
IN_PLANES = Rule(
    lambda value: _is_list(value, lambda plane: plane in PLANES) and 0 < len(value) == len({*value}),
    f"a list of {', '.join(PLANES)}, such as \"['axial']\"",
)
MODALITY = Rule(lambda value: isinstance(value, str) and value in CHANNELS, f"one of {', '.join(CHANNELS)}")
KIND = Rule(lambda value: isinstance(value, str) and value in KINDS, f"one of {', '.join(KINDS)}")
LEFT_OUT = Rule(
    lambda value: _is_list(value, lambda name: isinstance(name, str) and name in VARIETY),
    f"a list of {', '.join(VARIETY)}, or [] for none",
)
LABELLED = Rule(lambda value: _is_number(value) and 0 < value <= 1, "a number above 0, up to 1")

# One row a setting, by name.
SETTINGS: dict[str, Setting] = {
    "accumulation_steps": Setting(COUNT, "training steps whose gradients make one step of the optimiser"),
    "adaptive_ratio": Setting(SWITCH, "mask more patches each epoch; False masks mask_ratio of them in all"),
    "allow_missing": Setting(SWITCH, "a case without a prediction counts as predicted empty"),
    "amp": Setting(SWITCH, "mixed precision, on GPUs and on CPUs"),
    "attention_divisor": Setting(DIVISOR, "what the attention's correction is divided by"),
    "attention_normalisation": Setting(NORMALISATION, "what the attention's products are divided by"),
    "attention_patch": Setting(PATCH_IN_PLANE, "voxels of the attention's strips in plane"),
    "attention_rate": Setting(ATTENTION_RATE, "resolution at which the attention acts, 8, 4 or 2; 0 = no attention"),
    "attention_stage": Setting(WHOLE, "encoder stage whose features guide the attention; 0 = the first"),
    "attention_stride": Setting(COUNT, "in-plane stride of the attention's convolution of the image"),
    "attention_weight": Setting(NUMBER, "weight of the loss of the attention map"),
    "batch_size": Setting(COUNT, "cases in a training step, in each process"),
    "brain_box": Setting(SWITCH, "crop slices to the box of the brain; False takes their middle of crop_size"),
    "cache_dir": Setting(PATH, "folder that keeps prepared scans, which other runs may share"),
    "cache_gib": Setting(NOT_NEGATIVE, "GiB that prepared scans may take on disk; 0 = keep none"),
    "cases_per_epoch": Setting(COUNT, "generated scans of an epoch, none of which comes again in another"),
    "channels_last": Setting(SWITCH, "keep the network's weights with channels last in memory"),
    "checkpoint_epochs": Setting(COUNT, "epochs after which there is a checkpoint, whatever the time"),
    "checkpoint_minutes": Setting(NOT_NEGATIVE, "minutes from one checkpoint to the next; 0 = one after each step"),
    "ckpt_dir": Setting(PATH, "folder of the weights"),
    "class_weight": Setting(NOT_NEGATIVE, "weight of the queries' class loss"),
    "combine": Setting(COMBINE, "how members and views are put together: mean of probabilities, of logits, or vote"),
    "compile": Setting(COMPILE, "compile the network for training with torch.compile"),
    "components": Setting(COMPONENTS, "of the method: C = curriculum, F = feature-guided attention, CF = both"),
    "crop_size": Setting(CROP_SIZE, "pixels (rows, columns) of a slice that the network sees at once"),
    "cross_entropy_weight": Setting(NUMBER, "weight of the cross-entropy loss"),
    "curriculum_dir": Setting(PATH, "folder of the curricula"),
    "dataset_dir": Setting(PATH, "folder of the scans, in any known layout"),
    "decoder_layers": Setting(WHOLE, "layers of the transformer decoder, each at a finer level; 0 = no queries"),
    "device": Setting(DEVICE, "where the network runs, such as cuda, cuda:1 or cpu"),
    "dice_weight": Setting(NUMBER, "weight of the Dice loss"),
    "draw": Setting(WHOLE, "how many of `members` to draw; 0 = all"),
    "draw_seed": Setting(WHOLE, "of the draw of members"),
    "empty_slices": Setting(SWITCH, "also train on slices that hold nothing but background"),
    "encoder_heads": Setting(COUNT, "attention heads of the vision transformer"),
    "encoder_layers": Setting(WHOLE, "blocks of the vision transformer; 0 = none, where the network can do without"),
    "encoder_mlp": Setting(COUNT, "hidden width of the perceptrons in the vision transformer"),
    "encoder_width": Setting(COUNT, "channels of the vision transformer"),
    "epochs": Setting(COUNT, "passes over the training cases"),
    "evaluate_on": Setting(PART, f"part to evaluate on: {', '.join(PARTS)}"),
    "features": Setting(FEATURES, "channels of the network's stages; as many stages as there are numbers"),
    "first_stage": Setting(COUNT, "stage to begin with; from the second on with the weights of the one before"),
    "flips": Setting(AXES, "axes along which each scan is also seen flipped: 0 = left-right, 1, 2; all combinations"),
    "fold": Setting(FOLD, "which fold of the folds file at partition_file; -1 = a partition by fractions"),
    "folds": Setting(FOLDS, "how many folds"),
    "foreground_share": Setting(SHARE, "share of a batch's patches, rounded up, that are about a lesion"),
    "fractions": Setting(FRACTIONS, "shares of the patients for training, validation and test"),
    "gradient_checkpointing": Setting(SWITCH, "compute activations anew in the backward pass: less memory"),
    "gradient_clip": Setting(NOT_NEGATIVE, "greatest norm of the gradients of a step; 0 = no bound"),
    "halving_epochs": Setting(COUNT, "epochs after which the learning rate is halved, again and again"),
    "hard_attention": Setting(SWITCH, "each voxel belongs to one class of the attention map, not to all by share"),
    "ignore_affine": Setting(SWITCH, "compare voxel by voxel, whatever the affines say"),
    "image_size": Setting(IMAGE_SIZE, "pixels (rows, columns) that each image is brought to"),
    "initial_ratio": Setting(
        INNER_SHARE, "share of the patches that is masked in the first epoch, where the ratio adapts"
    ),
    "intensity_window": Setting(
        INTENSITY, "least and greatest value that counts, such as those of a CT's window; empty = all"
    ),
    "inter_form": Setting(INTER_FORM, "form of the inter-class loss: log or bounded"),
    "inter_start": Setting(WHOLE, "epoch from which the inter-class loss counts"),
    "inter_weight": Setting(NUMBER, "weight of the inter-class loss"),
    "kind": Setting(KIND, f"of tumour in the generated scans: {', '.join(KINDS)}"),
    "labelled_share": Setting(LABELLED, "share of the labelled training patients whose labels are used"),
    "learning_rate": Setting(POSITIVE, "learning rate of the first epoch"),
    "learning_rate_floor": Setting(NOT_NEGATIVE, "the learning rate doesn't fall below this"),
    "lesion_first": Setting(SWITCH, "mask patches first that look like lesions; False masks any"),
    "lesion_preset": Setting(PRESET, "policy of the lesion-wise scores, such as brats2023-met"),
    "mask_ratio": Setting(INNER_SHARE, "share of the patches that is masked, where it doesn't adapt and in validation"),
    "mask_weight": Setting(NOT_NEGATIVE, "weight of the queries' mask losses, cross-entropy and Dice"),
    "masked_patch": Setting(PATCH_IN_PLANE, "pixels (rows, columns) of a patch that is masked or not"),
    "members": Setting(FILES, "checkpoints of an ensemble, in place of weights; empty = none"),
    "minimum_component": Setting(NOT_NEGATIVE, "what hangs together and has fewer mm³ is removed; 0 = nothing"),
    "minimum_enhancing": Setting(WHOLE, "an enhancing tumour of fewer voxels becomes core; 0 = never"),
    "mining_depths": Setting(DEPTHS, "stages of each mining network, one for each curriculum, easiest first"),
    "mining_epochs": Setting(COUNT, "epochs of each mining network"),
    "missing_modalities": Setting(SWITCH, "zeros where a case lacks modalities, for weights trained with such"),
    "mlflow_uri": Setting(MLFLOW, "where MLflow records the training, such as a folder; empty = nowhere"),
    "modality": Setting(MODALITY, f"which of {', '.join(CHANNELS)} to take of scans with several"),
    "modality_dropout": Setting(SHARE, "probability that a patch is trained on without some of its modalities"),
    "momentum": Setting(BELOW_ONE, "Nesterov momentum of the optimiser"),
    "no_object_weight": Setting(POSITIVE, "weight of queries without target in the class loss"),
    "normalise_patches": Setting(SWITCH, "predict pixels in units of their own patch"),
    "num_workers": Setting(WHOLE, "processes that prepare scans; 0 = none beside the training"),
    "optimizer_name": Setting(OPTIMIZER, "sgd with Nesterov momentum, or adamw"),
    "out": Setting(PATH, "folder for what the verb writes"),
    "output_dir": Setting(PATH, "folder for what the run writes"),
    "overlap": Setting(BELOW_ONE, "share by which windows overlap"),
    "overwrite": Setting(SWITCH, "do finished cases again"),
    "parallel": Setting(COUNT, "folds that are worked on at once"),
    "partition_file": Setting(PATH, "file that says which cases train, validate and test; written where there is none"),
    "patch_size": Setting(SIZE, "voxels of a training patch"),
    "patches_per_case": Setting(COUNT, "patches from each case in an epoch"),
    "pixel_size": Setting(PIXEL_SIZE, "pixels (rows, columns) to resample slices to, in mm"),
    "planes": Setting(IN_PLANES, "planes of the slices; several vote"),
    "poly_power": Setting(NOT_NEGATIVE, "power of the learning rate's polynomial decay"),
    "prediction_convention": Setting(CONVENTION, "label values of the predictions: canonical, brats, brats2018 …"),
    "predictions_dir": Setting(PATH_OR_NONE, "folder of label maps <case>.nii.gz; in evaluate empty = write none"),
    "pretrained": Setting(PATH_OR_NONE, "file of pre-trained blocks to begin with; empty = none"),
    "queries": Setting(COUNT, "queries of the transformer decoder, each of which paints a mask"),
    "ratio_growth": Setting(POSITIVE, "the masked share grows by the logarithm of the epoch, divided by this"),
    "reference_convention": Setting(CONVENTION, "label values of the references, in place of what their layout says"),
    "regions": Setting(SWITCH, "learn the overlapping regions WT, TC and ET, not labels that exclude one another"),
    "resample": Setting(SWITCH, "bring each scan to `spacing`; False keeps its own"),
    "restart_schedule": Setting(SWITCH, "the learning rate's decay begins anew with each stage"),
    "resume": Setting(SWITCH, "go on from the newest checkpoint in <output_dir>/checkpoints"),
    "robust": Setting(SWITCH, "normalise by the brain's median and interquartile range, not mean and deviation"),
    "rotations": Setting(SWITCH, "each scan is also seen turned by 90, 180 and 270 degrees in the axial plane"),
    "save_overlays": Setting(SWITCH, "also draw each image with what was found, as <output_dir>/overlays/<case>.png"),
    "save_probabilities": Setting(SWITCH, "also write <case>_probabilities.nii.gz"),
    "save_uncertainty": Setting(SWITCH, "also write <case>_entropy.nii.gz and, of several members or views, _variance"),
    "seed": Setting(WHOLE, "of everything that is drawn"),
    "slice_range": Setting(SLICE_RANGE, "first slice to train on and the one after the last; empty = all with brain"),
    "slices_at_once": Setting(COUNT, "slices that go through the network together in inference"),
    "source_labels": Setting(SWITCH, "write labels in the convention of the input"),
    "spacing": Setting(SPACING, "voxel size to resample to, in mm"),
    "stages": Setting(STAGES, "epochs of each stage of the curriculum"),
    "steps_per_epoch": Setting(COUNT, "training steps of an epoch, however many cases there are"),
    "token_size": Setting(SIZE, "voxels (z, y, x) of a token of the vision transformer in pre-training"),
    "update_classes": Setting(CLASSES, "classes whose prototypes are added to the features"),
    "val_interval": Setting(COUNT, "epochs from one validation to the next"),
    "validation_cases": Setting(COUNT, "generated scans of validation, drawn apart from those of training"),
    "validation_share": Setting(INNER_SHARE, "share of a fold's patients, its test part aside, for validation"),
    "variant": Setting(VARIANT, "where transformers act: encoder, decoder, both, or none for the plain U-Net"),
    "warmup_epochs": Setting(WHOLE, "epochs in which the learning rate rises to its value"),
    "weight_decay": Setting(NOT_NEGATIVE, "weight decay of the optimiser"),
    "weights": Setting(PATH_OR_NONE, "file of weights to load; in training empty = start from none"),
    "window_size": Setting(WINDOW, "voxels of an inference window; -1 = the whole scan along that axis"),
    "without": Setting(LEFT_OUT, "features of the generated scans that are left out; empty = none"),
}
