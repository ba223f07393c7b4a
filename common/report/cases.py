"""What the report reads of a case: its scan, its reference, its prediction, and the maps beside that."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from ..data.case_files import stem
from ..data.labels import LABEL_NAMES
from ..data.reading import read_image, read_label
from ..errors import CaseError

__all__ = ["ReportCase", "map_file", "read_case"]


class ReportCase(NamedTuple):
    """A case with a prediction.

    Args:
        name: of the case.
        path: file of the prediction.
        image: (4, X, Y, Z), channels in canonical order.
        affine: of all its arrays.
        reference: label map (X, Y, Z), canonical; None where there is none.
        prediction: label map (X, Y, Z), canonical.
    """

    name: str
    path: Path
    image: np.ndarray
    affine: np.ndarray
    reference: np.ndarray | None
    prediction: np.ndarray

    def read_map(self, kind: str) -> np.ndarray | None:
        """Read `<case>_<kind>.nii.gz` beside the prediction; None where there is none.

        Args:
            kind: "probabilities", which gives (4, X, Y, Z), "entropy" or "variance" (X, Y, Z).

        Raises:
            CaseError: the file is damaged or doesn't fit the prediction.
        """
        file = map_file(self.path, kind)
        if not file.is_file():
            return None
        remedy = "remove the file, or run the inference again"
        try:
            values = np.asanyarray(nib.Nifti1Image.from_filename(file).dataobj)
        except (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError) as error:
            raise CaseError(self.name, file, f"{kind} can't be read", remedy) from error
        shape = self.prediction.shape
        expected = (*shape, len(LABEL_NAMES)) if kind == "probabilities" else shape
        if values.shape != expected:
            raise CaseError(self.name, file, f"{kind} of shape {values.shape} where {expected} is expected", remedy)
        return np.moveaxis(values, -1, 0) if kind == "probabilities" else values


def map_file(path: Path, kind: str) -> Path:
    """The file of a map beside a prediction, see `ReportCase.read_map`."""
    return path.with_name(f"{stem(path)}_{kind}.nii.gz")


def read_case(entry: Mapping[str, Any], path: Path, convention: str) -> ReportCase:
    """Read a case and check that its files fit each other.

    Args:
        entry: dictionary of `common.data.layouts`.
        path: file of the prediction.
        convention: of the prediction's labels, see `common.data.labels`.

    Raises:
        CaseError: a file is damaged, or doesn't fit the image.
    """
    image, affine = read_image(entry)
    prediction, _ = read_label({**entry, "label": str(path), "label_convention": convention})
    reference = read_label(entry)[0] if entry.get("label") else None
    return ReportCase(str(entry["case"]), path, image, affine, reference, prediction)
