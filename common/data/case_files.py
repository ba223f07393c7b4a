"""What a case is, and what its files' names tell: channel, case, whether it is a NIfTI file at all."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CaseError, InputError
from .labels import CHANNELS, channel_from_name

__all__ = [
    "MAP_ENDINGS",
    "Case",
    "Groups",
    "Layout",
    "MissingModality",
    "assemble_cases",
    "by_stem",
    "channel_of",
    "find_files",
    "find_modalities",
    "stem",
    "without_repeats",
]

Case = dict[str, Any]
"""A MONAI dictionary. "case": name; "image": list of four paths in canonical channel order, or one 4D path; "label":
path, only where there is one; "label_convention": of the label's values (`common.data.labels`); "channels": canonical
names in the order of a 4D file, only where that isn't canonical; "section": "training" or "test", only where the
layout has such sections; "missing": modalities that are zeros, names with blanks between them, only where some are.
"image" may then list the files of the others alone."""

MAP_ENDINGS = ("_probabilities", "_entropy", "_variance")
"""What the names of files end in that lie beside a prediction `<case>` and are no label maps."""

Groups = dict[str, dict[str, list[Path]]]
"""Case -> channel or "label" -> the files found for it."""


class MissingModality(CaseError):
    """A case lacks modalities and is usable otherwise.

    Args:
        case, path, reason, remedy: as for a CaseError.
        rest: the case without them.
    """

    def __init__(self, case: str, path: Path | str | None, reason: str, remedy: str, rest: Case | None = None) -> None:
        super().__init__(case, path, reason, remedy)
        self.rest = rest or {}


@dataclass(frozen=True)
class Layout:
    """A folder of cases, recognised.

    Args:
        name: "brats2018" (2018 to 2021), "brats2023" (and later), "decathlon", "nnunet", "bids", "datalist" or "flat".
        convention: of the label values, see `common.data.labels`.
        cases: those whose files are all there, sorted by name.
        problems: one error for each case that can't be used (a modality is missing, a name is there twice).
    """

    name: str
    convention: str
    cases: list[Case]
    problems: list[CaseError] = field(default_factory=list)

    def with_incomplete(self) -> Layout:
        """The same with each case that lacks modalities among the cases; its entry "missing" says which."""
        incomplete = [problem.rest for problem in self.problems if isinstance(problem, MissingModality)]
        others = [problem for problem in self.problems if not isinstance(problem, MissingModality)]
        return Layout(self.name, self.convention, *without_repeats([*self.cases, *incomplete], others))


def stem(path: Path | str) -> str:
    """The file's name without `.nii` or `.nii.gz`."""
    return re.sub(r"\.nii(\.gz)?$", "", Path(path).name)


def by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Files by their case; `.nii` and `.nii.gz` are the same one."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        found[stem(path)].append(path)
    return found


def channel_of(path: Path | str) -> str | None:
    """The canonical channel that the last part of a file's name stands for, None where it tells nothing."""
    name = stem(path)
    channel = channel_from_name(re.split(r"[-_]", name)[-1])
    # In BIDS the contrast agent is an entity of its own: sub-01_ce-gadolinium_T1w.
    return "t1c" if channel == "t1n" and "_ce-" in name else channel


def find_files(folder: Path, depth: int) -> list[Path]:
    """NIfTI files down to `depth` folders below `folder`, sorted.

    Links are followed, each real folder once, so a loop of links ends. Hidden files and folders, among them the `._`
    files that macOS leaves in archives, and links to nothing are left out.

    Raises:
        InputError: a folder can't be listed.
    """
    found: list[Path] = []
    seen: set[Path] = set()
    todo = [(folder, depth)]
    while todo:
        here, left = todo.pop()
        if here.resolve() in seen:
            continue
        seen.add(here.resolve())
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    if entry.name.endswith((".nii", ".nii.gz")) and entry.is_file():
                        found.append(Path(entry.path))
                    elif left and entry.is_dir():
                        todo.append((Path(entry.path), left - 1))
        except OSError as error:
            raise InputError(f"{here}: can't be listed ({error.strerror}); check its permissions") from error
    return sorted(found)


def find_modalities(folder: Path) -> list[Path]:
    """The four modality files of one case's folder, in canonical order.

    Raises:
        CaseError: a modality is missing or there twice.
    """
    files: dict[str, list[Path]] = defaultdict(list)
    for path in find_files(folder, depth=0):
        if (channel := channel_of(path)) is not None:
            files[channel].append(path)
    cases, problems = assemble_cases({folder.name: files}, "canonical")
    if problems:
        raise problems[0] if files else CaseError(folder.name, folder, "no modality files here", "name another folder")
    return [Path(path) for path in cases[0]["image"]]


def assemble_cases(groups: Groups, convention: str) -> tuple[list[Case], list[CaseError]]:
    """Cases of one file a modality, and an error for each that lacks one or has one twice."""
    cases, problems = [], []
    for name, files in sorted(groups.items()):
        first = next(iter(files.values()), [None])[0]
        missing = [channel for channel in CHANNELS if channel not in files]
        twice = next((paths for paths in files.values() if len(paths) > 1), None)
        if twice is not None:
            what = "the same file" if twice[0].parent == twice[1].parent else "the same case"
            problems.append(CaseError(name, twice[0], f"{what} is there twice, also as {twice[1]}", "keep one of them"))
        elif missing:
            lacks = f"modality {', '.join(missing)} is missing"
            told = (name, first and first.parent, lacks, "add the file or take the case out")
            rest = {**_case(name, files, convention), "missing": " ".join(missing)}
            problems.append(MissingModality(*told, rest) if rest["image"] else CaseError(*told))
        else:
            cases.append(_case(name, files, convention))
    return cases, problems


def _case(name: str, files: dict[str, list[Path]], convention: str) -> Case:
    case: Case = {"case": name, "image": [str(files[channel][0]) for channel in CHANNELS if channel in files]}
    if "label" in files:
        case["label"] = str(files["label"][0])
    return {**case, "label_convention": convention}


def without_repeats(cases: list[Case], problems: list[CaseError]) -> tuple[list[Case], list[CaseError]]:
    """Cases sorted by name, without those whose name is there more than once, and the problems with these added."""
    counts = Counter(case["case"] for case in cases)
    for name, count in sorted(counts.items()):
        if count > 1:
            images = [case["image"] for case in cases if case["case"] == name]
            first, second = (image[0] if isinstance(image, list) else image for image in images[:2])
            reason = f"the same case is there twice, also as {second}"
            problems = [*problems, CaseError(name, first, reason, "keep one of them, or name them apart")]
    return sorted((case for case in cases if counts[case["case"]] == 1), key=lambda case: case["case"]), problems
