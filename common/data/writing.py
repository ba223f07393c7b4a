"""Write cases in the layouts that data sets come in, for generated scans and for tests of reading.

Every file appears only when it is whole.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from ..atomic import whole_file, write_text
from ..errors import InputError
from .labels import CHANNELS, from_canonical

__all__ = ["WRITABLE_LAYOUTS", "finish_layout", "write_case", "write_nifti"]

_FILES = {
    "brats2018": ("{case}/{case}_t1", "{case}/{case}_t1ce", "{case}/{case}_t2", "{case}/{case}_flair"),
    "brats2021": ("{case}/{case}_t1", "{case}/{case}_t1ce", "{case}/{case}_t2", "{case}/{case}_flair"),
    "brats2023": tuple(f"{{case}}/{{case}}-{channel}" for channel in CHANNELS),
    "decathlon": ("images{section}/{case}",),
    "nnunet": tuple(f"images{{section}}/{{case}}_{index:04d}" for index in range(4)),
    "bids": tuple(f"{{case}}/anat/{{case}}_{name}" for name in ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR")),
    "datalist": tuple(f"images/{{case}}_{channel}" for channel in CHANNELS),
    "flat": ("{case}",),
}
_LABELS = {
    "brats2018": "{case}/{case}_seg",
    "brats2021": "{case}/{case}_seg",
    "brats2023": "{case}/{case}-seg",
    "decathlon": "labelsTr/{case}",
    "nnunet": "labelsTr/{case}",
    "bids": "derivatives/labels/{case}/anat/{case}_dseg",
    "datalist": "labels/{case}",
    "flat": "labels/final/{case}",
}
_CONVENTION = {"brats2018": "brats2018", "brats2021": "brats2018", "decathlon": "decathlon", "nnunet": "decathlon"}
_DECATHLON_CHANNELS = (3, 0, 1, 2)
_DECATHLON_MODALITY = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
_DECATHLON_LABELS = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}

WRITABLE_LAYOUTS = tuple(_FILES)


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write an array as .nii.gz, to a file that is whole or not there; the same voxels give the same bytes.

    Args:
        path: ends in .nii.gz; its folder is made.
        voxels: (X, Y, Z) or (X, Y, Z, C), written in its own type.
        affine: (4, 4) voxel to world (mm).

    Raises:
        InputError: the folder can't be written to, or the disk is full.
    """
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    # mtime=0: no time in the file. Level 1 is 5 times faster than 6 and 10 to 20% larger.
    packed = gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
    with whole_file(path) as temporary:
        temporary.write_bytes(packed)


def _written_name(layout: str, case: str) -> str:
    """BIDS allows only letters and digits in a subject's or session's label; other layouts take any name."""
    if layout not in _FILES:
        raise InputError(f"layout {layout!r} is unknown; use one of {', '.join(_FILES)}")
    if layout != "bids" or re.fullmatch(r"sub-[A-Za-z0-9]+", case):
        return case
    return "sub-" + re.sub(r"[^A-Za-z0-9]", "", case.removeprefix("sub-"))


def write_case(
    folder: Path | str, layout: str, case: str, images: np.ndarray, label: np.ndarray | None, affine: np.ndarray
) -> None:
    """Write one case; call `finish_layout` after the last.

    Args:
        folder: root of the data set; made where it doesn't exist.
        layout: one of `WRITABLE_LAYOUTS`. "brats2021" differs from "brats2018" in nothing but the data set's name.
        case: name of the case; in "bids" it becomes `sub-` and the letters and digits of the name.
        images: (4, X, Y, Z) int16 in canonical channel order.
        label: (X, Y, Z) canonical label values, written in the layout's own; None for a case without label, which
            goes to `imagesTs` where the layout has that.
        affine: (4, 4) voxel to world (mm).
    """
    name, section = _written_name(layout, case), "Ts" if label is None else "Tr"
    paths = [Path(folder) / f"{file.format(case=name, section=section)}.nii.gz" for file in _FILES[layout]]
    if layout == "decathlon":
        images = images[list(_DECATHLON_CHANNELS)]
    volumes = [np.moveaxis(images, 0, -1)] if len(paths) == 1 else list(images)
    for path, volume in zip(paths, volumes, strict=True):
        write_nifti(path, volume, affine)
    if label is not None:
        values = from_canonical(label, _CONVENTION.get(layout, "canonical"))
        write_nifti(Path(folder) / f"{_LABELS[layout].format(case=name)}.nii.gz", values, affine)


def finish_layout(folder: Path | str, layout: str, cases: Sequence[str]) -> None:
    """Write what a layout has beside the cases: dataset.json, dataset_description.json or the datalist.

    Args:
        folder: as given to `write_case`.
        layout: as given to `write_case`.
        cases: names of all cases, as given to `write_case`.
    """
    folder, names = Path(folder), [_written_name(layout, case) for case in cases]
    content: dict[str, object]
    if layout in ("decathlon", "nnunet", "datalist"):
        entries = [_entry(folder, layout, name) for name in names]
        training = [entry for entry in entries if "label" in entry]
        test = [entry["image"] for entry in entries if "label" not in entry]
    if layout == "decathlon":
        content = {
            "name": "BRATS",
            "tensorImageSize": "4D",
            "modality": _DECATHLON_MODALITY,
            "labels": _DECATHLON_LABELS,
            "numTraining": len(training),
            "numTest": len(test),
            "training": training,
            "test": test,
        }
    elif layout == "nnunet":
        content = {
            "channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"},
            "labels": {name: int(value) for value, name in _DECATHLON_LABELS.items()},
            "numTraining": len(training),
            "file_ending": ".nii.gz",
        }
    elif layout == "datalist":
        content = {"label_convention": "canonical", "training": training, "testing": [{"image": i} for i in test]}
    elif layout == "bids":
        content = {"Name": "lesions", "BIDSVersion": "1.10.0"}
    else:
        return
    file = {"bids": "dataset_description.json", "datalist": "datalist.json"}.get(layout, "dataset.json")
    write_text(folder / file, json.dumps(content, indent=1) + "\n")


def _entry(folder: Path, layout: str, name: str) -> dict[str, list[str] | str]:
    """The case's entry in a datalist, with paths relative to the folder."""
    label = f"{_LABELS[layout].format(case=name)}.nii.gz"
    labelled = (folder / label).is_file()
    files = [f"{file.format(case=name, section='Tr' if labelled else 'Ts')}.nii.gz" for file in _FILES[layout]]
    return {"image": files if len(files) > 1 else files[0]} | ({"label": label} if labelled else {})
