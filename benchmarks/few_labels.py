"""What one labelled scan brings: CGA U-Net trained on it from the weights that come along, and from scratch.

    python -m benchmarks.few_labels DATASET [--seeds 0] [--weights FILE] [--keep FOLDER]

Of the labelled scans of a data set, in any layout, each in turn is the only one to train on, with the bundle's
augmentations, for a number of steps; the last weights count, and are scored on all the others. From scratch and from
the weights differ in where they begin and in the learning rate alone: images are prepared for both as the weights say
that they were trained. Beside them stand the weights as they are. Each command is one that users type.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common.data.labels import REGIONS
from common.errors import InputError, exit_in_one_line
from common.running import BUNDLES
from common.weights import GENERATED, no_weights, trained_setting

from .ablation import Runs, expect_settings, print_settings, spread
from .machine import machine
from .real_cases import labelled_cases, scores_of

ROWS = ("weights as they are", "from scratch", "from the weights")


class FewLabels(Runs):
    """The runs of one call; see `Runs`."""

    def scores(self, row: str, case: str, seed: int) -> dict[str, float]:
        """Mean Dice by region of the scans that aren't `case`, after training on that one."""
        given, weights = self.given, self.given.weights
        prepared = [
            word
            for id, default in (("spacing", [1.0] * 3), ("robust", False), ("patch_size", [128] * 3))
            for word in (f"--{id}", trained_setting(id, default, str(weights)))
        ]
        folder = self.root / f"{row.replace(' ', '-')}-{case}-{seed}"
        if row != ROWS[0] and not (folder / "last.pt").is_file():
            parts = self.partition(f"only-{case}", training=[case], test=[one for one in given.cases if one != case])
            places = ["--dataset_dir", given.dataset, "--partition_file", parts, "--output_dir", folder]
            begin = ["--weights", weights, "--learning_rate", given.fine_rate]
            rate = begin if row == ROWS[2] else ["--learning_rate", given.rate]
            steps = ["--epochs", given.steps, "--val_interval", given.steps + 1]  # no validation
            steps += ["--batch_size", 1, "--patches_per_case", 2]
            more = ["--ckpt_dir", folder / "models", "--num_workers", 1, "--device", given.device]
            more += ["--cross_entropy_weight", 1, "--seed", seed]
            self.command("run", "cga_unet", "train", *places, *rate, *steps, *prepared, *more)
        used = weights if row == ROWS[0] else folder / "last.pt"
        out = folder / "predictions"
        places = ["--dataset_dir", given.dataset, "--output_dir", out, "--weights", used, "--device", given.device]
        self.command("run", "cga_unet", "inference", *places)
        others = [one for name, one in scores_of(out, given.dataset).items() if name != case]
        return {region: statistics.mean(one[region].volume_dice for one in others) for region in REGIONS}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="labelled real scans, in any layout")
    along = BUNDLES / "cga_unet" / "models" / GENERATED
    parser.add_argument("--weights", type=Path, default=along, help="default: those that come along")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="default: 0")
    parser.add_argument("--steps", type=int, default=150, help="of two patches (default: 150)")
    parser.add_argument("--rate", type=float, default=1e-3, help="from scratch (default: 0.001)")
    parser.add_argument("--fine_rate", type=float, default=3e-4, help="from the weights (default: 0.0003)")
    parser.add_argument("--keep", help="folder for everything; none means one that goes in the end")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    sys.excepthook = exit_in_one_line
    if not given.weights.is_file():
        raise InputError(no_weights(given.weights))
    given.parallel = 1
    given.weights_sha256 = hashlib.sha256(given.weights.read_bytes()).hexdigest()
    cases = given.cases = [str(case["case"]) for case in labelled_cases(given.dataset, least=2)]
    print(machine())
    print_settings(given)
    started = time.monotonic()
    print("\n| Dice of the others (WT / TC / ET) | " + " | ".join(f"trained on {case}" for case in cases) + " |")
    print("|---" * (len(cases) + 1) + "|")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(given.keep or temporary)
        expect_settings(given, root)
        runs = FewLabels(given, root)
        for row in ROWS:
            cells = []
            for case in cases:
                seeds = given.seeds[:1] if row == ROWS[0] else given.seeds
                of_seeds = [runs.scores(row, case, seed) for seed in seeds]
                cells.append(" / ".join(spread([scores[region] for scores in of_seeds]) for region in REGIONS))
            print(f"| {row} | {' | '.join(cells)} |", flush=True)
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
