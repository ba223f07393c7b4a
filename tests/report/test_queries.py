"""What is told of queries is what they paint, in its place, and adds up to what the network segments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.inferers import SimpleInferer

from common.inferers.ensemble import EnsembleInferer
from common.inferers.gaussian_windows import GaussianWindowInferer
from common.inferers.mixed_precision import MixedPrecisionInferer
from common.networks.transunet3d import TransUNet3D
from common.report import queries, query_pictures
from common.report.attention import Study, study_case
from common.report.build import build_report
from common.report.queries import QuerySection, ask_queries, describe_queries, paint

PLAN: dict[str, Any] = {"features": (4, 8, 8, 8), "encoder_layers": 0, "decoder_layers": 2, "queries": 5}
WINDOWS = MixedPrecisionInferer(GaussianWindowInferer((16, 24, 16)), amp=False)


def network(seed: int = 0) -> TransUNet3D:
    """Its queries paint about half of the voxels of each region."""
    torch.manual_seed(seed)
    network = TransUNet3D(**PLAN).eval()
    assert network.query_decoder is not None
    with torch.no_grad():
        network.query_decoder.classes.bias[-1] += 0.5
        network.query_decoder.mask_embedding[-1].weight *= 20  # type: ignore[operator]
    return network


class Told(TransUNet3D):
    """Its queries are told by the first modality, a label map, and the third, a mask, what to paint."""

    def __init__(self, classes: list[list[float]]) -> None:
        super().__init__(**{**PLAN, "queries": len(classes)})
        self.told = torch.tensor(classes)
        self.asked: list[torch.Tensor] = []

    def queries(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked.append(image)
        label, left = image[:, 0], image[:, 2]
        tumour, enhancing = (label > 0).float(), (label == 3).float()
        masks = torch.stack(
            [tumour * left, tumour * (1 - left), enhancing, torch.ones_like(label)][: len(self.told)], 1
        )
        return self.told[None], masks


SAYS = [[0.9, 0.0, 0.0, 0.1], [0.8, 0.0, 0.0, 0.2], [0.0, 0.0, 0.7, 0.3], [0.3, 0.3, 0.0, 0.4]]


def told_section(scan: Any, *labels: np.ndarray | None, **settings: Any) -> tuple[QuerySection, Told]:
    network = Told(settings.get("says", SAYS))
    half = np.zeros_like(scan.image[0])
    half[4:29, 4:44, 2:18] = 1
    image = np.stack([scan.label.astype(np.float32), scan.image[1], half, scan.image[3]])
    turned = scan._replace(image=image).turned(settings.get("axes", "RAS"))
    study = Study(turned.image, turned.affine, np.zeros(()))
    on_grid = [
        None if label is None else scan._replace(label=label).turned(settings.get("axes", "RAS")).label
        for label in labels
    ]
    inferer = settings.get("inferer", GaussianWindowInferer((-1, -1, -1)))
    section = describe_queries("a", network, inferer, study, *on_grid, settings.get("colours", {}))
    assert section is not None
    return section, network


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**31))
def test_the_painter_gives_most_where_the_sum_is_above_a_half(count: int, regions: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.rand(count, regions + 1, generator=generator).softmax(1)
    masks = torch.rand(count, 3, 4, 5, generator=generator)
    shares = torch.einsum("qk,qdhw->kqdhw", classes[:, :-1], masks)
    expected = torch.where(shares.sum(1) > 0.5, shares.argmax(1), -1)
    painters = paint(classes, masks)
    assert painters.dtype == torch.int16 and torch.equal(painters, expected.short())


def test_what_is_painted_is_what_the_network_segments(scan: Any) -> None:
    net, image = network(), scan.image / 100
    answers = ask_queries(net, WINDOWS, image, (20, 24, 10))
    assert answers.window == (slice(12, 28), slice(12, 36), slice(2, 18)) and answers.size == (16, 24, 16)
    with torch.inference_mode():
        logits = net(torch.from_numpy(image[:, 12:28, 12:36, 2:18])[None])[0].numpy()
    painted = answers.painters >= 0
    assert 0.1 < painted.mean() < 0.9 and len(np.unique(answers.painters)) > 2
    clear = np.abs(logits) > 1e-4
    assert clear.mean() > 0.99 and np.array_equal(painted[clear], logits[clear] > 0)
    assert answers.classes.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("centre", "window"),
    [((0, 47, 19), ((0, 16), (24, 48), (4, 20))), ((39.5, 13, 9), ((24, 40), (1, 25), (1, 17)))],
)
def test_the_window_stays_in_the_image(
    scan: Any, centre: tuple[float, ...], window: tuple[tuple[int, int], ...]
) -> None:
    net = Told(SAYS)
    answers = ask_queries(net, WINDOWS, scan.image, centre)
    assert answers.window == tuple(slice(*ends) for ends in window)
    assert len(net.asked) == 1 and torch.equal(net.asked[0][0], torch.from_numpy(scan.image[(..., *answers.window)]))


def test_a_small_image_is_padded_as_in_inference(scan: Any) -> None:
    net = Told(SAYS)
    answers = ask_queries(net, GaussianWindowInferer((64, -1, 32)), scan.image, (3, 3, 3))
    assert answers.painters.shape == (3, 40, 48, 20) and answers.size == (64, 48, 32)
    assert net.asked[0].shape == (1, 4, 64, 48, 32)
    assert ask_queries(net, SimpleInferer(), scan.image, (3, 3, 3)).size == (40, 48, 20)


def test_of_an_ensemble_it_is_the_first_member_and_the_plain_view(scan: Any, tmp_path: Path) -> None:
    members = [network(seed) for seed in (1, 2)]
    for number, member in enumerate(members):
        torch.save(member.state_dict(), tmp_path / f"{number}.pt")
    used, image = network(), scan.image / 100
    inferer = EnsembleInferer(WINDOWS, used, f"{tmp_path}/*.pt", flips=[0, 1, 2], sigmoid=True)
    found, first = (ask_queries(n, i, image, (20, 24, 10)) for n, i in ((used, inferer), (members[0], WINDOWS)))
    assert np.array_equal(found.painters, first.painters) and np.array_equal(found.classes, first.classes)
    section = describe_queries("a", used, inferer, Study(image, scan.affine, np.zeros(())), scan.label, None, {})
    assert section is not None and section.members == 2 and not section.alone
    assert section.blends == "several windows and 2 members and 8 views"


@pytest.mark.parametrize("axes", ["RAS", "SPL"])
def test_lesions_and_their_queries_are_told(scan: Any, axes: str) -> None:
    """The large lesion is 10×12×6 voxels of 2 mm³, 5 of its 10 columns below 29; the small one 2×2×2, edema only."""
    section, net = told_section(scan, scan.label, None, axes=axes)
    assert section.alone and section.source == "reference" and section.queries == 4 and len(net.asked) == 1
    found = [(r.query, r.region, r.probability, r.volume, r.lesions) for r in section.rows]
    assert found == [
        (0, "WT", "0.90", "0.74", "1, 2"),
        (1, "WT", "0.80", "0.72", "1"),
        (2, "ET", "0.70", "0.27", "1"),
    ]
    assert [(r.number, r.volume) for r in section.lesions] == [(1, "1.44"), (2, "0.02")]
    assert section.lesions[0].painted == {"WT": "0: 50%, 1: 50%", "TC": "missed", "ET": "2: 100%"}
    assert section.lesions[1].painted == {"WT": "0: 100%", "TC": "–", "ET": "–"}
    assert section.blends == "" and section.said == [] and len({row.colour for row in section.rows}) == 3
    assert [p.caption[-4:-1] for p in section.pictures[:3]] == ["(WT", "(TC", "(ET"]


@pytest.mark.parametrize("axes", ["RAS", "SPL"])
def test_pictures_say_and_show_who_paints_in_the_slice(scan: Any, axes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, np.ndarray]] = []

    def keep(figure: Any, alt: str, caption: str) -> Any:
        figure.canvas.draw()
        drawn.append((alt, np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)))
        return queries.Picture(b"", 1, 1, alt, caption)

    monkeypatch.setattr(query_pictures, "encode_picture", keep)
    colours: dict[int, str] = {}
    told_section(scan, scan.label, None, colours=colours, axes=axes)
    whole, core, enhancing, above = drawn
    assert whole[0].endswith("query 0 paints 60 voxels, query 1 paints 60 voxels")
    assert core[0].endswith("nothing painted")
    assert re.search(r"query 2 paints 36 voxels$", enhancing[0])
    assert list(colours.values()) == list(queries.COLOURS[:3]) and list(colours) == [0, 1, 2]

    def columns(picture: np.ndarray, colour: str) -> np.ndarray:
        """Where a picture is coloured like that rather than grey."""
        hue = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)], float)
        hue -= hue.mean()
        tint = picture - picture.mean(axis=2, keepdims=True)
        size = np.linalg.norm(tint, axis=2) * np.linalg.norm(hue)
        return np.flatnonzero(((tint @ hue > 0.97 * size) & (size > 20 * np.linalg.norm(hue))).sum(axis=0) > 5)

    # The patient's right is on the left: query 1 paints the columns from 29 on, which are farther right in the patient.
    first, second = columns(whole[1], colours[0]), columns(whole[1], colours[1])
    assert first.size and second.size and second.mean() < first.mean() - 10
    assert columns(enhancing[1], colours[2]).size and not columns(core[1], colours[0]).size
    # The small lesion lies in the patient's left, in other slices.
    assert columns(above[1], colours[0]).max() > columns(whole[1], colours[0]).max() + 50


def test_only_lesions_of_the_window_are_told(scan: Any) -> None:
    section, _ = told_section(scan, scan.label, None, inferer=WINDOWS)
    assert [lesion.number for lesion in section.lesions] == [1] and not section.alone
    assert section.said == ["1 of the case's 2 lesions lie in this window or reach into it."]
    assert section.rows[0].lesions == "1" and section.size == "16×24×16"


def test_without_a_reference_lesions_are_the_predictions(scan: Any) -> None:
    section, _ = told_section(scan, None, scan.label)
    assert section.source == "prediction" and len(section.lesions) == 2
    empty, net = told_section(scan, np.zeros_like(scan.label), np.zeros_like(scan.label), inferer=WINDOWS)
    assert empty.about == "the middle of the brain" and empty.lesions == [] and empty.rows[0].lesions == "none"
    # The brain is 4:36, 4:44, 2:18.
    assert torch.equal(net.asked[0][0, 1], torch.from_numpy(scan.image[1, 12:28, 12:36, 2:18]))


def test_more_lesions_than_are_listed(scan: Any) -> None:
    label = np.zeros_like(scan.label)
    label[::3, ::3, 12] = 2
    section, _ = told_section(scan, label, None)
    assert len(section.lesions) == queries.LESIONS_SHOWN
    assert section.said == ["The 12 largest of them are listed; of the 212 others 16 are found."]


def test_queries_that_say_nothing_are_said(scan: Any) -> None:
    section, _ = told_section(scan, scan.label, None, says=[[0.1, 0.2, 0.1, 0.6]] * 2 + [[0.3, 0.05, 0.1, 0.55]])
    assert section.pictures == section.rows == section.lesions == []
    said = "No query says a region here, and none is painted; query 2 comes nearest: WT with 0.30."
    assert section.said == [said]
    shy, _ = told_section(scan, scan.label, None, says=[[0.4, 0.2, 0.1, 0.3]] * 2 + [[0.0, 0.0, 0.0, 1.0]])
    assert shy.said == ["Queries say a region here, but none is painted."] and len(shy.rows) == 2
    assert [row.volume for row in shy.rows] == ["0"] * 2 and [row.colour for row in shy.rows] == [""] * 2


def test_a_query_keeps_its_colour_on_the_page(scan: Any) -> None:
    colours = {2: "#000001", 9: "#000002"}
    section, _ = told_section(scan, scan.label, None, colours=colours)
    assert {row.query: row.colour for row in section.rows}[2] == "#000001"
    assert [colours[0], colours[1]] == [*queries.COLOURS[2:4]]


def test_networks_without_queries_have_no_section(scan: Any) -> None:
    plain = TransUNet3D(**{**PLAN, "decoder_layers": 0})
    study = Study(scan.image, scan.affine, np.zeros(()))
    assert describe_queries("a", plain, WINDOWS, study, scan.label, None, {}) is None
    assert describe_queries("a", torch.nn.Identity(), WINDOWS, study, scan.label, None, {}) is None


def test_probabilities_of_regions_are_turned_into_labels(scan: Any) -> None:
    """As the inference turns them: regions don't exclude one another."""
    from monai.data import MetaTensor

    net, image = network(), torch.from_numpy(scan.image[:, :, :, :16] / 100)
    inferer = EnsembleInferer(WINDOWS, net, sigmoid=True)
    study = study_case(net, inferer, MetaTensor(image, affine=torch.from_numpy(scan.affine)))
    with torch.inference_mode():
        regions = WINDOWS(image[None], net)[0].sigmoid().numpy()
    assert study.probabilities.shape == (4, 40, 48, 16) and study.probabilities.sum(axis=0) == pytest.approx(
        1, abs=1e-5
    )
    assert study.probabilities[3] == pytest.approx(regions[2]) and (study.probabilities >= 0).all()


def test_the_report_tells_of_them(
    query_page: Path, folders: tuple[Path, Path], repository: Path, tmp_path: Path
) -> None:
    text = query_page.read_text("utf-8")
    assert text.count("<h4>Queries</h4>") == 2 and text.count("network's 5 queries") == 2
    assert "one window of 16×24×16 voxels around the largest lesion; the prediction blends several windows, and" in text
    assert "The white line is the region in the reference; what a query" in text
    assert "Lesions of the prediction: query" in text and "Confidence histogram" in text
    weights, plan = tmp_path / "plain.pt", {**PLAN, "decoder_layers": 0}
    torch.save(TransUNet3D(**plan).state_dict(), weights)
    given = {"bundle": repository / "bundles" / "transunet3d", "checkpoint": weights, "variant": "none"}
    given |= {"features": [4, 8, 8, 8], "window_size": [16, 24, 16], "resample": False}
    text = build_report(*folders, tmp_path / "plain.html", **given).read_text("utf-8")
    assert "plain.pt" in text and "Queries" not in text
