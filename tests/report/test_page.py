"""The page: whole, escaped, self-contained, and laid out by a real browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.errors import CaseError, InputError
from common.report.build import build_report

NAME = "BraTS-GLI-00001-000"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture
def folders(scan: Any, tmp_path: Path) -> tuple[Path, Path]:
    """A data set of two cases, one without reference, and their predictions with scores and probabilities."""
    data, predictions = tmp_path / "data", tmp_path / "predictions"
    for number in (1, 2):
        name = f"BraTS-GLI-0000{number}-000"
        for channel, modality in zip(scan.image, ("t1n", "t1c", "t2w", "t2f"), strict=True):
            save(data / name / f"{name}-{modality}.nii.gz", channel.astype(np.int16), scan.affine)
        save(predictions / f"{name}.nii.gz", scan.label, scan.affine)
    save(data / NAME / f"{NAME}-seg.nii.gz", scan.label, scan.affine)
    probabilities = np.eye(4, dtype=np.float32)[scan.label]
    save(predictions / f"{NAME}_probabilities.nii.gz", probabilities, scan.affine)
    rows = [
        {"case": case, "region": region, "dice": dice, "hd95": float("inf"), "volume_prediction": 1234.5}
        for case, dice in ((NAME, 0.25), ("<script>alert(1)</script>", 0.75), ("c" * 90, float("nan")))
        for region in ("WT", "TC", "ET")
    ]
    summary = {r: {"dice": {"mean": 0.5, "std": 0.3, "median": 0.5}} for r in ("WT", "TC", "ET")}
    (predictions / "scores.json").write_text(json.dumps({"cases": rows, "summary": summary}))
    return data, predictions


@pytest.fixture
def page(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    return build_report(*folders, tmp_path / "out" / "report.html")


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


def test_page_is_self_contained_and_accessible(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    elements = Reader(text).elements
    for tag, attributes in elements:
        for key in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert (attributes.get(key) or "#").startswith(("#", "data:")), (tag, key)
    assert not re.search(r"@import|url\((?!#)", text)
    assert not any(tag == "script" for tag, _ in elements)
    pictures = [attributes for tag, attributes in elements if tag == "img"]
    assert len(pictures) == 12 and all(attributes["alt"] for attributes in pictures)
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
    save(file, np.zeros((4, 4, 4, 4), np.float32), scan.affine)
    fails("probabilities of shape")
    file.unlink()
    save(predictions / f"{NAME}.nii.gz", scan.label[:-1], scan.affine)
    fails(f"case {NAME}.*shape")
    save(predictions / f"{NAME}.nii.gz", scan.label, np.eye(4))
    fails(f"case {NAME}.*affine")
    save(predictions / "stranger.nii.gz", scan.label, scan.affine)
    fails("case stranger.*no such case")


def chromium(folder: Path, page: Path, *options: str) -> str:
    """Runs the browser on a file with an empty profile and without any network, and returns what it prints."""
    assert CHROMIUM is not None
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --hide-scrollbars --host-resolver-rules=MAP\x20*\x20~NOTFOUND"
    command = [CHROMIUM, *re.split(r" (?=--)", flags), f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


MEASURE = """<script>
addEventListener("load", () => {
  const frame = document.querySelector("iframe"), inner = frame.contentDocument, root = inner.documentElement;
  inner.querySelectorAll("details").forEach(d => d.open = true);
  const wide = [...inner.body.querySelectorAll("*")].filter(e => !e.closest(".scroll") && !e.closest(".skip")
    && e.getBoundingClientRect().right > frame.clientWidth + 1).map(e => e.tagName + "." + e.getAttribute("class"));
  document.title = JSON.stringify({
    width: root.clientWidth, scroll: root.scrollWidth, wide: wide,
    pictures: [...inner.images].filter(i => i.complete && i.naturalWidth > 0).length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name)
      .filter(name => !name.startsWith("data:")),
    ground: frame.contentWindow.getComputedStyle(inner.body).backgroundColor});
});
</script>"""


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_lays_it_out(page: Path, tmp_path: Path, width: int, scheme: str) -> None:
    """Nothing is wider than the window, all pictures decode, nothing is asked for, and dark is dark."""
    frame = f'<iframe width="{width}" height="900" style="border:0" srcdoc="{html.escape(page.read_text("utf-8"))}">'
    outer = tmp_path / "outer.html"
    outer.write_text(f'<!doctype html><meta charset="utf-8"><title>-</title>{frame}</iframe>{MEASURE}', "utf-8")
    preference = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    dom = chromium(tmp_path, outer, "--window-size=1400,1000", preference, "--dump-dom")
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found is not None
    measured = json.loads(html.unescape(found[1]))
    assert measured["width"] == width and measured["scroll"] == width and measured["wide"] == []
    assert measured["pictures"] == 12 and measured["requests"] == []
    brightness = sum(int(n) for n in re.findall(r"\d+", measured["ground"])[:3]) / 3
    assert brightness < 60 if scheme == "dark" else brightness > 200


@needs_chromium
def test_a_browser_paints_it(page: Path, tmp_path: Path) -> None:
    chromium(tmp_path, page, "--window-size=1280,3000", f"--screenshot={tmp_path / 'shot.png'}")
    shot = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).astype(int)
    assert shot.shape == (3000, 1280, 3)
    # The outline of the whole tumour, in a picture on the page.
    blue = np.abs(shot - [0x56, 0xB4, 0xE9]).sum(axis=2) < 60
    assert blue.sum() > 200 and (shot == 0).all(axis=2).mean() > 0.1
