"""Label maps of a method beside their references, paired by the name of the case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CaseError, InputError
from .case_files import MAP_ENDINGS, Case, by_stem, find_files
from .layouts import recognise
from .nifti_file import AFFINE_TOLERANCE
from .reading import read_label_map

__all__ = ["LabelMaps", "Pair", "find_label_maps", "find_references", "pair_label_maps"]


@dataclass(frozen=True)
class LabelMaps:
    """A predicted label map and its reference, canonical.

    Args:
        prediction, reference: uint8 arrays (X, Y, Z).
        affine: of the reference.
        spacing: of the prediction's file in mm, its header's float32 values, as the challenges' script takes them.
    """

    prediction: np.ndarray
    reference: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Pair:
    """The files of a case.

    Args:
        reference: dictionary of `common.data.layouts` with a label, and with an image where there is one.
        prediction: label map, None where it is missing, which counts as empty.
        convention: of the prediction's labels, see `common.data.labels`.
    """

    reference: Case
    prediction: Path | None
    convention: str = "canonical"

    @property
    def case(self) -> str:
        """Name of the case."""
        return str(self.reference["case"])

    def read(self, ignore_affine: bool = False) -> LabelMaps:
        """Read both label maps.

        Args:
            ignore_affine: take voxels of the same index for the same place, whatever the affines say.

        Raises:
            CaseError: a file is damaged or no label map, holds a value outside its convention, or the two don't fit.
        """
        entry: Case = {
            key: self.reference[key] for key in ("case", "label", "label_convention") if key in self.reference
        }
        reference, affine, spacing = read_label_map(entry)
        if self.prediction is None:
            return LabelMaps(np.zeros_like(reference), reference, affine, spacing)
        entry |= {"label": str(self.prediction), "label_convention": self.convention}
        prediction, own_affine, spacing = read_label_map(entry)
        if prediction.shape != reference.shape:
            shapes = ("×".join(map(str, array.shape)) for array in (prediction, reference))
            reason = "shape {} is not that of {} ({})".format(next(shapes), self.reference["label"], next(shapes))
            raise CaseError(self.case, self.prediction, reason, "resample it to that file")
        largest = np.abs(own_affine - affine).max()
        if largest > AFFINE_TOLERANCE and not ignore_affine:
            reason = f"affine differs from that of {self.reference['label']} by up to {largest:.3g}"
            raise CaseError(self.case, self.prediction, reason, "resample it to that file, or say --ignore-affine")
        return LabelMaps(prediction, reference, affine, spacing)


def find_label_maps(folder: Path) -> dict[str, Path]:
    """The files `<case>.nii.gz` or `<case>.nii` of a folder by case; maps that lie beside label maps are left out.

    Raises:
        InputError: the folder is missing or holds none, or a case is there twice.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give the folder that holds <case>.nii.gz")
    found = {
        name: paths for name, paths in by_stem(find_files(folder, depth=0)).items() if not name.endswith(MAP_ENDINGS)
    }
    if not found:
        raise InputError(f"{folder}: holds no label map <case>.nii.gz; give the folder of the predictions")
    for name, paths in found.items():
        if len(paths) > 1:
            raise CaseError(name, paths[0], f"the same label map is there twice, also as {paths[1]}", "keep one")
    return {name: paths[0] for name, paths in found.items()}


def find_references(folder: Path, convention: str | None = None) -> dict[str, Case]:
    """The labelled cases of a data set in any layout, or the label maps of a folder that holds nothing else, by case.

    Cases that lack modalities are among them.

    Args:
        folder: as `common.data.layouts.recognise` takes it, or with files `<case>.nii.gz`.
        convention: of the labels, in place of the layout's.

    Raises:
        InputError: what `recognise` raises; or no case has a label.
    """
    layout = recognise(folder).with_incomplete()
    if layout.problems:
        raise InputError(*map(str, layout.problems))
    cases: list[dict[str, Any]] = [case for case in layout.cases if "label" in case]
    if layout.name == "flat" and not cases:
        # Files side by side that have no labels are labels.
        cases = [{"case": name, "label": str(path)} for name, path in find_label_maps(folder).items()]
    if not cases:
        raise InputError(f"{folder}: none of the cases has a label to compare with; give a folder with references")
    if convention is not None:
        cases = [{**case, "label_convention": convention} for case in cases]
    return {str(case["case"]): case for case in cases}


def pair_label_maps(
    predictions: Path, references: Mapping[str, Case], convention: str = "canonical", allow_missing: bool = False
) -> tuple[list[Pair], list[str], list[str]]:
    """Pair the label maps of a folder with their references.

    Args:
        predictions: holds `<case>.nii.gz` or `<case>.nii`.
        references: from `find_references`.
        convention: of the predictions' labels.
        allow_missing: a case without prediction counts as predicted empty; a prediction without reference is left out.

    Returns:
        the pairs; names of cases without prediction; names of predictions without reference.

    Raises:
        InputError: nothing fits; or something is unpaired, where that isn't allowed: all of it is named.
    """
    files = find_label_maps(predictions)
    missing = sorted(references.keys() - files.keys())
    surplus = sorted(files.keys() - references.keys())
    if len(missing) == len(references):
        raise InputError(
            f"{predictions}: no file is named for a case, such as {missing[0]}.nii.gz; name the label maps by case"
        )
    if (missing or surplus) and not allow_missing:
        lacks = [f"no prediction for {', '.join(missing)}"] if missing else []
        lacks += [f"no reference for {', '.join(surplus)}"] if surplus else []
        raise InputError(
            f"{predictions}: {'; '.join(lacks)}; add them, or say --allow-missing: a missing prediction counts as "
            "empty then, and what has no reference is left out"
        )
    return [Pair(case, files.get(name), convention) for name, case in references.items()], missing, surplus
