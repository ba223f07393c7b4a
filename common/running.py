"""Running a bundle's workflow by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import monai.bundle

from .errors import InputError

__all__ = ["find_bundle", "run"]

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"

_OVERLAYS = {"multi_gpu_train": "train", "evaluate": "train"}


def find_bundle(bundle: str) -> Path:
    """The folder of a bundle.

    Args:
        bundle: a folder that holds `configs/`, or the name of one of this project's bundles.

    Raises:
        InputError: there is no such bundle.
    """
    for folder in (Path(bundle), BUNDLES / bundle):
        if (folder / "configs" / "metadata.json").is_file():
            return folder
    names = ", ".join(sorted(path.name for path in BUNDLES.glob("*") if (path / "configs").is_dir()))
    raise InputError(f"no bundle {bundle}: give a bundle's folder, or one of {names}")


def run(bundle: str, workflow: str, **overrides: Any) -> None:
    """Run a workflow of a bundle, like `python -m monai.bundle run`, with its files found by name.

    Examples:
        lesion-bundles run cga_unet train --dataset_dir DIR --epochs 100
        lesion-bundles run cga_unet inference --dataset_dir DIR --output_dir OUT

    Args:
        bundle: name of a bundle (cga_unet), or its folder.
        workflow: name of one of its configs: train, inference, evaluate, evaluate_predictions.
        overrides: any id of the config with a new value, such as --epochs 10 or --train#dataloader#batch_size 4.
    """
    folder = find_bundle(bundle)
    for name, value in overrides.items():
        if value is None:
            raise InputError(f"--{name} None: MONAI ignores an override without a value; leave it out")
    configs = folder / "configs"
    names = [_OVERLAYS[workflow], workflow] if workflow in _OVERLAYS else [workflow]
    for name in names:
        if not (configs / f"{name}.json").is_file():
            known = sorted(path.stem for path in configs.glob("*.json") if path.stem != "metadata")
            raise InputError(f"{folder.name} has no workflow {workflow}: it has {', '.join(known)}")
    monai.bundle.run(
        config_file=[os.fspath(configs / f"{name}.json") for name in names],
        meta_file=os.fspath(configs / "metadata.json"),
        logging_file=os.fspath(configs / "logging.conf"),
        bundle_root=os.fspath(folder),
        **overrides,
    )
