"""What 3D-TransUNet's variants cost, beside the authors' release: parameters, operations, memory and time.

The networks are those of the bundle's train.json, of which the variant alone is set. Operations are multiplications
with additions of one forward in evaluation at 4×128³ (convolutions and matrix products), counted without computing
them. Time and memory are of inference at `--size` and of a training step (forward, `SetPredictionLoss`, backward) at
`--training_size`. Memory is by how much a step raises the peak of a process of its own; the variants run by turns, and
a process's first step isn't timed.

Parameters may differ from the release's by 1%; inference at 4×128³ may raise the peak by 2.2 GB (10⁹ bytes) and take
1.3 times as long as `none`.

    python -m benchmarks.transunet3d_cost [--size 128] [--training_size 64] [--precisions bfloat16 float32]
        [--variants none encoder decoder both] [--device cuda] [--rounds 3] [--steps 2]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from monai.bundle import ConfigParser
from monai.inferers import SimpleInferer
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from common.inferers.mixed_precision import MixedPrecisionInferer
from common.losses.set_prediction import SetPredictionLoss
from common.networks.transunet3d import TransUNet3D

from .machine import machine
from .steps import CropStepper, Plan, add_arguments, compare, parse, print_table

CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "transunet3d" / "configs" / "train.json"
PARAMETERS, MEMORY, TIME = 0.01, 2.2e9, 1.3


class Release(NamedTuple):
    """The authors' figures: parameters in millions, GMac and GB over base at 4×128³ in float32."""

    parameters: float
    gmac: float
    gigabytes: float


RELEASE = {  # the first is what the others are compared with
    "none": Release(31.2, 483, 1.8),
    "encoder": Release(116.8, 488, 1.85),
    "decoder": Release(34.1, 556, 4.4),
    "both": Release(41.7, 557, 4.4),
}


def make(variant: str) -> TransUNet3D:
    """The network of the bundle's train.json."""
    parser = ConfigParser()
    parser.read_config(CONFIG)
    parser["variant"] = variant
    return parser.get_parsed_content("network_def")


def count(variant: str, size: int = 128) -> tuple[int, int]:
    """Parameters, and multiplications with additions of a forward of 4×size³."""
    with FakeTensorMode(), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network = make(variant).eval()
        network(torch.empty(1, 4, size, size, size))
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2


def crop_stepper(size: int, half: bool, variant: str, training: bool, device: str) -> CropStepper:
    """A variant's network and loss on one random crop."""
    torch.manual_seed(0)
    network = make(variant)
    image = torch.randn(1, 4, size, size, size)
    # Regions of which each holds the next, in blocks.
    depth = torch.randint(0, 4, (1, 1, *[size // 8] * 3)).float()
    depth = torch.nn.functional.interpolate(depth, scale_factor=8)
    label = torch.cat([depth >= level for level in (1, 2, 3)], dim=1).to(torch.uint8)
    # The loss takes the outputs as they are; a segmentation's are summed up in float32.
    inferer = MixedPrecisionInferer(SimpleInferer(), amp=half, float32=not training)
    return CropStepper(network, SetPredictionLoss(), inferer, image, label, training, device)


def kept(holds: bool) -> str:
    """In words."""
    return "kept" if holds else "NOT KEPT"


def print_counts(counts: Mapping[str, tuple[int, int]]) -> None:
    """One row a variant; parameters in millions."""
    print(f"\n{'4×128³':12}{'parameters':>13}{'release':>9}{'target':>10}{'GMac':>8}{'release':>9}")
    for variant, (parameters, macs) in counts.items():
        release = RELEASE[variant]
        told = kept(abs(parameters / 1e6 / release.parameters - 1) <= PARAMETERS)
        print(
            f"{variant:12}{parameters:13,}{release.parameters:9}{told:>10}{macs / 1e9:8.1f}{release.gmac:9.0f}",
            flush=True,
        )


def print_verdict(measured: Mapping[str, tuple[float, float]], size: int) -> None:
    """Memory beside the release's and time beside the first variant's, and whether that is within the targets."""
    if size == 128:  # the release's, and the target's
        for variant, (_, peak) in measured.items():
            told = f"release {RELEASE[variant].gigabytes} GB; at most {MEMORY / 1e9:.1f} GB {kept(peak <= MEMORY)}"
            print(f"{variant}: {peak / 1e9:.2f} GB over base, {told}")
    (first, (seconds, _)), *others = measured.items()
    for variant, (own, _) in others:
        told = f"at most {TIME} times {kept(own <= TIME * seconds)}"
        print(f"{variant}: {own / seconds:.3f} times the time of {first}, {told}", flush=True)


def main() -> None:
    """Print what is counted, and a table for each precision, of inference and of training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    precisions = ["bfloat16", "float32"]
    parser.add_argument("--size", type=int, default=128, help="of inference, voxels along each side (default: 128)")
    parser.add_argument("--training_size", type=int, default=64, help="of training (default: 64); 0 for none")
    parser.add_argument("--precisions", nargs="+", choices=precisions, default=precisions)
    parser.add_argument("--variants", nargs="+", choices=[*RELEASE], default=[*RELEASE], help="compared with the first")
    add_arguments(parser, steps=2)
    arguments = parse(parser, crop_stepper)
    print(machine())
    print_counts({variant: count(variant) for variant in arguments.variants})
    for precision in arguments.precisions:
        for size, training in ((arguments.size, False), (arguments.training_size, True)):
            if not size:
                continue
            shared = {"size": size, "half": precision == "bfloat16", "device": arguments.device, "training": training}
            plans: dict[str, Plan] = {variant: {**shared, "variant": variant} for variant in arguments.variants}
            measured = compare("benchmarks.transunet3d_cost", plans, arguments.rounds, arguments.steps)
            print_table(f"4×{size}³, {precision}, {'training step' if training else 'inference'}", measured)
            if not training:
                print_verdict(measured, size)


if __name__ == "__main__":
    main()
