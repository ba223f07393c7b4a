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
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common.data.curriculum_folder import read_manifest
from common.data.labels import REGIONS
from common.data.layouts import list_cases
from common.metrics.lesion_records import size_name
from common.report.curriculum import coverage_rows

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
HELD_BACK_SEED = 1000
EMPTY = 0.1  # a curriculum with less of the voxels says little
SIZES_OF = "TC"  # the metastasis itself, without its oedema
Scores = dict[str, float]


def stage_epochs(epochs: int) -> list[int]:
    """Epochs of each of the three stages, in about the paper's proportions of 80, 80 and 340."""
    first = max(1, round(epochs * 80 / 500))
    return [first, first, max(1, epochs - 2 * first)]


def relations(scores: Mapping[str, float]) -> dict[str, bool]:
    """Each of the four steps of the paper's order, and whether these scores of the rows, greater is better, make it."""
    return {f"{lower} < {higher}": scores[lower] < scores[higher] for lower, higher in ORDER}


def verdict(score: str, of_seeds: Mapping[str, Sequence[float]]) -> str:
    """Whether the order of the paper's Table III is reproduced, in a sentence or two.

    Args:
        score: its name.
        of_seeds: row → the score of each seed.
    """
    found = relations({row: statistics.mean(values) for row, values in of_seeds.items()})
    seeds = [dict(zip(of_seeds, values, strict=True)) for values in zip(*of_seeds.values(), strict=True)]
    times = sum(all(relations(of_seed).values()) for of_seed in seeds)
    count = f"it holds in {times} of {len(seeds)} seeds by themselves"
    if not all(found.values()):
        failed = ", ".join(name for name, holds in found.items() if not holds)
        return f"{score}: the paper's order is NOT reproduced at this size. Not so in the means: {failed}; {count}."
    if times < len(seeds):
        return f"{score}: the paper's order is reproduced in the means, but not in each seed: {count}."
    if len(seeds) == 1:
        return f"{score}: the paper's order is reproduced with one seed, which may be chance."
    return f"{score}: the paper's order is reproduced, in the means and in each seed ({times} of {len(seeds)})."


def read_scores(folder: Path) -> tuple[Scores, dict[str, tuple[int, int]]]:
    """What an evaluation wrote: scores by name, and lesions found and there of each size."""
    of_volume = json.loads((folder / "scores.json").read_text())["summary"]
    of_lesions = json.loads((folder / "lesions.json").read_text())["summary"]
    scores: Scores = {}
    for name, summary in (("Dice", of_volume), ("lesion-wise", of_lesions)):
        values = {f"{name} {region}": summary[region]["dice"]["mean"] for region in REGIONS}
        scores |= values | {f"{name} mean": statistics.mean(values.values())}
    by_size = of_lesions[SIZES_OF]["lesions"]["by_size"]
    return scores, {size_name(one["above"], one["up_to"]): (one["detected"], one["lesions"]) for one in by_size}


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds."""
    deviation = f"±{statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


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


class Ablation:
    """The runs of one call.

    Args:
        given: the command line.
        root: folder for everything.

    Attributes:
        coverage: of each seed's curriculum so far; see `coverage`.
    """

    def __init__(self, given: argparse.Namespace, root: Path) -> None:
        self.given, self.root = given, root
        self.rows = ROWS | (DECISIONS if given.decisions else {})
        self.coverage: list[dict[str, list[float]]] = []
        crop = [given.crop] * 3
        self.scans = ["--resample", "False", "--device", given.device, "--window_size", crop, "--flips", []]
        self.training = ["--resample", "False", "--device", given.device, "--patch_size", crop]
        self.training += ["--window_size", crop, "--steps_per_epoch", given.steps, "--batch_size", given.batch_size]
        self.training += ["--learning_rate", given.learning_rate, "--momentum", given.momentum, "--num_workers", 0]

    def command(self, *words: object) -> None:
        """One command in a process of its own; what it says is shown where it fails."""
        threads = str(max(1, len(os.sched_getaffinity(0)) // self.given.parallel))
        environment = {"OMP_NUM_THREADS": threads} | os.environ
        line = [sys.executable, "-m", "common", *(str(word) for word in words)]
        done = subprocess.run(line, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"{' '.join(line[2:5])} failed: {done.stderr[-2000:]}")

    def phantoms(self, name: str, cases: int, seed: int) -> Path:
        """A set of generated scans with metastases."""
        folder = self.root / name
        if (folder / "phantoms.json").is_file():
            return folder
        shape = ["--shape", self.given.shape]
        self.command("phantoms", folder, "--cases", cases, "--seed", seed, "--kind", "metastases", *shape)
        return folder

    def held_back(self) -> tuple[Path, Path]:
        """The scans that all rows are evaluated on, and the file which says that none of them trains."""
        folder, partition = self.phantoms("held_back", self.given.held_back, HELD_BACK_SEED), self.root / "parts.json"
        names = [case["case"] for case in list_cases(folder)]
        partition.write_text(json.dumps({"parts": {"training": [], "validation": [], "test": names}}))
        return folder, partition

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
        given, folder = self.given, self.root / f"row-{seed}-{[*self.rows].index(row)}"
        if (folder / "scores" / "lesions.json").is_file():
            return folder / "scores"
        strips = [given.strips] * 2
        network = ["--features", given.features, "--attention_patch", strips]
        network += [word for id, value in self.rows[row].items() for word in (f"--{id}", value)]
        weights = ["--ckpt_dir", folder / "models"]
        places = ["--dataset_dir", dataset, "--curriculum_dir", curriculum, "--output_dir", folder / "training"]
        stages = ["--stages", stage_epochs(given.epochs), "--fractions", [1.0, 0.0, 0.0], "--seed", seed]
        self.command("run", "fancl", "train", *places, *weights, *self.training, *network, *stages)
        places = ["--dataset_dir", held_back[0], "--partition_file", held_back[1], "--output_dir", folder / "scores"]
        self.command("run", "fancl", "evaluate", *places, *weights, *self.scans, *network)
        return folder / "scores"

    def run(self) -> tuple[dict[str, dict[str, list[float]]], dict[str, dict[str, list[tuple[int, int]]]]]:
        """Everything, with a line for each row of each seed.

        Returns:
            row → score → its value of each seed, and row → size → lesions found and there of each seed.
        """
        scores: dict[str, dict[str, list[float]]] = {row: {} for row in self.rows}
        sizes: dict[str, dict[str, list[tuple[int, int]]]] = {row: {} for row in self.rows}
        held_back = self.held_back()
        for seed in self.given.seeds:
            started = time.monotonic()
            dataset = self.phantoms(f"training-{seed}", self.given.cases, seed)
            curriculum = self.mine(seed, dataset)
            self.coverage.append(coverage(curriculum))
            told = "; ".join(f"{name} {' '.join(map('{:.1%}'.format, of))}" for name, of in self.coverage[-1].items())
            print(f"seed {seed}: curriculum mined, voxels {told}, {time.monotonic() - started:.0f} s", flush=True)
            with ThreadPoolExecutor(self.given.parallel) as pool:
                folders = pool.map(lambda row: self.train(row, seed, dataset, curriculum, held_back), self.rows)  # noqa: B023
                for row, folder in zip(self.rows, folders, strict=True):
                    of_row, of_sizes = read_scores(folder)
                    for name, value in of_row.items():
                        scores[row].setdefault(name, []).append(value)
                    for name, counts in of_sizes.items():
                        sizes[row].setdefault(name, []).append(counts)
                    means = ", ".join(f"{name} {of_row[f'{name} mean']:.3f}" for name in ("Dice", "lesion-wise"))
                    print(f"seed {seed}: {row:13} {means}, {time.monotonic() - started:.0f} s", flush=True)
        return scores, sizes


def print_tables(
    scores: Mapping[str, Mapping[str, Sequence[float]]], sizes: Mapping[str, Mapping[str, Sequence[tuple[int, int]]]]
) -> None:
    """Print Dice, lesion-wise Dice, their differences from the baseline, and the sensitivity by size."""
    columns = [*REGIONS, "mean"]
    for name in ("Dice", "lesion-wise"):
        print(f"\n{name + ' Dice' * (name != 'Dice'):20}" + "".join(f"{column:>14}" for column in columns))
        for row, of_row in scores.items():
            print(f"{row:20}" + "".join(f"{spread(of_row[f'{name} {column}']):>14}" for column in columns))
        for row in [*scores][1:]:
            cells = []
            for column in columns:
                pairs = zip(scores[row][f"{name} {column}"], scores["baseline"][f"{name} {column}"], strict=True)
                cells.append(spread([higher - lower for higher, lower in pairs]))
            print(f"{row + ' − baseline':20}" + "".join(f"{cell:>14}" for cell in cells))
    present = {name: counts[0][1] for name, counts in sizes["baseline"].items() if counts[0][1]}
    print(f"\n{'sensitivity, ' + SIZES_OF:20}" + "".join(f"{name:>18}" for name in present))
    print(f"{'lesions':20}" + "".join(f"{count:>18}" for count in present.values()))
    for row, of_sizes in sizes.items():
        shares = [[found / lesions for found, lesions in of_sizes[name]] for name in present]
        print(f"{row:20}" + "".join(f"{spread(share):>18}" for share in shares))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--shape", type=int, default=64, help="voxels along each side of a scan (default: 64)")
    parser.add_argument("--crop", type=int, default=32, help="along each side of a training patch (default: 32)")
    parser.add_argument("--cases", type=int, default=18, help="training scans of each seed (default: 18)")
    parser.add_argument("--held_back", type=int, default=16, help="scans to evaluate on (default: 16)")
    parser.add_argument("--epochs", type=int, default=50, help="of each row, in three stages (default: 50)")
    parser.add_argument("--mining_epochs", type=int, default=30, help="of each mining network (default: 30)")
    parser.add_argument("--steps", type=int, default=15, help="of an epoch (default: 15)")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--features", type=json.loads, default=[8, 16, 32, 32, 32], help="such as [8,16,32,32,32]")
    parser.add_argument("--depths", type=json.loads, default=[3, 4, 5], help="of the mining networks")
    parser.add_argument("--folds", type=int, default=3, help="of the mining (default: 3)")
    parser.add_argument("--strips", type=int, default=8, help="sides of the attention's strips (default: 8)")
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--momentum", type=float, default=0.95)
    parser.add_argument("--keep", help="folder for everything; none means one that goes in the end")
    parser.add_argument("--decisions", action="store_true", help="also try the other ways of the attention")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--parallel", type=int, default=2, help="runs at once, which share the cores (default: 2)")
    return parser.parse_args()


def main() -> None:
    """Print the tables and the verdict."""
    given = arguments()
    print(machine())
    settings = {name: value for name, value in vars(given).items() if name not in ("device", "parallel", "keep")}
    print(", ".join(f"{name} {value}" for name, value in settings.items()))
    print(f"stages {stage_epochs(given.epochs)}; last weights of each row; mean ± standard deviation over the seeds")
    with tempfile.TemporaryDirectory() as temporary:
        ablation = Ablation(given, Path(given.keep or temporary))
        scores, sizes = ablation.run()
    print_tables(scores, sizes)
    print()
    for name, key in {"Dice": "Dice mean", "Lesion-wise Dice": "lesion-wise mean"}.items():
        print(verdict(name, {row: scores[row][key] for row in ROWS}))
    print("Four rows that are no different come in the paper's order once in twelve times.")
    if warning := caution(ablation.coverage):
        print(warning)


if __name__ == "__main__":
    main()
