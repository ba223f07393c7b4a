"""Time and memory of steps: each configuration in processes of its own, those that are compared by turns.

So neither a warm allocator nor a busy neighbour favours one of them.
Memory on a CPU is as Linux tells it. A module that is measured so reads its command line by `parse`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from monai.inferers import Inferer

from .machine import memory

Plan = dict[str, object]


class Stepper(Protocol):
    """What takes steps on a device."""

    device: torch.device

    def step(self) -> float:
        """One step, finished; its loss."""


class CropStepper:
    """Network and loss on one crop: forward, loss and backward without optimiser, or a segmentation alone.

    Args:
        network: takes the image.
        loss: takes the network's output and the label.
        inferer: as the bundle's train.json has it.
        image: (B, C, D, H, W).
        label: as the loss takes it.
        training: whether the steps are of training.
        device: where they are taken.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        loss: Callable[..., Any],
        inferer: Inferer,
        image: torch.Tensor,
        label: torch.Tensor,
        training: bool,
        device: str,
    ) -> None:
        self.device, self.training = torch.device(device), training
        self.network = network.to(self.device).train(training)
        self.loss, self.inferer = loss, inferer
        self.image, self.label = image.to(self.device), label.to(self.device)

    def step(self) -> float:
        """One step, finished; its loss, 0 of a segmentation."""
        self.network.zero_grad(set_to_none=True)
        with nullcontext() if self.training else torch.inference_mode():
            output = self.inferer(self.image, self.network)
        if self.training:
            loss = self.loss(output, self.label)
            loss.backward()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return loss.item() if self.training else 0.0


def resident(device: torch.device) -> int:
    """Peak memory so far in bytes: of the process, or of the tensors on the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return memory("VmHWM")  # getrusage's goes on from that of the process that started this one


def measure(make: Callable[..., Stepper], plan: Plan, steps: int) -> dict[str, list[float]]:
    """Losses and seconds of `steps` steps, and the bytes by which they raised the peak of memory.

    Args:
        make: takes the plan's arguments.
        plan: a configuration.
        steps: how many.
    """
    stepper = make(**plan)
    before = resident(stepper.device)
    losses, seconds = [], []
    for _ in range(steps):
        start = time.perf_counter()
        losses.append(stepper.step())
        seconds.append(time.perf_counter() - start)
    return {"losses": losses, "seconds": seconds, "bytes": [resident(stepper.device) - before]}


def in_its_own_process(module: str, plan: Plan, steps: int) -> dict[str, list[float]]:
    """`measure` in a fresh interpreter, called by `module`."""
    command = [sys.executable, "-m", module, "--one", json.dumps({"plan": plan, "steps": steps})]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def compare(module: str, plans: dict[str, Plan], rounds: int, steps: int) -> dict[str, tuple[float, float]]:
    """Median seconds of a step (without each process's first) and median bytes of each plan, over alternating runs."""
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    peaks: dict[str, list[float]] = {name: [] for name in plans}
    for turn in range(rounds):
        for name in list(plans) if turn % 2 == 0 else reversed(plans):
            result = in_its_own_process(module, plans[name], steps)
            seconds[name] += result["seconds"][1:]
            peaks[name] += result["bytes"]
    return {name: (statistics.median(seconds[name]), statistics.median(peaks[name])) for name in plans}


def add_arguments(parser: argparse.ArgumentParser, steps: int | None = None) -> None:
    """What a module is asked whose steps are compared; `steps` is how many by default, None where it isn't asked."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each configuration (default: 3)")
    if steps is not None:
        parser.add_argument("--steps", type=int, default=steps, help=f"steps in each process (default: {steps})")


def parse(parser: argparse.ArgumentParser, make: Callable[..., Stepper]) -> argparse.Namespace:
    """The command line; a process that `in_its_own_process` started measures what `make` makes, and ends here."""
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(make, **json.loads(arguments.one))))
        raise SystemExit
    return arguments


def print_table(title: str, measured: dict[str, tuple[float, float]]) -> None:
    """One row a plan; ratios are against the first."""
    print(f"\n{title}\n{'':34}{'s a step':>10}{'ratio':>8}{'peak MiB':>10}{'ratio':>8}")
    first_seconds, first_bytes = next(iter(measured.values()))
    for name, (seconds, peak) in measured.items():
        print(f"{name:34}{seconds:10.3f}{seconds / first_seconds:8.3f}{peak / 2**20:10.0f}{peak / first_bytes:8.3f}")
