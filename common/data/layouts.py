"""Recognise in which layout a folder holds its cases, by looking at it, and list them as MONAI dictionaries."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from pathlib import Path

from ..errors import CaseError, InputError
from .case_files import Case, Groups, Layout, assemble_cases, by_stem, channel_of, find_files, stem
from .json_layouts import is_datalist, match_datalists, match_nnunet, read_datalist, read_json

__all__ = ["LABEL_FOLDERS", "LAYOUTS", "Layout", "list_cases", "list_scans", "recognise"]

logger = logging.getLogger(__name__)

LAYOUTS = {
    "brats2018": "BraTS 2018 to 2021: <case>/<case>_t1.nii.gz, _t1ce, _t2, _flair, _seg",
    "brats2023": "BraTS 2023 and later: <case>/<case>-t1n.nii.gz, -t1c, -t2w, -t2f, -seg",
    "decathlon": "decathlon Task01: dataset.json with imagesTr/<case>.nii.gz (4D), labelsTr, imagesTs",
    "nnunet": "nnU-Net raw: dataset.json with imagesTr/<case>_0000.nii.gz to _0003, labelsTr, imagesTs",
    "bids": "BIDS: sub-*/[ses-*/]anat/*_T1w.nii.gz, *_ce-*_T1w, *_T2w, *_FLAIR; *_dseg there or in derivatives/labels",
    "datalist": 'MONAI datalist: *.json with "training", "validation" or "testing" lists of {"image", "label"}',
    "flat": "flat: <case>.nii.gz (4D); <case>_seg.nii.gz, labels/<case>.nii.gz or labels/final/<case>.nii.gz",
}

_BRATS_NAMES = {
    "brats2018": (re.compile(r"(.+)_(t1|t1ce|t2|flair|seg)"), "brats2018"),
    "brats2023": (re.compile(r"(.+)-(t1n|t1c|t2w|t2f|seg)"), "canonical"),
}
_BIDS_NAME = re.compile(r"(sub-[^_]+(?:_ses-[^_]+)?)(?:_[a-z]+-[^_]+)*_(T1w|T2w|FLAIR|dseg|seg)")
_BIDS_LABEL_FOLDERS = ("derivatives/labels", "derivatives/manual_masks")
LABEL_FOLDERS = ("labels", "labelsTr", "labelsTs", *_BIDS_LABEL_FOLDERS)
"""Where, in some layout, any label map is taken for the reference of the case that its name tells."""


def _match_brats(name: str, files: list[Path]) -> Layout | None:
    """Files of a case lie in a folder of their own, at most two levels down (HGG/<case>), or all in one folder."""
    pattern, convention = _BRATS_NAMES[name]
    groups: Groups = defaultdict(lambda: defaultdict(list))
    for path in files:
        if match := pattern.fullmatch(stem(path)):
            groups[match[1]]["label" if match[2] == "seg" else str(channel_of(path))].append(path)
    if all(set(found) == {"label"} for found in groups.values()):
        return None
    return Layout(name, convention, *assemble_cases(groups, convention))


def _match_bids(folder: Path, files: list[Path]) -> Layout | None:
    """A case is a subject, or a subject's session where there are sessions: `sub-01`, `sub-01_ses-02`.

    T1w with a `ce-` entity is t1c, T1w without one t1n. Labels are `_dseg` or `_seg` files with the subject's name and
    canonical values, in `anat`, `derivatives/labels` or `derivatives/manual_masks`. Other derivatives are left alone,
    as pipelines write tissue classes under the same name (fMRIPrep's `_dseg`), and so are `_mask` files, which don't
    tell NCR, ED and ET.
    """
    images = [path for path in files if path.parent.name == "anat" and _BIDS_NAME.fullmatch(stem(path))]
    if not any(channel_of(path) for path in images):
        return None
    derivatives = folder / "derivatives"
    drawn = [folder / name for name in _BIDS_LABEL_FOLDERS]
    derived = [path for labels in drawn if labels.is_dir() for path in find_files(labels, depth=4)]
    groups: Groups = defaultdict(lambda: defaultdict(list))
    for path in [*(path for path in images if derivatives not in path.parents), *derived]:
        match = _BIDS_NAME.fullmatch(stem(path))
        if match and match[2] in ("dseg", "seg"):
            groups[match[1]]["label"].append(path)
        elif match and derivatives not in path.parents:
            groups[match[1]][str(channel_of(path))].append(path)
    return Layout("bids", "canonical", *assemble_cases(groups, "canonical"))


def _match_flat(folder: Path, files: list[Path]) -> Layout | None:
    """4D files side by side, in canonical channel order; the label folders are those of MONAI Label."""
    here = by_stem(path for path in files if path.parent == folder and channel_of(path) is None)
    images = {name: paths for name, paths in here.items() if not name.endswith("_seg")}
    if not images:
        return None
    labels = by_stem(path for path in files if path.parent == folder / "labels")
    labels |= by_stem(path for path in files if path.parent == folder / "labels" / "final")
    beside = {name.removesuffix("_seg"): paths for name, paths in here.items() if name.endswith("_seg")}
    labels |= beside
    cases: list[Case] = []
    problems = [
        CaseError(name, paths[0], "is a label without an image", f"add {name}.nii.gz, or take the label out")
        for name, paths in beside.items()
        if name not in images
    ]
    for name, paths in images.items():
        drawn = labels.get(name, [])
        if twice := next((found for found in (paths, drawn) if len(found) > 1), None):
            reason = f"the same file is there twice, also as {twice[1]}"
            problems.append(CaseError(name, twice[0], reason, "keep one of them"))
            continue
        case = {"case": name, "image": str(paths[0])}
        if drawn:
            case["label"] = str(drawn[0])
        cases.append({**case, "label_convention": "canonical"})
    return Layout("flat", "canonical", cases, problems)


def recognise(folder: Path | str) -> Layout:
    """Recognise the layout of a folder (or of a datalist's JSON file) and list its cases; no image is opened.

    Cases that can't be used are in `problems` of what is returned, and not an error: inference does the others.

    Raises:
        InputError: there is no such folder, it holds no image, no layout fits, or more than one does.
    """
    folder = Path(folder)
    if folder.is_file() and folder.suffix == ".json":
        content = read_json(folder)
        if not is_datalist(content):
            raise InputError(f'{folder}: has no list of {{"image": …}} entries; see {LAYOUTS["datalist"]}')
        return read_datalist(folder, content)
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give the folder that holds the cases, or a datalist's JSON file")
    files = find_files(folder, depth=3)
    fitting = [_match_brats(name, files) for name in _BRATS_NAMES]
    nnunet = match_nnunet(folder, files)
    fitting += [nnunet, _match_bids(folder, files), _match_flat(folder, files)]
    # A JSON file may be something else's: a broken one matters only where nothing else fits.
    datalists, broken = match_datalists(folder) if nnunet is None else ([], [])
    found = [layout for layout in [*fitting, *datalists] if layout is not None]
    if len(found) > 1:
        raise InputError(
            f"{folder}: more than one layout fits ({', '.join(layout.name for layout in found)}); "
            "keep one in the folder, or give the path of the datalist's JSON file"
        )
    if not found and broken:
        raise broken[0]
    if not found and not files and any(any(folder.glob(f"{'*/' * depth}*.dcm")) for depth in range(4)):
        raise InputError(
            f"{folder}: holds DICOM files; make cases of its studies: lesion-bundles dicom_in STUDY --out DIR "
            "(of the project Lesion Bundles)"
        )
    if not found and not files:
        raise InputError(f"{folder}: holds no .nii or .nii.gz file; give the folder that holds the cases")
    if not found:
        raise InputError(f"{folder}: no known layout, e.g. {files[0]} fits none of: {' | '.join(LAYOUTS.values())}")
    return found[0]


def list_cases(folder: Path | str, labelled: bool = False, missing_modalities: bool = False) -> list[Case]:
    """The cases of a folder as MONAI dictionaries, all of them usable as far as their names tell.

    Args:
        folder: as `recognise` takes it.
        labelled: every case must have a label, as training needs; what the layout sets apart as test is left out.
        missing_modalities: a case that lacks modalities is one too, with its entry "missing".

    Raises:
        InputError: what `recognise` raises; or cases can't be used or have no label, all of them named.
    """
    layout = recognise(folder)
    if missing_modalities:
        layout = layout.with_incomplete()
    cases, problems = layout.cases, layout.problems
    if labelled:
        cases = [case for case in cases if case.get("section") != "test"]
        for case in cases:
            if "label" not in case:
                image = case["image"][0] if isinstance(case["image"], list) else case["image"]
                problems = [*problems, CaseError(case["case"], image, "has no label", "add it or take the case out")]
        cases = [case for case in cases if "label" in case]
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise InputError(*map(str, problems))
    if not cases:
        raise InputError(f"{folder}: holds no case with a label; add labels, or name another folder")
    return cases


def list_scans(folder: Path | str) -> list[Case]:
    """The cases of a folder for a training that needs no labels: as `list_cases`, any modalities but not all missing.

    Labels that lie there are left out of the cases, and it is said so: they may be damaged, or those of a test.

    Raises:
        InputError: as `list_cases`.
    """
    cases = list_cases(folder, missing_modalities=True)
    labelled = sum("label" in case for case in cases)
    if labelled:
        logger.info("%d of %d cases in %s have labels, which are ignored", labelled, len(cases), folder)
    if lacking := [case for case in cases if case.get("missing")]:
        logger.info("%d of %d cases lack modalities, which are zeros and don't count", len(lacking), len(cases))
    return [{key: value for key, value in case.items() if not key.startswith("label")} for case in cases]
