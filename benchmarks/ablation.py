"""What ablations on generated scans share: their scans and commands, the scores of their rows, and the tables.

Each row of a table is a training that differs from the others in a few ids alone, by the commands that users type. Each
seed has its own training scans; all rows are evaluated on one set of other scans, the same for every seed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scipy.stats import t as students_t

from common.data.labels import REGIONS
from common.data.layouts import list_cases
from common.metrics.lesion_records import size_name

HELD_BACK_SEED = 1000
SIZES_OF = "TC"  # the metastasis itself, without its oedema
SCORES = {"Dice": "Dice mean", "Lesion-wise Dice": "lesion-wise mean"}
Scores = dict[str, float]
Order = Sequence[tuple[str, str]]


def relations(scores: Mapping[str, float], order: Order) -> dict[str, bool]:
    """Each step of an order of rows, and whether these scores of the rows, greater is better, make it."""
    return {f"{lower} < {higher}": scores[lower] < scores[higher] for lower, higher in order}


def verdict(score: str, of_seeds: Mapping[str, Sequence[float]], order: Order) -> str:
    """Whether the paper's order of the rows is reproduced, in a sentence or two.

    Args:
        score: its name.
        of_seeds: row → the score of each seed.
        order: its steps, the lower row first.
    """
    found = relations({row: statistics.mean(values) for row, values in of_seeds.items()}, order)
    seeds = [dict(zip(of_seeds, values, strict=True)) for values in zip(*of_seeds.values(), strict=True)]
    times = sum(all(relations(of_seed, order).values()) for of_seed in seeds)
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


def gain(score: str, differences: Sequence[float]) -> str:
    """What pre-training brings, in a sentence: for certain where Student's 95% interval of the mean leaves out 0.

    Args:
        score: its name.
        differences: pre-trained less not, of each seed.
    """
    better, mean = sum(value > 0 for value in differences), statistics.mean(differences)
    told = f"{score}: {spread(differences)}, better in {better} of {len(differences)} seeds"
    if len(differences) < 2:
        return f"{told}; one seed may be chance."
    error = statistics.stdev(differences) / len(differences) ** 0.5
    low, high = students_t.interval(0.95, len(differences) - 1, mean, error)
    word = "helps" if low > 0 else "harms" if high < 0 else "neither helps nor harms for certain"
    return f"{told}; 95% interval {low:.3f} to {high:.3f}: pre-training {word}."


class Table:
    """Scores of the rows, seed by seed; the first row is the baseline.

    Args:
        rows: their names.

    Attributes:
        scores: row → score → its value of each seed.
        sizes: row → size → lesions found and there of each seed.
    """

    def __init__(self, rows: Iterable[str]) -> None:
        self.scores: dict[str, dict[str, list[float]]] = {row: {} for row in rows}
        self.sizes: dict[str, dict[str, list[tuple[int, int]]]] = {row: {} for row in self.scores}

    def add(self, row: str, folder: Path) -> Scores:
        """Add what an evaluation of the next seed wrote, and return its scores."""
        scores, sizes = read_scores(folder)
        for name, value in scores.items():
            self.scores[row].setdefault(name, []).append(value)
        for name, counts in sizes.items():
            self.sizes[row].setdefault(name, []).append(counts)
        return scores

    def of(self, score: str, rows: Iterable[str] | None = None) -> dict[str, list[float]]:
        """Row → the score of each seed, for these rows or all."""
        return {row: self.scores[row][score] for row in (self.scores if rows is None else rows)}

    def differences(self, score: str, row: str, other: str) -> list[float]:
        """By how much the row is better than the other, seed by seed."""
        return [higher - lower for higher, lower in zip(*self.of(score, (row, other)).values(), strict=True)]

    def print(self) -> None:
        """Print Dice, lesion-wise Dice, their differences from the baseline, and the sensitivity by size."""
        columns, (baseline, *others) = [*REGIONS, "mean"], self.scores
        width = max(20, *(len(row) + len(f" − {baseline}") + 1 for row in self.scores))
        for name in ("Dice", "lesion-wise"):
            print(f"\n{name + ' Dice' * (name != 'Dice'):{width}}" + "".join(f"{column:>14}" for column in columns))
            for row, of_row in self.scores.items():
                print(f"{row:{width}}" + "".join(f"{spread(of_row[f'{name} {column}']):>14}" for column in columns))
            for row in others:
                cells = [spread(self.differences(f"{name} {column}", row, baseline)) for column in columns]
                print(f"{f'{row} − {baseline}':{width}}" + "".join(f"{cell:>14}" for cell in cells))
        present = {name: counts[0][1] for name, counts in self.sizes[baseline].items() if counts[0][1]}
        print(f"\n{'sensitivity, ' + SIZES_OF:{width}}" + "".join(f"{name:>18}" for name in present))
        print(f"{'lesions':{width}}" + "".join(f"{count:>18}" for count in present.values()))
        for row, of_sizes in self.sizes.items():
            shares = [[found / lesions for found, lesions in of_sizes[name]] for name in present]
            print(f"{row:{width}}" + "".join(f"{spread(share):>18}" for share in shares))


class Runs:
    """The commands of an ablation, each in a process of its own.

    Attributes:
        kind: of the lesions in the scans.

    Args:
        given: the command line, of `add_arguments` and more.
        root: folder for everything.
    """

    kind = "metastases"

    def __init__(self, given: argparse.Namespace, root: Path) -> None:
        self.given, self.root = given, root

    def command(self, *words: object) -> str:
        """One command, and what it says, which is shown where it fails."""
        threads = str(max(1, len(os.sched_getaffinity(0)) // self.given.parallel))
        environment = {"OMP_NUM_THREADS": threads} | os.environ
        line = [sys.executable, "-m", "common", *(str(word) for word in words)]
        done = subprocess.run(line, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"{' '.join(line[2:5])} failed: {done.stderr[-2000:]}")
        return done.stdout + done.stderr

    def phantoms(self, name: str, cases: int, seed: int) -> Path:
        """A set of generated scans."""
        folder = self.root / name
        if (folder / "phantoms.json").is_file():
            return folder
        shape = ["--shape", self.given.shape]
        self.command("phantoms", folder, "--cases", cases, "--seed", seed, "--kind", self.kind, *shape)
        return folder

    def partition(self, name: str, **parts: Sequence[str]) -> Path:
        """A file that says which cases are in which part; parts that aren't given have none."""
        file = self.root / f"{name}.json"
        file.write_text(json.dumps({"parts": {"training": [], "validation": [], "test": []} | parts}))
        return file

    def held_back(self) -> tuple[Path, Path]:
        """The scans that all rows are evaluated on, and the file which says that none of them trains."""
        folder = self.phantoms("held_back", self.given.held_back, HELD_BACK_SEED)
        return folder, self.partition("parts", test=names(folder))

    def rows(self, table: Table, seed: int, train: Callable[[str], Path], started: float) -> None:
        """All rows of a seed, added to the table, with a line for each.

        Args:
            table: says which rows.
            seed: the scans'.
            train: trains and evaluates a row, and returns the folder of its scores.
            started: by `time.monotonic`.
        """
        longest = max(map(len, table.scores))
        with ThreadPoolExecutor(self.given.parallel) as pool:
            for row, folder in zip(table.scores, pool.map(train, table.scores), strict=True):
                scores = table.add(row, folder)
                means = ", ".join(f"{name} {scores[f'{name} mean']:.3f}" for name in ("Dice", "lesion-wise"))
                print(f"seed {seed}: {row:{longest}} {means}, {time.monotonic() - started:.0f} s", flush=True)


def names(folder: Path) -> list[str]:
    """The cases in a folder."""
    return [str(case["case"]) for case in list_cases(folder)]


def print_settings(given: argparse.Namespace) -> None:
    """Print what the results depend on."""
    print(", ".join(f"{name} {value}" for name, value in _settings(given).items()))


def expect_settings(given: argparse.Namespace, root: Path) -> None:
    """Stop where a folder has runs with other settings; more rows and more seeds are no others."""
    own = {name: str(value) for name, value in _settings(given).items() if name not in ("rows", "seeds")}
    file = root / "settings.json"
    for name, value in (json.loads(file.read_text()) if file.is_file() else {}).items():
        if own.get(name) != value:
            raise SystemExit(f"{root} has runs with --{name} {value}, not {own.get(name)}: give another --keep")
    root.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(own))


def _settings(given: argparse.Namespace) -> dict[str, object]:
    return {name: value for name, value in vars(given).items() if name not in ("device", "parallel", "keep")}


def add_arguments(parser: argparse.ArgumentParser, cases: int, parallel: int) -> None:
    """What every ablation is asked; the last two are defaults."""
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--shape", type=int, default=64, help="voxels along each side of a scan (default: 64)")
    parser.add_argument("--crop", type=int, default=32, help="along each side of a training patch (default: 32)")
    parser.add_argument("--cases", type=int, default=cases, help=f"training scans of each seed (default: {cases})")
    parser.add_argument("--held_back", type=int, default=16, help="scans to evaluate on (default: 16)")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--keep", help="folder for everything; none means one that goes in the end")
    parser.add_argument("--device", default="cpu")
    told = f"runs at once, which share the cores (default: {parallel})"
    parser.add_argument("--parallel", type=int, default=parallel, help=told)
