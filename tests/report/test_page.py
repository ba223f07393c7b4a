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


@pytest.mark.parametrize(("shown", "count"), [("page", 12), ("lesion_page", 5)], indirect=["shown"])
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
    assert text.count("<img") == 6


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
    assert text.count("Attention map") == 2 and "weights.pt" in text and text.count("<img") == 2 * (6 + 4 + 8)
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

    with pytest.raises(InputError, match="no predictions"):
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
    scan.save(predictions / "stranger.nii.gz", scan.label)
    fails("case stranger.*no such case")
