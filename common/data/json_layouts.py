"""Layouts that a JSON file describes: the decathlon's, nnU-Net's, and MONAI's datalist."""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from ..errors import CaseError, InputError
from .case_files import (
    Case,
    Groups,
    Layout,
    MissingModality,
    assemble_cases,
    by_stem,
    channel_of,
    stem,
    without_repeats,
)
from .labels import CHANNELS, channel_from_name, convention_from_names

__all__ = ["is_datalist", "match_datalists", "match_nnunet", "read_datalist", "read_json"]

logger = logging.getLogger(__name__)

_SECTIONS = {"training": "training", "validation": "training", "test": "test", "testing": "test"}
_CHANNEL = re.compile(r"[-_][^-_]*$")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: the file can't be read or isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); mend the file or take it out") from error


def _channels(names: object, path: Path) -> list[str]:
    """Channel names of a data set (a list, or index -> name) as canonical ones."""
    if isinstance(names, Mapping) and all(key.isdecimal() for key in names):
        given = [names[key] for key in sorted(names, key=int)]
    else:
        given = names if isinstance(names, list) else [names]
    channels = [channel_from_name(str(name)) for name in given]
    if sorted(map(str, channels)) != sorted(CHANNELS):
        raise InputError(
            f"{path}: channels {', '.join(map(str, given))} are not the four that are needed; "
            "name them T1, T1ce, T2 and FLAIR"
        )
    return [str(channel) for channel in channels]


def _convention(content: Mapping[str, Any], path: Path) -> str:
    """The convention that "label_convention" or "labels" in a data set's description tells, canonical without them."""
    convention, labels = content.get("label_convention"), content.get("labels")
    if convention is not None and not isinstance(convention, str):
        raise InputError(f'{path}: "label_convention" is {convention!r}; give a name or a list like "1=ED,2=NCR,3=ET"')
    if convention or not labels:
        return convention or "canonical"
    if not isinstance(labels, Mapping):
        raise InputError(f'{path}: "labels" is {labels!r}; give the name and value of each, like {{"edema": 1, …}}')
    try:
        return convention_from_names(labels)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _numbered(path: Path) -> re.Match[str] | None:
    """Case and channel in a name of nnU-Net's."""
    return re.fullmatch(r"(.+)_(\d{4})", stem(path)) if path.parent.name in ("imagesTr", "imagesTs") else None


def _is_nnunet(folder: Path, files: list[Path]) -> bool:
    """Whether names end in a channel's number and dataset.json doesn't list the files themselves.

    nnU-Net's first version lists files that exist only with the number of a channel; the decathlon's layout lists
    files that exist, and a case's own name may end in four digits.
    """
    if not any(_numbered(path) for path in files if path.parent.parent == folder):
        return False
    description = folder / "dataset.json"
    content = read_json(description) if description.is_file() else None
    return not (is_datalist(content) and any(file.exists() for file in _listed_images(content, folder)))


def _listed_images(content: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    for section in _SECTIONS:
        entries = content.get(section)
        for entry in entries if isinstance(entries, list) else []:
            images = entry.get("image") if isinstance(entry, dict) else entry
            for image in images if isinstance(images, list) else [images]:
                if isinstance(image, str):
                    yield folder / image


def match_nnunet(folder: Path, files: list[Path]) -> Layout | None:
    """nnU-Net's raw data: `imagesTr/x_0000.nii.gz` to `_0003`, `labelsTr/x.nii.gz`, `imagesTs`, `dataset.json`.

    Version 1 of that layout has `modality` in place of `channel_names`. Labels in `labelsTs` are used where they are.
    """
    images: dict[str, dict[str, list[tuple[int, Path]]]] = {"Tr": defaultdict(list), "Ts": defaultdict(list)}
    if not _is_nnunet(folder, files):
        return None
    for path in files:
        match = _numbered(path)
        if match and path.parent.parent == folder:
            images[path.parent.name[-2:]][match[1]].append((int(match[2]), path))
    description = folder / "dataset.json"
    if not description.is_file():
        raise InputError(f"{description}: is missing, so the order of the channels is unknown; add it")
    content = read_json(description)
    if not isinstance(content, dict):
        raise InputError(f'{description}: is no description of a data set; give {{"channel_names": …, "labels": …}}')
    channels = _channels(content.get("channel_names") or content.get("modality") or [], description)
    convention = _convention(content, description)
    cases: list[Case] = []
    problems: list[CaseError] = []
    for section, name in (("Tr", "training"), ("Ts", "test")):
        labels = by_stem(path for path in files if path.parent == folder / f"labels{section}")
        groups: Groups = {}
        for case, paths in images[section].items():
            found: dict[str, list[Path]] = defaultdict(list)
            for index, path in paths:
                found[channels[index] if index < len(channels) else f"channel {index}"].append(path)
            groups[case] = {**found, "label": labels[case]} if case in labels else dict(found)
        usable, broken = assemble_cases(groups, convention)
        cases += [{**case, "section": name} for case in usable]
        problems += broken
    return Layout("nnunet", convention, *without_repeats(cases, problems))


def is_datalist(content: object) -> TypeGuard[dict[str, Any]]:
    """Whether a JSON file's content lists cases as MONAI's datalists and the decathlon's dataset.json do."""
    sections = [content.get(key) for key in _SECTIONS] if isinstance(content, dict) else []
    entries = [entry for section in sections if isinstance(section, list) for entry in section]
    return any(
        "image" in entry if isinstance(entry, dict) else str(entry).endswith((".nii", ".nii.gz")) for entry in entries
    )


def match_datalists(folder: Path) -> tuple[list[Layout], list[InputError]]:
    """One layout for each datalist that lies in the folder itself, and an error for each JSON file that is broken."""
    found, broken = [], []
    for path in sorted(folder.glob("*.json")):
        if not path.name.startswith("."):
            try:
                content = read_json(path)
                if is_datalist(content):
                    found.append(read_datalist(path, content))
            except InputError as error:
                broken.append(error)
    return found, broken


def read_datalist(path: Path, content: dict[str, Any]) -> Layout:
    """A MONAI datalist: lists of `{"image", "label"}` under training, validation, test or testing.

    "image" is one 4D file, a list of one file a modality or a case's folder, relative to the JSON file. Files whose
    names tell their modality are put in canonical order; others are taken to be in it unless "channels",
    "channel_names" or "modality" in the JSON says otherwise. "labels" (names of the values) or "label_convention" tell
    the values; canonical without them. "case", "channels" and "label_convention" may also be given entry by entry.
    With "modality" it is the decathlon's layout (Task01: channels FLAIR, T1w, T1gd, T2w).

    "training" and "validation" together are what `common.data.partition` divides; a warning tells that the list's own
    division isn't used. Cases under "test" and "testing" stay test cases.

    MONAI's `load_decathlon_datalist` reads one list at a time, raises in several lines, and takes any string of an
    entry, such as the case's name, for a path when a file of that name exists.

    Raises:
        InputError: a section, the channels or the labels can't be understood; what is wrong with one entry is in
            `problems` of what is returned.
    """
    named = content.get("channels") or content.get("channel_names") or content.get("modality")
    channels = _channels(named, path) if named else None
    convention = _convention(content, path)
    cases: list[Case] = []
    problems: list[CaseError] = []
    for key, section in _SECTIONS.items():
        entries = content.get(key) or []
        if not isinstance(entries, list):
            raise InputError(f'{path}: "{key}" is no list; make it one of {{"image": …, "label": …}}')
        for entry in entries:
            try:
                case = _entry_case({"image": entry} if isinstance(entry, str) else entry, path, channels, convention)
            except CaseError as problem:
                problems.append(problem)
            else:
                cases.append({**case, "section": section})
    if content.get("training") and content.get("validation"):
        logger.warning('%s: its own "validation" is not used as such; all its cases are divided anew', path)
    name = "decathlon" if "modality" in content else "datalist"
    return Layout(name, convention, *without_repeats(cases, problems))


def _entry_case(entry: object, path: Path, channels: list[str] | None, convention: str) -> Case:
    image = entry.get("image") if isinstance(entry, dict) else None
    images = image if isinstance(image, list) else [image]
    if not isinstance(entry, dict) or not images or not all(isinstance(file, str) for file in images):
        raise CaseError(str(entry)[:60], path, 'an entry without "image"', 'give {"image": …, "label": …}')
    paths = [path.parent / str(file) for file in images]
    # A list of one whose name tells a channel isn't the file of all four.
    is_modality = isinstance(image, list) and len(paths) == 1 and bool(channel_of(paths[0])) and not paths[0].is_dir()
    name = str(entry.get("case") or (_CHANNEL.split(stem(paths[0]))[0] if is_modality else _case_name(paths)))
    if "/" in name or name.startswith("."):
        raise CaseError(name, path, "the name can't be that of a file", 'give another "case"')
    if not isinstance(entry.get("label") or "", str):
        raise CaseError(name, path, f'"label" is {entry["label"]!r}', "give the path of one file")
    files = [*paths, path.parent / entry["label"]] if entry.get("label") else paths
    for file in files:
        if not file.exists():
            raise CaseError(name, file, f"is listed in {path.name} and does not exist", "add the file or mend the list")
    case: Case = {"case": name}
    try:
        channels = _channels(entry["channels"], path) if "channels" in entry else channels
        case["label_convention"] = _convention({"label_convention": entry.get("label_convention") or convention}, path)
    except InputError as error:
        raise CaseError(name, None, str(error), "mend the entry") from None
    if len(paths) == 1 and not is_modality:
        case["image"] = str(paths[0])
        if channels and channels != list(CHANNELS) and not paths[0].is_dir():
            case["channels"] = channels
    elif len(paths) == len(CHANNELS):
        told = [channel_of(file) for file in paths]
        order = told if sorted(map(str, told)) == sorted(CHANNELS) else channels or list(CHANNELS)
        case["image"] = [str(paths[order.index(channel)]) for channel in CHANNELS]
    else:
        files_of = {channel_of(file): str(file) for file in paths}
        case["image"] = [files_of[channel] for channel in CHANNELS if channel in files_of]
    if entry.get("label"):
        case["label"] = str(path.parent / entry["label"])
    if is_modality or len(paths) not in (1, len(CHANNELS)):
        wrong = (
            name,
            path,
            f"{len(paths)} image{'s are' if len(paths) > 1 else ' is'} listed",
            f"list the four of {', '.join(CHANNELS)}",
        )
        if len(case["image"]) < len(paths):  # their names don't tell which they are
            raise CaseError(*wrong)
        missing = " ".join(channel for channel in CHANNELS if channel not in files_of)
        raise MissingModality(*wrong, {**case, "missing": missing})
    return case


def _case_name(paths: list[Path]) -> str:
    """The file's name, or what the names of four files have in common, or that of the folder they are in."""
    if len(paths) == 1:
        return stem(paths[0])
    names = {_CHANNEL.split(stem(path))[0] for path in paths}
    return names.pop() if len(names) == 1 else paths[0].parent.name
