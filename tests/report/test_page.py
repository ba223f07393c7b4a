"""The page: whole, escaped, self-contained, and only of what fits together."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import CaseError, InputError
from common.metrics.fold_scores import SCORES, write_fold_scores
from common.report.build import build_report

NAME = "BraTS-GLI-00001-000"


class Reader(HTMLParser):
    """Collects elements, and checks that they are closed in order."""

    void = frozenset(("meta", "link", "img", "br"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.opened: list[str] = []
        self.feed(text)
        assert not self.opened

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.void:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


@pytest.mark.parametrize(("shown", "count"), [("page", 15), ("lesion_page", 5), ("query_page", 23)], indirect=["shown"])
def test_page_is_self_contained_and_accessible(shown: Path, count: int) -> None:
    text = shown.read_text(encoding="utf-8")
    elements = Reader(text).elements
    for tag, attributes in elements:
        for key in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert (attributes.get(key) or "#").startswith(("#", "data:")), (tag, key)
    assert not re.search(r"@import|url\((?!#)", text)
    assert not any(tag == "script" for tag, _ in elements)
    pictures = [attributes for tag, attributes in elements if tag == "img"]
    assert len(pictures) == count and all(attributes["alt"] for attributes in pictures)
    assert all(a.get("aria-label") for _, a in elements if a.get("role") in ("img", "region"))
    identifiers = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    tags = [tag for tag, _ in elements]
    assert tags.count("h1") == tags.count("main") == 1
    assert ("a", {"class": "skip", "href": "#main"}) in elements


def test_page_tells_what_there_is(page: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script>" not in text and "&lt;script&gt;alert(1)" in text
    for expected in (
        "0.500",
        "0.250",
        "∞",
        "1.2",
        "Confidence histogram. WT: 0% in",
        "no reference",
        "mean Dice 0.250",
        "<strong>95%</strong> of the errors",
        "3.7% of 220 at 0.7–0.8",
    ):
        assert expected in text, expected
    assert text.index(f"<h3>{NAME}</h3>") < text.index("<h3>BraTS-GLI-00002-000</h3>")
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", text), re.IGNORECASE)
    again = build_report(*folders, tmp_path / "again.html")
    assert again.read_bytes() == page.read_bytes()


def test_fewer_cases_without_scores(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[1] / "scores.json").unlink()
    text = build_report(*folders, tmp_path / "report.html", max_cases=1).read_text(encoding="utf-8")
    assert "2 cases segmented. No scores" in text and "1 of 2 cases are shown." in text
    assert text.count("<img") == 6 + 3


def test_uncertainty_says_of_what_and_on_which_scale(page: Path) -> None:
    """Probabilities and votes are saved alike, so the words hold for both."""
    text = page.read_text(encoding="utf-8")
    scale = '<span class="scale magma" aria-hidden="true"></span> from 0'
    said = "Entropy of the predicted probabilities, or of the shares of votes where members and views voted"
    assert f"{said}: {scale}, certain (clear), to 1, all classes alike (bright)." in text
    assert f"summed over the classes: {scale} (clear) to 0.25 and more (bright)." in text


def test_scores_of_a_cross_validation_make_the_headline(folders: tuple[Path, Path], tmp_path: Path) -> None:
    rows = [
        {"fold": fold, "case": case, "region": region, **dict.fromkeys(SCORES, dice)}
        for fold, case, dice in ((0, NAME, 0.5), (0, "other", 0.75), (1, "third", 1.0))
        for region in ("WT", "TC", "ET")
    ]
    write_fold_scores(tmp_path / "cv", rows, {"bundle": "toy"})
    text = build_report(*folders, tmp_path / "r.html", scores=tmp_path / "cv" / "scores.json").read_text("utf-8")
    # Over the three cases; over the two folds it would be 0.812.
    assert text.count("<strong>0.750</strong><span>mean Dice, SD 0.250, median 0.750</span>") == 3
    assert "mean Dice 0.500" in text and "of 3 cases scored" in text


def test_maps_count_of_cases_that_are_not_pictured(folders: tuple[Path, Path], scan: Any, tmp_path: Path) -> None:
    """The pictured ones are the worst, and what is said of errors and confidence is to hold for all."""
    data, predictions = folders
    for number in (2, 3):
        name = f"BraTS-GLI-0000{number}-000"
        for channel, modality in zip(scan.image, ("t1n", "t1c", "t2w", "t2f"), strict=True):
            scan.save(data / name / f"{name}-{modality}.nii.gz", channel.astype(np.int16))
        scan.save(data / name / f"{name}-seg.nii.gz", scan.label)
        scan.save(predictions / f"{name}.nii.gz", scan.label)
    for kind in ("entropy", "probabilities"):
        (predictions / f"BraTS-GLI-00003-000_{kind}.nii.gz").write_bytes(
            (predictions / f"{NAME}_{kind}.nii.gz").read_bytes()
        )
    text = build_report(data, predictions, tmp_path / "report.html", max_cases=1).read_text(encoding="utf-8")
    assert "1 of 3 cases are shown, those with the lowest Dice." in text and text.count("<h3>") == 1
    assert "in 2 cases, all that have a reference and an entropy map." in text
    # Of 216 voxels in that interval 8 are wrong in the first case, and none in the third.
    assert "1.9% of 430 at 0.7–0.8" in text
    assert "over the voxels that belong to it in the reference, in 2 cases. Much" in text


def test_an_incomplete_case_is_reported(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[0] / NAME / f"{NAME}-t1c.nii.gz").unlink()
    text = build_report(*folders, tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"<h3>{NAME}</h3>" in text and "<strong>95%</strong> of the errors" in text


def test_a_bundle_with_weights_adds_attention(folders: tuple[Path, Path], tmp_path: Path) -> None:
    import torch

    from common.networks.cga_unet import CGAUNet

    plan = {"features": [8, 8, 8, 16], "blocks": [1, 1, 1, 1]}
    config = {
        "network_def": {"_target_": "common.networks.cga_unet.CGAUNet", **plan},
        "preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "common.transforms.load.LoadScand"}]},
        "window_size": [-1, -1, -1],
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "@window_size"},
    }
    bundle = tmp_path / "bundle"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "configs" / "metadata.json").write_text('{"name": "A & B", "version": "1.2.3"}')
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    text = build_report(*folders, tmp_path / "no_weights.html", bundle=bundle).read_text(encoding="utf-8")
    assert "A &amp; B 1.2.3" in text and "Attention map" not in text
    weights = tmp_path / "weights.pt"
    torch.save(CGAUNet(**plan).state_dict(), weights)
    text = build_report(*folders, tmp_path / "r.html", bundle=bundle, checkpoint=weights).read_text(encoding="utf-8")
    assert text.count("Attention map") == 2 and "weights.pt" in text and text.count("<img") == 2 * (6 + 4 + 8) + 3
    (folders[0] / NAME / f"{NAME}-t1c.nii.gz").rename(tmp_path / "t1c.nii.gz")
    (folders[1] / f"{NAME}_probabilities.nii.gz").unlink()
    text = build_report(*folders, tmp_path / "r.html", bundle=bundle, checkpoint=weights).read_text(encoding="utf-8")
    assert text.count("Attention map") == 2
    assert "in 1 case, of the first pictured above, which are those with the lowest Dice; that of all needs" in text
    given = {"bundle": bundle, "checkpoint": weights, "window_size": [32, 32, 16]}
    text = build_report(*folders, tmp_path / "windows.html", **given).read_text(encoding="utf-8")
    assert "weights.pt" in text and "Attention map" not in text
    torch.save(CGAUNet(**plan, attention_rate=None).state_dict(), weights)
    with pytest.raises(InputError, match="another network"):
        build_report(*folders, tmp_path / "r2.html", bundle=bundle, checkpoint=weights)
    with pytest.raises(InputError, match="give a bundle's folder"):
        build_report(*folders, tmp_path / "r3.html", bundle=tmp_path)


def test_what_was_given_must_fit(folders: tuple[Path, Path], scan: Any, tmp_path: Path) -> None:
    data, predictions = folders
    out = tmp_path / "report.html"

    def fails(reason: str, kind: type[InputError] = CaseError, **given: Any) -> None:
        with pytest.raises(kind, match=reason) as caught:
            build_report(data, predictions, out, **given)
        assert "\n" not in str(caught.value) and not out.exists()

    with pytest.raises(InputError, match="is no folder"):
        build_report(data, tmp_path / "empty", out)
    fails("weights without a bundle", InputError, checkpoint="model.pt")
    fails("label value 3", prediction_convention="brats2018")
    file = predictions / f"{NAME}_probabilities.nii.gz"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    fails("probabilities can't be read")
    scan.save(file, np.zeros((4, 4, 4, 4), np.float32))
    fails("probabilities of shape")
    file.unlink()
    scan.save(predictions / f"{NAME}.nii.gz", scan.label[:-1])
    fails(f"case {NAME}.*shape")
    scan._replace(affine=np.eye(4)).save(predictions / f"{NAME}.nii.gz", scan.label)
    fails(f"case {NAME}.*affine")
    scan.save(predictions / f"{NAME}.nii", scan.label)
    fails(f"case {NAME}.*the same label map is there twice")
    (predictions / f"{NAME}.nii").unlink()
    scan.save(predictions / "stranger.nii.gz", scan.label)
    fails("case stranger.*no such case")
