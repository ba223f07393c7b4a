"""Trainings of cga_unet that are killed with kill -9 at random moments and go on, against one in one go.

    python -m benchmarks.kills [--kills 20] [--workers 0 2]

Each training is the command that users type, with the bundle's own network and a checkpoint after each iteration. It is
killed after a time that is drawn, or, every fourth time, as soon as a checkpoint is being written; then the same
command goes on with --resume True, and is killed again. Trainings follow one another until there are enough kills. Of
each, the best and the last weights and the last checkpoint (optimiser, learning rate, random states) are compared bit
for bit with those of a training that nobody killed.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.data.phantoms import make_phantoms

from .machine import machine

SETTINGS = ["--patch_size", "[32,32,32]", "--resample", "False", "--batch_size", "1", "--fractions", "[0.5,0.5,0.0]"]
EPOCHS, STEPS = 4, 3


def start(dataset: Path, folder: Path, workers: int) -> subprocess.Popen[bytes]:
    """The command, in a process of its own; what it says goes to <folder>/log."""
    folder.mkdir(exist_ok=True)
    places = ["--dataset_dir", dataset, "--output_dir", folder / "run", "--ckpt_dir", folder / "models"]
    options = ["--epochs", EPOCHS, "--val_interval", 2, "--num_workers", workers, "--checkpoint_minutes", 0]
    words = [sys.executable, "-m", "common", "run", "cga_unet", "train", *places, *SETTINGS, *options]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen([*map(str, words), "--resume", "True"], stdout=log, stderr=log)


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for a training that nobody kills."""
    if process.wait():
        sys.exit(f"the training failed: {(folder / 'log').read_text()[-2000:]}")


def result(folder: Path) -> list[bytes]:
    """What must be the same."""
    last = folder / "run" / "checkpoints" / f"iteration-{EPOCHS * STEPS}.pt"
    return [path.read_bytes() for path in (folder / "models" / "model.pt", folder / "run" / "last.pt", last)]


def saved(folder: Path) -> int:
    """The iteration of the newest checkpoint."""
    return max((int(path.stem.split("-")[1]) for path in folder.glob("run/checkpoints/iteration-*.pt")), default=0)


def half_written(folder: Path) -> set[Path]:
    """Checkpoints that are being written, or were when a training was killed; the next start removes those."""
    return set(folder.glob("run/checkpoints/.*.pt"))


def moment(folder: Path, saved_before: int, half_before: set[Path]) -> str:
    """What a training was doing when it was killed, as its files tell, with those that were there when it started."""
    events = EventAccumulator(str(folder / "run" / "events" / "training"), size_guidance={"scalars": 0})
    events.Reload() if (folder / "run" / "events" / "training").is_dir() else None
    steps = [event.step for event in events.Scalars("train_loss")] if "train_loss" in events.Tags()["scalars"] else [0]
    if half_written(folder) - half_before:
        return "writing a checkpoint"
    if steps[-1] > saved(folder) and steps[-1] % STEPS == 0:
        return "after an epoch's last step (validation, weights)"
    return "start-up" if saved(folder) == saved_before and steps[-1] <= saved_before else "between two steps"


def kill_again_and_again(dataset: Path, root: Path, workers: int, kills: int, seed: int) -> None:
    """Print how many kills there were, when, and how many trainings were equal."""
    started = time.monotonic()
    whole = root / "whole"
    finish(start(dataset, whole, workers), whole)
    seconds, expected = time.monotonic() - started, result(whole)
    draw, moments, equal, trainings = random.Random(seed), Counter[str](), 0, 0
    while moments.total() < kills:
        folder = root / "killed"
        while True:
            before, half_before = saved(folder), half_written(folder)
            process = start(dataset, folder, workers)
            number = moments.total()
            until = time.monotonic() + (draw.uniform(0, seconds) if number < kills else 1e6)
            aims_at_writing = number % 4 == 3 and number < kills
            while process.poll() is None and (aims_at_writing or time.monotonic() < until):
                if aims_at_writing and half_written(folder) - half_before and saved(folder) > before:
                    break
                time.sleep(0.0005 if aims_at_writing else 0.01)
            if process.poll() is not None:
                break
            process.kill()
            process.wait()
            moments[moment(folder, before, half_before)] += 1
        finish(process, folder)
        trainings += 1
        equal += result(folder) == expected
        shutil.rmtree(folder)
    print(
        f"{workers} workers, {moments.total()} kills in {trainings} trainings of {EPOCHS * STEPS} steps, "
        f"{seconds:.0f} s each in one go"
    )
    for name, count in moments.most_common():
        print(f"    {count:3} {name}")
    print(
        f"    equal to the bit: {equal} of {trainings} trainings, {kills if equal == trainings else 0} of {kills} kills"
    )


def main() -> None:
    """Kill as often as was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="with each number of workers (default: 20)")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    print(machine())
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as temporary:
        dataset = Path(temporary) / "data"
        make_phantoms(str(dataset), cases=6, shape=32, seed=5)
        for workers in arguments.workers:
            root = Path(temporary) / str(workers)
            root.mkdir()
            kill_again_and_again(dataset, root, workers, arguments.kills, arguments.seed)


if __name__ == "__main__":
    main()
