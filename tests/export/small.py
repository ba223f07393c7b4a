"""Networks of the five bundles that are as small as they can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
WINDOWS = {"resample": False, "window_size": [16, 16, 16]}
# Bundle → ids.
NETWORKS: dict[str, dict[str, Any]] = {
    "cga_unet": {"network_def#features": [8, 8, 8, 8], "resample": False},
    "fancl": {"features": [4, 8, 8, 8], "attention_patch": [4, 4], "components": "F", **WINDOWS},
    "mps_ams": {"features": [4, 8, 8, 8, 8], "image_size": [32, 32]},
    "msconvlstm_att": {
        **{"network_def#features": [4, 4, 8], "network_def#width": 8},
        **{"crop_size": [26, 26], "resample": False},
    },
    "transunet3d": {
        **{"features": [4, 8, 8, 8], "encoder_width": 48, "encoder_heads": 4, "encoder_mlp": 96, "queries": 4},
        **{"variant": "both", "encoder_layers": 1, "decoder_layers": 2, **WINDOWS},
    },
}


def network_of(bundle: str, config: str = "inference", **ids: Any) -> torch.nn.Module:
    """The network of a bundle's config in evaluation, of weights that chance and the seed 0 give."""
    parser = ConfigParser()
    parser.read_config(BUNDLES / bundle / "configs" / f"{config}.json")
    for id, value in {**NETWORKS[bundle], **ids}.items():
        parser[id] = value
    torch.manual_seed(0)
    return parser.get_parsed_content("network_def").eval()
