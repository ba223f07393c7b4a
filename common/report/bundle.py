"""A bundle as the report needs it: its name, its network with weights, and how inference prepares and runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser
from monai.inferers import Inferer
from torch import nn

from ..errors import InputError
from ..weights import default_weights, load_weights

__all__ = ["Bundle", "read_bundle"]


class Bundle(NamedTuple):
    """A bundle.

    Args:
        name, version: from its metadata.
        network: in evaluation mode, with weights unless its inferer brings some; None where the bundle has none yet.
        preprocessing: the composed transforms of inference.
        inferer: what inference applies the network with.
        weights: what to call them, empty where there are none.
    """

    name: str
    version: str
    network: nn.Module | None
    preprocessing: Callable[[dict[str, Any]], dict[str, Any]]
    inferer: Inferer
    weights: str


def read_bundle(folder: Path | str, checkpoint: Path | str | None = None, **overrides: Any) -> Bundle:
    """Reads a bundle's metadata and inference config, and loads its weights.

    Args:
        folder: of the bundle.
        checkpoint: the weights; `models/model.pt` of the bundle where not given, or those that came with it, and none
            where there are neither.
        overrides: ids of the inference config with other values, as they were when the cases were predicted. `weights`
            is another word for the checkpoint there; `members` are the weights in its place.

    Raises:
        InputError: a config is missing or damaged, an override names no id of it, or the weights don't fit the network.
    """
    folder = Path(folder)
    config = folder / "configs" / "inference.json"
    try:
        metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
        content = ConfigParser.load_config_file(str(config))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: no readable configs/metadata.json and configs/inference.json; give a bundle's folder"
        ) from error
    parser = ConfigParser(content)
    parser["bundle_root"] = str(folder)
    for key in ("network_def", "preprocessing", "inferer"):
        if key not in parser:
            raise InputError(f"{config}: no {key}; give a bundle whose inference has one")
    checkpoint = overrides.pop("weights", checkpoint)
    for key, value in overrides.items():
        if key not in parser:
            raise InputError(f"{config}: no id {key} to override; it has {', '.join(content)}")
        parser[key] = value
    path = Path(default_weights(folder / "models") if checkpoint is None else checkpoint)
    parser["weights"] = str(path)  # which other settings follow
    parser.read_meta(metadata)
    if "check" in parser:
        parser["check"]["unused"] = ["weights"]  # in its place there is `checkpoint`, or no weights at all
        parser.get_parsed_content("check")
    inferer = parser.get_parsed_content("inferer")
    members = len(getattr(inferer, "members", ()))
    network, weights = None, ""
    if members or checkpoint is not None or path.is_file():
        network = parser.get_parsed_content("network_def").eval()
        weights = f"{members} members" if members else path.name
    if network is not None and not members:
        load_weights(network, path)
    return Bundle(
        str(metadata.get("name", folder.name)),
        str(metadata.get("version", "")),
        network,
        parser.get_parsed_content("preprocessing"),
        inferer,
        weights,
    )
