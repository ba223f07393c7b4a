"""What modality dropout brings, small: two trainings of cga_unet, without it and with it, on generated scans.

    python -m benchmarks.missing_modalities [--epochs 34] [--shape 48]

Of 24 scans 18 train and 6 are held back. Both trainings have the settings of `common.demo` and one seed, and differ in
`modality_dropout` alone; no validation chooses among their weights, the last ones count. Each is then evaluated on the
six without each combination of modalities, by the command that users type.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common.data.labels import REGIONS
from common.data.phantoms import make_phantoms

from .machine import machine

CASES, TRAINING = 24, 18
FRACTIONS = [TRAINING / CASES, 0.0, 1 - TRAINING / CASES]
SETTINGS = ["--learning_rate", "0.002", "--cross_entropy_weight", "1", "--batch_size", "1"]
DROPOUT = (0.0, 0.5)


def run(workflow: str, folder: Path, *words: object) -> None:
    """A workflow in a process of its own, with its weights in the folder; what it says is shown where it fails."""
    places = ["--dataset_dir", folder.parent / "data", "--output_dir", folder / workflow, "--ckpt_dir", folder]
    command = [sys.executable, "-m", "common", "run", "cga_unet", workflow, *places, "--resample", "False", *words]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{workflow} failed: {done.stderr[-2000:]}")


def dice(folder: Path) -> dict[str, list[float]]:
    """Each region's mean Dice of the cases: one for each combination, that of complete cases first."""
    content = json.loads((folder / "evaluate_missing" / "missing_modalities.json").read_text())
    return {region: [row["dice"][region]["mean"] for row in content["summary"]] for region in REGIONS}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=34, help="of 18 steps each (default: 34)")
    parser.add_argument("--shape", type=int, default=48, help="voxels along each side of a scan (default: 48)")
    given = parser.parse_args()
    print(machine())
    print(
        f"{TRAINING} scans of {given.shape}³, {given.epochs * TRAINING} steps; mean Dice of {CASES - TRAINING} others"
    )
    print(f"{'modality_dropout':18}{'modalities':17}" + "".join(f"{region:>7}" for region in REGIONS) + "   training")
    with tempfile.TemporaryDirectory() as temporary:
        make_phantoms(str(Path(temporary) / "data"), cases=CASES, shape=given.shape, seed=0)
        for probability in DROPOUT:
            folder = Path(temporary) / str(probability)
            started = time.monotonic()
            options = ["--patch_size", [given.shape] * 3, "--epochs", given.epochs, "--fractions", FRACTIONS]
            run("train", folder, *SETTINGS, *options, "--modality_dropout", probability)
            seconds = time.monotonic() - started
            run("evaluate_missing", folder)
            found = dice(folder)
            complete = "".join(f"{values[0]:7.3f}" for values in found.values())
            mean = "".join(f"{statistics.mean(values):7.3f}" for values in found.values())
            print(f"{probability:<18}{'complete':17}{complete}{seconds:9.0f} s")
            print(f"{'':18}{'15 combinations':17}{mean}", flush=True)


if __name__ == "__main__":
    main()
