"""The whole way once: segmenting with the weights that come along, then phantoms, training and report, small."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from .data.layouts import list_cases
from .errors import InputError
from .handlers.scores import scores_table
from .running import BUNDLES
from .weights import default_weights, no_weights

__all__ = ["demo"]


def demo(folder: str = "demo", dataset: str = "") -> None:
    """Train CGA U-Net on generated scans for some minutes, segment held-back ones, and draw the report.

    Where weights are in the bundle's `models/`, these segment generated scans first, and yours, each with a report.

    Each step is a command that you can type yourself, and is printed before it runs. Running it again starts anew.

    Args:
        folder: gets everything: first/ with what the weights that come along make of a generated scan, own/ of yours;
            training/, held_back/, models/, predictions/, report.html of the training.
        dataset: folder of scans of yours, in any known layout; they are segmented, too.
    """
    root = Path(folder)
    started = time.monotonic()
    weights = Path(default_weights(BUNDLES / "cga_unet" / "models"))
    if dataset and not weights.is_file():
        raise InputError(no_weights(weights))
    if dataset:
        list_cases(dataset)  # what is wrong with it is told before anything takes long
    if weights.is_file():
        _run("phantoms", root / "first" / "scans", "--cases", 2, "--shape", 128, "--seed", 20, "--varied", "True")
        _segment(root / "first" / "scans", root / "first")
    if dataset:
        _segment(Path(dataset), root / "own")
    _train(root)
    print(f"\n{time.monotonic() - started:.0f} s in all. The reports:")
    for report in ("first/report.html", "own/report.html", "report.html"):
        if (root / report).is_file():
            print((root / report).resolve())


def _segment(scans: Path, folder: Path) -> None:
    """With the weights that come along, and a report."""
    predictions = folder / "predictions"
    maps = ["--save_probabilities", "True", "--save_uncertainty", "True", "--overwrite", "True"]
    _run("run", "cga_unet", "inference", "--dataset_dir", scans, "--output_dir", predictions, *maps)
    if any(case.get("label") for case in list_cases(scans)):
        _run("run", "cga_unet", "evaluate_predictions", "--dataset_dir", scans, "--predictions_dir", predictions)
    _run("report", scans, predictions, "--out", folder / "report.html", "--bundle", "cga_unet")


def _train(root: Path) -> None:
    """A training of some minutes, and its report."""
    training, held_back, predictions = root / "training", root / "held_back", root / "predictions"
    network = ["--ckpt_dir", root / "models"]
    spacing = ["--resample", "False"]
    long = ["--patch_size", "[48,48,48]", "--epochs", "34", "--val_interval", "17", "--batch_size", "1"]
    long += ["--learning_rate", "0.002", "--cross_entropy_weight", "1", "--fractions", "[0.875,0.125,0.0]"]
    again = ["--save_probabilities", "True", "--save_uncertainty", "True", "--overwrite", "True"]
    cga_unet = ["--bundle", "cga_unet", "--checkpoint", root / "models" / "model.pt", *spacing]
    _run("phantoms", training, "--cases", 24, "--shape", 48, "--seed", 0)
    _run("phantoms", held_back, "--cases", 8, "--shape", 48, "--seed", 100)
    run = ["--output_dir", root / "run"]
    _run("run", "cga_unet", "train", "--dataset_dir", training, *run, *network, *spacing, *long)
    out = ["--output_dir", predictions]
    _run("run", "cga_unet", "inference", "--dataset_dir", held_back, *out, *network, *spacing, *again)
    _run("run", "cga_unet", "evaluate_predictions", "--dataset_dir", held_back, "--predictions_dir", predictions)
    _run(
        "report", held_back, predictions, "--out", root / "report.html", *cga_unet, "--events", root / "run" / "events"
    )
    scores = json.loads((predictions / "scores.json").read_text())
    print("\n" + scores_table(scores["summary"], cases=len({row["case"] for row in scores["cases"]})))


def _run(*words: object) -> None:
    """Print a command, and run it in a process of its own."""
    command = [str(word) for word in words]
    print(f"\n$ lesion-bundles {shlex.join(command)}", flush=True)
    status = subprocess.run([sys.executable, "-m", "common", *command]).returncode
    if status:
        raise InputError(f"the demo stopped with status {status} at: lesion-bundles {shlex.join(command)}")
