"""How long a training waits for its data, with prepared scans kept on disk and without.

    python -m benchmarks.cache [DATASET] [--steps 12] [--patches 128 64] [--device cpu]

The trainer of cga_unet's train.json, one case a step, goes through the scans in turn. Waited is the time in which it
has asked for a batch and not got it, in all steps but the first. The files, kept or not, are in the system's file
cache, as on a machine with memory enough; a sample is what one process prepares for the training.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from benchmarks.machine import machine
from common.data.layouts import list_cases
from common.data.order import Draw
from common.data.phantoms import make_phantoms

CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "cga_unet" / "configs" / "train.json"
WAYS = {
    "not kept, no worker": (0, 0),
    "kept, no worker": (100, 0),
    "not kept, 2 workers": (0, 2),
    "kept, 2 workers": (100, 2),
}


class Clock:
    """Notes when a trainer asks for a batch, gets it, and is done with it."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.got: list[float] = []
        self.done: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, lambda: self.asked.append(time.perf_counter()))
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, lambda: self.got.append(time.perf_counter()))
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: self.done.append(time.perf_counter()))

    def measured(self) -> tuple[float, float]:
        """Seconds of a step, and the share of it that was waited, without the first step."""
        waited = sum(self.got[1:]) - sum(self.asked[1 : len(self.got)])
        whole = self.done[-1] - self.done[0]
        return whole / (len(self.done) - 1), waited / whole


def config(folder: Path, cases: list[dict[str, Any]], **settings: Any) -> ConfigParser:
    """The training's config for these cases."""
    parser = ConfigParser(ConfigParser.load_config_file(CONFIG))
    fixed = {"output_dir": str(folder), "ckpt_dir": str(folder), "resample": False, "epochs": 1, "batch_size": 1}
    parser.update({**fixed, **settings, "data": {"training": cases, "validation": cases[:1]}})
    return parser


def train(parser: ConfigParser) -> tuple[float, float]:
    """Seconds of a step and the share that is waited, of one epoch."""
    clock = Clock()
    parser["train#handlers"] = [clock]
    parser.get_parsed_content("train#trainer").run()
    return clock.measured()


def sample(parser: ConfigParser, cases: int) -> float:
    """Seconds in which one process prepares a sample (median)."""
    dataset = parser.get_parsed_content("train#dataset")
    seconds = []
    for index in range(cases):
        started = time.perf_counter()
        dataset[Draw(index, index)]
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", help="folder of scans in any layout; phantoms of 240×240×155 without it")
    parser.add_argument("--steps", type=int, default=12, help="of each way (default: 12)")
    parser.add_argument("--patches", type=int, nargs="*", default=[128, 64], help="sizes in voxels (default: 128 64)")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        dataset, folder = given.dataset, Path(temporary)
        if dataset is None:
            dataset = folder / "phantoms"
            make_phantoms(dataset, cases=4, shape=(240, 240, 155))
        found = list_cases(dataset)
        cases = (found * given.steps)[: given.steps]
        print(machine())
        print(f"{len(found)} cases, {given.steps} steps of one case each")
        print(f"{'patch':>8}  {'prepared scans':22}{'a sample':>10}{'a step':>10}{'waited':>9}")
        for size in given.patches:
            for name, (cache_gib, num_workers) in WAYS.items():
                settings = {"patch_size": [size] * 3, "cache_gib": cache_gib, "num_workers": num_workers}
                made = config(folder, cases, device=given.device, **settings)
                alone = sample(config(folder, found, **settings), len(found))
                step, waited = train(made)
                print(f"{f'{size}³':>8}  {name:22}{1000 * alone:7.0f} ms{step:8.2f} s{waited:9.1%}", flush=True)


if __name__ == "__main__":
    main()
