"""3D-TransUNet's variants, small: what transformers in encoder and decoder and pre-training bring on metastases.

    python -m benchmarks.ablation_transunet3d [--seeds 0 1 2] [--labels 1.0 0.1] [--decisions] [--device cuda]

Each seed has its own generated training scans, and pre-trains the transformer's blocks once, on all of these without
labels. The rows of the table are then trained with the same settings and seed, and differ in the variant and in where
the blocks begin; no validation chooses among their weights, the last ones count. All are evaluated on one set of other
scans, the same for every seed. `--labels 0.1` trains on a tenth of the scans for as many steps; the pre-training still
has all of them. Both variants with a transformer in the encoder have as many layers of it, so that one pre-training
serves both; the bundle's default is 12 of them without the queries and 1 with them.

Everything runs by the commands that users type; 40 minutes on one busy core, and 25 more for each further share of
labels. `--decisions` adds rows with few queries, and with blocks pre-trained on tokens that are thick along z. With
`--keep FOLDER` what is finished there isn't done again, so that a run goes on where it was stopped, with more seeds,
labels or rows if wanted.

Generated brains are as large as real ones, so a scan of 64³ has voxels of about 25 mm³: the smallest metastases are a
voxel or two. The paper (Table 1) has nnU-Net at 56.4% of Dice, the encoder alone at 56.6%, both without pre-training,
and the decoder alone at 59.3%; it expects the pre-trained encoder in between, and says nothing of both together.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from common.data.labels import REGIONS
from common.report.curves import read_curves

from .ablation import SCORES, Runs, Table, add_arguments, gain, names, print_settings, verdict
from .machine import machine


class Row(NamedTuple):
    """What a row of the table is: ids of the network, and the pre-training of its blocks, "" for none."""

    ids: dict[str, str]
    pretraining: str = ""


ROWS = {
    "none": Row({"variant": "none"}),
    "encoder": Row({"variant": "encoder"}),
    "pre-trained encoder": Row({"variant": "encoder"}, "planes"),
    "decoder": Row({"variant": "decoder"}),
    "both": Row({"variant": "both"}),
    "pre-trained both": Row({"variant": "both"}, "planes"),
}
DECISIONS = {
    "decoder with 5 queries": Row({"variant": "decoder", "queries": "5"}),
    "encoder, from thick tokens": Row({"variant": "encoder"}, "bricks"),
}
THICKNESS = {"planes": 1, "bricks": 4}  # of a pre-training's tokens along z
PAIRS = [("encoder", "pre-trained encoder"), ("both", "pre-trained both")]
ORDERS = {
    "none < encoder < decoder, as measured in the paper": ["none", "encoder", "decoder"],
    "pre-trained encoder in between, as the paper expects": ["none", "encoder", "pre-trained encoder", "decoder"],
}

UNLEARNT = 0.05  # Dice of a region


def steps(order: Sequence[str]) -> list[tuple[str, str]]:
    """Each row with the next."""
    return list(pairwise(order))


def caution(table: Table) -> str:
    """Which rows have a region that they hadn't learnt in some seeds: differences from them tell of slowness alone."""
    told = []
    for row, of_row in table.scores.items():
        for region in REGIONS:
            missed = sum(value < UNLEARNT for value in of_row[f"Dice {region}"])
            if missed:
                told.append(f"{region} of {row} in {missed} of {len(of_row[f'Dice {region}'])} seeds")
    if not told:
        return ""
    return f"Caution: Dice is below {UNLEARNT} of {', '.join(told)}: not learnt yet. What differs there may be speed."


def labelled(cases: int, labels: float) -> int:
    """Training scans whose labels are used; the first ones, which are no different from the others."""
    return max(1, round(labels * cases))


class Ablation(Runs):
    """The runs of one call.

    Args:
        given: the command line.
        root: folder for everything.
    """

    def __init__(self, given: argparse.Namespace, root: Path) -> None:
        super().__init__(given, root)
        self.settings = ROWS | (DECISIONS if given.decisions else {})
        crop = [given.crop] * 3
        self.scans = ["--resample", "False", "--device", given.device]
        self.encoder = ["--encoder_layers", given.layers, "--encoder_width", given.width]
        self.encoder += ["--encoder_heads", given.heads, "--encoder_mlp", 2 * given.width]
        self.network = ["--features", given.features, "--channels_last", "True", "--window_size", crop]
        self.training = ["--patch_size", crop, "--num_workers", 0, "--batch_size", given.batch_size]
        self.training += ["--epochs", given.epochs, "--steps_per_epoch", given.steps]
        self.training += ["--optimizer_name", "adamw", "--learning_rate", given.learning_rate]
        self.held_out = self.held_back()

    def dataset(self, seed: int) -> tuple[Path, list[str], list[str]]:
        """A seed's scans, which of them train, and which the pre-training's loss is measured on."""
        folder = self.phantoms(f"training-{seed}", self.given.cases + self.given.pretraining_held_out, seed)
        cases = names(folder)
        return folder, cases[: self.given.cases], cases[self.given.cases :]

    def pretrain(self, name: str, seed: int) -> tuple[Path, list[float]]:
        """Pre-train the blocks of a seed; returns the weights, and the held-out losses in the order of time."""
        given, folder = self.given, self.root / f"pretraining-{seed}-{name}"
        weights, done = folder / "models" / "pretrained.pt", folder / "training" / "reconstructions.html"
        if not done.is_file():
            dataset, training, validation = self.dataset(seed)
            partition = self.partition(folder.name, training=training, validation=validation)
            places = ["--dataset_dir", dataset, "--partition_file", partition, "--output_dir", folder / "training"]
            tokens = ["--token_size", [THICKNESS[name], given.token, given.token], "--patch_size", [given.crop] * 3]
            rhythm = ["--epochs", given.pretraining_epochs, "--warmup_epochs", given.pretraining_epochs // 20]
            rhythm += ["--val_interval", max(1, given.pretraining_epochs // 20), "--seed", seed, "--num_workers", 0]
            rhythm += ["--batch_size", given.pretraining_batch_size, "--learning_rate", given.pretraining_learning_rate]
            light = ["--network_def#decoder_width", given.width, "--network_def#decoder_heads", given.heads]
            own = [*self.scans, *self.encoder, *tokens, *rhythm, *light, "--ckpt_dir", weights.parent]
            self.command("run", "transunet3d", "pretrain", *places, *own)
        return weights, read_curves(folder / "training" / "events")["val_loss"][1].tolist()

    def train(self, row: str, seed: int, labels: float) -> Path:
        """Train a row of the table and evaluate it; returns the folder of the scores."""
        given, settings = self.given, self.settings[row]
        folder = self.root / f"row-{labels:g}-{seed}-{row.replace(',', '').replace(' ', '-')}"
        if (folder / "scores" / "lesions.json").is_file():
            return folder / "scores"
        network: list[object] = [word for id, value in settings.ids.items() for word in (f"--{id}", value)]
        if settings.ids["variant"] in ("encoder", "both"):
            network += self.encoder
        if settings.ids["variant"] in ("decoder", "both"):
            network += ["--decoder_layers", given.decoder_layers]
            network += ["--network_def#decoder_width", given.width, "--network_def#decoder_mlp", 4 * given.width]
        network += [*self.scans, *self.network, "--ckpt_dir", folder / "models"]
        dataset, training, _ = self.dataset(seed)
        chosen = training[: labelled(len(training), labels)]
        # Names of all cases have to be there: those that don't train are left aside.
        others = [name for name in names(dataset) if name not in chosen]
        partition = self.partition(f"labels-{labels:g}-{seed}", training=chosen, test=others)
        places = ["--dataset_dir", dataset, "--partition_file", partition, "--output_dir", folder / "training"]
        begin: list[object] = []
        if settings.pretraining:
            begin = ["--pretrained", self.pretrain(settings.pretraining, seed)[0]]
        self.command("run", "transunet3d", "train", *places, *self.training, *network, *begin, "--seed", seed)
        dataset, partition = self.held_out
        places = ["--dataset_dir", dataset, "--partition_file", partition, "--output_dir", folder / "scores"]
        self.command("run", "transunet3d", "evaluate", *places, *network)
        return folder / "scores"

    def run(self, labels: float) -> Table:
        """Everything with this share of the labels, with a line for each row of each seed."""
        table = Table(self.settings)
        for seed in self.given.seeds:
            started = time.monotonic()
            for name in sorted({row.pretraining for row in self.settings.values()} - {""}):
                losses = self.pretrain(name, seed)[1]
                told = f"held-out loss {losses[0]:.4f} at first, {losses[-1]:.4f} at last, least {min(losses):.4f}"
                print(f"seed {seed}: pre-trained on {name}, {told}, {time.monotonic() - started:.0f} s", flush=True)
            self.rows(table, seed, lambda row: self.train(row, seed, labels), started)  # noqa: B023
        return table


def print_verdicts(table: Table) -> None:
    """Print the plain sentences."""
    print()
    for told, order in ORDERS.items():
        print(f"Order: {told}")
        for name, score in SCORES.items():
            print(f"  {verdict(name, table.of(score, order), steps(order))}")
    print("Rows that are no different come in the first order once in six times, in the second once in 24.")
    count = len(PAIRS) * len(SCORES)
    print(f"Pre-training; by chance an interval leaves out 0 once in 20 times, and there are {count}:")
    for without, pretrained in PAIRS:
        print(without)
        for name, score in SCORES.items():
            print(f"  {gain(name, table.differences(score, pretrained, without))}")
    if warning := caution(table):
        print(warning)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, cases=30, parallel=1)
    parser.add_argument("--labels", nargs="+", type=float, default=[1.0], help="shares of the labels (default: 1.0)")
    parser.add_argument("--decisions", action="store_true", help="also few queries, and thick tokens")
    parser.add_argument("--epochs", type=int, default=13, help="of each row (default: 13)")
    parser.add_argument("--steps", type=int, default=20, help="of an epoch (default: 20)")
    parser.add_argument("--learning_rate", type=float, default=0.005, help="AdamW's")
    parser.add_argument("--features", type=json.loads, default=[8, 16, 32, 64], help="such as [8,16,32,64]")
    parser.add_argument("--layers", type=int, default=2, help="of the encoder's transformer (default: 2)")
    parser.add_argument("--decoder_layers", type=int, default=2, help="of the queries' decoder (default: 2)")
    parser.add_argument("--width", type=int, default=96, help="of the transformers (default: 96)")
    parser.add_argument("--heads", type=int, default=4, help="of the encoder's transformer (default: 4)")
    parser.add_argument("--token", type=int, default=8, help="sides of a pre-training's token in plane (default: 8)")
    parser.add_argument("--pretraining_epochs", type=int, default=200, help="default: 200")
    parser.add_argument("--pretraining_batch_size", type=int, default=4)
    parser.add_argument("--pretraining_learning_rate", type=float, default=0.003)
    told = "scans that pre-training only measures its loss on (default: 4)"
    parser.add_argument("--pretraining_held_out", type=int, default=4, help=told)
    return parser.parse_args()


def main() -> None:
    """Print the tables and the verdicts."""
    given = arguments()
    print(machine())
    print_settings(given)
    print("last weights of each row; mean ± standard deviation over the seeds", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        runs = Ablation(given, Path(given.keep or temporary))
        for labels in given.labels:
            print(f"\nlabels of {labelled(given.cases, labels)} of {given.cases} training scans", flush=True)
            table = runs.run(labels)
            table.print()
            print_verdicts(table)


if __name__ == "__main__":
    main()
