"""Which series of a study is T1, T1c, T2 and FLAIR: a table of rules over what its files say of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .dicom import items
from .dicom_study import Series, Study, select_series
from .labels import CHANNELS

__all__ = ["find_channels", "kind_of"]

_CHANNEL_NAMES = {"t1n": "T1 without contrast", "t1c": "T1 with contrast", "t2w": "T2", "t2f": "FLAIR"}
_FEWEST_SLICES = 5


@dataclass(frozen=True)
class _Facts:
    """What the rules look at, of a series' first file; times in ms, None where they aren't said.

    Args:
        words: its description, or its protocol's name, in lower case.
        kind: ImageType, and of an enhanced image the contrast that it states, in lower case.
        agent: whether a contrast agent is named.
        gradient: whether its echoes are of gradients alone.
    """

    words: str
    kind: str
    agent: bool
    echo: float | None
    repetition: float | None
    inversion: float | None
    gradient: bool

    def say(self, *patterns: str) -> bool:
        """Whether a regular expression fits a word, or words that stand together."""
        return any(re.search(_word(pattern), self.words) for pattern in patterns)

    def are(self, *kinds: str) -> bool:
        """Whether the file calls itself one of these."""
        return bool(set(kinds) & set(self.kind.split()))

    def has(self, **ranges: tuple[float, float]) -> bool:
        """Whether times lie in ranges (ms); one that isn't said lies in none."""
        times = {name: getattr(self, name) for name in ranges}
        return all(times[name] is not None and low <= times[name] <= high for name, (low, high) in ranges.items())


def _word(pattern: str) -> str:
    return rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])"


Rules = tuple[tuple[str, Callable[[_Facts], bool]], ...]

# The first that holds says why a series is none of the four.
_OTHERS: Rules = (
    ("localizer", lambda s: s.are("localizer") or s.say("locali[sz]er.*", "loc", "scout", "survey", "aahead.*")),
    ("diffusion", lambda s: s.are("adc", "diffusion", "tracew", "fa") or s.say("e?adc", "dwi", "dti", "diff(usion)?")),
    ("diffusion", lambda s: s.say("trace[wi]?", "b[ =]?[0-9]{3,4}", "colfa")),
    ("susceptibility", lambda s: s.say("swi", "swan", "mag(nitude)?", "pha(se)?", "h[ae]+mo", "medic", "t2[ _-]?star")),
    ("susceptibility", lambda s: "t2*" in s.words),
    ("perfusion", lambda s: s.say("perf(usion)?", "dsc", "dce", "asl", "r?cb[fv]", "mtt", "ttp", "tmax", "dyn(amic)?")),
    ("angiography", lambda s: s.say("tof", "mr[av]", "angio.*", "venc")),
    ("function", lambda s: s.say("bold", "fmri", "ep2d", "field[ _-]?map", "svs", "csi", "spectro.*")),
    ("difference or map", lambda s: s.say("sub(tra[ck]tion)?", "(t[12])?map", "inv[12]")),
    ("reformatted", lambda s: s.are("mpr", "mip", "minip", "projection", "reformatted")),
    ("reformatted", lambda s: s.say("mpr", "mip", "minip", "reformat.*", "rfmt")),
    ("proton density", lambda s: s.say("pdw?")),
    ("without fat", lambda s: s.say("stir") or s.has(inversion=(80, 260))),
)

# The first that holds tells the weighting. Words come before times, since they are what somebody meant.
_WEIGHTINGS: Rules = (
    ("flair", lambda s: s.say("[a-z0-9]*flair[a-z0-9]*", "dark[ _-]?fluid", "t2f") and not s.say("t1[a-z]*")),
    ("flair", lambda s: s.are("fluid_attenuated")),
    ("flair", lambda s: s.has(inversion=(1600, 3500), echo=(60, 700)) and not s.say("t1[a-z]*") and not s.gradient),
    ("t1", lambda s: s.say("t1[a-z]*", "mp2?[ _-]?rage[a-z]*", "bravo", "f?spgr", "tfe", "vibe")),
    ("t2", lambda s: s.say("t2[a-z]*") and not s.gradient),
    ("t1", lambda s: s.are("t1")),
    ("t2", lambda s: s.are("t2")),
    ("t2", lambda s: s.has(repetition=(2000, 20000), echo=(60, 700)) and not s.inversion and not s.gradient),
    ("t1", lambda s: s.has(inversion=(300, 1300), echo=(0.5, 25))),
    ("t1", lambda s: s.has(repetition=(4, 1000), echo=(0.5, 25)) and not s.inversion),
)

_AGENT = "contrast|gd|gad[a-z]*|c|ce|km|kontrast[a-z]*|enhanced"
_WITHOUT = _word(
    rf"(w ?/? ?o|without|ohne|no|non)[ _-]*({_AGENT})|w/o|ohne|pre([ _-]*({_AGENT}))?"
    "|nativ[a-z]*|plain|unenhanced|nc|t1n|c ?-"
)
_WITH = _word(rf"{_AGENT}|post|pg|t1(w|wi)?(c|ce|gd|km|post)|dotarem|magnevist|multihance|prohance|clariscan")


def _contrast(facts: _Facts) -> bool | None:
    """Whether a T1 is with contrast; None where it says both. Words count before the agent, which scanners may keep."""
    rest = re.sub(_WITHOUT, " ", facts.words)
    if re.search(_WITH, rest):
        return True if rest == facts.words else None
    return facts.agent and rest == facts.words


def kind_of(series: Series) -> str:
    """A channel's canonical name, or in words why a series is none of the four."""
    if series.headers[0].get("Modality") != "MR":
        return "not MR"
    facts = _facts(series)
    for reason, holds in _OTHERS:
        if holds(facts):
            return reason
    if series.slices < _FEWEST_SLICES:
        return "too few slices"
    weighting = next((name for name, holds in _WEIGHTINGS if holds(facts)), None)
    if weighting == "t1":
        return {True: "t1c", False: "t1n", None: "with and without contrast"}[_contrast(facts)]
    return {"t2": "t2w", "flair": "t2f", None: "nothing tells its weighting"}[weighting]


def _facts(series: Series) -> _Facts:
    header = series.headers[0]
    groups = [
        group
        for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
        for group in items(header, name)[:1]
    ]

    def number(keyword: str, sequence: str, inside: str) -> float | None:
        places = [(header, keyword), *((item, inside) for group in groups for item in items(group, sequence))]
        for place, name in places:
            value = place.get(name)
            try:
                return float(value if isinstance(value, (str, float, int)) else value[0])
            except (TypeError, ValueError, IndexError):
                continue
        return None

    contrasts = [str(item.get("AcquisitionContrast", "")) for group in groups for item in items(group, _FRAME_TYPE)]
    agent = series.text("ContrastBolusAgent").strip() not in ("", "none", "no", "n/a")
    return _Facts(
        words=series.text("SeriesDescription") or series.text("ProtocolName"),
        kind=" ".join([series.text("ImageType", "AcquisitionContrast"), *contrasts]).lower(),
        agent=agent or bool(header.get("ContrastBolusAgentSequence")),
        echo=number("EchoTime", "MREchoSequence", "EffectiveEchoTime"),
        repetition=number("RepetitionTime", "MRTimingAndRelatedParametersSequence", "RepetitionTime"),
        inversion=number("InversionTime", "MRModifierSequence", "InversionTimes"),
        gradient=series.text("ScanningSequence", "EchoPulseSequence") in ("gr", "gradient"),
    )


_FRAME_TYPE = "MRImageFrameTypeSequence"


def find_channels(study: Study, chosen: Mapping[str, Any]) -> dict[str, Series]:
    """The four series of a study.

    Args:
        study: with its series.
        chosen: channel → name of a series that the user chose, None where the rules decide.

    Returns:
        canonical channel → series, in canonical order.

    Raises:
        InputError: a channel has no series or several, one line each, with the candidates and how to choose; or a
            chosen series isn't there, or stands for two channels.
    """
    found = {
        channel: select_series(study, name, f"--{channel}") for channel, name in chosen.items() if name is not None
    }
    taken = [series.name for series in found.values()]
    if len(set(taken)) < len(taken):
        raise InputError(f"{study.path}: a series is chosen for two modalities; choose another for one of them")
    kinds = {series.name: kind_of(series) for series in study.series}
    problems = []
    instead = {series.name: channel for channel, series in found.items()}
    for channel in CHANNELS:
        if channel in found:
            continue
        fitting = [series for series in study.series if kinds[series.name] == channel and series.name not in taken]
        what, how = f"{channel} ({_CHANNEL_NAMES[channel]})", f"choose with --{channel} NUMBER"
        if len(fitting) == 1:
            found[channel] = fitting[0]
        elif fitting:
            problems.append(f"{study.path}: several series may be {what}: {', '.join(map(str, fitting))}; {how}")
        elif displaced := [series for series in study.series if kinds[series.name] == channel]:
            options = [f"--{instead[series.name]} {series.name}" for series in displaced]
            were = ", ".join(f"{series} by {option}" for series, option in zip(displaced, options, strict=True))
            problems.append(
                f"{study.path}: no series is left for {what}: those recognised as it were taken for others, {were}; "
                f"leave {' and '.join(options)} out, or {how}"
            )
        else:
            told = ", ".join(f"{series}: {kinds[series.name]}" for series in study.series)
            problems.append(f"{study.path}: no series was recognised as {what}, among {told}; {how}")
    if problems:
        raise InputError(*problems)
    return {channel: found[channel] for channel in CHANNELS}
