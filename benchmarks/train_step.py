"""Time and memory of a training step of CGA U-Net.

Three tables, each of ratios within one run:

- attention: a bfloat16 step with the attention path against the same U-Net without it, at 4×128³;
- precision: a step in bfloat16 against float32 at 4×64³, in both memory formats;
- losses: how far the losses of 50 steps in bfloat16 are from those in float32, beside how far those of another float32
  training are whose first weights differ by a millionth.

Each configuration runs in a process of its own, and two that are compared alternate, so that neither a warm allocator
nor a busy neighbour favours one of them.

    python -m benchmarks.train_step [--tables attention precision losses] [--device cuda] [--profile]
"""

from __future__ import annotations

import argparse
import statistics

import torch
from monai.inferers import SimpleInferer

from common.inferers.mixed_precision import MixedPrecisionInferer
from common.losses.category_guided import CategoryGuidedLoss
from common.networks.cga_unet import CGAUNet

from .machine import machine
from .steps import Plan, add_arguments, compare, in_its_own_process, parse, print_table

MODULE = "benchmarks.train_step"
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last_3d}


class Trainer:
    """A network, its loss and its optimiser on one random batch, or on several of which gradients are accumulated."""

    def __init__(
        self,
        size: int,
        half: bool,
        rate: int,
        memory_format: str,
        device: str,
        jitter: float = 0.0,
        batch: int = 1,
        accumulation: int = 1,
        clip: float = 0.0,
        compiled: bool = False,
    ) -> None:
        torch.manual_seed(0)
        self.device = torch.device(device)
        self.network = CGAUNet(attention_rate=rate).to(self.device)
        self.inferer = MixedPrecisionInferer(SimpleInferer(), amp=half)
        self.network.to(memory_format=FORMATS[memory_format])  # type: ignore[call-overload]
        self.call = torch.compile(self.network) if compiled else self.network
        self.loss = CategoryGuidedLoss(inter_start=0)
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-3, weight_decay=1e-5, amsgrad=True)
        self.accumulation, self.clip = accumulation, clip
        with torch.no_grad():
            for weight in self.network.parameters() if jitter else ():
                weight.mul_(1 + jitter * torch.randn_like(weight))
        torch.manual_seed(2)  # of the dropout
        generator = torch.Generator().manual_seed(1)
        label = torch.randint(0, 4, (batch, 1, *[size // 8] * 3), generator=generator).float()
        self.label = torch.nn.functional.interpolate(label, scale_factor=8).to(self.device)
        noise = torch.randn(batch, 4, size, size, size, generator=generator).to(self.device)
        self.image = noise + self.label * torch.tensor([0.5, -0.5, 1.0, -1.0], device=self.device).view(1, 4, 1, 1, 1)

    def step(self) -> float:
        """One step; its loss."""
        self.optimizer.zero_grad()
        for _ in range(self.accumulation):
            loss = self.loss(self.inferer(self.image, self.call), self.label)
            (loss / self.accumulation).backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimizer.step()
        return loss.item()


def plan(device: str, size: int, half: bool, rate: int = 8, memory_format: str = "contiguous") -> Plan:
    """The arguments of a `Trainer`."""
    return {"size": size, "half": half, "rate": rate, "memory_format": memory_format, "device": device}


def table_attention(device: str, rounds: int) -> None:
    """With attention against without, in bfloat16."""
    plans = {"without attention": plan(device, 128, True, 0)}
    plans |= {f"attention at rate {rate}": plan(device, 128, True, rate) for rate in (8, 4, 2)}
    print_table("4×128³, bfloat16", compare(MODULE, plans, rounds, steps=3))


def table_precision(device: str, rounds: int) -> None:
    """bfloat16 against float32, contiguous and channels last."""
    plans = {
        f"{'bfloat16' if half else 'float32'}, {memory_format}": plan(device, 64, half, 8, memory_format)
        for half in (False, True)
        for memory_format in FORMATS
    }
    print_table("4×64³", compare(MODULE, plans, rounds, steps=6))


def table_losses(device: str) -> None:
    """Differences of the losses over 50 steps, relative to the float32 ones."""
    single = in_its_own_process(MODULE, plan(device, 64, False), 50)["losses"]
    plans = {"bfloat16": plan(device, 64, True), "float32, weights ±1e-6": plan(device, 64, False) | {"jitter": 1e-6}}
    print(f"\n4×64³, 50 steps against float32, whose losses are {single[0]:.3f} to {single[-1]:.3f}")
    for name, other in plans.items():
        losses = in_its_own_process(MODULE, other, 50)["losses"]
        differences = [abs(b - a) / abs(a) for a, b in zip(single, losses, strict=True)]
        mean = abs(statistics.mean(losses) - statistics.mean(single)) / abs(statistics.mean(single))
        print(f"{name:26}{losses[0]:.3f} to {losses[-1]:.3f}; of the means {mean:.2%}, greatest {max(differences):.2%}")


def print_profile(device: str) -> None:
    """Where the time of a bfloat16 step at 4×64³ goes."""
    trainer = Trainer(**plan(device, 64, True))  # type: ignore[arg-type]
    trainer.step()
    with torch.profiler.profile() as profile:
        trainer.step()
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=50))


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = ["attention", "precision", "losses"]
    parser.add_argument("--tables", nargs="*", choices=tables, default=tables)
    add_arguments(parser)
    parser.add_argument("--profile", action="store_true", help="print a profile of a bfloat16 step as well")
    arguments = parse(parser, Trainer)
    print(machine())
    if "precision" in arguments.tables:
        table_precision(arguments.device, arguments.rounds)
    if "losses" in arguments.tables:
        table_losses(arguments.device)
    if "attention" in arguments.tables:
        table_attention(arguments.device, arguments.rounds)
    if arguments.profile:
        print_profile(arguments.device)


if __name__ == "__main__":
    main()
