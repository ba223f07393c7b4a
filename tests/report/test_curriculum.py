"""The page of curricula: what they hold by size of the lesion, and pictures in which the right voxels are coloured."""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.data.curriculum import CoveredLesion
from common.data.curriculum_folder import MANIFEST, Manifest, read_manifest, write_curricula
from common.errors import CaseError, InputError
from common.report.curriculum import (
    coverage_rows,
    coverage_table,
    draw_curriculum,
    stage_colours,
    write_curriculum_page,
)

HOSTILE = "<script>alert(3)<b>"


def plain(page: Path) -> str:
    """The words of a page, and not its pictures."""
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page.read_text("utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def mine(
    scan: Any, folder: Path, name: str = "a", starts: tuple[int, ...] = (29, 26), categories: str = "labels"
) -> dict[str, Any]:
    """A case, of which each network finds what lies to the right of a plane: of the large lesion the first one half
    and the second all but two planes, of the small one nothing.
    """
    image = [str(folder / f"data-{channel}.nii.gz") for channel in "abcd"]
    for path, channel in zip(image, scan.image, strict=True):
        scan.save(Path(path), channel.astype(np.int16))
    scan.save(folder / "truth.nii.gz", scan.label)
    case = {"case": name, "image": image, "label": str(folder / "truth.nii.gz")}
    outputs = [folder / f"mined{stage}" for stage in range(len(starts))]
    place = np.indices(scan.label.shape)
    ras = [place[axis] if sign > 0 else scan.label.shape[axis] - 1 - place[axis] for axis, sign in axes_of(scan)]
    for start, output in zip(starts, outputs, strict=True):
        scan.save(output / f"{name}.nii.gz", np.where(ras[0] >= start, scan.label, 0).astype(np.uint8))
    write_curricula([case], outputs, folder / "curricula", categories)
    return {**case, "curriculum": str(folder / "curricula" / f"{name}.nii.gz")}


def axes_of(scan: Any) -> list[tuple[int, float]]:
    """Which axis of the array runs to the right, the front and up, and which way."""
    turn = scan.affine[:3, :3]
    return [(int(np.abs(row).argmax()), float(row[np.abs(row).argmax()])) for row in turn]


def drawn(scan: Any, folder: Path, **given: Any) -> list[Any]:
    case = mine(scan, folder, **given)
    manifest = read_manifest(folder / "curricula")
    return draw_curriculum(case, manifest.stages, manifest.categories, manifest.cases[case["case"]])


def test_rows_count_lesions_and_voxels_by_size():
    lesions = [CoveredLesion(50, (0, 10, 50)), CoveredLesion(50.5, (1, 1, 50)), CoveredLesion(9000, (3000, 9000, 9000))]
    cases = {
        "a": {"WT": lesions[:2], "TC": [], "ET": []},
        "b": {"WT": lesions[2:], "TC": [CoveredLesion(1, (0, 0, 1))], "ET": []},
    }
    found = coverage_rows(cases, "regions", 2)
    assert [tuple(row) for row in found] == [
        ("WT", "all sizes", 3, 9100, (2, 3), (3001, 9011)),
        ("WT", "0–50 mm³", 1, 50, (0, 1), (0, 10)),
        ("WT", "50–200 mm³", 1, 50, (1, 1), (1, 1)),
        ("WT", "above 5000 mm³", 1, 9000, (1, 1), (3000, 9000)),
        ("TC", "all sizes", 1, 1, (0, 0), (0, 0)),
        ("TC", "0–50 mm³", 1, 1, (0, 0), (0, 0)),
        ("ET", "all sizes", 0, 0, (0, 0), (0, 0)),
    ]
    # Rounded down: what isn't all isn't 100%.
    assert found[0].shares == ["32.9%", "99.0%"] and found[3].shares == ["33.3%", "100.0%"]
    assert found[-1].shares == ["–", "–"]
    lines = coverage_table(Manifest("regions", 2, cases)).splitlines()
    assert lines[0].endswith("of 2 cases") and lines[1].split() == ["lesions", "voxels", "C1", "C2"]
    assert lines[2].split() == ["WT", "3", "9100", "32.9%", "2", "99.0%", "3"]
    assert lines[3].split() == ["0–50", "mm³", "1", "50", "0.0%", "0", "20.0%", "1"]
    assert lines[-1].split() == ["ET", "0", "0", "–", "0", "–", "0"]
    assert len({len(line) for line in lines[1:]}) == 1


def painted(picture: Any) -> dict[str, int]:
    """Pixels of a picture that are of each stage's colour, over whatever grey."""
    pixels = np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB")).astype(float)
    # Three quarters of the colour, and a quarter of the grey below.
    counts = {}
    for colour in stage_colours(2):
        wanted = 0.75 * np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
        rest = pixels - wanted
        counts[colour] = int(((np.ptp(rest, axis=2) < 45) & (rest.mean(axis=2) > -15) & (rest.mean(axis=2) < 80)).sum())
    return counts


def test_pictures_show_what_each_curriculum_has(scan: Any, tmp_path: Path):
    found = drawn(scan, tmp_path)
    assert [growth.name for growth in found] == [
        "Necrotic or non-enhancing core (NCR)",
        "Edema (ED)",
        "Enhancing tumour (ET)",
    ]
    edema = found[1]
    assert edema.place == "Axial, FLAIR, slice 17 of 20, 50 mm × 50 mm"
    # 10×12×6 voxels and 8 more less 6×6×4 of the core, of which one network has x from 29 and the other from 26.
    sizes = 10 * 12 * 6 + 8 - 6 * 6 * 4, 5 * 12 * 6 - 3 * 6 * 4, 8 * 12 * 6 - 6 * 6 * 4
    assert [picture.caption for picture in edema.pictures] == [
        f"C1: {1000 * sizes[1] // sizes[0] / 10}% of the voxels, 1 of 2 lesions",
        f"C2: {1000 * sizes[2] // sizes[0] / 10}% of the voxels, 1 of 2 lesions",
        f"Truth: {sizes[0]} voxels, 2 lesions",
    ]
    assert edema.pictures[0].alt == "Case a, axial plane, ED, C1, 60 voxels in this slice"
    first, second, never = stage_colours(2)
    # 260 pixels show 50 mm; the outline and the picture's compression take some of a voxel's 27.
    voxels = [{colour: count / 5.2**2 for colour, count in painted(picture).items()} for picture in edema.pictures]
    assert voxels[0][first] == pytest.approx(60, rel=0.2) and max(voxels[0][second], voxels[0][never]) < 3
    assert voxels[1][first] == pytest.approx(60, rel=0.2) and voxels[1][second] == pytest.approx(36, rel=0.2)
    assert voxels[1][never] < 3 and voxels[2][never] == pytest.approx(24, rel=0.4)


def test_the_slice_is_where_the_curriculum_has_least(scan: Any, tmp_path: Path):
    ncr, edema, _ = drawn(scan, tmp_path, starts=(10, 10))
    assert "slice 6 of 20" in edema.place and "slice 15 of 20" in ncr.place
    assert [picture.alt.split(", ")[-1] for picture in edema.pictures] == [
        f"{voxels} voxels in this slice" for voxels in (0, 0, 4)
    ]


@pytest.mark.parametrize("axes", ["LPS", "PIR"])
def test_pictures_are_the_same_however_the_scan_is_stored(scan: Any, tmp_path: Path, axes: str):
    expected, turned = drawn(scan, tmp_path / "as-is"), drawn(scan.turned(axes), tmp_path / axes)
    assert [growth.place for growth in turned] == [growth.place for growth in expected]
    pictures = [[picture for growth in growths for picture in growth.pictures] for growths in (turned, expected)]
    assert len(pictures[0]) == 9
    for one, other in zip(*pictures, strict=True):
        assert one._replace(data=b"") == other._replace(data=b"") and one.data == other.data


def test_page(scan: Any, tmp_path: Path):
    case = mine(scan, tmp_path, HOSTILE, (29, 26, 26), "regions")
    page = write_curriculum_page([case], tmp_path / "curricula", tmp_path / "out" / "page.html")
    text, words = page.read_text("utf-8"), plain(page)
    assert "alert(3)<b>" not in text and text.count("alert(3)&lt;b&gt;") == 2 + 3 * 4 - 1
    assert "Whole tumour (WT) 49 → 79 → 79% of the voxels, from C1 to C3; 1 → 1 → 1 of 2 lesions touched" in words
    assert (
        "WT 0–50 mm³ 1 8 0.0% 0 0.0% 0 0.0% 0 " in words and "WT 1000–5000 mm³ 1 720 50.0% 1 80.0% 1 80.0% 1" in words
    )
    assert "in C3: 3 of 4 lesions, 84.9% of the voxels" in words and "Enters with C3" in words
    assert text.count("<img ") == 3 * 4 and "http" not in text.replace("http://www.w3.org", "")


def test_cases_whose_lesions_are_missed_most_come_first(scan: Any, tmp_path: Path):
    cases = [mine(scan, tmp_path / name, name) for name in ("a", "b", "c")]
    folder = tmp_path / "all"
    folder.mkdir()
    manifest = {"categories": "labels", "stages": 2, "cases": {}}
    for case in cases:
        (folder / f"{case['case']}.nii.gz").write_bytes(Path(case["curriculum"]).read_bytes())
        manifest["cases"] |= json.loads((Path(case["curriculum"]).parent / MANIFEST).read_text())["cases"]
    for lesion in manifest["cases"]["b"]["NCR"]:
        lesion["voxels"][:2] = 0, 0
    (folder / MANIFEST).write_text(json.dumps(manifest))
    text = write_curriculum_page(cases, folder, tmp_path / "page.html", max_cases=2).read_text("utf-8")
    assert re.findall("<h3>(.*?)</h3>", text) == ["b", "a"]
    assert "2 of 3 cases are shown, those whose last" in text and "in C2: 2 of 4 lesions" in text
    assert "<h3>" not in write_curriculum_page(cases, folder, tmp_path / "page.html", max_cases=0).read_text("utf-8")


def test_own_curricula_are_measured(scan: Any, tmp_path: Path):
    case = mine(scan, tmp_path)
    expected = plain(write_curriculum_page([case], tmp_path / "curricula", tmp_path / "page.html"))
    (tmp_path / "curricula" / MANIFEST).write_text('{"categories": "labels", "stages": 2}')
    assert plain(write_curriculum_page([case], tmp_path / "curricula", tmp_path / "page.html")) == expected


def test_a_case_without_lesion(scan: Any, tmp_path: Path):
    case = mine(scan._replace(label=np.zeros_like(scan.label)), tmp_path)
    words = plain(write_curriculum_page([case], tmp_path / "curricula", tmp_path / "page.html"))
    assert "Edema (ED) – in no case" in words and "NCR all sizes 0 0 – 0 – 0" in words
    assert "in C2: nothing" in words and "Nothing is labelled in this case." in words


def test_files_that_do_not_fit(scan: Any, tmp_path: Path):
    case = mine(scan, tmp_path)
    with pytest.raises(InputError, match="but that of another data set; "):
        write_curriculum_page([{**case, "case": "z"}], tmp_path / "curricula", tmp_path / "page.html")
    scan.save(Path(case["label"]), np.where(scan.label == 3, 2, scan.label).astype(np.uint8))
    with pytest.raises(CaseError, match=r"^case a, .*a\.nii\.gz: ED is another than in .*truth\.nii\.gz "):
        write_curriculum_page([case], tmp_path / "curricula", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
