"""Table III of FANCL's paper, small: what the curriculum (C) and feature-guided attention (F) bring on metastases.

    python -m benchmarks.ablation_fancl [--seeds 0 1 2] [--epochs 50] [--shape 64] [--decisions] [--device cuda]

Each seed has its own generated training scans, and mines its curriculum once, on these alone. The four rows of the
table are then trained on them with the same settings and seed, and differ in `components` alone; no validation chooses
among their weights, the last ones count. All are evaluated on one set of other scans, the same for every seed.
Everything runs by the commands that users type; about 50 minutes on two cores with nothing else to do. `--decisions`
adds rows that decide otherwise where the paper leaves open how the attention is computed. With `--keep FOLDER` what is
finished there isn't done again, so that a run goes on where it was stopped, with more seeds or rows if wanted.

Generated brains are as large as real ones, so a scan of 64³ has voxels of about 25 mm³: the smallest metastases are a
voxel or two.

The momentum isn't the bundle's 0.99: with it the baseline alone had found no core of a tumour after so few steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.data.curriculum_folder import read_manifest
from common.report.curriculum import coverage_rows

from . import ablation
from .ablation import SCORES, Runs, Table, add_arguments, print_settings
from .machine import machine

ROWS: dict[str, dict[str, str]] = {
    "baseline": {"components": ""},
    "+C": {"components": "C"},
    "+F": {"components": "F"},
    "FANCL": {"components": "CF"},
}
DECISIONS: dict[str, dict[str, str]] = {
    "FANCL, strips": {"components": "CF", "attention_divisor": "strips"},
    "FANCL, sqrt": {"components": "CF", "attention_normalisation": "sqrt"},
}
ORDER = [("baseline", "+C"), ("baseline", "+F"), ("+C", "FANCL"), ("+F", "FANCL")]
EMPTY = 0.1  # a curriculum with less of the voxels says little


def stage_epochs(epochs: int) -> list[int]:
    """Epochs of each of the three stages, in about the paper's proportions of 80, 80 and 340."""
    first = max(1, round(epochs * 80 / 500))
    return [first, first, max(1, epochs - 2 * first)]


def relations(scores: Mapping[str, float]) -> dict[str, bool]:
    """Each of the four steps of the paper's order, and whether these scores of the rows, greater is better, make it."""
    return ablation.relations(scores, ORDER)


def verdict(score: str, of_seeds: Mapping[str, Sequence[float]]) -> str:
    """Whether the order of the paper's Table III is reproduced, in a sentence or two; see `ablation.verdict`."""
    return ablation.verdict(score, of_seeds, ORDER)


def coverage(curriculum: Path) -> dict[str, list[float]]:
    """Of each category the share of the voxels that each curriculum has."""
    manifest = read_manifest(curriculum)
    shares: dict[str, list[float]] = {}
    for row in coverage_rows(manifest.cases or {}, manifest.categories, manifest.stages):
        # The first row of a category is that of all sizes.
        shares.setdefault(row.category, [covered / max(1, row.voxels) for covered in row.covered])
    return shares


def caution(of_seeds: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """Which categories' last curricula are next to empty, a mean over seeds: mining learnt too little there."""
    means = {category: statistics.mean(shares[category][-1] for shares in of_seeds) for category in of_seeds[0]}
    empty = ", ".join(f"{category} ({share:.1%} of the voxels)" for category, share in means.items() if share < EMPTY)
    if not empty:
        return ""
    return f"Caution: the last curricula are next to empty of {empty}; what C can bring isn't tested there."


class Ablation(Runs):
    """The runs of one call.

    Args:
        given: the command line.
        root: folder for everything.

    Attributes:
        coverage: of each seed's curriculum so far; see `coverage`.
    """

    def __init__(self, given: argparse.Namespace, root: Path) -> None:
        super().__init__(given, root)
        self.settings = ROWS | (DECISIONS if given.decisions else {})
        self.coverage: list[dict[str, list[float]]] = []
        crop = [given.crop] * 3
        self.scans = ["--resample", "False", "--device", given.device, "--window_size", crop, "--flips", []]
        self.training = ["--resample", "False", "--device", given.device, "--patch_size", crop]
        self.training += ["--window_size", crop, "--steps_per_epoch", given.steps, "--batch_size", given.batch_size]
        self.training += ["--learning_rate", given.learning_rate, "--momentum", given.momentum, "--num_workers", 0]

    def mine(self, seed: int, dataset: Path) -> Path:
        """The curriculum of a seed's training scans."""
        given, folder = self.given, self.root / f"curriculum-{seed}"
        if (folder / "curriculum.json").is_file():
            return folder
        epochs = ["--mining_epochs", given.mining_epochs, "--val_interval", given.mining_epochs, "--flips", []]
        mining = ["--mining_depths", given.depths, "--folds", given.folds, "--parallel", given.parallel]
        places = ["--dataset_dir", dataset, "--curriculum_dir", folder, "--output_dir", folder.with_suffix(".run")]
        network = ["--features", given.features, "--seed", seed]
        self.command("run", "fancl", "mine_curriculum", *places, *self.training, *network, *epochs, *mining)
        return folder

    def train(self, row: str, seed: int, dataset: Path, curriculum: Path, held_back: tuple[Path, Path]) -> Path:
        """Train a row of the table and evaluate it; returns the folder of the scores."""
        given, folder = self.given, self.root / f"row-{seed}-{[*self.settings].index(row)}"
        if (folder / "scores" / "lesions.json").is_file():
            return folder / "scores"
        strips = [given.strips] * 2
        network = ["--features", given.features, "--attention_patch", strips]
        network += [word for id, value in self.settings[row].items() for word in (f"--{id}", value)]
        weights = ["--ckpt_dir", folder / "models"]
        places = ["--dataset_dir", dataset, "--curriculum_dir", curriculum, "--output_dir", folder / "training"]
        stages = ["--stages", stage_epochs(given.epochs), "--fractions", [1.0, 0.0, 0.0], "--seed", seed]
        self.command("run", "fancl", "train", *places, *weights, *self.training, *network, *stages)
        places = ["--dataset_dir", held_back[0], "--partition_file", held_back[1], "--output_dir", folder / "scores"]
        self.command("run", "fancl", "evaluate", *places, *weights, *self.scans, *network)
        return folder / "scores"

    def run(self) -> Table:
        """Everything, with a line for each row of each seed."""
        table = Table(self.settings)
        held_back = self.held_back()
        for seed in self.given.seeds:
            started = time.monotonic()
            dataset = self.phantoms(f"training-{seed}", self.given.cases, seed)
            curriculum = self.mine(seed, dataset)
            self.coverage.append(coverage(curriculum))
            told = "; ".join(f"{name} {' '.join(map('{:.1%}'.format, of))}" for name, of in self.coverage[-1].items())
            print(f"seed {seed}: curriculum mined, voxels {told}, {time.monotonic() - started:.0f} s", flush=True)
            self.rows(table, seed, lambda row: self.train(row, seed, dataset, curriculum, held_back), started)  # noqa: B023
        return table


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, cases=18, parallel=2)
    parser.add_argument("--epochs", type=int, default=50, help="of each row, in three stages (default: 50)")
    parser.add_argument("--mining_epochs", type=int, default=30, help="of each mining network (default: 30)")
    parser.add_argument("--steps", type=int, default=15, help="of an epoch (default: 15)")
    parser.add_argument("--features", type=json.loads, default=[8, 16, 32, 32, 32], help="such as [8,16,32,32,32]")
    parser.add_argument("--depths", type=json.loads, default=[3, 4, 5], help="of the mining networks")
    parser.add_argument("--folds", type=int, default=3, help="of the mining (default: 3)")
    parser.add_argument("--strips", type=int, default=8, help="sides of the attention's strips (default: 8)")
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--momentum", type=float, default=0.95)
    parser.add_argument("--decisions", action="store_true", help="also try the other ways of the attention")
    return parser.parse_args()


def main() -> None:
    """Print the tables and the verdict."""
    given = arguments()
    print(machine())
    print_settings(given)
    print(f"stages {stage_epochs(given.epochs)}; last weights of each row; mean ± standard deviation over the seeds")
    with tempfile.TemporaryDirectory() as temporary:
        runs = Ablation(given, Path(given.keep or temporary))
        table = runs.run()
    table.print()
    print()
    for name, score in SCORES.items():
        print(verdict(name, table.of(score, ROWS)))
    print("Four rows that are no different come in the paper's order once in twelve times.")
    if warning := caution(runs.coverage):
        print(warning)


if __name__ == "__main__":
    main()
