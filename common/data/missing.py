"""Cases as if they lacked modalities, and the notes beside predictions of cases that lack some."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from ..atomic import write_text
from .case_files import Case
from .labels import CHANNELS

__all__ = ["COMBINATIONS", "leave_out_each", "read_note", "write_note"]

COMBINATIONS = tuple(missing for count in range(len(CHANNELS)) for missing in combinations(CHANNELS, count))
"""What can be missing: nothing first, then one modality, two, three."""


def leave_out_each(cases: Sequence[Case]) -> list[Case]:
    """Each case 15 times, once for each combination of modalities that can be missing; the others are left in."""
    return [{**case, "missing": " ".join(missing)} for case in cases for missing in COMBINATIONS]


def read_note(folder: Path, case: str) -> str | None:
    """What the prediction of a case in a folder was made without, as in a case's "missing"; empty where no note is.

    None where `<case>.json` is there and isn't such a note.
    """
    try:
        content = json.loads((folder / f"{case}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError):
        return None
    missing = content.get("missing") if isinstance(content, dict) else None
    if not isinstance(missing, list):
        return None
    said = " ".join(channel for channel in CHANNELS if channel in missing)
    return said if content == _note(case, said) else None


def write_note(folder: Path, case: str, missing: str) -> None:
    """Note in `<case>.json` what the prediction of a case was made without; nothing missing removes the note.

    A file of that name that is no such note stays as it is.
    """
    if read_note(folder, case) is None:
        return
    if missing:
        write_text(folder / f"{case}.json", json.dumps(_note(case, missing), indent=1) + "\n")
    else:
        (folder / f"{case}.json").unlink(missing_ok=True)


def _note(case: str, missing: str) -> dict[str, str | list[str]]:
    lacks = missing.split()
    return {"case": case, "missing": lacks, "used": [channel for channel in CHANNELS if channel not in lacks]}
