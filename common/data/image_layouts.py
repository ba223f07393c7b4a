"""Which images a folder holds for a network of slices: pictures with their masks, or volumes with their labels."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from ..errors import CaseError, InputError
from .case_files import Case, channel_of, find_files, stem, without_repeats
from .labels import CHANNELS
from .layouts import recognise
from .pictures import PICTURE_ENDINGS, is_picture

__all__ = ["IMAGE_LAYOUTS", "LoneMask", "find_images", "list_images", "without_lone_masks"]

logger = logging.getLogger(__name__)

IMAGE_LAYOUTS = {
    "pictures": "pictures: <name>.png (.jpg, .dcm …) with <name>_mask.png (_mask_1 …) beside it, or images/<name>.png "
    "with masks/…; BUSI's folders benign, malignant and normal",
    "hecktor": "HECKTOR: <case>_ct.nii.gz with <case>_gtvt.nii.gz, or <case>__CT.nii.gz with labelsTr/<case>.nii.gz",
    "brats": "any layout of scans with four modalities, of which one is taken",
    "volumes": "volumes: <name>.nii.gz with <name>_mask.nii.gz or _seg beside it",
}

_CLASSES = ("benign", "malignant", "normal")
_IMAGE_FOLDERS = ("images", "image")
_MASK_FOLDERS = ("masks", "mask", "labels", "label", "gt", "groundtruth", "segmentations", "annotations")
_MASK = re.compile(r"(.+?)[-_](?:mask|seg|segmentation|label|gt|annotation)(?:[-_]?\d+)?", re.IGNORECASE)
_CT = re.compile(r"(.+?)_{1,2}ct", re.IGNORECASE)
_TUMOUR = re.compile(r"(.+?)(?:_{1,2}ct)?_{1,2}gtv[a-z]*", re.IGNORECASE)
_OTHER_SCAN = re.compile(r".+?_{1,2}pt(?:_{1,2}gtv[a-z]*)?", re.IGNORECASE)


class LoneMask(CaseError):
    """A mask has no image, which matters only where masks do."""


def without_lone_masks(problems: Sequence[CaseError]) -> list[CaseError]:
    """The others; what is taken for a mask is said, as it might be an image of such a name."""
    lone = [str(problem.path) for problem in problems if isinstance(problem, LoneMask)]
    if lone:
        shown = ", ".join(lone[:5]) + (" …" if len(lone) > 5 else "")
        logger.warning("%d files are taken for masks, have no image and are left out: %s", len(lone), shown)
    return [problem for problem in problems if not isinstance(problem, LoneMask)]


def find_images(source: Path | str, modality: str = "t1n") -> tuple[list[Case], list[CaseError]]:
    """The images of a folder as MONAI dictionaries: pictures, or volumes to be taken slice by slice.

    A case has "case", its name; "image", one path; "label", a list of paths, only where there are any, or where it is
    known to have no lesion (BUSI's normal images): an empty one; and "label_convention" for a BraTS volume, "section"
    where its layout has such.

    Args:
        source: folder of pictures or volumes, see `IMAGE_LAYOUTS`, or one of them; no image is opened.
        modality: which of the four of BraTS volumes.

    Returns:
        the images, sorted by name, and an error for each that can't be used and each mask without image.

    Raises:
        InputError: there is no such folder, or it holds no image.
    """
    source = Path(source)
    if source.is_file() and (is_picture(source) or source.name.lower().endswith((".nii", ".nii.gz"))):
        return [{"case": _stem(source), "image": str(source)}], []
    if not source.is_dir():
        raise InputError(f"{source}: is no folder and no image; give the folder that holds the images")
    pictures, volumes = _find_pictures(source), find_files(source, depth=3)
    if pictures and volumes:
        counts = f"{len(pictures)} pictures, such as {pictures[0]}, and {len(volumes)} volumes, such as {volumes[0]}"
        raise InputError(f"{source}: holds {counts}; give a folder of one kind")
    if pictures:
        return without_repeats(*_pair(source, pictures))
    if not volumes:
        raise InputError(f"{source}: holds no picture and no volume; give one of {' | '.join(IMAGE_LAYOUTS.values())}")
    if any(_CT.fullmatch(stem(path)) for path in volumes):
        return without_repeats(*_match_hecktor(volumes))
    if any(channel_of(path) for path in volumes) or any(source.glob("*.json")):
        return without_repeats(*_of_brats(source, modality))
    return without_repeats(*_pair(source, volumes))


def list_images(folder: Path | str, modality: str = "t1n", masks: bool = True) -> list[Case]:
    """The images of a folder as `find_images` gives them, all of them usable as far as their names tell.

    Args:
        folder, modality: as there.
        masks: False for a training that needs none: those that lie there are left out of the images, and it is said so,
            as they may be damaged, or those of a test.

    Raises:
        InputError: what `find_images` raises; or some images can't be used, all of them named.
    """
    cases, problems = find_images(folder, modality)
    if not masks:
        with_masks = sum("label" in case for case in cases)
        if with_masks:
            logger.info("%d of %d images in %s have masks, which are ignored", with_masks, len(cases), folder)
        cases = [{key: value for key, value in case.items() if not key.startswith("label")} for case in cases]
        problems = without_lone_masks(problems)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise InputError(*map(str, problems))
    if not cases:
        raise InputError(f"{folder}: holds masks and no image; give the folder that holds the images")
    return cases


def _find_pictures(folder: Path) -> list[Path]:
    found = []
    for here, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        found += [Path(here, name) for name in files if not name.startswith(".") and is_picture(Path(here, name))]
    return sorted(found)


def _pair(folder: Path, files: list[Path]) -> tuple[list[Case], list[CaseError]]:
    """Each image with its masks: told by the end of its name, or by the name of its folder. Capitals don't matter."""
    images: dict[tuple[str, str], list[Path]] = defaultdict(list)
    masks: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in files:
        name, folders = _stem(path), [part.lower() for part in path.relative_to(folder).parts[:-1]]
        # Where an image and its masks are, be it in one folder or in two beside each other.
        place = "/".join(part for part in folders if part not in (*_IMAGE_FOLDERS, *_MASK_FOLDERS))
        match = _MASK.fullmatch(name)
        if {*folders} & {*_MASK_FOLDERS}:
            masks[place, (match[1] if match else name).lower()].append(path)
        elif match:
            masks[place, match[1].lower()].append(path)
        else:
            images[place, name.lower()].append(path)
    named = Counter(name for _, name in images)
    cases: list[Case] = []
    problems: list[CaseError] = []
    for (where, key), paths in sorted(images.items()):
        image = paths[0]
        name = _stem(image)
        if named[key] > 1:
            name = "-".join((*image.parent.relative_to(folder).parts, name))
        found = masks.pop((where, key), None)
        if len(paths) > 1:
            reason = f"the same image is there twice, also as {paths[1]}"
            problems.append(CaseError(name, image, reason, "keep one of them, or name them apart"))
            continue
        case: Case = {"case": name, "image": str(image)}
        if found:
            case["label"] = [str(path) for path in found]
        elif "normal" in (part.lower() for part in image.relative_to(folder).parts[:-1]):
            case["label"] = []
        cases.append(case)
    for paths in masks.values():
        problems += [
            LoneMask(_stem(path), path, "is a mask without image", "add the image or take it out") for path in paths
        ]
    return cases, problems


def _stem(path: Path) -> str:
    return path.stem if path.suffix.lower() in PICTURE_ENDINGS else stem(path)


def _match_hecktor(files: list[Path]) -> tuple[list[Case], list[CaseError]]:
    images: list[tuple[str, Path]] = []
    labels: dict[str, list[Path]] = defaultdict(list)
    problems: list[CaseError] = []
    for path in files:
        name = stem(path)
        if match := _CT.fullmatch(name):
            images.append((match[1], path))
        elif _OTHER_SCAN.fullmatch(name):
            continue
        elif match := _TUMOUR.fullmatch(name):
            labels[match[1].lower()].append(path)
        elif path.parent.name.lower().startswith("labels"):
            labels[name.lower()].append(path)
        else:
            problems.append(CaseError(name, path, "is neither a CT, a PET nor a tumour", "name it so, or take it out"))
    cases: list[Case] = [
        {"case": name, "image": str(path)}
        | ({"label": [str(one) for one in labels[name.lower()]]} if name.lower() in labels else {})
        for name, path in images
    ]
    for name in sorted(labels.keys() - {name.lower() for name, _ in images}):
        problems += [
            LoneMask(name, path, "is a tumour without CT", "add the CT or take it out") for path in labels[name]
        ]
    return cases, problems


def _of_brats(folder: Path, modality: str) -> tuple[list[Case], list[CaseError]]:
    if modality not in CHANNELS:
        raise InputError(f"modality {modality!r}: give one of {', '.join(CHANNELS)}")
    layout = recognise(folder).with_incomplete()
    cases, problems = [], list(layout.problems)
    for case in layout.cases:
        image = case["image"]
        if not isinstance(image, list):
            reason = "is a file of several modalities"
            problems.append(CaseError(case["case"], image, reason, "give a file for each modality"))
            continue
        present = [channel for channel in CHANNELS if channel not in (case.get("missing") or "").split()]
        if modality not in present:
            logger.info("case %s lacks %s and is left out", case["case"], modality)
            continue
        one: Case = {"case": case["case"], "image": image[present.index(modality)]}
        if "section" in case:
            one["section"] = case["section"]
        if "label" in case:
            one |= {"label": [case["label"]], "label_convention": case["label_convention"]}
        cases.append(one)
    if not cases and not problems:
        raise InputError(f"{folder}: no case has {modality}; give another --modality")
    return cases, problems
