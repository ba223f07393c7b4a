"""What MSConvLSTM-Att costs: parameters, operations, its attention's memory, and time of its ways to be computed.

    python -m benchmarks.msconvlstm_att_cost [--size 190] [--slices 4] [--case FOLDER] [--device cuda] [--rounds 3]
        [--steps 2]

Operations are multiplications with additions of one slice; zeros that the attention's keys are padded by don't
count. Memory of the attention is what a process of its own needs at the peak, beyond inputs and outputs; 30 MiB at 95²
and 60 MiB at 190² is the limit. What each modality goes through by itself could be computed as groups of each
convolution; that is timed beside one after another, as it is, without and with the gradients. Then time and memory of a
segmentation of `--slices` slices and of a training step on them (forward, loss, backward), each in processes of its
own.

With `--case`, the folder of a scan, the bundle's inference is timed on it from the prepared volume to logits: many
slices with brain at once, in half precision, no larger than the brain's box, as it does; the same one after another in
float32; and, in float32 too, all slices of the scan one after another at `crop_size`, as a plain loop would. The target
is three times as fast.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.inferers import Inferer, SimpleInferer, SliceInferer
from monai.losses import DiceLoss
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.flop_counter import FlopCounterMode

from common.data.layouts import list_cases
from common.inferers.mixed_precision import MixedPrecisionInferer
from common.inferers.slices import FilledSlicesInferer
from common.networks.msconvlstm_att import MSConvLSTMAtt
from common.networks.position_attention import PositionAttention

from .machine import machine, memory
from .steps import CropStepper, Plan, add_arguments, compare, parse, print_table

CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "msconvlstm_att" / "configs" / "inference.json"
LIMITS = {95: 30, 190: 60}  # MiB of the attention
SPEED = 3.0
OPTIONS: dict[str, dict[str, object]] = {
    "whole": {},
    "weights shared": {"share_weights": True},
    "without ConvLSTM": {"conv_lstm": False},
    "without SE": {"squeeze": False},
    "one scale": {"features": (32,)},
    "without attention": {"attention_depth": 0},
    "without averaging": {"average": False},
}


def count(size: int, **options: object) -> tuple[int, int]:
    """Parameters, and operations of a forward of one slice."""
    network = MSConvLSTMAtt(**options).eval()  # type: ignore[arg-type]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 4, size, size))
    # The counter doesn't know torch's fused attention on CPUs.
    widths = [layer.value.out_channels for layer in network.modules() if isinstance(layer, PositionAttention)]
    attention = (size // 2) ** 4 * sum(width // 8 + width for width in widths)
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2 + attention


def attention_memory(size: int) -> float:
    """MiB that a forward of the attention needs at its peak, beyond inputs and outputs; in this process, on Linux."""
    layer = PositionAttention(64).eval()
    with torch.inference_mode():
        layer(torch.randn(1, 64, 16, 16))
        x = torch.randn(1, 64, size, size)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = memory("VmRSS")
        y = layer(x)
    return (memory("VmHWM") - before - y.nbytes) / 2**20


def seconds(calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Median of each over rounds by turns, after one that isn't counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(own) for name, own in times.items()}


def print_counts(size: int) -> None:
    """One row an option."""
    print(f"\n{f'4×{size}²':20}{'parameters':>12}{'GMac':>8}")
    for name, options in OPTIONS.items():
        parameters, operations = count(size, **options)
        print(f"{name:20}{parameters:12,}{operations / 1e9:8.1f}", flush=True)


def print_memory() -> None:
    """One row a size, each measured in a process of its own."""
    print(f"\n{'attention':20}{'MiB':>8}{'limit':>8}{'whole map':>11}")
    for size, limit in LIMITS.items():
        command = [sys.executable, "-m", "benchmarks.msconvlstm_att_cost", "--attention", str(size)]
        found = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        print(f"{f'{size}²':20}{found:8.1f}{limit:8}{size**4 * 4 / 2**20:11.0f} {kept(found <= limit)}", flush=True)


def print_modalities(size: int, slices: int, rounds: int, device: torch.device) -> None:
    """Seconds of all that the modalities go through by themselves: one after another, and as groups of convolutions."""
    print()
    for training in (False, True):
        network = MSConvLSTMAtt().train(training).to(device)
        branches = [nn.Sequential(*branch).train(training) for branch in network.branches]
        parameters, buffers = stack_module_state(branches)
        one = deepcopy(branches[0]).to("meta")
        grouped = vmap(lambda *state_and_image: functional_call(one, state_and_image[:2], state_and_image[2:]))  # noqa: B023
        images = torch.randn(4, slices, 1, size, size, device=device)

        def one_after_another(branches: list[nn.Sequential] = branches, images: torch.Tensor = images) -> torch.Tensor:
            return torch.stack([branch(image) for branch, image in zip(branches, images, strict=True)])

        calls = {"apart": one_after_another, "groups": partial(grouped, parameters, buffers, images)}
        for amp in (True, False):
            ways = {name: partial(_run, call, device, amp, training) for name, call in calls.items()}
            times = seconds(ways, rounds, device)
            told = f"apart {times['apart']:.3f} s, as groups {times['groups'] / times['apart']:.2f} times as long"
            what = f"{'bfloat16' if amp else 'float32'}, {slices} slices{' and their gradients' if training else ''}"
            print(f"{what}, modalities {told}", flush=True)


def _run(call: Callable[[], torch.Tensor], device: torch.device, amp: bool, training: bool) -> None:
    """A call, and perhaps its gradients."""
    with torch.autocast(device.type, torch.bfloat16, enabled=amp), torch.set_grad_enabled(training):
        found = call()
    if training:
        found.float().sum().backward()


def crop_stepper(size: int, slices: int, half: bool, training: bool, device: str) -> CropStepper:
    """The network and its loss on random slices."""
    torch.manual_seed(0)
    image, label = torch.randn(slices, 4, size, size), torch.randint(0, 4, (slices, 1, size, size))
    loss = DiceLoss(to_onehot_y=True, softmax=True, batch=True)
    inferer = MixedPrecisionInferer(SimpleInferer(), amp=half, float32=not training)
    return CropStepper(MSConvLSTMAtt(), loss, inferer, image, label, training, device)


def print_steps(size: int, slices: int, rounds: int, steps: int, device: str) -> None:
    """Time and memory of a segmentation and of a training step, in both precisions."""
    for training in (False, True):
        shared = {"size": size, "slices": slices, "training": training, "device": device}
        plans: dict[str, Plan] = {name: {**shared, "half": name == "bfloat16"} for name in ("bfloat16", "float32")}
        measured = compare("benchmarks.msconvlstm_att_cost", plans, rounds, steps)
        print_table(f"{slices} slices of 4×{size}², {'training step' if training else 'inference'}", measured)


@torch.inference_mode()
def print_case(folder: Path, rounds: int, device: torch.device) -> None:
    """Seconds of a whole scan."""
    parser = ConfigParser()
    parser.read_config(CONFIG)
    chosen = next((case for case in list_cases(folder.parent) if case["case"] == folder.name), None)
    if chosen is None:
        raise SystemExit(f"{folder} is no case of {folder.parent}")
    crop, volumes = parser["crop_size"], []
    for brain_box in (True, False):
        parser["brain_box"] = brain_box
        volumes.append(parser.get_parsed_content("preprocessing")(chosen)["image"].as_tensor()[None].to(device))
    image, whole = volumes
    network = MSConvLSTMAtt().eval().to(device)
    batched, single = FilledSlicesInferer(crop, parser["slices_at_once"]), FilledSlicesInferer(crop, 1)
    ways: dict[str, tuple[Inferer, torch.Tensor]] = {
        "as the bundle does": (MixedPrecisionInferer(batched), image),
        "slice after slice, float32": (MixedPrecisionInferer(single, amp=False), image),
        "a plain loop, float32": (SliceInferer(0, roi_size=crop, sw_batch_size=1), whole),
    }
    times = seconds({name: partial(way, volume, network) for name, (way, volume) in ways.items()}, rounds, device)
    print(f"\n{folder.name}, {tuple(image.shape[2:])} voxels in the brain's box, {tuple(whole.shape[2:])} in all")
    fast = times["as the bundle does"]
    for name, own in times.items():
        told = "" if own == fast else f", {own / fast:.2f} times as long: {SPEED:.0f} {kept(own >= SPEED * fast)}"
        print(f"{name:32}{own:8.1f} s{told}")


def kept(holds: bool) -> str:
    """In words."""
    return "kept" if holds else "NOT KEPT"


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=190, help="pixels along each side of a slice (default: 190)")
    parser.add_argument("--slices", type=int, default=4, help="at once, but for --case (default: 4)")
    parser.add_argument("--case", type=Path, help="folder of a scan")
    parser.add_argument("--attention", type=int, help=argparse.SUPPRESS)
    add_arguments(parser, steps=2)
    given = parse(parser, crop_stepper)
    if given.attention:
        print(attention_memory(given.attention))
        return
    device = torch.device(given.device)
    torch.manual_seed(0)
    print(machine())
    print_counts(given.size)
    print_memory()
    print_modalities(given.size, given.slices, given.rounds, device)
    print_steps(given.size, given.slices, given.rounds, given.steps, given.device)
    if given.case:
        print_case(given.case.resolve(), given.rounds, device)


if __name__ == "__main__":
    main()
