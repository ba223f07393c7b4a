"""MPS-AMS, small: what pre-training brings with few labels, and what of it is the patches' selection and the ratio.

    python -m benchmarks.ablation_mps_ams [--seeds 0 1 2] [--shares 0.05] [--rows …] [--out PAGE] [--device cuda]

Each seed has its own generated ultrasound images. The rows are those of the paper's Table 2: the U-Net from nothing,
and pre-trained on all training images without labels by chance and a fixed ratio (`base`), with the adaptive ratio
(+AMS), with likely lesions first (+MPS), and both; `--rows` also takes other initial ratios, growths and patches. Each
is then trained on a share of the labels with the same settings and seed, and differs from the others in nothing but the
weights that it begins with; what is drawn of the labels is the same for all rows of a seed. All are evaluated on one
set of other images, the same for every seed, with the weights that are best on the validation images. Trainings have as
many steps whatever their share of the labels.

With several `--shares` and `--out` the paper's main figure is drawn: Dice over the share of labels. Everything runs by
the commands that users type. With `--keep FOLDER` what is finished there isn't done again.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path

from common.data.image_layouts import list_images
from common.metrics.overlap import OVERLAP_SCORES

from .ablation import HELD_BACK_SEED, Runs, gain, print_settings, spread, verdict
from .machine import machine

# Ids of the pre-training; None for none.
ROWS: dict[str, dict[str, object] | None] = {
    "U-Net": None,
    "base": {"lesion_first": False, "adaptive_ratio": False},
    "base+AMS": {"lesion_first": False},
    "base+MPS": {"adaptive_ratio": False},
    "base+AMS+MPS": {},
    "σ₀ 0.5": {"initial_ratio": 0.5},
    "τ 24": {"ratio_growth": 24.0},
    "patch halved": {},
}
FIGURE = ["U-Net", "base+AMS+MPS"]  # from nothing and pre-trained
TABLE_2 = ["U-Net", "base", "base+AMS", "base+MPS", "base+AMS+MPS"]
ORDER = [("U-Net", "base"), ("base", "base+AMS"), ("base", "base+MPS"), ("base+AMS", "base+AMS+MPS")]
ORDER += [("base+MPS", "base+AMS+MPS")]
_NAMES = {"dice": "DSC", "ppv": "PPV", "sensitivity": "Sen"}
Values = dict[str, dict[str, list[float]]]


class Ablation(Runs):
    """The runs of one call.

    Args:
        given: the command line.
        root: folder for everything.
    """

    def __init__(self, given: argparse.Namespace, root: Path) -> None:
        super().__init__(given, root)
        self.shared = ["--image_size", [given.size] * 2, "--features", given.features, "--device", given.device]
        self.threads = ["--num_workers", 0]
        self.held_out = self.images("held_back", given.held_back, HELD_BACK_SEED)

    def images(self, name: str, cases: int, seed: int) -> Path:
        """A set of generated images, a little larger than the network's."""
        folder = self.root / name
        if not (folder / "phantoms.json").is_file():
            words = ["--cases", cases, "--seed", seed, "--size", 2 * self.given.size]
            self.command("image_phantoms", folder, "ultrasound", *words)
        return folder

    def parts(self, seed: int) -> tuple[Path, Path]:
        """A seed's images, and the file that says which train and which choose the weights."""
        folder = self.images(f"images-{seed}", self.given.cases + self.given.validation, seed)
        cases = sorted(str(case["case"]) for case in list_images(folder))
        step = len(cases) // self.given.validation
        chosen = cases[::step][: self.given.validation]
        training = [case for case in cases if case not in chosen]
        return folder, self.partition(f"parts-{seed}", training=training, validation=chosen)

    def pretrain(self, row: str, seed: int) -> Path | None:
        """The weights that a row begins with."""
        given, ids = self.given, ROWS[row]
        if ids is None:
            return None
        folder = self.root / f"pretraining-{seed}-{row.replace(' ', '-')}"
        weights = folder / "models" / "pretrained.pt"
        if not (folder / "training" / "masking.html").is_file():
            dataset, partition = self.parts(seed)
            edge = given.patch // 2 if row == "patch halved" else given.patch
            words: list[object] = ["--dataset_dir", dataset, "--partition_file", partition]
            words += ["--output_dir", folder / "training", "--ckpt_dir", weights.parent, "--masked_patch", [edge, edge]]
            words += ["--epochs", given.pretraining_epochs, "--batch_size", given.batch_size, "--seed", seed]
            words += ["--val_interval", max(1, given.pretraining_epochs // 20)]
            words += ["--learning_rate", given.pretraining_learning_rate]
            words += [word for id, value in ids.items() for word in (f"--{id}", value)]
            self.command("run", "mps_ams", "pretrain", *words, *self.shared, *self.threads)
        # The last weights: the ratio is highest at the end, and so is what a network has learnt.
        return folder / "training" / "last.pt"

    def train(self, row: str, seed: int, share: float) -> Path:
        """Train a row on a share of the labels and evaluate it; returns the folder of the scores."""
        given = self.given
        place = self.root / "figure" if row in FIGURE else self.root
        folder = place / f"row-{share:g}-{seed}-{row.replace(' ', '-')}"
        if (folder / "scores" / "scores.json").is_file():
            return folder / "scores"
        dataset, partition = self.parts(seed)
        words: list[object] = ["--dataset_dir", dataset, "--partition_file", partition]
        words += ["--output_dir", folder / "training", "--ckpt_dir", folder / "models", "--labelled_share", share]
        steps = math.ceil(max(1, round(share * given.cases)) / given.batch_size)  # of an epoch
        epochs = max(1, round(given.steps / steps))
        words += ["--epochs", epochs, "--warmup_epochs", epochs // 20, "--val_interval", max(1, epochs // 20)]
        words += ["--batch_size", given.batch_size, "--learning_rate", given.learning_rate, "--seed", seed]
        if weights := self.pretrain(row, seed):
            words += ["--pretrained", weights]
        self.command("run", "mps_ams", "train", *words, *self.shared, *self.threads)
        cases = [str(case["case"]) for case in list_images(self.held_out)]
        words = ["--dataset_dir", self.held_out, "--partition_file", self.partition("parts", test=cases)]
        words += ["--output_dir", folder / "scores", "--ckpt_dir", folder / "models"]
        self.command("run", "mps_ams", "evaluate", *words, *self.shared)
        return folder / "scores"

    def run(self, share: float) -> Values:
        """All rows with this share of the labels, with a line for each row of each seed."""
        values: Values = {row: {score: [] for score in OVERLAP_SCORES} for row in self.given.rows}
        for seed in self.given.seeds:
            started = time.monotonic()
            for row, of_row in values.items():
                summary = json.loads((self.train(row, seed, share) / "scores.json").read_text())["summary"]["image"]
                for score, so_far in of_row.items():
                    so_far.append(summary[score]["mean"])
                told = ", ".join(f"{_NAMES[score]} {so_far[-1]:.3f}" for score, so_far in of_row.items())
                print(f"seed {seed}: {row:14} {told}, {time.monotonic() - started:.0f} s", flush=True)
        return values


def print_table(values: Values) -> None:
    """Scores of the rows, and the verdicts."""
    print(f"\n{'mean of images':16}" + "".join(f"{_NAMES[score]:>14}" for score in OVERLAP_SCORES))
    for row, of_row in values.items():
        print(f"{row:16}" + "".join(f"{spread(so_far):>14}" for so_far in of_row.values()))
    dice = {row: of_row["dice"] for row, of_row in values.items()}
    order = [step for step in ORDER if dice.keys() >= {*step}]
    if len(order) == len(ORDER):
        print(verdict("DSC", {row: dice[row] for row in TABLE_2}, order))
    for row in dice:
        if row != "U-Net" and "U-Net" in dice:
            differences = [ours - theirs for ours, theirs in zip(dice[row], dice["U-Net"], strict=True)]
            print(f"{row}: {gain('DSC', differences)}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], default=TABLE_2, help="default: those of Table 2")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.05], help="of the labels (default: 0.05)")
    parser.add_argument("--cases", type=int, default=200, help="training images of each seed (default: 200)")
    parser.add_argument("--validation", type=int, default=20, help="images that choose the weights (default: 20)")
    parser.add_argument("--held_back", type=int, default=80, help="images to evaluate on (default: 80)")
    parser.add_argument("--size", type=int, default=64, help="pixels along each side (default: 64)")
    parser.add_argument("--patch", type=int, default=8, help="pixels along each side of a patch (default: 8)")
    parser.add_argument("--features", type=json.loads, default=[16, 32, 64, 128, 128], help="such as [8,16,32,64,64]")
    parser.add_argument("--steps", type=int, default=400, help="of a training with any share (default: 400)")
    parser.add_argument("--pretraining_epochs", type=int, default=60, help="default: 60")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=0.01, help="Adam's (default: 0.01)")
    parser.add_argument("--pretraining_learning_rate", type=float, default=0.001, help="default: 0.001")
    parser.add_argument("--out", help="page of Dice over the share of labels")
    parser.add_argument("--keep", help="folder for everything; none means one that goes in the end")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(parallel=1)
    given = parser.parse_args()
    if given.out and {*given.rows} - {*FIGURE}:
        parser.error(f"--out draws {' and '.join(FIGURE)}: give --rows with nothing else")
    return given


def main() -> None:
    """Print a table for each share."""
    given = arguments()
    print(machine())
    print_settings(given)
    with tempfile.TemporaryDirectory() as temporary:
        runs = Ablation(given, Path(given.keep or temporary))
        for share in given.shares:
            print(f"\n{share:.0%} of the labels of {given.cases} training images", flush=True)
            print_table(runs.run(share))
        if given.out:
            runs.command("label_efficiency", runs.root / "figure", "--out", given.out)


if __name__ == "__main__":
    main()
