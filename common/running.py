"""Running a bundle's workflow by name: MONAI's ConfigWorkflow, its inputs checked first and a record kept."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from .checks import check_settings
from .errors import InputError, exit_with_cause, find_input_error
from .overrides import SECTIONS, by_depth, stray_word, unknown_ids
from .records import recorded
from .settings import SETTINGS

__all__ = ["config_files", "find_bundle", "run", "unused_settings"]

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"

# Workflow → those that it lies over, lowest first.
_OVERLAYS = {
    "multi_gpu_train": ("train",),
    "multi_gpu_pretrain": ("pretrain",),
    "train_generated": ("train",),
    "ensemble": ("inference",),
    "evaluate": ("train",),
    "evaluate_missing": ("train", "evaluate"),
}


def find_bundle(bundle: str) -> Path:
    """The folder of a bundle.

    Args:
        bundle: a folder that holds `configs/`, or the name of one of this project's bundles.

    Raises:
        InputError: there is no such bundle.
    """
    for folder in (Path(bundle), BUNDLES / bundle):
        if (folder / "configs" / "metadata.json").is_file():
            return folder
    names = ", ".join(sorted(path.name for path in BUNDLES.glob("*") if (path / "configs").is_dir()))
    raise InputError(f"no bundle {bundle}: give a bundle's folder, or one of {names}")


def run(bundle: str, workflow: str, *words: str, list: bool = False, debug: bool = False, **overrides: Any) -> None:
    """Run a workflow of a bundle, as `python -m monai.bundle run` does, with its files found by name.

    Before anything heavy starts, all that is wrong with the overrides, the settings and the data set is told, one line
    each. What is run is recorded in <output_dir>/run-<workflow>-<number>.json.

    Examples:
        lesion-bundles run cga_unet train --list
        lesion-bundles run cga_unet train --dataset_dir DIR --epochs 100
        lesion-bundles run cga_unet inference --dataset_dir DIR --output_dir OUT

    Args:
        bundle: name of a bundle (cga_unet), or its folder.
        workflow: name of one of its configs: train, inference, evaluate, evaluate_predictions.
        words: none; what else is typed needs its dashes.
        list: only print the ids with their values and meanings.
        debug: show errors with their traceback, not in one line.
        overrides: any id of the config with a new value, such as --epochs 10 or --network_def#dropout 0.1.
    """
    sys.excepthook = traceback.print_exception if debug else exit_with_cause
    folder = find_bundle(bundle)
    files = config_files(folder, workflow)
    meta_file = os.fspath(folder / "configs" / "metadata.json")
    parser = ConfigParser()
    parser.read_config(files)
    parser.read_meta(meta_file)
    parser["bundle_root"] = os.fspath(folder)
    overrides = by_depth(overrides)
    unknown = unknown_ids(parser, overrides)
    parser.update({id: value for id, value in overrides.items() if id not in unknown})
    settings, failed = _resolve_settings(parser)
    # A word after --list or --debug is taken for its value.
    words = (*words, *(str(given) for given in (list, debug) if not isinstance(given, bool)))
    unused = unused_settings(parser)
    ignored = [f"--{id}: {workflow} does nothing with it; leave it out" for id in overrides if id in unused]
    problems = [*map(stray_word, words), *unknown.values(), *ignored, *([] if list else _problems(parser, settings))]
    if problems:
        raise InputError(*problems)
    if list:
        print(_listing(parser, settings))
        return
    if failed is not None:
        raise failed
    output_dir = settings.get("output_dir", ".")
    try:
        logging_file = os.fspath(folder / "configs" / "logging.conf")
        job = ConfigWorkflow(files, meta_file, logging_file, bundle_root=os.fspath(folder), **overrides)
        job.initialize()
        facts = {
            "bundle": {"name": folder.resolve().name, "version": parser.get("_meta_::version")},
            "overrides": overrides,
            "settings": settings,
            "data": job.parser.get_parsed_content("data") if "data" in job.parser else None,
            "config": {id: value for id, value in parser.get().items() if id != "_meta_"},
        }
        is_first = int(os.environ.get("RANK", "0")) == 0
        with recorded(Path(output_dir), workflow, facts) if is_first else nullcontext():
            job.run()
            job.finalize()
    except KeyboardInterrupt:
        again = "goes on from its last checkpoint, if it has one, with --resume True"
        how = again if "resume" in {*settings} - {*unused} else "does what is missing"
        print(f"stopped; each file in {output_dir} is whole, and the same command {how}", file=sys.stderr)
        sys.exit(130)  # as shells have it for a process that was interrupted


def config_files(folder: Path, workflow: str) -> list[str]:
    """The config files of a workflow in the order in which they are merged.

    Raises:
        InputError: the bundle has no such workflow.
    """
    known = sorted(path.stem for path in (folder / "configs").glob("*.json") if path.stem != "metadata")
    names = [*_OVERLAYS.get(workflow, ()), workflow]
    if not set(names) <= set(known):
        raise InputError(f"{folder.name} has no workflow {workflow}: it has {', '.join(known)}")
    return [os.fspath(folder / "configs" / f"{name}.json") for name in names]


def _resolve_settings(parser: ConfigParser) -> tuple[dict[str, Any], Exception | None]:
    """The config's settings with their values, and why one has none: it is reckoned from another, which is wrong."""
    settings: dict[str, Any] = {}
    failed = None
    for id in parser.get():
        if id in SETTINGS:
            try:
                settings[id] = parser.get_parsed_content(id)
            except Exception as error:
                failed = error
    return settings, failed


def _problems(parser: ConfigParser, settings: Mapping[str, Any]) -> list[str]:
    """All that is wrong with the settings and with the data set, one line each."""
    problems: list[str] = []
    try:
        check_settings(metadata=parser["_meta_"], unused=unused_settings(parser), **settings)
    except InputError as error:
        problems += error.problems
    # `data` may write which case is in which part; the cases that it divides are only looked for.
    for id in ("data::cases", "data::parts::cases", "data"):
        if id in parser:
            try:
                parser.get_parsed_content(id)
            except Exception as error:
                found = find_input_error(error)
                if found is None and not problems:
                    raise
                problems += found.problems if found is not None else ()
            break
    return problems


def unused_settings(parser: ConfigParser) -> Sequence[str]:
    """The settings that a workflow has from the config below it and does nothing with; `check` lists them."""
    return parser.get("check", {}).get("unused", ())


def _listing(parser: ConfigParser, settings: Mapping[str, Any]) -> str:
    """The ids of a config, one a line, with their values and meanings."""
    unused = unused_settings(parser)
    rows = [(f"--{id}", str(value), SETTINGS[id].meaning) for id, value in settings.items() if id not in unused]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{id:{widths[0]}}  {value:{min(widths[1], 40)}}  {meaning}" for id, value, meaning in rows]
    parts = [id for id in parser.get() if id not in SETTINGS and id not in SECTIONS]
    example = ", such as --network_def#dropout 0.1" if "network_def#dropout" in parser else ""
    return "\n".join([*lines, "", f"Parts of these can be replaced too{example}: {', '.join(parts)}"])
