"""What choosing the masked patches costs, beside the whole training step of the pre-training.

Masking is `AdaptiveMasking` on a batch of images; a step is that with the U-Net's forward, loss, backward and Adam.
Both are timed by turns in one process, after one of each that isn't counted. Masking may take 5% of a step.

    python -m benchmarks.masking_cost [--batch 32] [--size 224] [--patches 16 8] [--device cuda] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from monai.inferers import SimpleInferer

from common.inferers.mixed_precision import MixedPrecisionInferer
from common.losses.masked_pixels import MaskedPixelLoss
from common.networks.adaptive_masking import AdaptiveMasking
from common.networks.masked_unet import MaskedUNet

from .machine import machine

LIMIT = 0.05


def blobs(batch: int, size: int) -> torch.Tensor:
    """Images (batch, 1, size, size) of noise with a bright disc each, z-scored, as k-means would meet them."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centre = size * (0.3 + 0.4 * torch.rand(batch, 2, 1, 1, generator=generator))
    disc = (x - centre[:, :1]) ** 2 + (y - centre[:, 1:]) ** 2 < (0.12 * size) ** 2
    image = torch.randn(batch, 1, size, size, generator=generator) * 0.4 + 1.5 * disc
    return (image - image.mean()) / image.std()


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Of one call, finished."""
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Print a row for each size of patches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="pixels along each side (default: 224)")
    parser.add_argument("--patches", nargs="+", type=int, default=[16, 8], help="pixels along each side of a patch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    device = torch.device(given.device)
    torch.manual_seed(0)
    image = blobs(given.batch, given.size).to(device)
    print(machine())
    print(f"{given.batch} images of {given.size}², median of {given.rounds}")
    print(f"{'patch':>6}{'patches':>9}{'masking, s':>12}{'step, s':>10}{'share':>8}")
    for edge in given.patches:
        network = MaskedUNet(masking=AdaptiveMasking((edge, edge))).to(device).train()
        noise = torch.rand(given.batch, (given.size // edge) ** 2, device=device)
        optimizer = torch.optim.Adam(network.parameters(), 2e-4)
        inferer, loss = MixedPrecisionInferer(SimpleInferer()), MaskedPixelLoss()
        masking = network.masking
        assert masking is not None

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)  # noqa: B023
            loss(inferer(image, network, noise), image).backward()  # noqa: B023
            optimizer.step()  # noqa: B023

        calls = {"masking": lambda: masking(image, noise), "step": step}  # noqa: B023
        times: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(given.rounds + 1):
            for name, call in calls.items():
                took = seconds(call, device)
                if turn:
                    times[name].append(took)
        alone, whole = (statistics.median(of_call) for of_call in times.values())
        told = "kept" if alone <= LIMIT * whole else "TOO MUCH"
        print(f"{edge:6}{noise.shape[1]:9}{alone:12.4f}{whole:10.2f}{alone / whole:8.2%} {told}", flush=True)


if __name__ == "__main__":
    main()
