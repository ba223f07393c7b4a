"""Which features of the generated scans matter on real ones: a small CGA U-Net, trained without each in turn.

    python -m benchmarks.ablation_phantoms DATASET [--seeds 0 1 2] [--rows …] [--keep FOLDER] [--device cuda]

Each row is a training on scans that are generated beside it (`train_generated`), with all features of
`common.data.phantom_variety` or all but one, or with all and z-scores in place of quartiles. A feature has random
numbers of its own, so that rows of one seed see the same brains but for what is left out. The last weights count. Their
inference on the labelled real scans is scored and nothing is chosen by it; beside it stands the Dice on generated scans
of validation, which are drawn apart with all features, the same for every row.

Everything runs by the commands that users type. With `--keep FOLDER` what is finished there isn't done again.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common.data.labels import REGIONS
from common.data.phantom_variety import FEATURES
from common.errors import exit_in_one_line

from .ablation import Runs, expect_settings, print_settings, spread
from .machine import machine
from .real_cases import labelled_cases, scores_of

ALL = "all features"
ROWS: dict[str, list[object]] = {ALL: [], "all features, z-scores": ["--robust", False]}
ROWS |= {f"without {name}": ["--without", [name]] for name in FEATURES}
COLUMNS = [*REGIONS, "generated"]
NETWORK = ["--network_def#features", [8, 16, 32, 64], "--network_def#blocks", [1, 1, 1, 1]]


class Ablation(Runs):
    """The runs of one call; see `Runs`."""

    def train(self, row: str, seed: int) -> dict[str, float]:
        """Train a row, and score it on the real scans; mean Dice by region, and that on generated ones."""
        given, folder = self.given, self.root / f"row-{seed}-{row.replace(' ', '-').replace(',', '')}"
        log = folder / "log"
        if not log.is_file():
            size = ["--spacing", [given.spacing] * 3, "--patch_size", given.patch_size]
            steps = ["--epochs", given.epochs, "--val_interval", given.epochs, "--cases_per_epoch", given.cases]
            places = ["--output_dir", folder / "training", "--num_workers", 0, "--seed", seed, "--device", given.device]
            said = self.command("run", "cga_unet", "train_generated", *places, *size, *steps, *NETWORK, *ROWS[row])
            weights = ["--weights", folder / "training" / "last.pt", "--device", given.device]
            places = ["--dataset_dir", given.dataset, "--output_dir", folder / "predictions", "--overwrite", True]
            self.command("run", "cga_unet", "inference", *places, *weights, *NETWORK)
            log.write_text(said)
        found = re.search(r"val_mean_dice ([\d.]+)", log.read_text())
        scores = scores_of(folder / "predictions", given.dataset)
        means = {name: statistics.mean(one[name].volume_dice for one in scores.values()) for name in REGIONS}
        return {**means, "generated": float(found[1]) if found else float("nan")}

    def run(self) -> dict[str, dict[str, list[float]]]:
        """Everything, with a line for each row of each seed; row → column → the value of each seed."""
        rows: dict[str, dict[str, list[float]]] = {row: {column: [] for column in COLUMNS} for row in self.given.rows}
        started = time.monotonic()
        for seed in self.given.seeds:
            with ThreadPoolExecutor(self.given.parallel) as pool:
                for row, scores in zip(rows, pool.map(lambda row: self.train(row, seed), rows), strict=True):  # noqa: B023
                    for column, value in scores.items():
                        rows[row][column].append(value)
                    told = ", ".join(f"{column} {value:.3f}" for column, value in scores.items())
                    print(f"seed {seed}: {row:30} {told}, {time.monotonic() - started:.0f} s", flush=True)
        return rows


def print_table(rows: dict[str, dict[str, list[float]]]) -> None:
    """The scores of each row, and how far the whole tumour's is from the first row's, seed by seed."""
    print(f"\n| | {' | '.join(COLUMNS)} | WT less that of the first row |\n" + "|---" * (len(COLUMNS) + 2) + "|")
    first = next(iter(rows.values()))["WT"]
    for row, columns in rows.items():
        cells = [spread(columns[column]) for column in COLUMNS]
        differences = [own - of_first for own, of_first in zip(columns["WT"], first, strict=True)]
        print(f"| {row} | {' | '.join(cells)} | {spread(differences)} |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="labelled real scans, in any layout")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], default=[*ROWS])
    parser.add_argument("--spacing", type=float, default=3.0, help="mm (default: 3)")
    parser.add_argument("--patch_size", nargs=3, type=int, default=[48, 56, 48], help="voxels (default: 48 56 48)")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--cases", type=int, default=100, help="of an epoch, two a step (default: 100)")
    parser.add_argument("--keep", help="folder for everything; none means one that goes in the end")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--parallel", type=int, default=2, help="runs at once, which share the cores (default: 2)")
    given = parser.parse_args()
    sys.excepthook = exit_in_one_line
    labelled_cases(given.dataset)
    print(machine())
    print_settings(given)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(given.keep or temporary)
        expect_settings(given, root)
        rows = Ablation(given, root).run()
    print_table(rows)


if __name__ == "__main__":
    main()
