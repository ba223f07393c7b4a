"""The whole way once, small: phantoms, training, inference, evaluation, report."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from .errors import InputError
from .handlers.scores import scores_table

__all__ = ["demo"]


def demo(folder: str = "demo") -> None:
    """Train CGA U-Net on generated scans for some minutes, segment held-back ones, and draw the report.

    Each step is a command that you can type yourself, and is printed before it runs. Running it again starts anew.

    Args:
        folder: gets everything: training/, held_back/, models/, predictions/, report.html.
    """
    root = Path(folder)
    training, held_back, predictions = root / "training", root / "held_back", root / "predictions"
    network = f"--ckpt_dir {root / 'models'}"
    size = "--patch_size [48,48,48] --resample False"
    started = time.monotonic()
    for command in (
        f"phantoms {training} --cases 24 --shape 48 --seed 0",
        f"phantoms {held_back} --cases 8 --shape 48 --seed 100",
        f"run cga_unet train --dataset_dir {training} --output_dir {root / 'run'} {network} {size}"
        " --epochs 28 --val_interval 14 --batch_size 1 --cross_entropy_weight 1 --fractions [0.875,0.125,0.0]",
        f"run cga_unet inference --dataset_dir {held_back} --output_dir {predictions} {network} {size}"
        " --save_probabilities True --overwrite True",
        f"run cga_unet evaluate_predictions --dataset_dir {held_back} --predictions_dir {predictions}",
        f"report {held_back} {predictions} --out {root / 'report.html'} --bundle cga_unet"
        f" --checkpoint {root / 'models' / 'model.pt'} --events {root / 'run' / 'events'} --resample False",
    ):
        print(f"\n$ lesion-bundles {command}", flush=True)
        status = subprocess.run([sys.executable, "-m", "common", *shlex.split(command)]).returncode
        if status:
            raise InputError(f"the demo stopped with status {status} at: lesion-bundles {command}")
    scores = json.loads((predictions / "scores.json").read_text())
    print("\n" + scores_table(scores["summary"], cases=len({row["case"] for row in scores["cases"]})))
    print(f"\n{time.monotonic() - started:.0f} s in all. The report: {(root / 'report.html').resolve()}")
