"""A study as a folder or zip of DICOM files: which series it holds, without its patient.

What is shown of a study, in errors and logs, never is its patient's: no name of a file or folder inside it, since
exports are named for patients, and of descriptions only words that are known to be of MR.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from ..archives import open_archive
from ..errors import CaseError, InputError
from .dicom import has_preamble, read_dataset, whole

__all__ = ["Series", "Study", "frames_of", "open_study", "select_series"]

_PREAMBLE = 132
_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "StudyDate",
    "StudyTime", "Modality", "SeriesNumber", "SeriesDescription", "ProtocolName", "InstanceNumber",
    "ImageType", "ScanningSequence", "ContrastBolusAgent", "ContrastBolusAgentSequence", "AcquisitionContrast",
    "EchoPulseSequence", "EchoTime", "RepetitionTime", "InversionTime", "Rows", "Columns", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
# Words of descriptions that are shown; all others may be a name.
_WORDS = re.compile(
    r"[123]d|[0-9]?mm|iso|t[12](w|wi|c|ce|gd|km|n|f|flair|map|ffe|fs|tse|se|mprage|space|star)?|pd|flair|tirm|stir|dark|"
    r"fluid|darkfluid|mp2?rage|mpr|mip|minip|bravo|f?spgr|space|cube|vista|vibe|tfe|[tf]se|se|ir|gre?|ffe|tra|ax|axial|"
    r"sag|sagittal|cor|coronal|obl|gd|gad|gado|gadolinium|ce|c|contrast|km|kontrast|post|pre|native?|mit|ohne|with|"
    r"without|non?|plain|blade|propeller|fs|fatsat|adc|dwi|dti|diff|trace[wi]?|b[0-9]+|swi|swan|tof|mra|perf|perfusion|"
    r"dsc|dce|asl|cb[fv]|localizer|localiser|scout|survey|loc|plane|brain|head|sub|subtraction|reg|nd|dis[23]d|norm"
)


@dataclass(frozen=True)
class Series:
    """One series of a study.

    Args:
        name: by which it is chosen: its number, with a letter where several series have the same.
        headers: pydicom Dataset of each of its files, without pixels; `filename` says where it is.
    """

    name: str
    headers: list[Any]

    @property
    def uid(self) -> str:
        """Its SeriesInstanceUID."""
        return str(self.headers[0].SeriesInstanceUID)

    @property
    def slices(self) -> int:
        """Number of frames in all its files."""
        return sum(map(frames_of, self.headers))

    def text(self, *keywords: str) -> str:
        """Entries of its first file as lower-case text with blanks between; what there is none of is left out."""
        values = (self.headers[0].get(keyword) for keyword in keywords)
        return " ".join(_joined(value) for value in values if value not in (None, "")).lower()

    def __str__(self) -> str:
        """Its name, what its description tells without words that may be the patient's, and its slices."""
        words = re.findall(r"[^\W_]+", self.text("SeriesDescription") or self.text("ProtocolName"))
        known = re.sub("(… )+…", "…", " ".join(word if _WORDS.fullmatch(word) else "…" for word in words))
        count = f"{self.slices} slice{'s' if self.slices > 1 else ''}"
        return f"series {self.name} ({', '.join([known, count] if known.strip('… ') else [count])})"


@dataclass(frozen=True)
class Study:
    """One study.

    Args:
        path: of the folder or zip, as the user gave it.
        uid: its StudyInstanceUID.
        series: by number.
    """

    path: Path
    uid: str
    series: list[Series]


def _joined(value: Any) -> str:
    return value if isinstance(value, str) else " ".join(map(str, value)) if isinstance(value, Sequence) else str(value)


def frames_of(header: Any) -> int:
    """How many frames a file holds; 1 where it doesn't say so, or nonsense."""
    return max(whole(header.get("NumberOfFrames")) or 1, 1)


@contextmanager
def open_study(path: Path | str, number: int | None = None) -> Iterator[Study]:
    """The study in a folder, with all below it, or in a zip, which is unpacked until the block ends.

    Files that aren't DICOM are left alone, and so are a DICOMDIR and copies of the same image.

    Args:
        path: of the folder or zip.
        number: of the study where there are several; by date, the earliest is 1.

    Raises:
        InputError: there is nothing such, no DICOM file in it, one that is damaged, or several studies; the zip is
            truncated, damaged, encrypted, too large, or leads out of its folder.
    """
    path = Path(path)
    if path.is_dir():
        yield _only_study(path, _headers(path, path), number)
    elif path.is_file():
        with TemporaryDirectory(prefix="study-") as folder:
            _unpack(path, Path(folder))
            yield _only_study(path, _headers(path, Path(folder)), number)
    else:
        raise InputError(f"{path}: does not exist; give a folder or zip of DICOM files")


def _unpack(path: Path, folder: Path) -> None:
    """Unpack the DICOM files of a zip under names that are numbers, so that no name of a member counts for anything."""
    with open_archive(path) as archive:
        for index, member in enumerate(member for member in archive.infolist() if not member.is_dir()):
            with archive.open(member) as packed:
                if member.filename.startswith("__MACOSX/") or Path(member.filename).name == "DICOMDIR":
                    continue
                if (start := packed.read(_PREAMBLE))[-4:] == b"DICM" or member.filename.lower().endswith(".dcm"):
                    with open(folder / f"{index:06d}.dcm", "wb") as file:
                        file.write(start)
                        shutil.copyfileobj(packed, file)


def _headers(path: Path, folder: Path) -> list[Any]:
    """Of all DICOM files below a folder, one of each image."""

    def refuse(error: OSError) -> NoReturn:  # os.walk leaves out what it can't read; its name may be the patient's
        raise InputError(f"{path}: one of its folders can't be read ({error.strerror}); check its permissions")

    files = sorted(
        Path(root, name)
        for root, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if name != "DICOMDIR" and not name.startswith(".") and "__MACOSX" not in root
    )
    headers: dict[str, Any] = {}
    for index, file in enumerate(files):
        which = f"one of its files, number {index + 1} of {len(files)} by name,"
        try:
            if not (has_preamble(file) or file.suffix.lower() == ".dcm"):
                continue
        except OSError as error:
            raise InputError(f"{path}: {which} can't be read ({error.strerror}); check its permissions") from None
        try:
            header = read_dataset("", file, stop_before_pixels=True, tags=_TAGS)
            identity = str(header.get("SOPInstanceUID") or file)
            for _ in header:  # an entry is decoded when it is asked for, and may fail then
                pass
        except CaseError as error:
            raise InputError(f"{path}: {which} {error.reason}; {error.remedy}") from None
        except Exception:
            raise InputError(f"{path}: {which} is damaged; copy or export it again") from None
        headers.setdefault(identity, header)
    if not headers:
        raise InputError(f"{path}: holds no DICOM file; give the folder or zip of a study")
    return list(headers.values())


def _only_study(path: Path, headers: list[Any], number: int | None) -> Study:
    studies: dict[str, list[Any]] = defaultdict(list)
    for header in headers:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
            if not header.get(keyword):
                raise InputError(f"{path}: a file lacks {keyword}, which tells what it belongs to; export it again")
        studies[str(header.StudyInstanceUID)].append(header)
    ordered = sorted(studies.items(), key=lambda item: (_when(item[1]), item[0]))
    if number is None and len(ordered) > 1:
        found = "; ".join(
            f"{place}: {len(series)} series, {len(found)} files"
            for place, (_, found) in enumerate(ordered, 1)
            for series in [_series_of(found)]
        )
        raise InputError(
            f"{path}: holds {len(ordered)} studies (by date, the earliest first: {found}); "
            "choose with --study_number NUMBER, or give one study's folder"
        )
    if number is not None and (isinstance(number, bool) or number not in range(1, len(ordered) + 1)):
        raise InputError(
            f"{path}: holds {len(ordered)} of studies, no number {number}; give --study_number 1 to {len(ordered)}"
        )
    uid, found_headers = ordered[(number or 1) - 1]
    return Study(path, uid, _series_of(found_headers))


def _when(headers: list[Any]) -> str:
    return min(f"{header.get('StudyDate') or ''} {header.get('StudyTime') or ''}" for header in headers)


def _series_of(headers: list[Any]) -> list[Series]:
    """The series by their numbers; those of one number get letters."""
    by_uid: dict[str, list[Any]] = defaultdict(list)
    for header in headers:
        by_uid[str(header.SeriesInstanceUID)].append(header)
    by_number: dict[int, list[list[Any]]] = defaultdict(list)
    for _, group in sorted(by_uid.items()):
        by_number[whole(group[0].get("SeriesNumber")) or 0].append(group)
    return [
        Series(f"{number}{_letters(index)}" if len(groups) > 1 else str(number), group)
        for number, groups in sorted(by_number.items())
        for index, group in enumerate(groups)
    ]


def _letters(index: int) -> str:
    return (_letters(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


def select_series(study: Study, name: object, what: str) -> Series:
    """The series of a name, as the user typed it.

    Raises:
        InputError: there is none.
    """
    for series in study.series:
        if series.name == str(name):
            return series
    raise InputError(f"{study.path}: has no series {name} for {what}; it has {', '.join(map(str, study.series))}")
