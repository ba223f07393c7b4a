"""Channel order and label values: the canonical ones, those of each source, and the mapping both ways.

A label convention is a string: a name in `CONVENTIONS`, or a spelled-out list such as `"1=ED,2=NCR,3=ET"` for a
data set with values of its own. A string goes through JSON, a command line and a batch unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from ..errors import InputError

__all__ = [
    "CHANNELS",
    "CONVENTIONS",
    "LABEL_NAMES",
    "REGIONS",
    "channel_from_name",
    "convention_from_names",
    "from_canonical",
    "source_values",
    "to_canonical",
]

CHANNELS = ("t1n", "t1c", "t2w", "t2f")
LABEL_NAMES = {0: "background", 1: "NCR", 2: "ED", 3: "ET"}
REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}

CONVENTIONS: dict[str, dict[int, int]] = {
    "canonical": {0: 0, 1: 1, 2: 2, 3: 3},
    "brats2018": {0: 0, 1: 1, 2: 2, 4: 3},
    "decathlon": {0: 0, 1: 2, 2: 1, 3: 3},
    "brats": {0: 0, 1: 1, 2: 2, 3: 3, 4: 3},
}
"""Value in the source -> canonical value. "canonical" is also BraTS 2023; "brats2018" is 2018 to 2021; "brats" is
either, for predictions of which that isn't known: a file that holds both 3 and 4 is neither (BraTS 2013 and the
post-treatment gliomas of 2024 have four classes) and is refused."""

_OUTSIDE = 255
_CHANNEL_NAMES = {
    "t1n": {"t1", "t1w", "t1n", "t1native", "t1pre"},
    "t1c": {"t1c", "t1ce", "t1gd", "t1post", "t1wgd", "t1wce", "t1wpost", "t1cew", "t1cw", "t1contrast"},
    "t2w": {"t2", "t2w"},
    "t2f": {"flair", "t2f", "t2flair", "t2wflair", "flairw"},
}


def channel_from_name(name: str) -> str | None:
    """The canonical channel that a data set means by a name such as "FLAIR" or "T1gd"; None where it tells nothing."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return next((channel for channel, names in _CHANNEL_NAMES.items() if plain in names), None)


def _label_from_name(name: str) -> str | None:
    plain = re.sub(r"[^a-z]+", " ", name.lower().replace("tumour", "tumor")).strip()
    words = set(plain.split())
    if "background" in words:
        return "background"
    if "necro" in plain or "non enhancing" in plain or "nonenhancing" in plain or words & {"ncr", "net", "netc"}:
        return "NCR"
    if "edema" in plain or words & {"ed", "snfh"}:
        return "ED"
    if "enhancing" in words or "et" in words:
        return "ET"
    return None


def _region_from_name(name: str) -> str | None:
    """A region of several labels, or ET; None for the other single labels, such as "necrotic core"."""
    words = set(re.findall(r"[a-z]+", name.lower()))
    label = _label_from_name(name)
    if words & {"whole", "wt"}:
        return "WT"
    if label is not None:
        return "ET" if label == "ET" else None  # before TC: BraTS also says "enhancing tumor core"
    return "TC" if words & {"core", "tc"} else None


def _whole_number(value: object, name: str) -> int:
    if not str(value).isdecimal():
        raise InputError(f"label {name!r}: {value!r} is not a whole number; give the value that the label maps have")
    return int(str(value))


def convention_from_names(labels: Mapping[str, object]) -> str:
    """The convention that the `labels` of a dataset.json spell out.

    Args:
        labels: name -> value (nnU-Net), value -> name (decathlon), or name -> list of values for regions that hold
            one another, e.g. `{"whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}`.

    Returns:
        A name in `CONVENTIONS` where one fits, else the list spelled out. A name that tells nothing is kept in that
        list as it is, so the error comes when a label is read, and images can be used without.

    Raises:
        InputError: a value is not a whole number, or two names mean the same region.
    """
    names: dict[int, str] = {}
    regions: dict[str, set[int]] = {}
    meant: dict[str, str] = {}
    for key, value in labels.items():
        if key.isdecimal():
            names[int(key)] = str(value)
        elif isinstance(value, list):
            region = _region_from_name(key) or key
            if region in meant:
                raise InputError(f"labels {meant[region]!r} and {key!r} both mean {region}; name them apart")
            meant[region] = key
            regions[region] = {_whole_number(item, key) for item in value}
        else:
            names[_whole_number(value, key)] = key
    enhancing = regions.get("ET", {value for value, name in names.items() if _label_from_name(name) == "ET"})
    whole, core = regions.get("WT", set()), regions.get("TC", set())
    names |= dict.fromkeys(enhancing, "ET")
    if enhancing:
        names |= dict.fromkeys(core - enhancing, "NCR")
    if core:
        names |= dict.fromkeys(whole - core - enhancing, "ED")
    for region, values in sorted(regions.items(), key=lambda item: len(item[1])):
        for item in values:
            names.setdefault(item, region)
    known = {value: _label_from_name(name) or re.sub(r"[,=]", " ", name) for value, name in sorted(names.items())}
    spelled = {value: name for value, name in known.items() if (value, name) != (0, "background")}
    for convention, mapping in CONVENTIONS.items():
        if spelled == {value: LABEL_NAMES[label] for value, label in mapping.items() if value}:
            return convention
    return ",".join(f"{value}={name}" for value, name in spelled.items())


@lru_cache(maxsize=64)
def source_values(convention: str) -> dict[int, int]:
    """Value in the source -> canonical value, for a named or spelled-out convention; don't change what it returns.

    Raises:
        InputError: the name is unknown, or the spelled-out list holds something that is not `value=NAME`.
    """
    if convention in CONVENTIONS:
        return CONVENTIONS[convention]
    canonical = {name: value for value, name in LABEL_NAMES.items()}
    mapping = {0: 0}
    for pair in convention.split(","):
        value, equals, name = pair.partition("=")
        if not equals or not value.strip().isdigit() or int(value) >= _OUTSIDE or name.strip() not in canonical:
            raise InputError(
                f"label convention {convention!r}: {pair!r} is not understood; use one of {', '.join(CONVENTIONS)}, "
                f"or spell it out like '1=ED,2=NCR,3=ET' with the names {', '.join(canonical)}"
            )
        mapping[int(value)] = canonical[name.strip()]
    return mapping


def _replace_values(label: np.ndarray, mapping: Mapping[int, int], of: str) -> np.ndarray:
    """Look each value up in `mapping`, through a table of 256 entries."""
    label = np.asarray(label)
    if label.dtype.kind == "f":
        if not np.array_equal(label, np.rint(label)):
            value = label[label != np.rint(label)].ravel()[0]
            raise InputError(f"label value {value:g} is not a whole number")
    elif label.dtype.kind not in "biu":
        raise InputError(f"label of type {label.dtype} is not numbers")
    if label.dtype not in (np.uint8, np.bool_) and label.size:
        for value in (label.min(), label.max()):
            if not 0 <= value < _OUTSIDE:
                raise _outside(value, mapping, of)
    table = np.full(256, _OUTSIDE, np.uint8)
    table[list(mapping)] = list(mapping.values())
    source = label.astype(np.uint8, copy=False)
    replaced = table[source]
    if replaced.size and replaced.max() == _OUTSIDE:
        raise _outside(source[replaced == _OUTSIDE].min(), mapping, of)
    return replaced


def _outside(value: float, mapping: Mapping[int, int], of: str) -> InputError:
    return InputError(f"label value {value:g} is outside {of} (values {', '.join(map(str, sorted(mapping)))})")


def to_canonical(label: np.ndarray, convention: str) -> np.ndarray:
    """Label values of a source as canonical ones.

    Args:
        label: array of any shape; integers, or floats that are whole numbers.
        convention: a name in `CONVENTIONS` or a spelled-out list.

    Returns:
        uint8 array of the same shape and memory order.

    Raises:
        InputError: a value is outside the convention or not a whole number; the message names the value.
    """
    if convention == "brats" and (np.equal(label, 3)).any() and (np.equal(label, 4)).any():
        raise InputError(
            "holds 3 and 4, of which only one is ET: say which convention it has, such as '1=NCR,2=ED,3=NCR,4=ET'"
        )
    return _replace_values(label, source_values(convention), f"the convention {convention!r}")


def from_canonical(label: np.ndarray, convention: str) -> np.ndarray:
    """Canonical label values as those of a source, the inverse of `to_canonical`.

    Where several values of the source mean the same canonical one, the smallest is used.

    Raises:
        InputError: a value is not canonical, or the convention has no value for it; the message names it.
    """
    inverse = {canonical: value for value, canonical in sorted(source_values(convention).items(), reverse=True)}
    return _replace_values(label, inverse, f"the canonical values that the convention {convention!r} can express")
