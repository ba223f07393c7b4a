"""The page of lesion-wise scores: every lost lesion once, at its place; the curve; the comparison in words."""

from __future__ import annotations

import html
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from common.data.pairs import Pair
from common.errors import CaseError
from common.metrics.comparison import Comparison
from common.metrics.lesion_wise import Lesion, RegionScores
from common.report import detection, lesion_tables, lesions
from common.report.comparisons import caution, compared_rows
from common.report.detection import SizeBin, count_by_size, draw_detection
from common.report.lesion_pictures import Cutout, Group, cut_case, diameter, draw_cutout
from common.scoring import score_pairs

MET = "brats2023-met"
HOSTILE = "<script>alert(2)</script>"


def scores_of(*found: tuple[float, bool]) -> RegionScores:
    """Of one region with lesions of these volumes, found or not."""
    lesions = [Lesion((n, 0, 0), (n, 0.0, 0.0), volume, 0.5, 1.0, hit) for n, (volume, hit) in enumerate(found)]
    tp = sum(hit for _, hit in found)
    return RegionScores(0.5, 1.0, tp, 0, len(found) - tp, 0.5, 1.0, 0.5, 1.0, 1.0, lesions, [], 1.0, 0.5)


def plain(page: Path) -> str:
    """The words of a page, and not its pictures."""
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page.read_text("utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def captions(page: Path) -> list[str]:
    return re.findall(r"<img [^>]*><figcaption>(.*?)</figcaption>", page.read_text("utf-8"))


def cut(reference: dict[str, Any], prediction: Path | None, method: str = "a") -> Any:
    pair = Pair(reference, prediction)
    scored, failed = score_pairs([pair], MET)
    assert not failed
    return cut_case({method: pair}, {method: scored[pair.case]}, 1)


def test_counts_by_size_and_wilsons_interval() -> None:
    bins = count_by_size([scores_of((10, True), (50, False), (51, True)), scores_of((6000, True)), scores_of()])
    assert [one[:4] for one in bins if one.lesions] == [(0, 50, 1, 2), (50, 200, 1, 1), (5000, math.inf, 1, 1)]
    assert bins[0].volume == pytest.approx(math.sqrt(500)) and bins[0].name == "0–50 mm³"
    assert math.isnan(bins[2].volume) and bins[-1].name == "above 5000 mm³"
    z = 1.959963984540054
    for k, n in ((0, 4), (3, 4), (7, 7), (1, 9)):
        p, q = k / n, 1 + z**2 / n
        middle, half = (p + z**2 / (2 * n)) / q, z / q * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        low, high = SizeBin(0, 50, k, n, 1.0).interval
        assert (low, high) == pytest.approx((max(0, middle - half), min(1, middle + half)))


def test_the_curve_and_its_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lesion is a tick at its volume, above 100% if found and below 0% if missed, one row a method."""
    figures: list[Figure] = []
    encode = detection.encode_chart
    monkeypatch.setattr(
        detection, "encode_chart", lambda figure, *words: figures.append(figure) or encode(figure, *words)
    )
    generator = np.random.default_rng(0)
    volumes = 10 ** generator.uniform(1, 4, 200)
    methods = {
        "a": [scores_of(*((v, bool(v > 100)) for v in volumes[:100])), scores_of(*((v, True) for v in volumes[100:]))],
        "$b$": [scores_of(*((v, False) for v in volumes))],
    }
    chart = draw_detection("WT", methods)
    assert (
        chart is not None and "$b$: 0 of" in chart.alt and "var(--series-2)" in chart.svg and "#0103" not in chart.svg
    )
    axes = figures[0].axes[0]
    assert axes.get_xscale() == "log"
    rows: dict[tuple[str, bool], list[float]] = {}
    for line in axes.lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        if len(x) and np.isnan(y).any():
            assert (y[0::3] > 1).all() == (y[1::3] > 1).all() and ((y[0::3] > 1) | (y[1::3] < 0)).all()
            rows[str(line.get_color()), bool(y[0] > 1)] = sorted(x[0::3])
    found = sorted([*volumes[:100][volumes[:100] > 100], *volumes[100:]])
    a, b = detection.SERIES_COLOURS[:2]
    assert rows[a, True] == pytest.approx(found)
    assert rows[a, False] == pytest.approx(sorted(volumes[:100][volumes[:100] <= 100]))
    assert rows[b, False] == pytest.approx(sorted(volumes)) and (b, True) not in rows
    # Lines with gaps are one path each, in which no tick is lost.
    assert max(path.count("M") for path in re.findall(r' d="([^"]*)"', chart.svg)) == 200
    expected = [one.detected / one.lesions for one in count_by_size(methods["a"]) if one.lesions]
    curves = [list(line.get_ydata()) for line in axes.lines if line.get_color() == a and line.get_linestyle() == "-"]
    assert expected in curves


@pytest.mark.parametrize("volumes", [[3.0], [1.0], [0.2, 900000.0], [10.0, 1000.0], [99.9, 100.1]])
def test_the_volume_axis_has_powers_of_ten(monkeypatch: pytest.MonkeyPatch, volumes: list[float]) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(detection, "encode_chart", lambda figure, *words: figures.append(figure))
    draw_detection("ET", {"a": [scores_of(*((volume, True) for volume in volumes))]})
    axes = figures[0].axes[0]
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert len(ticks) >= 2 and low < min(volumes) and high > max(volumes)
    assert np.log10(ticks) == pytest.approx(np.round(np.log10(ticks)))


def test_no_lesion_no_curve() -> None:
    assert draw_detection("WT", {"a": [scores_of()], "b": []}) is None


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
    scored = {"a": score_pairs(pairs["a"], MET, ignore_affine=True)[0]}
    with pytest.raises(CaseError, match="affine"):
        lesions.write_lesion_page(tmp_path / "page.html", MET, scored, pairs, [])
    assert not (tmp_path / "page.html").exists()
    page = lesions.write_lesion_page(tmp_path / "page.html", MET, scored, pairs, [], ignore_affine=True)
    assert len(captions(page)) == 1


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
        assert "label maps" in draw_cutout(one).alt
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
        "second: WT, 36 mm³, ⌀ 4.1 mm, voxel 11, 31, 8",
        "second: WT, 1440 mm³, ⌀ 14.0 mm, voxel 28, 36, 14",
        "first: WT, 16 mm³, ⌀ 3.1 mm, voxel 8, 8, 4",
        "second: WT, 16 mm³, ⌀ 3.1 mm, voxel 8, 8, 4",
        "first: TC, 288 mm³, ⌀ 8.2 mm, voxel 28, 36, 14",
    ]
    for expected in (
        "Missed, whole tumour (WT): 3",
        "False, whole tumour (WT): 1",
        "Missed, tumour core (TC): 2 1 of them lies in lesions that are counted above",
        "no prediction for second; scored as predicted empty",
        "larger than 2 mm³",
        "HD95 of 374 mm",
        "widened by 1 voxel,",
        "Caution: with only 2 cases",
        "Lesions of the references: 8",
        "False lesions: 3",
        "0–50 mm³ 2 of 2 (34% to 100%) 0 of 2 (0% to 66%)",
    ):
        assert expected in words, expected
    assert "scored for the same" not in words and not re.search(r"\bnan\b|\binf\b", words, re.IGNORECASE)
    assert methods.write(tmp_path / "again.html").read_bytes() == lesion_page.read_bytes()


def test_settings_in_place_of_the_presets_are_told(methods: Any, tmp_path: Path) -> None:
    settings = {"dilation": None, "threshold": 9.5, "penalty": 200.0, "tolerance": 2.0}
    words = plain(methods.write(tmp_path / "page.html", settings=settings))
    assert "brats2023-met with threshold 9.5, penalty 200" in words and "Surface Dice within 2 mm" in words
    assert "larger than 9.5 mm³" in words and "HD95 of 200 mm" in words


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
    page = methods.write(tmp_path / "page.html")
    assert len(captions(page)) == 3
    words = plain(page)
    assert f"{HOSTILE}: second couldn't be scored." in words
    assert "Not every method has scores for the same cases" in words and "Too small Cases" in words
    methods.scored[HOSTILE].clear()
    words = plain(methods.write(tmp_path / "one.html"))
    assert "first, second couldn't be scored" in words and "Comparison" not in words
    methods.scored["exact"].clear()
    assert "No case could be scored." in plain(methods.write(tmp_path / "none.html"))


def test_one_method_without_fault_and_without_lesions(scan: Any, methods: Any, tmp_path: Path) -> None:
    of = {"exact": methods.pairs["exact"][:1]}
    perfect = methods._replace(pairs=of, scored={"exact": score_pairs(of["exact"], MET)[0]})
    words = plain(perfect.write(tmp_path / "perfect.html"))
    assert "Comparison" not in words and words.count("none missed, none false") == 3
    assert "1.000 mean lesion-wise Dice; 2 of 2 lesions found, 0 false" in words and "False lesions: 0 None." in words
    scan.save(tmp_path / "empty.nii.gz", np.zeros_like(scan.label))
    pairs = [Pair({"case": "healthy", "label": str(tmp_path / "empty.nii.gz")}, tmp_path / "empty.nii.gz")]
    nothing = methods._replace(pairs={"a": pairs}, scored={"a": score_pairs(pairs, MET)[0]})
    words = plain(nothing.write(tmp_path / "nothing.html"))
    assert "The references hold no lesion that counts." in words and "0 of 0 lesions found" in words
    assert "WT 1.000 ± 0.000 0.0 ± 0.0 – 0 0 0 0" in words  # F1 isn't defined


def test_lesions_too_small_to_count_are_no_misses(scan: Any, tmp_path: Path) -> None:
    label = np.zeros_like(scan.label)
    label[20, 20, 10] = 3  # 2 mm³, the threshold
    scan.save(tmp_path / "label.nii.gz", label)
    pairs = {"a": [Pair({"case": "c", "label": str(tmp_path / "label.nii.gz")}, None)]}
    page = lesions.write_lesion_page(tmp_path / "page.html", MET, {"a": score_pairs(pairs["a"], MET)[0]}, pairs, [])
    words = plain(page)
    assert not captions(page) and "Lesions of the references: 3" in words
    assert "c WT 2.0 1.6 20, 20, 10 (missed)" in words and " 0 0 0 1 ET" in words


def compared(key: str, difference: float, interval: tuple[float, float], p: float, cases: int = 30) -> Comparison:
    return Comparison("a", "b", ("WT", key), cases, difference, interval, p / 2, p)


def test_differences_beyond_chance_in_words() -> None:
    rows = compared_rows(
        [
            compared("dice", -0.125, (-0.2, -0.05), 0.01),
            compared("hd95", -12.34, (-20, -5), 0.0001),
            compared("dice", 0.125, (-0.05, 0.2), 0.01),
            compared("dice", 0.125, (0.05, 0.2), 0.06),
            compared("lesion_f1", math.nan, (math.nan, math.nan), math.nan, 0),
        ]
    )
    assert (
        rows[0].sentence
        == "WT, lesion-wise Dice: b is better than a, on average 0.125 higher (95% interval 0.050 to 0.200)."
    )
    assert (
        rows[1].sentence
        == "WT, lesion-wise HD95: a is better than b, on average 12.3 mm lower (95% interval 5.0 to 20.0 mm)."
    )
    assert [row.sentence for row in rows[2:]] == ["", "", ""]
    assert rows[1][:6] == ("WT, lesion-wise HD95, mm", "a − b", "−12.3", "−20.0 to −5.0", "< 0.001", 30)
    assert rows[4][2:5] == ("–", "–", "–")


def test_caution_with_few_cases() -> None:
    """Six is the first number of cases with which Wilcoxon's test can get below 0.05."""
    from scipy import stats

    for cases in range(2, 25):
        words = caution([compared("dice", 0.1, (0.05, 0.2), 0.01, cases)])
        smallest = stats.wilcoxon(np.arange(1, cases + 1) / 7).pvalue
        assert ("can't tell any" in words) == (smallest >= 0.05)
        assert bool(words) == (cases < 20)
    assert "only 0 cases" in caution([])


def test_diameter_of_a_ball() -> None:
    assert diameter(4 / 3 * math.pi * 5**3) == pytest.approx(10)
