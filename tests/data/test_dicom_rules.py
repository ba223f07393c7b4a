"""Which series is which modality, by what its files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from common.data.dicom_rules import find_channels, kind_of
from common.data.dicom_study import Series, Study
from common.errors import InputError
from tests.data.dicom_studies import SECRETS


def series(name: str = "7", slices: int = 20, **entries: Any) -> Series:
    header = Dataset()
    given = {"Modality": "MR", "SeriesInstanceUID": f"1.2.{name}", "ImageType": ["ORIGINAL", "PRIMARY"]} | entries
    for keyword, value in given.items():
        setattr(header, keyword, value)
    return Series(name, [header] * slices)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("t1_mprage_sag_p2_iso", "t1n"),
        ("T1 SE ax pre", "t1n"),
        ("AX T1 PRE GAD", "t1n"),
        ("T1w nativ", "t1n"),
        ("t1_tse_tra ohne KM", "t1n"),
        ("T1 without contrast", "t1n"),
        ("AX T1 non-contrast", "t1n"),
        ("Sag T1 FLAIR", "t1n"),
        ("3D T1 TFE", "t1n"),
        ("T1 fs", "t1n"),
        ("SAG BRAVO", "t1n"),
        ("T1 C-", "t1n"),
        ("t1_mprage_sag +KM", "t1c"),
        ("AX T1 POST GD", "t1c"),
        ("T1+C", "t1c"),
        ("3D T1ce", "t1c"),
        ("T1W_3D_TFE_Gd", "t1c"),
        ("T1 mit KM", "t1c"),
        ("Ax FSPGR Gadovist", "t1c"),
        ("t2_tse_tra_512", "t2w"),
        ("T2W_TSE", "t2w"),
        ("t2_space_sag", "t2w"),
        ("Ax T2 FLAIR", "t2f"),
        ("t2_tirm_tra_dark-fluid", "t2f"),
        ("3D FLAIR post GD", "t2f"),
        ("T2FLAIR", "t2f"),
        ("localizer", "localizer"),
        ("3-plane loc", "localizer"),
        ("ep2d_diff_3scan_trace", "diffusion"),
        ("DWI b1000", "diffusion"),
        ("Ax T2* GRE", "susceptibility"),
        ("t2_fl2d_tra_hemo", "susceptibility"),
        ("SWI mIP", "susceptibility"),
        ("ep2d_perf", "perfusion"),
        ("TOF 3D", "angiography"),
        ("T1 post - pre SUB", "difference or map"),
        ("t1_map", "difference or map"),
        ("t1_mprage_cor_mpr", "reformatted"),
        ("pd+t2_tse_tra", "proton density"),
        ("t2_stir_cor", "without fat"),
        ("T1 pre and post GD", "with and without contrast"),
        ("Brain", "nothing tells its weighting"),
    ],
)
def test_descriptions(words: str, kind: str):
    assert kind_of(series(SeriesDescription=words)) == kind


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        ({"EchoTime": 90, "RepetitionTime": 5000, "ScanningSequence": "SE"}, "t2w"),
        ({"EchoTime": 90, "RepetitionTime": 5000, "ScanningSequence": "GR"}, "nothing tells its weighting"),
        ({"EchoTime": 120, "RepetitionTime": 9000, "InversionTime": 2500}, "t2f"),
        ({"EchoTime": 60, "RepetitionTime": 4000, "InversionTime": 150}, "without fat"),
        ({"EchoTime": 3, "RepetitionTime": 1900, "InversionTime": 900}, "t1n"),
        ({"EchoTime": 10, "RepetitionTime": 500}, "t1n"),
        ({"EchoTime": 10, "RepetitionTime": 500, "ContrastBolusAgent": "Dotarem"}, "t1c"),
        ({"EchoTime": 10, "RepetitionTime": 500, "ContrastBolusAgent": "NONE"}, "t1n"),
        ({"SeriesDescription": "t1 pre", "ContrastBolusAgent": "Dotarem"}, "t1n"),
        ({"SeriesDescription": "t2 tirm", "InversionTime": 2500, "EchoTime": 90}, "t2f"),
        ({"SeriesDescription": "T2 FFE", "ScanningSequence": "GR"}, "nothing tells its weighting"),
        ({"SeriesDescription": "t1", "ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "reformatted"),
        ({"SeriesDescription": "ax", "ImageType": ["DERIVED", "PRIMARY", "ADC"]}, "diffusion"),
        ({"SeriesDescription": "", "ProtocolName": "T2 FLAIR"}, "t2f"),
        ({"SeriesDescription": "t1", "slices": 4}, "too few slices"),
        ({"SeriesDescription": "t1", "Modality": "CT"}, "not MR"),
        ({"EchoTime": None, "RepetitionTime": None}, "nothing tells its weighting"),
    ],
)
def test_other_entries(entries: dict[str, Any], kind: str):
    assert kind_of(series(**entries)) == kind


def test_an_enhanced_image_says_it_in_its_frames():
    echo, times, inversion, frame, group = (Dataset() for _ in range(5))
    echo.EffectiveEchoTime, times.RepetitionTime, inversion.InversionTimes = 120.0, 9000.0, [2500.0]
    group.MREchoSequence, group.MRModifierSequence = [echo], [inversion]
    group.MRTimingAndRelatedParametersSequence = [times]
    assert kind_of(series(NumberOfFrames=20, SharedFunctionalGroupsSequence=[group], slices=1)) == "t2f"
    frame.AcquisitionContrast = "FLUID_ATTENUATED"
    group = Dataset()
    group.MRImageFrameTypeSequence = [frame]
    assert kind_of(series(NumberOfFrames=20, PerFrameFunctionalGroupsSequence=[group], slices=1)) == "t2f"


def study(**descriptions: str) -> Study:
    found = [series(name.lstrip("s"), SeriesDescription=words) for name, words in descriptions.items()]
    return Study(Path("STUDY"), "1.2.3", found)


FOUR = {"s2": "t1", "s3": "t2", "s4": "flair", "s6": "t1 gd"}


def test_the_four_of_a_study():
    found = find_channels(study(s1="localizer", **FOUR), {})
    assert {channel: one.name for channel, one in found.items()} == {"t1n": "2", "t1c": "6", "t2w": "3", "t2f": "4"}
    assert list(found) == ["t1n", "t1c", "t2w", "t2f"]


def refusals(of: Study, **chosen: Any) -> tuple[str, ...]:
    with pytest.raises(InputError) as error:
        find_channels(of, chosen)
    assert not any(secret in str(error.value).lower() for secret in SECRETS)
    return error.value.problems


def test_what_is_ambiguous_lists_the_candidates_and_is_chosen():
    several = study(**FOUR, s7="t1 post Petronella 19610203", s8="t2")
    assert refusals(several) == (
        "STUDY: several series may be t1c (T1 with contrast): series 6 (t1 gd, 20 slices), series 7 (t1 post …, "
        "20 slices); choose with --t1c NUMBER",
        "STUDY: several series may be t2w (T2): series 3 (t2, 20 slices), series 8 (t2, 20 slices); choose with --t2w "
        "NUMBER",
    )
    found = find_channels(several, {"t1c": 7, "t2w": "8", "t1n": None})
    assert (found["t1c"].name, found["t2w"].name) == ("7", "8")


def test_what_is_missing_tells_what_there_is():
    lacking = study(s1="localizer", s2="t1", s3="t2", s6="t1 gd", s9="Petronella")
    (line,) = refusals(lacking)
    assert line == (
        "STUDY: no series was recognised as t2f (FLAIR), among series 1 (localizer, 20 slices): localizer, series 2 "
        "(t1, 20 slices): t1n, series 3 (t2, 20 slices): t2w, series 6 (t1 gd, 20 slices): t1c, series 9 (20 slices): "
        "nothing tells its weighting; choose with --t2f NUMBER"
    )
    assert find_channels(lacking, {"t2f": 9})["t2f"].name == "9"


def test_choices_that_are_none():
    four = study(**FOUR)
    assert refusals(four, t2f=99)[0].startswith("STUDY: has no series 99 for --t2f; it has series 2 (t1, 20 slices), ")
    assert refusals(four, t2f=3, t2w=3)[0].startswith("STUDY: a series is chosen for two modalities")


def test_a_chosen_series_is_no_candidate_of_another_modality():
    assert refusals(study(**FOUR), t2f=3) == (
        "STUDY: no series is left for t2w (T2): those recognised as it were taken for others, series 3 (t2, 20 slices) "
        "by --t2f 3; leave --t2f 3 out, or choose with --t2w NUMBER",
    )
