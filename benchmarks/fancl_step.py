"""What FANCL's parts cost: time and memory of a training step and of a segmentation, against its own backbone.

A training step is forward, loss and backward, without optimiser. Its rows are those of the paper's Table III: backbone,
feature-guided attention, curriculum, both. The attention may cost 20% of time and 25% of memory over the backbone.

Each configuration runs in processes of its own, by turns; a process's first step isn't counted.

    python -m benchmarks.fancl_step [--sizes 64 128] [--precisions bfloat16 float32] [--device cuda] [--rounds 3]
"""

from __future__ import annotations

import argparse

import torch
from monai.inferers import SimpleInferer

from common.inferers.mixed_precision import MixedPrecisionInferer
from common.losses.fancl import FANCLLoss
from common.networks.fancl import FANCL

from .machine import machine
from .steps import CropStepper, Plan, add_arguments, compare, parse, print_table

TIME, MEMORY = 1.20, 1.25
ROWS = {  # attention over how many categories, curriculum
    "backbone": (0, False),
    "feature-guided attention": (3, False),
    "curriculum": (0, True),
    "both": (3, True),
}


def crop_stepper(size: int, half: bool, row: str, training: bool, device: str) -> CropStepper:
    """A row's network and loss on one random crop."""
    torch.manual_seed(0)
    attention, curriculum = ROWS[row]
    network = FANCL(attention=attention)
    generator = torch.Generator().manual_seed(1)
    classes = torch.randint(0, 4, (1, 1, *[size // 8] * 3), generator=generator).float()
    classes = torch.nn.functional.interpolate(classes, scale_factor=8)
    entry = torch.randint(1, 5, classes.shape, generator=generator)
    label = torch.cat([entry * (classes == k) for k in (1, 2, 3)], dim=1).to(torch.uint8)
    image = torch.randn(1, 4, size, size, size, generator=generator)
    inferer = MixedPrecisionInferer(SimpleInferer(), amp=half)
    return CropStepper(network, FANCLLoss(network, curriculum=curriculum), inferer, image, label, training, device)


def main() -> None:
    """Print a table for each size, precision, and of training and segmentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    precisions = ["bfloat16", "float32"]
    parser.add_argument("--sizes", nargs="+", type=int, default=[64], help="voxels along each side (default: 64)")
    parser.add_argument("--precisions", nargs="+", choices=precisions, default=precisions)
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], default=[*ROWS], help="the first is compared with")
    add_arguments(parser, steps=4)
    arguments = parse(parser, crop_stepper)
    print(machine())
    for size in arguments.sizes:
        for precision in arguments.precisions:
            for training in (True, False):
                # The curriculum is a part of the loss alone.
                rows = [row for row in arguments.rows if training or not ROWS[row][1]]
                shared = {"size": size, "half": precision == "bfloat16", "device": arguments.device}
                plans: dict[str, Plan] = {row: {**shared, "training": training, "row": row} for row in rows}
                measured = compare("benchmarks.fancl_step", plans, arguments.rounds, arguments.steps)
                print_table(f"4×{size}³, {precision}, {'training' if training else 'segmentation'}", measured)
                print_verdict(measured)


def print_verdict(measured: dict[str, tuple[float, float]]) -> None:
    """Whether the attention costs no more than it may."""
    if {"backbone", "feature-guided attention"} <= measured.keys():
        ratios = [b / a for a, b in zip(measured["backbone"], measured["feature-guided attention"], strict=True)]
        kept = ratios[0] <= TIME and ratios[1] <= MEMORY
        print(f"attention: time {ratios[0] - 1:+.0%}, memory {ratios[1] - 1:+.0%}: {'kept' if kept else 'too much'}")


if __name__ == "__main__":
    main()
