"""From a DICOM study to a case that all bundles take, and from the label map of that case back to DICOM."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from . import __version__
from .atomic import check_writable, write_text
from .data.case_files import stem
from .data.dicom_regions import read_regions, write_regions
from .data.dicom_rules import find_channels, kind_of
from .data.dicom_segmentation import SEGMENTS
from .data.dicom_study import Series, Study, open_study, select_series
from .data.dicom_volume import Place, locate, read_volume
from .data.json_layouts import read_json
from .data.labels import CHANNELS
from .data.nifti_file import AFFINE_TOLERANCE, times
from .data.reading import read_label_map
from .data.writing import write_nifti
from .errors import CaseError, InputError
from .report.segmentation_picture import write_segmentation_picture
from .running import find_bundle

__all__ = ["dicom_in", "dicom_seg"]

logger = logging.getLogger(__name__)

# Brains alone leave 0.8 of a scan's usual box at 0 and measure 1.2 to 1.6 litres; heads measure 2.5 and more, with air
# that some scanners set to 0. A brain in a box cut close to it is taken for a head: about half of that is 0.
_LEAST_BACKGROUND = 0.6
_LARGEST_BRAIN = 2.0  # litres
_LEAST_COVERED = 0.5
_RECORD = "dicom.json"


def dicom_in(
    study: str,
    out: str,
    *,
    case: str | None = None,
    grid: str = "t1c",
    t1n: str | int | None = None,
    t1c: str | int | None = None,
    t2w: str | int | None = None,
    t2f: str | int | None = None,
    study_number: int | None = None,
) -> None:
    """Turn the MR study of a brain into a case that all bundles take: <out>/<case>/<case>-t1n.nii.gz, -t1c, -t2w, -t2f.

    The four series are recognised, and resampled to the voxels of one of them; all must be of one frame of reference.
    <out>/<case>/dicom.json says which series became what, by their UIDs; while it names none, the case isn't whole, and
    the same command again mends it.

    Examples:
        lesion-bundles dicom_in STUDY --out cases
        lesion-bundles dicom_in study.zip --out cases --case patient-7 --t1c 9

    Args:
        study: folder or zip of DICOM files; folders in it are searched too.
        out: folder for cases, which is a --dataset_dir.
        case: name for the case; without it "study-" and a number that is made of the study's UID.
        grid: whose voxels all four get: t1n, t1c, t2w or t2f.
        t1n: number of the series that is T1 without contrast, where it isn't recognised.
        t1c: likewise, T1 with contrast.
        t2w: likewise, T2.
        t2f: likewise, FLAIR.
        study_number: which study is meant where there are several; by date, the earliest is 1.
    """
    if grid not in CHANNELS:
        raise InputError(f"--grid {grid}: is no modality; give one of {', '.join(CHANNELS)}")
    if case is not None and (not re.fullmatch(r"[\w.-]+", case) or case.startswith(".")):
        raise InputError(f"--case {case!r}: can't be a case's name; give one of letters, digits, '.', '-' and '_'")
    with open_study(study, study_number) as opened:
        name = case or f"study-{hashlib.sha256(opened.uid.encode()).hexdigest()[:10]}"
        folder = Path(out) / name
        _refuse_own_files("--out", folder, opened)
        _refuse_other_study(folder, name, opened)
        series = find_channels(opened, {"t1n": t1n, "t1c": t1c, "t2w": t2w, "t2f": t2f})
        places = {channel: locate(name, opened.path, found) for channel, found in series.items()}
        _refuse_unaligned(name, opened, series, places, grid)
        check_writable(folder.parent)
        target = places[grid]
        volumes, background, litres = {}, 1.0, 0.0
        for channel, found in series.items():
            volume = read_volume(name, opened.path, found)
            zeros = float((volume == 0).mean())
            background = min(background, zeros)
            litres = max(litres, (1 - zeros) * volume.size * abs(np.linalg.det(places[channel].affine)) / 1e6)
            volumes[channel] = _on_grid(volume, places[channel], target)
            how = "as it is" if _is_same(places[channel], target) else f"resampled to the voxels of {grid}"
            print(f"{channel}: {found}, {how}")
    files = {f"{name}-{channel}.nii.gz": voxels for channel, voxels in volumes.items()}
    with TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as temporary:
        for file, voxels in files.items():
            write_nifti(Path(temporary, file), voxels, target.affine)
        # Should this be stopped, the record tells whose the folder is, and old volumes don't stand beside new ones.
        write_text(folder / _RECORD, json.dumps({"study": opened.uid}) + "\n")
        for file in files:
            (folder / file).unlink(missing_ok=True)
        for file in files:
            Path(temporary, file).replace(folder / file)
    _write_record(folder / _RECORD, opened, series, places, grid)
    print(f"{folder} is written; --dataset_dir {out} takes it")
    if background < _LEAST_BACKGROUND or litres > _LARGEST_BRAIN:
        logger.warning(
            "case %s: the skull seems to be there: in one series %.0f%% of the voxels are 0, and all others measure up "
            "to %.1f litres; of a brain alone more than %.0f%% are, and less than %.1f litres; the networks expect "
            "brains alone, so take it off before inference, e.g. by HD-BET or SynthStrip, with one mask for all four "
            "files",
            *(name, 100 * background, litres, 100 * _LEAST_BACKGROUND, _LARGEST_BRAIN),
        )


def _refuse_own_files(option: str, path: Path, study: Study, label_map: str | None = None) -> None:
    """Raise an InputError where what is written would replace what is read, or would be taken for a part of it.

    Nothing is told of the path, which may be a file of the study that has the patient's name.
    """
    written = _places(path)
    if label_map is not None and written & _places(Path(label_map)):
        raise InputError(f"{option}: is {label_map}, the label map itself; give another file")
    files = (Path(header.filename) for series in study.series for header in series.headers)
    inside = any(place.is_relative_to(other) for place in written for other in _places(study.path))
    if inside or any(written & _places(file) for file in files):
        raise InputError(f"{option}: lies in {study.path}, and would become a part of the study; give another place")


def _places(path: Path) -> set[Path]:
    """Where a path leads, and of a link also where it stands, since it would be replaced itself."""
    return {path.resolve(), path.parent.resolve() / path.name}


def _refuse_other_study(folder: Path, name: str, study: Study) -> None:
    """Raise a CaseError where a folder is there already and is not this study's."""
    if not folder.exists():
        return
    try:
        same = json.loads((folder / _RECORD).read_text())["study"] == study.uid
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise CaseError(name, folder, "is there already, of another study", "give another --case or --out")


def _refuse_unaligned(
    name: str, study: Study, series: Mapping[str, Series], places: Mapping[str, Place], grid: str
) -> None:
    """Raise an InputError where series lie in other frames of reference than the grid's, or elsewhere in it."""
    target, problems = places[grid], []
    for channel, place in places.items():
        covered = _covered(place, target)
        if place.frame_of_reference != target.frame_of_reference:
            reason = (
                f"{channel}, {series[channel]}, and {grid}, {series[grid]}, are of different frames of reference: "
                "nothing says that they are aligned"
            )
            remedy = "register them (e.g. by ANTs or elastix), look at the result, and give NIfTI files"
            problems.append(CaseError(name, study.path, reason, remedy))
        elif not covered:
            reason = f"{channel}, {series[channel]}, lies beside {grid}, {series[grid]}"
            problems.append(CaseError(name, study.path, reason, "choose other series"))
        elif covered < _LEAST_COVERED:
            logger.warning(
                "case %s: %s, %s, covers %.0f%% of %s, and is 0 elsewhere",
                *(name, channel, series[channel], 100 * covered, grid),
            )
    if problems:
        raise InputError(*map(str, problems))


def _covered(place: Place, target: Place) -> float:
    """The share of a grid that lies inside another, told by 16 × 16 × 16 of its points."""
    points = np.stack(np.meshgrid(*(np.linspace(0, size - 1, 16) for size in target.shape)), axis=-1).reshape(-1, 3)
    inside = apply_affine(np.linalg.inv(place.affine) @ target.affine, points)
    return float(((inside >= -0.5) & (inside <= np.asarray(place.shape) - 0.5)).all(axis=1).mean())


def _is_same(place: Place, target: Place) -> bool:
    return place.shape == target.shape and np.allclose(place.affine, target.affine, rtol=0, atol=AFFINE_TOLERANCE)


def _on_grid(voxels: np.ndarray, place: Place, target: Place) -> np.ndarray:
    """Voxels (X, Y, Z) at a place resampled to another, linearly; 0 outside of what they cover."""
    if _is_same(place, target):
        return voxels
    affine, grid = torch.from_numpy(place.affine), torch.from_numpy(target.affine)

    def resampled(values: np.ndarray, mode: str, padding_mode: str) -> np.ndarray:
        resample = SpatialResample(mode, padding_mode, align_corners=False, dtype=np.float32)
        image = MetaTensor(np.ascontiguousarray(values)[None], affine=affine)
        return resample(image, dst_affine=grid, spatial_size=target.shape)[0].numpy().astype(np.float32)

    # The outer halves of the first and last slices are theirs too; with zeros beyond their middle they would fade.
    covered = resampled(np.ones(voxels.shape, np.float32), "nearest", "zeros")
    return resampled(voxels, "bilinear", "border") * covered


def _write_record(
    path: Path, study: Study, series: Mapping[str, Series], places: Mapping[str, Place], grid: str
) -> None:
    """Write which series became what. It holds no more of the study than UIDs and the series' numbers."""
    record = {
        "study": study.uid,
        "frame_of_reference": places[grid].frame_of_reference,
        "grid": grid,
        "series": {
            channel: {
                "series": found.uid,
                "number": found.name,
                "slices": found.slices,
                "resampled": not _is_same(places[channel], places[grid]),
            }
            for channel, found in series.items()
        },
        "version": __version__,
    }
    write_text(path, json.dumps(record, indent=1) + "\n")


def dicom_seg(
    label_map: str,
    study: str,
    bundle: str,
    out: str,
    *,
    picture: str | None = None,
    series: str | int | None = None,
    study_number: int | None = None,
) -> None:
    """Write the label map that a bundle made of a study's case as a DICOM Segmentation that refers to its series.

    The series is the one on whose voxels the label map lies: that of the case's grid, which is the T1c unless told.

    Examples:
        lesion-bundles dicom_seg eval/study-12ab.nii.gz STUDY cga_unet --out seg.dcm
        lesion-bundles dicom_seg eval/study-12ab.nii.gz STUDY cga_unet --out seg.dcm --picture seg.png

    Args:
        label_map: NIfTI file of what the bundle found in the case that `dicom_in` made.
        study: folder or zip of the DICOM files that `dicom_in` was given.
        bundle: name of the bundle (cga_unet), or its folder; its name and version are written.
        out: DICOM file to write.
        picture: PNG file to write: what the DICOM file holds, read again, over the series in three planes.
        series: number of the series to refer to, where several have the label map's voxels.
        study_number: which study is meant where there are several; by date, the earliest is 1.
    """
    metadata = read_json(find_bundle(bundle) / "configs" / "metadata.json")
    case = stem(label_map)
    label, affine, _ = read_label_map({"case": case, "label": label_map})
    segments = _segments(bundle, metadata)
    if unknown := sorted(set(np.unique(label).tolist()) - {0, *segments}):
        raise CaseError(
            case, label_map, f"holds {unknown[0]}, which {bundle} doesn't tell", "name the bundle that made it"
        )
    files = {option: Path(path) for option, path in (("--out", out), ("--picture", picture)) if path is not None}
    with open_study(study, study_number) as opened:
        _refuse_files(files, opened, label_map)
        found, place, frames = _find_grid(case, label_map, label, affine, opened, series)
        for file in files.values():
            check_writable(file.parent)
        write_regions(
            files["--out"], frames, case, opened, found, place, segments, metadata["name"], metadata["version"]
        )
        if picture is not None:
            values, written = read_volume(case, opened.path, found), read_regions(files["--out"], place)
            names = {value: SEGMENTS[name][0] for value, name in segments.items()}
            write_segmentation_picture(files["--picture"], values, written, place.affine, names)
    print(f"{out} is written; it refers to {found}")


def _refuse_files(files: Mapping[str, Path], study: Study, label_map: str) -> None:
    """Raise an InputError where a file can't be written, or would replace one that is read, or another."""
    for option, path in files.items():
        _refuse_own_files(option, path, study, label_map)
        if path.is_dir():
            raise InputError(f"{option} {path}: is a folder; name a file in it")
    if "--picture" in files and _places(files["--picture"]) & _places(files["--out"]):
        raise InputError("--picture: is the file of --out; give another")


def _segments(bundle: str, metadata: Mapping[str, Any]) -> dict[int, str]:
    """Label value → its name, as a bundle's metadata has it."""
    names = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    segments = {int(value): str(name) for value, name in names.items() if value != "0"}
    if unknown := [name for name in segments.values() if name not in SEGMENTS]:
        raise InputError(f"{bundle}: there is no DICOM code for its {unknown[0]!r}, only for {', '.join(SEGMENTS)}")
    return segments


def _find_grid(
    case: str, path: str, label: np.ndarray, affine: np.ndarray, study: Study, chosen: str | int | None
) -> tuple[Series, Place, np.ndarray]:
    """The series that has the label map's voxels, where it lies, and the label map (columns, rows, slices) on it.

    Raises:
        CaseError: none has, or several have and the T1c isn't one of them.
    """
    fitting = []
    for series in [select_series(study, chosen, "--series")] if chosen is not None else study.series:
        try:
            place = locate(case, study.path, series)
        except CaseError:
            if chosen is not None:
                raise
            continue
        if series.headers[0].get("Modality") == "SEG":  # an earlier one, put beside its series
            continue
        turned = _turned(label, affine, place)
        if turned is not None:
            fitting.append((series, place, turned))
    first = [item for item in fitting if kind_of(item[0]) == "t1c"] if len(fitting) > 1 else fitting
    if len(first) == 1:
        return first[0]
    if fitting:
        several = ", ".join(str(series) for series, _, _ in fitting)
        raise CaseError(case, path, f"its voxels are those of {several}", "choose with --series NUMBER")
    among = ", ".join(map(str, study.series)) if chosen is None else f"series {chosen}"
    reason = f"{times(label.shape)} voxels that are those of none of {among}"
    raise CaseError(
        case, path, reason, "give the label map of the case that dicom_in made of this study, and that study"
    )


def _turned(label: np.ndarray, affine: np.ndarray, place: Place) -> np.ndarray | None:
    """A label map with its axes flipped and swapped so that it lies as a series does; None where it doesn't."""
    between = io_orientation(np.linalg.inv(place.affine) @ affine)
    if np.isnan(between).any():
        return None
    turned = apply_orientation(label, between)
    moved = Place(place.frames, turned.shape, affine @ inv_ornt_aff(between, label.shape), place.frame_of_reference)
    return turned if _is_same(moved, place) else None
