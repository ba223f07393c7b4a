"""MSConvLSTM-Att, small: the paper's comparison (Table I), and what each of its parts brings, on generated gliomas.

    python -m benchmarks.ablation_msconvlstm_att [--seeds 0 1 2] [--rows …] [--device cuda]

Each seed has its own generated training scans. The rows are trained on their axial slices with the same loss,
optimiser, rate, steps and seed, and differ in the network alone: MSConvLSTM-Att; U-Net, Attention U-Net (MONAI's) and
FCN-8s, which have about as many channels; and MSConvLSTM-Att without one of its parts. The last weights count, no
validation chooses. All are evaluated on one set of other scans, the same for every seed. Parameters and the time of the
whole training command, beside whatever else runs, stand beside the scores.

Everything runs by the commands that users type. With `--keep FOLDER` what is finished there isn't done again. The paper
has mean Dice of 0.736 for U-Net, 0.786 for Attention U-Net, 0.729 for FCN and 0.799 for its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from .ablation import SCORES, Runs, Table, add_arguments, print_settings, verdict
from .machine import machine

OURS = "MSConvLSTM-Att"
_PLANE = {"spatial_dims": 2, "in_channels": 4, "out_channels": 4}


def rows(width: int) -> dict[str, dict[str, object]]:
    """Ids of each row.

    Args:
        width: channels of a modality's first scale; the comparators have twice as many in their first stage.
    """
    first = 2 * width
    channels = [first * 2**level for level in range(4)]
    unet = {**_PLANE, "channels": channels, "strides": [2, 2, 2]}
    own = {"network_def#features": [width, 2 * width, 4 * width], "network_def#width": 2 * width}
    return {
        OURS: own,
        "U-Net": {"network_def": {"_target_": "UNet", **unet, "num_res_units": 0, "norm": "batch"}},
        "Attention U-Net": {"network_def": {"_target_": "AttentionUnet", **unet}},
        "FCN": {
            "network_def": {
                **{"_target_": "common.networks.fcn.FCN8s", "in_channels": 4, "out_channels": 4},
                "features": [*channels, channels[-1]],
            }
        },
        "without ConvLSTM": {**own, "network_def#conv_lstm": False},
        "without SE": {**own, "network_def#squeeze": False},
        "one scale": {**own, "network_def#features": [width]},
        "without attention": {**own, "network_def#attention_depth": 0},
        "without averaging": {**own, "network_def#average": False},
    }


PAPER = [("FCN", "U-Net"), ("U-Net", "Attention U-Net"), ("Attention U-Net", OURS)]


class Ablation(Runs):
    """The runs of one call; see `Runs`.

    Attributes:
        seconds: row → seconds of the training, of each seed.
        parameters: row → how many the network has.
    """

    kind = "glioma"

    def __init__(self, given: argparse.Namespace, root: Path) -> None:
        super().__init__(given, root)
        self.ids = {name: ids for name, ids in rows(given.width).items() if name in given.rows}
        self.scans = ["--resample", "False", "--device", given.device, "--crop_size", [given.crop] * 2]
        self.seconds: dict[str, list[float]] = {name: [] for name in self.ids}
        self.parameters: dict[str, int] = {}

    def train(self, row: str, seed: int, dataset: Path, held_back: tuple[Path, Path]) -> Path:
        """Train a row and evaluate it; returns the folder of the scores."""
        given, folder = self.given, self.root / f"row-{seed}-{row.replace(' ', '-')}"
        network = [word for id, value in self.ids[row].items() for word in (f"--{id}", value)]
        record, last = folder / "seconds.json", folder / "training" / "last.pt"
        if not (folder / "scores" / "lesions.json").is_file():
            places = ["--dataset_dir", dataset, "--output_dir", folder / "training", "--ckpt_dir", folder / "models"]
            places += ["--num_workers", 0, "--fractions", [1.0, 0.0, 0.0]]
            training = ["--epochs", given.epochs, "--batch_size", given.batch_size, "--seed", seed]
            training += ["--learning_rate", given.learning_rate, "--halving_epochs", given.halving]
            started = time.monotonic()
            self.command("run", "msconvlstm_att", "train", *places, *training, *self.scans, *network)
            record.write_text(json.dumps(time.monotonic() - started))
            places = ["--dataset_dir", held_back[0], "--partition_file", held_back[1], "--weights", last]
            places += ["--output_dir", folder / "scores"]
            self.command("run", "msconvlstm_att", "evaluate", *places, *self.scans, *network)
        content = torch.load(last, weights_only=True)["model"]
        self.parameters[row] = sum(
            value.numel()
            for name, value in content.items()
            if not name.endswith(("running_mean", "running_var", "tracked"))
        )
        self.seconds[row].append(json.loads(record.read_text()))
        return folder / "scores"

    def run(self) -> Table:
        """Everything, with a line for each row of each seed."""
        table, held_back = Table(self.ids), self.held_back()
        for seed in self.given.seeds:
            started = time.monotonic()
            dataset = self.phantoms(f"training-{seed}", self.given.cases, seed)
            self.rows(table, seed, lambda row: self.train(row, seed, dataset, held_back), started)  # noqa: B023
        return table

    def print_costs(self) -> None:
        """Parameters, and how long the training took beside that of the whole method."""
        whole = statistics.mean(self.seconds[OURS]) if OURS in self.seconds else None
        print(f"\n{'':20}{'parameters':>14}{'training, s':>13}{'ratio':>8}")
        for row, own in self.seconds.items():
            mean = statistics.mean(own)
            ratio = f"{mean / whole:.2f}" if whole else "–"
            print(f"{row:20}{self.parameters[row]:14,}{mean:13.0f}{ratio:>8}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, cases=16, parallel=2)
    parser.add_argument("--rows", nargs="+", choices=[*rows(8)], default=[*rows(8)])
    parser.add_argument("--width", type=int, default=8, help="channels of a modality's first scale (default: 8)")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--halving", type=int, default=2, help="epochs after which the rate is halved (default: 2)")
    parser.add_argument("--learning_rate", type=float, default=0.003)
    parser.set_defaults(crop=64, batch_size=8)
    return parser.parse_args()


def main() -> None:
    """Print the tables and the verdicts."""
    given = arguments()
    print(machine())
    print_settings(given)
    with tempfile.TemporaryDirectory() as temporary:
        runs = Ablation(given, Path(given.keep or temporary))
        table = runs.run()
    table.print()
    runs.print_costs()
    print()
    compared = {row for step in PAPER for row in step}
    for name, score in SCORES.items() if compared <= {*table.scores} else ():
        print(verdict(name, table.of(score, sorted(compared)), PAPER))


if __name__ == "__main__":
    main()
