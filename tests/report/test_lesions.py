"""The page of lesion-wise scores: every lost lesion once, at its place, and what the numbers are of."""

from __future__ import annotations

import dataclasses
import html
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data.pairs import Pair
from common.errors import CaseError, InputError
from common.metrics.comparison import Comparison
from common.metrics.lesion_records import summarise_lesions
from common.metrics.lesion_wise import PRESETS, Policy, policy_of
from common.report import lesion_tables, lesions
from common.report.lesion_pictures import Cutout, Group, cut_case, diameter, draw_cutout
from common.report.lesion_tables import summary_rows
from common.scoring import score, score_pairs

MET = "brats2023-met"
POLICY = PRESETS[MET]
HOSTILE = "<script>alert(2)</script>"


def plain(page: Path) -> str:
    """The words of a page, and not its pictures."""
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page.read_text("utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def captions(page: Path) -> list[str]:
    return re.findall(r"<img [^>]*><figcaption>(.*?)</figcaption>", page.read_text("utf-8"))


def write(path: Path, pairs: dict[str, list[Pair]], policy: Policy = POLICY, ignore_affine: bool = False) -> Path:
    """The page of what can be scored."""
    scored = {method: score_pairs(of, policy, ignore_affine=True)[0] for method, of in pairs.items()}
    return lesions.write_lesion_page(
        path, MET, policy, scored, pairs, [], missing={}, failed={}, ignore_affine=ignore_affine
    )


def cut(reference: dict[str, Any], prediction: Path | None, method: str = "a") -> Any:
    pair = Pair(reference, prediction)
    scored, failed = score_pairs([pair], POLICY)
    assert not failed
    return cut_case({method: pair}, {method: scored[pair.case]}, 1)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL"])
def test_a_lesion_is_in_the_middle_however_the_scan_is_stored(scan: Any, tmp_path: Path, axes: str) -> None:
    expected = cut_saved(scan, tmp_path / "as-is")
    found = cut_saved(scan.turned(axes), tmp_path / axes)
    pictures = [[draw_cutout(one).data for one in cutouts] for cutouts in (found, expected)]
    assert pictures[0] == pictures[1]
    # Missed are the large and the small lesion; half a voxel of 1 mm is the most that a centroid can be off.
    large, small = found
    assert (large.lesion.volume, small.lesion.volume) == (10 * 12 * 6 * 2, 2 * 2 * 2 * 2)
    for one, edges in ((large, (10, 12)), (small, (2, 2))):
        rows, columns = np.nonzero(one.reference)
        near = (np.abs(columns - one.centre[0]) <= 6) & (np.abs(rows - one.centre[1]) <= 6)
        assert (columns[near].mean(), rows[near].mean()) == pytest.approx(one.centre)
        assert near.sum() == edges[0] * edges[1] and one.spacing == (1.0, 1.0)


def cut_saved(scan: Any, folder: Path) -> list[Cutout]:
    """What of a scan is cut out where nothing was predicted."""
    image = [str(folder / f"{channel}.nii.gz") for channel in "abcd"]
    for path, channel in zip(image, scan.image, strict=True):
        scan.save(Path(path), channel.astype(np.int16))
    scan.save(folder / "label.nii.gz", scan.label)
    found = cut({"case": "c", "image": image, "label": str(folder / "label.nii.gz")}, None)
    assert not found.problem
    return sorted(found.cutouts, key=lambda one: -one.lesion.volume)


def test_the_modality_follows_the_lesion(scan: Any, tmp_path: Path) -> None:
    large, small = cut_saved(scan, tmp_path)
    assert (large.modality, small.modality) == ("T1 with contrast", "FLAIR")


def test_what_enhances_beside_a_lesion_does_not_choose_its_modality(scan: Any, tmp_path: Path) -> None:
    scan.label[14:17, 8:11, 4:6] = 3
    small = min(cut_saved(scan, tmp_path), key=lambda one: one.lesion.volume)
    assert small.lesion.volume == 16 and small.modality == "FLAIR"
    assert small.reference.sum() == 2 * 2 + 3 * 3


def test_where_the_centroid_is_outside_a_part_is_shown(scan: Any, tmp_path: Path) -> None:
    """The two halves of a shell far apart are one lesion only if they touch; a long bent one has its middle outside."""
    label = np.zeros_like(scan.label)
    label[2:38, 2:4, 8], label[2:4, 2:46, 8], label[2:4, 44:46, 2:9] = 2, 2, 2
    (one,) = cut_saved(scan._replace(label=label), tmp_path)
    assert one.reference.any()
    # Parts that only the widening joins, with nothing at the height of their middle.
    label[:] = 0
    label[2, 2, 2], label[4, 4, 4] = 2, 2
    (one,) = cut_saved(scan._replace(label=label), tmp_path / "parts")
    assert one.lesion.centroid == (3, 3, 3) and one.reference.sum() == 1
    # Nor does another lesion at that height count.
    label[12:14, 12, 3] = 3
    found = cut_saved(scan._replace(label=label), tmp_path / "beside")
    assert [(one.reference.sum(), one.modality) for one in found if one.lesion.centroid == (3, 3, 3)] == [(1, "FLAIR")]


@pytest.mark.parametrize("corner", [0, -1])
def test_a_lesion_in_a_corner_of_the_scan(scan: Any, tmp_path: Path, corner: int) -> None:
    label = np.zeros_like(scan.label)
    label[corner, corner, corner] = label[corner, corner, 5] = 2
    found = cut_saved(scan._replace(label=label, affine=np.diag([2.0, 1.5, 1.0, 1.0])), tmp_path)
    assert len(found) == 2
    for one in found:
        ((row, column),) = np.argwhere(one.reference)
        assert one.centre == (column * 2.0, row * 1.5)
        assert draw_cutout(one).width == draw_cutout(one).height


def test_affines_that_differ(scan: Any, tmp_path: Path) -> None:
    scan.save(tmp_path / "label.nii.gz", scan.label)
    scan._replace(affine=np.eye(4)).save(tmp_path / "prediction.nii.gz", np.where(scan.label == 3, 3, 0).astype("u1"))
    pairs = {"a": [Pair({"case": "c", "label": str(tmp_path / "label.nii.gz")}, tmp_path / "prediction.nii.gz")]}
    with pytest.raises(CaseError, match="affine"):
        write(tmp_path / "page.html", pairs)
    assert not (tmp_path / "page.html").exists()
    assert len(captions(write(tmp_path / "page.html", pairs, ignore_affine=True))) == 1


def test_each_lost_lesion_once(methods: Any) -> None:
    """In the widest region in which it is lost; one that is found there but lost inside is shown inside."""
    names = [pair.case for pair in methods.pairs[HOSTILE]]
    cases = [
        cut_case(
            {method: of[number] for method, of in methods.pairs.items()},
            {method: methods.scored[method][name] for method in methods.pairs},
            1,
        )
        for number, name in enumerate(names)
    ]
    shown = [[(one.group, round(one.lesion.volume)) for one in case.cutouts] for case in cases]
    assert shown[0] == [(Group(HOSTILE, "WT", True), 16), (Group(HOSTILE, "TC", True), 6 * 6 * 4 * 2)]
    assert shown[1] == [
        (Group("exact", "WT", False), 36),
        (Group(HOSTILE, "WT", True), 16),
        (Group(HOSTILE, "WT", True), 1440),
    ]
    assert cases[0].repeated == {Group(HOSTILE, "ET", True): 1}
    assert cases[1].repeated == {
        Group("exact", "TC", False): 1,
        Group("exact", "ET", False): 1,
        Group(HOSTILE, "TC", True): 1,
        Group(HOSTILE, "ET", True): 1,
    }


def test_what_widening_joins_is_one_lesion_when_repeats_are_sought(scan: Any, tmp_path: Path) -> None:
    """The core is in the part of a missed lesion that doesn't hold its first voxel."""
    label = np.zeros_like(scan.label)
    label[20:22, 20, 10], label[24:26, 20, 10] = 2, 3
    scan.save(tmp_path / "label.nii.gz", label)
    found = cut({"case": "c", "label": str(tmp_path / "label.nii.gz")}, None)
    assert len(found.cutouts) == 1 and sum(found.repeated.values()) == 2


def test_without_a_scan_that_fits_the_labels_are_shown(scan: Any, methods: Any, tmp_path: Path) -> None:
    reference = dict(methods.pairs[HOSTILE][1].reference)
    scanned = cut(reference, None)
    assert not scanned.problem and all(one.modality for one in scanned.cutouts)
    image = reference.pop("image")
    bare = cut(reference, None)
    assert not bare.problem and [one.lesion for one in bare.cutouts] == [one.lesion for one in scanned.cutouts]
    for one in bare.cutouts:
        assert not one.modality and ((one.values > 0) == one.reference).all()
        assert "label maps" in draw_cutout(one).alt and draw_cutout(one).caption.endswith(", label maps")
    Path(image[2]).write_bytes(b"nothing")
    broken = cut({**reference, "image": image}, None)
    assert "second" in broken.problem and not any(one.modality for one in broken.cutouts)
    for path, channel in zip(image, scan.image, strict=True):
        scan.save(Path(path), channel[:-1].astype(np.int16))
    assert "grid" in cut({**reference, "image": image}, None).problem


def test_page_tells_what_was_lost(lesion_page: Path, methods: Any, tmp_path: Path) -> None:
    text, words = lesion_page.read_text("utf-8"), plain(lesion_page)
    assert "<script" not in text and "&lt;script&gt;alert(2)" in text
    assert captions(lesion_page) == [
        "second: WT, 36 mm³, ⌀ 4.1 mm, voxel 11, 31, 8, T1 with contrast",
        "second: WT, 1440 mm³, ⌀ 14.0 mm, voxel 28, 36, 14, T1 with contrast",
        "first: WT, 16 mm³, ⌀ 3.1 mm, voxel 8, 8, 4, FLAIR",
        "second: WT, 16 mm³, ⌀ 3.1 mm, voxel 8, 8, 4, FLAIR",
        "first: TC, 288 mm³, ⌀ 8.2 mm, voxel 28, 36, 14, T1 with contrast",
    ]
    for expected in (
        "Missed, whole tumour (WT): 3",
        "False, whole tumour (WT): 1",
        "Missed, tumour core (TC): 2 1 of them lies in lesions that are counted above",
        "no prediction for second; scored as predicted empty",
        "larger than 2 mm³",
        "HD95 of 374 mm",
        "widened by 1 voxel,",
        "Cases scored 2 Scored as brats2023-met Surface Dice within 1 mm",
        "Caution: with only 2 cases",
        "on the 2 cases that all of them have",
        "corrected by Holm's method for the 9 tests made here",
        "each is for its comparison alone and not corrected",
        "The interval takes all lesions as independent",
        "Lesions of the references: 8",
        "False lesions: 3",
        "0–50 mm³ 2 of 2 (34% to 100%) 0 of 2 (0% to 66%)",
    ):
        assert expected in words, expected
    assert "scored for the same" not in words and not re.search(r"\bnan\b|\binf\b", words, re.IGNORECASE)
    assert methods.write(tmp_path / "again.html").read_bytes() == lesion_page.read_bytes()


def test_settings_in_place_of_the_presets_are_told(methods: Any, tmp_path: Path) -> None:
    policy = policy_of(MET, threshold=9.5, penalty=200.0, tolerance=2.0, dilation=1)
    words = plain(methods.write(tmp_path / "page.html", policy=policy))
    assert "brats2023-met with threshold 9.5, penalty 200, tolerance 2 Surface Dice within 2 mm" in words
    assert "larger than 9.5 mm³" in words and "HD95 of 200 mm" in words


def test_lesions_are_joined_by_the_policys_dilation(scan: Any, tmp_path: Path) -> None:
    """The core lies in the part of a missed lesion that only two steps of dilation join to that of its first voxel."""
    label = np.zeros_like(scan.label)
    label[20:22, 20:22, 10], label[26:28, 20:22, 10] = 2, 3
    scan.save(tmp_path / "label.nii.gz", label)
    pairs = {"a": [Pair({"case": "c", "label": str(tmp_path / "label.nii.gz")}, None)]}
    joined = write(tmp_path / "joined.html", pairs, policy_of(MET, dilation=2))
    assert len(captions(joined)) == 1 and "with dilation 2" in plain(joined)
    assert len(captions(write(tmp_path / "apart.html", pairs))) == 2


def test_sizes_without_lesions_are_left_out(methods: Any, tmp_path: Path) -> None:
    """With a threshold of 50 mm³ none is smaller."""
    policy = policy_of(MET, threshold=50)
    scored = {method: score_pairs(of, policy)[0] for method, of in methods.pairs.items()}
    page = methods._replace(scored=scored).write(tmp_path / "page.html", policy=policy)
    text = page.read_text("utf-8")
    assert "0–50 mm³" not in text and "0 of 0" not in text and "50–200 mm³" not in text
    assert "200–1000 mm³" in text and "1000–5000 mm³" in text


def test_the_command_hands_on_what_it_was_told(scan: Any, tmp_path: Path) -> None:
    """Affines to ignore, the policy, what is missing and what can't be scored all reach the page."""
    for name in ("first", "second", "third"):
        scan.save(tmp_path / "references" / f"{name}.nii.gz", scan.label)
    nothing = np.zeros_like(scan.label)
    scan._replace(affine=np.diag([1.0, 1.0, 2.5, 1.0])).save(tmp_path / "method" / "first.nii.gz", nothing)
    scan.save(tmp_path / "method" / "third.nii.gz", nothing[1:])
    folders = (str(tmp_path / "method"), str(tmp_path / "references"))
    with pytest.raises(InputError):
        score(*folders, out=str(tmp_path), ignore_affine=True, allow_missing=True, penalty=200, tolerance=1.5)
    words = plain(tmp_path / "lesions.html")
    for expected in (
        "Cases scored 2 of 3",
        "brats2023-met with penalty 200, tolerance 1.5 Surface Dice within 1.5 mm",
        "method: no prediction for second; scored as predicted empty.",
        "method: 1 case couldn't be scored; its numbers are over the others: case third",
        "Missed, whole tumour (WT): 4",
    ):
        assert expected in words, expected


def test_a_mean_over_fewer_cases_says_over_how_many(methods: Any, scan: Any, tmp_path: Path) -> None:
    """Lesion sensitivity isn't defined in a case without lesions."""
    scan.save(tmp_path / "empty.nii.gz", np.zeros_like(scan.label))
    healthy = Pair({"case": "healthy", "label": str(tmp_path / "empty.nii.gz")}, tmp_path / "empty.nii.gz")
    pairs = {"exact": [*methods.pairs["exact"], healthy]}
    words = plain(write(tmp_path / "page.html", pairs))
    listed = words.split("Over cases")[1].split("Scores by case")[0]
    assert "exact WT cases 3 3 3 2 " in listed and "exact ET mean 0.833 62.3 0.889 1.000 " in listed
    scored = score_pairs(pairs["exact"], POLICY)[0]
    scored["healthy"]["WT"] = dataclasses.replace(scored["healthy"]["WT"], hd95=math.nan)
    (row,) = summary_rows({"exact": scored}, {"exact": summarise_lesions(scored)}, ["WT"])
    assert row.cases == 3 and [cell.text.endswith("(n = 2)") for cell in row.cells] == [False, True, False]


def differing(regions: tuple[str, ...], pairs: int) -> list[Comparison]:
    """In each region every score of so many pairs of methods differs beyond chance."""
    return [
        Comparison("best", f"other-{n}", (region, key), 2, 1.0 if key != "hd95" else -1.0, (low, low + 1), 1e-6, 1e-4)
        for region in regions
        for key in ("dice", "hd95", "lesion_f1")
        for n in range(pairs)
        for low in [0.5 if key != "hd95" else -1.5]
    ]


def test_every_region_is_told_of(methods: Any, tmp_path: Path) -> None:
    """However many differ in the whole tumour."""
    untested = Comparison("best", "none", ("ET", "dice"), 0, math.nan, (math.nan, math.nan), math.nan, math.nan)
    comparisons = [*differing(("WT", "TC", "ET"), 8), untested]
    page = methods.write(tmp_path / "page.html", comparisons=comparisons)
    words = plain(page).split("Comparison")[1].split("Every two methods")[0]
    assert "72 of 72 differences tested on 2 cases are beyond" in words
    for name in ("Whole tumour (WT)", "Tumour core (TC)", "Enhancing tumour (ET)"):
        told = words.split(name)[1].split("see the table.")[0]
        assert told.count("best scored better than") == 6 and told.endswith("2 more pairs of methods differ; ")
    one = methods.write(tmp_path / "one.html", comparisons=differing(("ET",), 1)[:1])
    assert "1 of 1 difference tested" in plain(one) and "for the 1 test made here" in plain(one)


def test_only_the_largest_are_pictured_and_listed(
    methods: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lesions, "MOST_PICTURES", 2)
    monkeypatch.setattr(lesion_tables, "MOST_ROWS", 2)
    page = methods.write(tmp_path / "page.html")
    missed = [caption for caption in captions(page) if "WT" in caption][1:]
    assert [caption.split(",")[1] for caption in missed] == [" 1440 mm³", " 16 mm³"]
    assert "The 2 largest are pictured; 1 smaller one is not." in plain(page)
    assert plain(page).count("The 2 largest; all of them are in the file lesions.json.") == 2
    listed = plain(page).split("Lesions of the references: 8")[1].split("False lesions: 3")[0]
    assert re.findall(r"(first|second) (WT|TC|ET) ([\d.]+)", listed) == [
        ("first", "WT", "1440.0"),
        ("second", "WT", "1440.0"),
    ]


def test_cases_that_one_method_lacks(methods: Any, tmp_path: Path) -> None:
    del methods.scored[HOSTILE]["second"]
    page = methods.write(tmp_path / "page.html", missing={}, failed={HOSTILE: ["case second: is no label map"]})
    assert len(captions(page)) == 3
    words = plain(page)
    assert f"{HOSTILE}: 1 case couldn't be scored; its numbers are over the others: case second: is no label" in words
    assert "Not every method has scores for the same cases" in words and "only the 1 of 2 cases that all have" in words
    assert f"exact WT 2 0.833 ± 0.236 62.3 ± 88.2 0.900 ± 0.141 4 0 1 0 {HOSTILE} WT 1 " in words
    assert "only 1 case scored by all methods, no difference can be told" in words
    methods.scored[HOSTILE].clear()
    failed = {HOSTILE: ["case first: is damaged", "case second: is no label map"]}
    words = plain(methods.write(tmp_path / "one.html", failed=failed))
    assert "2 cases couldn't be scored; its numbers are over the others: case first: is damaged case second" in words
    assert "Comparison" not in words
    methods.scored["exact"].clear()
    assert "No case could be scored." in plain(methods.write(tmp_path / "none.html"))


def test_one_method_without_fault_and_without_lesions(scan: Any, methods: Any, tmp_path: Path) -> None:
    of = {"exact": methods.pairs["exact"][:1]}
    perfect = methods._replace(pairs=of, scored={"exact": score_pairs(of["exact"], POLICY)[0]})
    words = plain(perfect.write(tmp_path / "perfect.html"))
    assert "Comparison" not in words and words.count("none missed, none false") == 3
    assert "1.000 mean lesion-wise Dice; 2 of 2 lesions found, 0 false" in words and "False lesions: 0 None." in words
    scan.save(tmp_path / "empty.nii.gz", np.zeros_like(scan.label))
    pairs = [Pair({"case": "healthy", "label": str(tmp_path / "empty.nii.gz")}, tmp_path / "empty.nii.gz")]
    nothing = methods._replace(pairs={"a": pairs}, scored={"a": score_pairs(pairs, POLICY)[0]})
    words = plain(nothing.write(tmp_path / "nothing.html"))
    assert "The references hold no lesion that counts." in words and "0 of 0 lesions found" in words
    assert "WT 1 1.000 ± 0.000 0.0 ± 0.0 1.000 ± 0.000 0 0 0 0" in words


def test_lesions_too_small_to_count_are_no_misses(scan: Any, tmp_path: Path) -> None:
    label = np.zeros_like(scan.label)
    label[20, 20, 10] = 3  # 2 mm³, the threshold
    scan.save(tmp_path / "label.nii.gz", label)
    pairs = {"a": [Pair({"case": "c", "label": str(tmp_path / "label.nii.gz")}, None)]}
    page = write(tmp_path / "page.html", pairs)
    words = plain(page)
    assert not captions(page) and "Lesions of the references: 3" in words
    assert "c WT 2.0 1.6 20, 20, 10 (missed)" in words and " 0 0 0 1 ET" in words


def test_diameter_of_a_ball() -> None:
    assert diameter(4 / 3 * math.pi * 5**3) == pytest.approx(10)
