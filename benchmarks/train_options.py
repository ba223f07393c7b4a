"""What each option of a training step brings: time and memory of a step of CGA U-Net with it and without.

    python -m benchmarks.train_options [--device cuda] [--size 64] [--rounds 3]

The rows are train.json's ids: `amp`, `channels_last`, `compile` and `gradient_clip` against a step in bfloat16 without
them, and `accumulation_steps` against a batch of as many cases. Every configuration runs in processes of its own, by
turns; a process's first step, which compiles and warms up, isn't counted.
"""

from __future__ import annotations

import argparse

from .machine import machine
from .steps import Plan, add_arguments, compare, print_table
from .train_step import MODULE, plan


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="voxels along each side (default: 64)")
    add_arguments(parser, steps=6)
    arguments = parser.parse_args()
    half = plan(arguments.device, arguments.size, True)
    last = plan(arguments.device, arguments.size, True, memory_format="channels_last")
    one: dict[str, Plan] = {
        "bfloat16 (amp)": half,
        "float32": plan(arguments.device, arguments.size, False),
        "channels_last": last,
        "compile": half | {"compiled": True},
        "channels_last, compile": last | {"compiled": True},
        "gradient_clip": half | {"clip": 1.0},
    }
    four: dict[str, Plan] = {"4 cases a step": half | {"batch": 4}, "accumulation_steps 4": half | {"accumulation": 4}}
    print(machine())
    title = f"4×{arguments.size}³"
    print_table(
        f"{title}, one case a step; all but float32 in bfloat16",
        compare(MODULE, one, arguments.rounds, arguments.steps),
    )
    print_table(f"{title}, bfloat16, four cases", compare(MODULE, four, arguments.rounds, max(2, arguments.steps // 2)))


if __name__ == "__main__":
    main()
