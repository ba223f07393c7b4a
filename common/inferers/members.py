"""Which checkpoints make up an ensemble."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Iterable, Sequence
from glob import glob
from pathlib import Path

from ..data.json_layouts import read_json
from ..errors import InputError
from ..records import is_unfinished
from ..weights import read_facts

__all__ = ["check_alike", "find_members"]

PREPARATION = ("spacing", "pixel_size", "robust")
"""Settings by which images are prepared, once for all members: as the first one says that it was trained."""

logger = logging.getLogger(__name__)


def find_members(members: str | Sequence[str], draw: int = 0, seed: int = 0) -> list[Path]:
    """The checkpoints of an ensemble, sorted by path, so that the order in which they were given changes nothing.

    Args:
        members: paths, or patterns such as `folds/*/model.pt`; `**` stands for any folders. Empty: no ensemble. A
            pattern in the folder of a cross-validation has to fit a file of each fold.
        draw: how many of them to take, chosen at random; 0 takes all.
        seed: of the choice. The same files and seed give the same choice.

    Raises:
        InputError: a path or pattern fits no file, or none of some fold, or one that is still training; or there are
            fewer files than are to be drawn.
    """
    found: set[Path] = set()
    for pattern in [members] if isinstance(members, str) else members:
        # A path that is there is taken as it is, though it may hold characters of a pattern.
        literal = Path(pattern).is_file()
        paths = [pattern] if literal else glob(pattern, recursive=True)
        files = {Path(path).resolve() for path in paths if Path(path).is_file()}
        if not literal:
            _check_folds(pattern, files)
        if not files:
            raise InputError(f"members: no file fits {pattern}; give checkpoints, such as \"['a.pt','b.pt']\"")
        found |= files
    if draw > len(found):
        raise InputError(f"draw is {draw}, and members names {len(found)} files: draw fewer, or add members")
    chosen = sorted(found)
    if draw:
        chosen = sorted(random.Random(seed).sample(chosen, draw))
    if chosen:
        logger.info("ensemble of %d of %d networks: %s", len(chosen), len(found), ", ".join(map(str, chosen)))
    return chosen


def check_alike(members: Sequence[Path], ids: Iterable[str]) -> None:
    """Refuse checkpoints that were trained with different settings, where they say so; on images prepared otherwise,
    too.

    Args:
        members: paths of the checkpoints.
        ids: of the settings.
    """
    facts = {member: read_facts(member) for member in members}
    for id in dict.fromkeys((*ids, *PREPARATION)):
        given = [(member, of_member[id]) for member, of_member in facts.items() if id in of_member]
        for member, value in given[1:]:
            if value != given[0][1]:
                raise InputError(
                    f"members: {given[0][0]} was trained with {id} {given[0][1]!r}, and {member} with {value!r}: an "
                    "ensemble is of one network; name members that are alike"
                )


def _check_folds(pattern: str, files: set[Path]) -> None:
    """Refuse files of some folds of a cross-validation: a draw from them would change as others end."""
    given: dict[Path, set[str]] = {}
    for folder in {folder for file in files for folder in file.parents if re.fullmatch(r"fold-\d+", folder.name)}:
        given.setdefault(folder.parent, set()).add(folder.name)
    for root, names in given.items():
        record = read_json(root / "folds.json") if (root / "folds.json").is_file() else {}
        drawn = record.get("folds") if isinstance(record, dict) else None
        folds = [f"fold-{fold}" for fold in range(len(drawn or ()))]
        if missing := [name for name in folds if name not in names]:
            raise InputError(
                f"members: {root / 'folds.json'} has {len(folds)} folds, and no file of {', '.join(missing)} fits "
                f"{pattern}: finish the cross-validation, or name the members one by one"
            )
        if running := [name for name in folds if is_unfinished(root / name / "training", "train")]:
            raise InputError(
                f"members: {root}/{running[0]} has not finished its training: type the cross-validation again, which "
                "goes on, or name the members one by one"
            )
