"""Running a bundle's workflow by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import monai.bundle
from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.utils import ID_SEP_KEY

from .errors import InputError

__all__ = ["check_overrides", "find_bundle", "run"]

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"

_NO_SETTINGS = ("_meta_", "imports", "check", "initialize", "run", "finalize")
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


def check_overrides(files: Sequence[str], overrides: Mapping[str, Any]) -> None:
    """Check that each override replaces something; MONAI takes an id that nothing reads, and ignores None.

    Args:
        files: the config files, in the order in which they are merged.
        overrides: id → new value. A nested id may be new where what holds it is there.

    Raises:
        InputError: an id isn't in the files, or its value is None.
    """
    parser = ConfigParser()
    parser.read_config(list(files))
    content = parser.get()
    for name, value in overrides.items():
        if name == "bundle_root":
            raise InputError("--bundle_root: the bundle is the first argument; give its folder there")
        if value is None:
            raise InputError(f"--{name} None: MONAI ignores an override without a value; leave it out")
        holder = ID_SEP_KEY.join(ReferenceResolver.split_id(name)[:-1])
        if name not in content and not (holder and holder in parser):
            ids = [id for id in content if id not in _NO_SETTINGS]
            like = get_close_matches(name, ids, n=1)
            hint = f"did you mean --{like[0]}" if like else f"it has {', '.join(ids)}"
            raise InputError(f"--{name}: {Path(files[-1]).name} has no such id; {hint}")


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
    configs = folder / "configs"
    names = [_OVERLAYS[workflow], workflow] if workflow in _OVERLAYS else [workflow]
    known = sorted(path.stem for path in configs.glob("*.json") if path.stem != "metadata")
    for name in names:
        if name not in known:
            raise InputError(f"{folder.name} has no workflow {workflow}: it has {', '.join(known)}")
    files = [os.fspath(configs / f"{name}.json") for name in names]
    check_overrides(files, overrides)
    monai.bundle.run(
        config_file=files,
        meta_file=os.fspath(configs / "metadata.json"),
        logging_file=os.fspath(configs / "logging.conf"),
        bundle_root=os.fspath(folder),
        **overrides,
    )
