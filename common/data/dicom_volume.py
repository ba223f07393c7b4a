"""A series of DICOM slices as one volume: where its slices lie, checked, and their values.

The code is its own so that each refusal says in a line what is wrong: highdicom's `get_series_volume_positions` takes
single frames alone, and of a gap, a tilt or two slices in one place says no more than None; ITK took a wrong direction
for files that are listed in descending order, and is 563 MB installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from ..errors import CaseError
from .dicom import items, read_frames, whole
from .dicom_study import Series, frames_of

__all__ = ["Place", "locate", "read_volume"]

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DIRECTIONS_DIFFER = 1e-3  # between direction cosines, which files round to six digits and some to four
_SAME_PLACE = 0.01  # mm
_STEPS_DIFFER = 0.02  # of a step between slices
_MOST_BYTES = 4 * 2**30  # of a volume in float32; 1024 × 1024 × 1024 voxels
_SHEAR = 0.01  # mm sideways for each mm along; 0.6 degrees


@dataclass(frozen=True)
class Place:
    """Where the slices of a series lie.

    Args:
        frames: (index of the file in the series' headers, frame in it) of each slice, along the slices' normal.
        shape: (columns, rows, slices).
        affine: (4, 4) index to world, mm, RAS as in NIfTI files.
        frame_of_reference: its UID.
    """

    frames: list[tuple[int, int]]
    shape: tuple[int, int, int]
    affine: np.ndarray
    frame_of_reference: str


class _Series:
    """A series that is being checked.

    Args:
        case: name, for errors.
        path: of the study, for errors.
        series: the series.
    """

    def __init__(self, case: str, path: Path, series: Series) -> None:
        self.case, self.path, self.series = case, path, series

    def fail(self, reason: str, remedy: str) -> NoReturn:
        raise CaseError(self.case, self.path, f"{self.series} {reason}", remedy)

    def entries(self, keyword: str, size: int, sequence: str = "") -> np.ndarray:
        """An entry of every slice, (slices, size); of an enhanced image out of its frames' sequences."""
        rows = []
        for header in self.series.headers:
            own = items(header, "PerFrameFunctionalGroupsSequence")
            shared = items(header, "SharedFunctionalGroupsSequence")
            for group in own if own else [header]:
                holders = [item for place in (group, *shared) for item in items(place, sequence)] if own else [header]
                value = next((holder.get(keyword) for holder in holders if holder.get(keyword) is not None), None)
                try:
                    row = np.atleast_1d(np.asarray(value, float))
                except (TypeError, ValueError, OverflowError):
                    row = np.empty(0)
                if row.shape != (size,) or not np.isfinite(row).all():
                    lack = "one of its slices" if self.series.slices > 1 else "its slice"
                    self.fail(f"can't be placed: {lack} lacks {keyword}", "export it again, or choose another series")
                rows.append(row)
        return np.stack(rows)

    def expect_same(self, values: np.ndarray, what: str, tolerance: float) -> np.ndarray:
        """The one value that all slices have."""
        if np.abs(values - values[0]).max() > tolerance:
            self.fail(f"mixes slices of different {what}", "split it by these, or choose another series")
        return values[0]


def locate(case: str, path: Path, series: Series) -> Place:
    """Where the slices of a series lie, by their positions: neither the files' names nor their numbers count.

    Args:
        case: name, for errors.
        path: of the study, for errors.
        series: of single images, or of one enhanced image.

    Raises:
        CaseError: the slices aren't one stack: entries are missing, sizes or directions differ, two lie in one place,
            one is missing between two, or they are shifted sideways (a tilted gantry); or the volume would be larger
            than 4 GiB, whatever the files' own sizes.
    """
    checked = _Series(case, path, series)
    enhanced = [header for header in series.headers if frames_of(header) != 1]
    if enhanced and len(series.headers) > 1:
        checked.fail(f"holds {len(series.headers)} files of several frames", "give a study with one of them")
    if enhanced and len(items(enhanced[0], "PerFrameFunctionalGroupsSequence")) != series.slices:
        checked.fail(
            "has several frames in a file, and doesn't say where they lie", "export it as an enhanced MR image"
        )
    frames = [(index, frame) for index, header in enumerate(series.headers) for frame in range(frames_of(header))]
    if len(frames) < 2:
        checked.fail("is no volume", "choose another series")
    spaces = {str(header.get("FrameOfReferenceUID") or "") for header in series.headers}
    if "" in spaces:
        checked.fail("has no frame of reference (FrameOfReferenceUID), so that nothing says what it is aligned with",
                     "register the series, and give them as NIfTI files")  # fmt: skip
    if len(spaces) > 1:
        checked.fail(f"mixes slices of {len(spaces)} frames of reference", "choose another series")
    rows, columns = map(int, checked.expect_same(_sizes(checked), "sizes", 0).tolist())
    if (size := 4 * rows * columns * len(frames)) > _MOST_BYTES:
        checked.fail(
            f"says that it holds {columns}×{rows}×{len(frames)} voxels: {size / 2**30:.1f} GiB, and "
            f"{_MOST_BYTES / 2**30:.0f} GiB is the most",
            "export it again, or choose another series",
        )
    orientations = checked.entries("ImageOrientationPatient", 6, "PlaneOrientationSequence")
    orientation = checked.expect_same(orientations, "directions", _DIRECTIONS_DIFFER)
    spacings = checked.entries("PixelSpacing", 2, "PixelMeasuresSequence")
    down, right = checked.expect_same(spacings, "pixel sizes", 1e-3)
    positions = checked.entries("ImagePositionPatient", 3, "PlanePositionSequence")
    along_row, along_column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column), np.linalg.norm(np.cross(along_row, along_column))
    if not (np.allclose(lengths, 1, atol=1e-2) and down > 0 and right > 0):
        checked.fail("has directions that aren't square to each other, or pixels of no size", "export it again")
    normal = np.cross(along_row, along_column) / lengths[2]
    order = np.argsort(positions @ normal, kind="stable")
    step = _check_steps(checked, positions[order], normal)
    affine = np.eye(4)
    affine[:3] = np.stack([along_row * right, along_column * down, normal * step, positions[order[0]]], axis=1)
    shape = (columns, rows, len(frames))
    return Place([frames[index] for index in order], shape, _LPS_TO_RAS @ affine, spaces.pop())


def _sizes(checked: _Series) -> np.ndarray:
    sizes = [[whole(header.get(keyword)) or 0 for keyword in ("Rows", "Columns")] for header in checked.series.headers]
    if min(map(min, sizes)) < 1:
        checked.fail("holds files that are no images", "choose another series")
    return np.asarray(sizes, float)


def _check_steps(checked: _Series, positions: np.ndarray, normal: np.ndarray) -> float:
    """The distance (mm) between neighbours of sorted slices, which is the same everywhere."""
    heights = positions @ normal
    steps = np.diff(heights)
    if twice := int((steps < _SAME_PLACE).sum()):
        checked.fail(
            f"has {twice} of its slices in a place where another is (several echoes or acquisitions in one series)",
            "split it by EchoNumbers or AcquisitionNumber, or choose another series",
        )
    shift = positions[-1] - positions[0]
    total = heights[-1] - heights[0]
    straight = positions[0] + np.outer(heights - heights[0], shift / total)
    sideways = float(np.linalg.norm(shift / total - normal))
    if sideways > _SHEAR:
        angle = np.degrees(np.arctan(sideways))
        checked.fail(
            f"is tilted: its slices are shifted against each other, by {angle:.1f}° (a tilted gantry)",
            "resample it to a straight grid (dcm2niix does) and give NIfTI files",
        )
    step = float(np.median(steps))
    uneven = np.abs(steps - step) > _STEPS_DIFFER * step
    if uneven.any():
        gaps = steps / steps.min()
        missing = int(np.round(gaps - 1).sum())
        if np.allclose(gaps, np.round(gaps), atol=0.1) and missing:
            many = f"{missing} slices are" if missing > 1 else "1 slice is"
            checked.fail(f"has a gap: {many} missing between others", "export the whole series again")
        checked.fail(
            f"has slices {steps.min():.2f} to {steps.max():.2f} mm apart, not evenly",
            "resample it to an even grid and give NIfTI files, or choose another series",
        )
    if np.abs(positions - straight).max() > max(_STEPS_DIFFER * step, _SAME_PLACE):
        checked.fail(
            "has slices that are shifted sideways", "resample it and give NIfTI files, or choose another series"
        )
    return float(total / (len(positions) - 1))


def read_volume(case: str, path: Path, series: Series) -> np.ndarray:
    """The values of a series, float32 (columns, rows, slices), as `locate` places them.

    Raises:
        CaseError: as `locate`; or a slice is damaged, or packed as nothing installed here can unpack.
    """
    place = locate(case, path, series)
    voxels = np.empty(place.shape, np.float32, order="F")
    read: dict[int, np.ndarray] = {}
    for position, (index, frame) in enumerate(place.frames):
        if index not in read:
            header = series.headers[index]
            number = f"slice {header.get('InstanceNumber') or position + 1} of " if len(series.headers) > 1 else ""
            try:
                read = {index: read_frames(case, header.filename, f"{number}{series}")}
            except CaseError as error:
                raise CaseError(case, path, error.reason, error.remedy) from None
        values = read[index]
        if values.shape != (frames_of(series.headers[index]), place.shape[1], place.shape[0]):
            raise CaseError(case, path, f"{series} holds other images than its entries say", "export it again")
        voxels[:, :, position] = values[frame].T
    return voxels
