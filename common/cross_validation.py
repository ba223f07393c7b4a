"""Cross-validation of a bundle: every fold trains, predicts and scores the cases it left aside; one table of all."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from .atomic import check_writable
from .checks import check_arguments
from .claim import claimed
from .data.folds import fold_cases, folds_table
from .data.layouts import list_cases
from .errors import InputError
from .handlers.checkpoints import MAY_CHANGE
from .jobs import Job, Step, run_jobs
from .metrics.fold_scores import fold_rows, fold_scores_table, write_fold_scores
from .overrides import unknown_ids
from .records import read_newest, recorded
from .running import config_files, find_bundle, unused_settings
from .settings import SETTINGS

__all__ = ["cross_validate", "write_folds"]

_LAUNCHER = (sys.executable, "-m", "common", "run")

# Ids that mean something else in each fold, or nothing.
_OF_EACH_FOLD = ["ckpt_dir", "evaluate_on", "fold", "fractions", "draw", "draw_seed", "members", "output_dir"]
_OF_EACH_FOLD += ["partition_file", "predictions_dir", "resume"]

# A training that goes on no longer needs the weights that it started from, and compares what its curricula hold; of one
# that is finished both decided the result.
_MAY_DIFFER = {*_OF_EACH_FOLD, *(MAY_CHANGE - {"weights", "curriculum_dir", "pretrained"}), "device"}


def write_folds(
    dataset_dir: str, out: str = "folds.json", folds: int = 5, seed: int = 0, validation_share: float = 0.1
) -> None:
    """Draw folds for cross-validation, by patient and alike in lesion volume, and write them to a file.

    A workflow takes one of them with `--fold 0 --partition_file folds.json`; `cross_validate` goes through all.

    Examples:
        lesion-bundles folds data/phantoms --out folds.json

    Args:
        dataset_dir: a labelled data set in any layout.
        out: file of the folds; one that is there stays, and must be of these cases and arguments.
        folds: how many.
        seed: another seed, other folds.
        validation_share: of the patients outside a fold's test part, for choosing its best weights.
    """
    check_arguments(dataset_dir=dataset_dir, folds=folds, seed=seed, validation_share=validation_share)
    drawn = fold_cases(list_cases(dataset_dir, labelled=True), out, folds, seed, validation_share)
    print(folds_table(Path(out), drawn))


def cross_validate(
    bundle: str,
    dataset_dir: str,
    out: str,
    folds: int = 5,
    parallel: int = 1,
    validation_share: float = 0.1,
    seed: int = 0,
    **overrides: Any,
) -> None:
    """Train a network for each fold, segment and score the cases that it didn't see, and print the table of all folds.

    The same command again goes on where it was stopped, also within the training of a fold.

    Examples:
        lesion-bundles cross_validate cga_unet --dataset_dir DIR --out runs/cv --epochs 100
        lesion-bundles cross_validate cga_unet --dataset_dir DIR --out runs/cv --folds 10 --parallel 4

    Args:
        bundle: name of a bundle (cga_unet), or its folder.
        dataset_dir: a labelled data set in any layout.
        out: folder that gets folds.json, fold-0/ and so on with weights, logs and scores, predictions/ with the label
            map of every case by the network that didn't see it, and scores.csv and scores.json of all.
        folds: how many.
        parallel: folds that are worked on at once, each on a GPU of its own as far as there are so many.
        validation_share: of the patients outside a fold's test part, for choosing its best weights.
        seed: of the folds and of each training.
        overrides: any id of the configs train and evaluate with a new value, such as --epochs 10.
    """
    arguments = {"dataset_dir": dataset_dir, "folds": folds, "parallel": parallel, "seed": seed}
    check_arguments(**arguments, validation_share=validation_share)
    root, name = Path(str(out)), find_bundle(str(bundle)).resolve().name
    device = str(overrides.get("device", ""))
    if parallel > 1 and device.startswith("cuda:"):
        raise InputError(
            f"--device {device}: beside --parallel {parallel} each fold gets a GPU by itself; leave it out"
        )
    plan = _Plan(str(bundle), root, {"dataset_dir": str(dataset_dir), "seed": seed, **overrides})
    check_writable(root)
    try:
        with claimed(root) as lock:
            drawn = fold_cases(
                list_cases(dataset_dir, labelled=True), root / "folds.json", folds, seed, validation_share
            )
            print(folds_table(root / "folds.json", drawn), flush=True)
            jobs = [Job(f"fold {fold}", plan.steps(fold)) for fold in range(folds)]
            with recorded(root, "cross_validate", {"bundle": name, "overrides": plan.overrides}):
                if failures := run_jobs(jobs, _slots(parallel, device), lock):
                    raise InputError(*failures)
                rows = [row for fold in range(folds) for row in fold_rows(fold, plan.folder(fold) / "evaluation")]
                summary = write_fold_scores(root, rows, {"bundle": name, "overrides": plan.overrides})
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        sys.exit(130)
    print(f"\n{folds} folds, {len({row['case'] for row in rows})} cases; {fold_scores_table(summary)}")
    print(f"\nscores: {root / 'scores.csv'}; label map of each case by the fold that didn't see it: {plan.predictions}")


class _Plan:
    """What is run for each fold, and what of it is done.

    Args:
        bundle: as it was typed.
        root: folder of the cross-validation.
        overrides: id → value, of either workflow.

    Raises:
        InputError: an id that no config has, one that isn't free here, or a bad value.
    """

    def __init__(self, bundle: str, root: Path, overrides: Mapping[str, Any]) -> None:
        self.bundle, self.root, self.overrides = bundle, root, overrides
        self.configs = {workflow: _read_config(find_bundle(bundle), workflow) for workflow in ("train", "evaluate")}
        train, evaluate = self.configs.values()
        problems = [f"--{id}: each fold gets its own; leave it out" for id in _OF_EACH_FOLD if id in overrides]
        problems += unknown_ids(evaluate, overrides).values()  # evaluate lies over train and has all its ids
        if problems:
            raise InputError(*problems)
        check_arguments(**{id: value for id, value in overrides.items() if id in SETTINGS})
        only_evaluate, unused = unknown_ids(train, overrides), unused_settings(evaluate)
        # All folds prepare the same scans.
        own = {id: value for id, value in {"cache_dir": root / "cache", "resume": True}.items() if id in train}
        self.given = {
            "train": own | {id: value for id, value in overrides.items() if id not in only_evaluate},
            # What a training starts from isn't what is evaluated.
            "evaluate": {id: value for id, value in overrides.items() if id not in ("weights", *unused)},
        }

    @property
    def predictions(self) -> Path:
        """Folder of the label maps of all folds."""
        return self.root / "predictions"

    def folder(self, fold: int) -> Path:
        """Everything that is one fold's."""
        return self.root / f"fold-{fold}"

    def steps(self, fold: int) -> list[Step]:
        """What is still to do for a fold.

        Raises:
            InputError: it was trained with other overrides.
        """
        folder = self.folder(fold)
        of_fold = {"fold": fold, "partition_file": self.root / "folds.json", "ckpt_dir": folder / "models"}
        training = self._step("train", folder / "training", of_fold)
        evaluation = self._step("evaluate", folder / "evaluation", {**of_fold, "predictions_dir": self.predictions})
        trained_with = _finished_with(folder / "training", "train")
        if trained_with is None:
            return [training, evaluation]
        if differing := self._differences("train", trained_with):
            raise InputError(
                f"{folder} was trained with another {differing}: give the same again, or begin anew in another folder"
            )
        evaluated_with = _finished_with(folder / "evaluation", "evaluate")
        if evaluated_with is None or self._differences("evaluate", evaluated_with):
            return [evaluation]
        return []

    def _differences(self, workflow: str, before: Mapping[str, Any]) -> str:
        """Which overrides differ in what matters to the result, as the error words it; empty where none does."""
        config, now = self.configs[workflow], self.given[workflow]
        ids = [id for id in {**before, **now} if id not in _MAY_DIFFER]
        pairs = {
            id: [json.loads(json.dumps(_value(config, of, id), default=str)) for of in (before, now)] for id in ids
        }
        told = {id: [value if value != "" else "none" for value in pair] for id, pair in pairs.items()}
        return ", ".join(f"--{id} ({then} then, {today} now)" for id, (then, today) in told.items() if then != today)

    def _step(self, workflow: str, output_dir: Path, of_fold: Mapping[str, Any]) -> Step:
        settings = {**self.given[workflow], **of_fold, "output_dir": output_dir}
        words = [*_LAUNCHER, self.bundle, workflow, *(f"--{id}={value}" for id, value in settings.items())]
        name = {"train": "training", "evaluate": "evaluation"}[workflow]
        return Step(name, words, output_dir.with_suffix(".log"))


def _read_config(bundle: Path, workflow: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(config_files(bundle, workflow))
    return parser


def _value(config: ConfigParser, overrides: Mapping[str, Any], id: str) -> Any:
    """What an id stands for in a run; a setting that wasn't overridden may follow another, as the weights."""
    if id in overrides or id not in SETTINGS:
        return overrides.get(id, config.get(id))
    parser = ConfigParser(deepcopy(config.get()))
    parser.update({other: value for other, value in overrides.items() if other in SETTINGS})
    return parser.get_parsed_content(id)


def _finished_with(folder: Path, workflow: str) -> dict[str, Any] | None:
    """The overrides of the last run of a workflow into a folder, by its record, where that run went well."""
    record = read_newest(folder, workflow)
    return dict(record["overrides"]) if record.get("outcome") == "finished" else None


def _slots(parallel: int, device: str) -> list[dict[str, str]]:
    """Environment variables of each fold that is worked on at a time: a GPU, or a share of the cores."""
    if parallel == 1:
        return [{}]
    if not device.startswith("cpu") and (count := torch.cuda.device_count()):
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
        return [{"CUDA_VISIBLE_DEVICES": gpus[index % count]} for index in range(parallel)]
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // parallel)))
    return [{"OMP_NUM_THREADS": threads}] * parallel
