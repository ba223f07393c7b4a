"""Features of generated brains: each has numbers of its own, can be left out, and shows in the images as it says."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from common.data.feature_draws import FeatureDraw
from common.data.phantom_record import Appearance, Compartment, Island, Lesion
from common.data.phantom_variety import FEATURES
from common.data.phantoms import (
    Phantom,
    draw_phantom,
    fit_voxels,
    phantom_affine,
    render_phantom,
    vary_phantom,
)
from common.errors import InputError

SHAPE = (48, 60, 48)
LESION = {f"lesions.{field.name}" for field in dataclasses.fields(Lesion)}
# What of a record leaving a feature out changes, also by way of a feature that is applied after it.
CHANGES = {
    "anatomy": {
        *(f"head.{name}" for name in ("deformation", "folia", "scale", "sulcus_width", "ventricles")),
        *("size", "lesions.centre", "lesions.edema", "spots"),  # what moves, or lies at the base, is within the head
    },
    "compartments": {"compartments", "islands"},
    "contrast": {
        *(f"appearance.{name}" for name in ("deep", "fluid", "grey", "hindbrain", "vessel")),
        *("lesions.core_level", "lesions.edema_contrast"),  # of tumour that looks like its edema
    },
    "texture": {"appearance.spread", "lesions.spread"},
    "rims": {"lesions.enhancing_level", "lesions.gap", "lesions.nodules", "lesions.rim"},
    "non_enhancing": {"lesions.core_level", "lesions.pattern"},
    "infiltration": {"lesions.barrier", "lesions.centre", "lesions.fade", "lesions.softness"},
    "clusters": LESION,  # one alone has none of the others'
    "cavities": {"lesions.core_level", "lesions.gap", "lesions.pattern", "lesions.rim"},
    "t1_contrast": {"lesions.core_level", "lesions.edema_contrast", "lesions.enhancing_level"},
    "distractors": {"appearance.caps", "spots"},
    "flow": {"appearance.flow"},
    "enhancing_tissue": {"appearance.dura", "appearance.vessel", "head.dura"},
    "resolution": {"appearance.blur", "appearance.slice_blur", "appearance.slice_distance"},
    "strip_errors": {"head.strip"},
    "slips": {"appearance.slip"},
    "scanner": {f"appearance.{name}" for name in ("bias", "ceiling", "gain", "gamma", "noise", "shade")},
}


def parts(phantom: Phantom) -> dict[str, Any]:
    """A record by the names that `CHANGES` has."""
    record = phantom.to_dict()
    found = {f"head.{name}": value for name, value in record.pop("head").items()}
    for group, kind in (("lesions", Lesion), ("appearance", Appearance)):
        own = record.pop(group)
        for field in dataclasses.fields(kind):
            found[f"{group}.{field.name}"] = [one[field.name] for one in own]
    return found | record


def looks(phantom: Phantom, channel: int | None = None, **changes: Any) -> Phantom:
    """With some values of one modality's looks, or of all, replaced."""
    appearance = tuple(
        dataclasses.replace(look, **changes) if channel in (None, number) else look
        for number, look in enumerate(phantom.appearance)
    )
    return dataclasses.replace(phantom, appearance=appearance)


@pytest.fixture(scope="module")
def quiet() -> Phantom:
    """A brain without noise, texture, bias and blur, with one round lesion."""
    phantom = draw_phantom(1, 0, "glioma")
    lesion = dataclasses.replace(
        phantom.lesions[0], centre=(30.0, 0.0, 22.0), radius=15.0, irregularity=0.0, pattern="ring", rim=5.0, gap=0.0
    )
    phantom = dataclasses.replace(phantom, lesions=(dataclasses.replace(lesion, edema=6.0, spread=0.0),), spots=())
    plain = {"spread": (0.0, 0.0, 0.0), "noise": 0.0, "bias": 0.0, "gamma": 1.0, "gain": 1000.0}
    return looks(phantom, blur=0.3, slice_blur=0.3, **plain)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), index=st.integers(0, 2**32 - 1), apart=st.booleans())
def test_varying_is_a_function_of_the_record_and_survives_json(seed: int, index: int, apart: bool) -> None:
    phantom = draw_phantom(seed, index)
    varied = vary_phantom(phantom, apart=apart)
    assert varied == vary_phantom(phantom, apart=apart) != phantom
    assert varied == Phantom.from_dict(json.loads(json.dumps(varied.to_dict())))
    assert varied != vary_phantom(phantom, apart=not apart)


@pytest.mark.parametrize("name", [*FEATURES])
def test_leaving_one_out_changes_that_alone(name: str) -> None:
    """Of the features applied after it, too: each draws from a stream of its own."""
    differ = set()
    for index in range(40):
        phantom = draw_phantom(8, index)
        whole, without = parts(vary_phantom(phantom)), parts(vary_phantom(phantom, without=[name]))
        differ |= {part for part in whole if whole[part] != without[part]}
    assert differ == CHANGES[name]


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    low=st.floats(0.001, 50),
    width=st.floats(0.001, 50),
    stream=st.sampled_from([*FEATURES]),
)
def test_apart_lies_beside_the_range_and_above_zero(seed: int, low: float, width: float, stream: str) -> None:
    high = low + width
    apart, inside = FeatureDraw(seed, 0, stream, apart=True), FeatureDraw(seed, 0, stream, apart=False)
    for _ in range(5):
        assert low - 1e-4 <= inside.between(low, high) <= high + 1e-4
        value = apart.between(low, high)
        assert value >= 0 and (value <= low + 1e-4 or high - 1e-4 <= value <= high + 0.15 * width + 1e-4)


def test_apart_of_a_range_from_zero_lies_above_it() -> None:
    draw = FeatureDraw(0, 0, "rims", apart=True)
    assert all(2 <= draw.between(0, 2) <= 2.3 for _ in range(20))


def test_a_larger_head_is_larger_and_all_that_is_in_it(quiet: Phantom) -> None:
    longer = dataclasses.replace(quiet, size=(1.0, 1.25, 1.0))
    rounded, shape = fit_voxels(longer, 3.0)
    assert shape == (50, 78, 50) and rounded.size == pytest.approx((1.0, 78 * 3 / 186, 1.0))
    np.testing.assert_allclose(np.diag(phantom_affine(shape, rounded.size))[:3], 3.0, rtol=1e-9)
    plain, drawn = (render_phantom(*fit_voxels(one, 3.0)) for one in (quiet, longer))
    for before, after in ((plain[1] > 0, drawn[1] > 0), (plain[0][0] > 0, drawn[0][0] > 0)):
        spans = [np.ptp(np.argwhere(mask), axis=0) + 1 for mask in (before, after)]
        np.testing.assert_allclose(spans[1] / spans[0], (1.0, 78 * 3 / 186, 1.0), atol=0.06)


def test_unknown_feature_is_one_line() -> None:
    with pytest.raises(InputError, match=r"feature 'colour' of phantoms is not known; choose from anatomy, comp"):
        vary_phantom(draw_phantom(0, 0), without=["slips", "colour"])


def test_lesions_stay_apart_and_in_the_brain_where_they_cluster() -> None:
    moved = 0
    for index in range(40):
        phantom = draw_phantom(9, index, "metastases")
        varied = FEATURES["clusters"].apply(FeatureDraw(9, index, "clusters", apart=False), phantom)
        moved += sum(a.centre != b.centre for a, b in zip(phantom.lesions, varied.lesions, strict=True))
        for number, lesion in enumerate(varied.lesions):
            for other in varied.lesions[:number]:
                distance = np.linalg.norm(np.subtract(lesion.centre, other.centre))
                assert distance > lesion.radius + other.radius
    assert moved > 10


def test_cavity_is_background_within_its_rim(quiet: Phantom) -> None:
    lesion = dataclasses.replace(quiet.lesions[0], core_level=(0.3, 0.3, 3.0, 0.4))
    other = dataclasses.replace(lesion, centre=(30.0, 36.0, 22.0), radius=6.0, edema=20.0)
    ring, cavity = (
        render_phantom(dataclasses.replace(quiet, lesions=(dataclasses.replace(lesion, pattern=pattern), other)), SHAPE)
        for pattern in ("ring", "cavity")
    )
    np.testing.assert_array_equal(ring[0], cavity[0])
    first = ring[1] == 1
    first[:, 40:] = False  # the other's
    assert first.sum() > 50 and not cavity[1][first].any()  # nor has the other's edema taken it
    np.testing.assert_array_equal(ring[1][~first], cavity[1][~first])


def test_infiltration_takes_cortex_too(quiet: Phantom) -> None:
    def edema(barrier: float) -> np.ndarray:
        lesion = dataclasses.replace(quiet.lesions[0], edema=15.0, barrier=barrier)
        return render_phantom(dataclasses.replace(quiet, lesions=(lesion,)), SHAPE)[1] == 2

    spared, taken = edema(1.0), edema(0.0)
    assert taken.sum() > 1.2 * spared.sum() and not (spared & ~taken).any()


def test_fading_edema_is_faint_at_its_end_and_labelled_as_far_as_it_shows(quiet: Phantom) -> None:
    def rendered(fade: float, contrast: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
        lesion = dataclasses.replace(quiet.lesions[0], edema=20.0, edema_contrast=(1.0, 1.0, 1.0, contrast), fade=fade)
        return render_phantom(dataclasses.replace(quiet, lesions=(lesion,)), SHAPE)

    (even, label), (fading, again) = rendered(0.0), rendered(0.75)
    edema = label == 2
    shows = fading[3] > 1.2 * rendered(0.0, 1.0)[0][3]
    assert ((again == 2) == shows)[edema].mean() > 0.97  # but for the blur, and fluid
    assert not (again[~edema] == 2).any() and (again == 2).sum() < edema.sum() - 50
    inner = edema & ndimage.binary_dilation(np.isin(label, (1, 3)), iterations=1)
    outer = edema & ndimage.binary_dilation(label == 0, iterations=1) & ~inner
    ratio = fading[3] / np.maximum(even[3], 1.0)
    assert np.median(ratio[inner]) > np.median(ratio[outer]) + 0.15
    np.testing.assert_array_equal(even[:3], fading[:3])


def test_edema_fades_away_from_the_core_and_not_towards_a_ventricle(quiet: Phantom) -> None:
    """Beside the core it is as bright where it ends at a ventricle as where it has room."""
    centre = (22.0, -12.0, 24.0)  # some 9 mm from the lateral ventricle
    lesion = dataclasses.replace(quiet.lesions[0], centre=centre, radius=9.0, edema=20.0, push=0.0, barrier=0.0)
    lesion = dataclasses.replace(lesion, edema_contrast=(1.0, 1.0, 1.0, 2.0), softness=0.5)
    (even, label), (fading, _) = (
        render_phantom(dataclasses.replace(quiet, lesions=(dataclasses.replace(lesion, fade=fade),)), (75, 93, 75))
        for fade in (0.0, 0.6)
    )
    ratio = fading[3] / np.maximum(even[3], 1.0)
    beside = (label == 2) & ndimage.binary_dilation(np.isin(label, (1, 3)), iterations=2)
    x = np.arange(75)[:, None, None] * 2 - 74
    towards, away = beside & (x < centre[0] - 6), beside & (x > centre[0] + 6)
    assert towards.sum() > 30 and away.sum() > 30
    assert abs(np.median(ratio[towards]) - np.median(ratio[away])) < 0.04


def test_some_gliomas_lie_in_the_cortex() -> None:
    def depth(phantom: Phantom) -> float:
        """Of the first lesion's centre, mm, in heads of the mean size."""
        outwards = np.array(phantom.lesions[0].centre) / phantom.head.scale / (64.0, 79.0, 56.0)
        return float(1 - np.linalg.norm(outwards)) * 56

    moved = 0
    for index in range(40):
        phantom = draw_phantom(17, index, "glioma")
        varied = FEATURES["infiltration"].apply(FeatureDraw(17, index, "infiltration", apart=False), phantom)
        if varied.lesions[0].centre != phantom.lesions[0].centre:
            moved += 1
            assert 0.29 * phantom.lesions[0].radius < depth(varied) < 1.01 * phantom.lesions[0].radius
            assert depth(varied) < depth(phantom)
    assert 8 < moved < 25


def test_edema_in_white_matter_is_brighter_than_cortex_in_flair() -> None:
    for index in range(20):
        phantom = vary_phantom(draw_phantom(3, index))
        assert all(lesion.edema_contrast[3] > 1.09 * phantom.appearance[3].grey for lesion in phantom.lesions)


def test_nodules_make_a_rim_uneven(quiet: Phantom) -> None:
    def rendered(nodules: float) -> np.ndarray:
        lesion = dataclasses.replace(quiet.lesions[0], radius=22.0, rim=4.0, nodules=nodules)
        return render_phantom(dataclasses.replace(quiet, lesions=(lesion,)), SHAPE)[1]

    def unevenness(label: np.ndarray) -> float:
        """How much the rim's share of the core differs between its eight octants."""
        x, y, z = (round(float(middle)) for middle in np.argwhere(np.isin(label, (1, 3))).mean(axis=0))
        octants = [label[a, b, c] for a in halves(x) for b in halves(y) for c in halves(z)]
        return float(np.std([(one == 3).sum() / np.isin(one, (1, 3)).sum() for one in octants]))

    def halves(middle: int) -> tuple[slice, slice]:
        return slice(None, middle), slice(middle, None)

    even, uneven = rendered(0.0), rendered(1.2)
    assert unevenness(uneven) > 1.5 * unevenness(even)
    np.testing.assert_array_equal(even > 0, uneven > 0)


def test_strip_errors_move_the_mask_both_ways(quiet: Phantom) -> None:
    brain = render_phantom(quiet, SHAPE)[0][0] > 0
    head = dataclasses.replace(quiet.head, strip=5.0)
    images, label = render_phantom(dataclasses.replace(quiet, head=head), SHAPE)
    kept = images[0] > 0
    assert 0.003 < (kept & ~brain).sum() / brain.sum() < 0.15
    assert 0.003 < (brain & ~kept).sum() / brain.sum() < 0.15
    assert not label[~kept].any() and not label[kept & ~brain].any()


def test_dura_enhances_at_the_surface_alone(quiet: Phantom) -> None:
    head = dataclasses.replace(quiet.head, dura=2.5)
    before = render_phantom(quiet, SHAPE)[0][1].astype(float)
    after = render_phantom(looks(dataclasses.replace(quiet, head=head), 1, dura=2.0), SHAPE)[0][1].astype(float)
    brighter = after > before + 300
    assert brighter.sum() > 200
    middle = np.zeros(SHAPE, dtype=bool)
    middle[13:19, 18:42, 20:28] = middle[29:35, 18:42, 20:28] = True  # on either side of what parts the hemispheres
    assert not (brighter & middle).any()
    cerebellum = (slice(28, 32), slice(12, 16), slice(11, 14))
    assert before[cerebellum].min() > 300 and not brighter[cerebellum].any()


def test_a_slip_moves_one_modality_by_so_many_mm(quiet: Phantom) -> None:
    spacing = 150 / 48
    slipped = render_phantom(looks(quiet, 0, slip=(0.0, 2 * spacing, 0.0)), SHAPE)[0]
    plain = render_phantom(quiet, SHAPE)[0]
    np.testing.assert_array_equal(slipped[1:], plain[1:])
    inside = (slice(16, 32), slice(20, 40), slice(20, 30))
    np.testing.assert_allclose(slipped[0][inside], np.roll(plain[0], 2, axis=1)[inside], atol=2)


def test_between_slices_is_linear(quiet: Phantom) -> None:
    spacing = 150 / 48
    image = render_phantom(looks(quiet, 2, slice_distance=4 * spacing, slice_axis=2), SHAPE)[0][2].astype(float)
    brain = (render_phantom(quiet, SHAPE)[0][2] > 0)[14:34, 18:42, 20:33].all(axis=2)
    values = image[14:34, 18:42, 20:33][brain]
    np.testing.assert_allclose(
        values[:, 1:4], values[:, :1] + (values[:, 4:5] - values[:, :1]) * [0.25, 0.5, 0.75], atol=1
    )
    np.testing.assert_allclose(
        values[:, 5:8], values[:, 4:5] + (values[:, 8:9] - values[:, 4:5]) * [0.25, 0.5, 0.75], atol=1
    )


def test_shading_is_slow_and_of_one_modality(quiet: Phantom) -> None:
    plain, shaded = render_phantom(quiet, SHAPE)[0], render_phantom(looks(quiet, 1, shade=0.3), SHAPE)[0]
    np.testing.assert_array_equal(shaded[[0, 2, 3]], plain[[0, 2, 3]])
    factor = np.log(shaded[1][plain[1] > 300] / plain[1][plain[1] > 300])
    assert 0.03 < factor.std() < 0.3
    ratio = np.where(plain[1] > 300, shaded[1] / np.maximum(plain[1], 1), np.nan)
    assert np.nanmax(np.abs(np.diff(ratio, axis=0))) < 0.05  # from voxel to voxel


def test_artefacts_at_the_base_are_brighter_in_flair_and_no_lesions(quiet: Phantom) -> None:
    drawn = [
        FEATURES["distractors"].apply(FeatureDraw(7, index, "distractors", apart=False), quiet).spots
        for index in range(20)
    ]
    assert 5 < sum(bool(spots) for spots in drawn) < 20
    spots = [spot for of_case in drawn for spot in of_case]
    assert all(spot.centre[2] < 15 and not spot.white_only and spot.contrast[3] > 1.05 for spot in spots)
    assert any(a.centre[0] == -b.centre[0] for own in drawn for a in own for b in own)  # on both sides
    (before, label), (after, again) = (
        render_phantom(dataclasses.replace(quiet, spots=own), SHAPE) for own in ((), (spots[0],))
    )
    assert (after[3] > 1.05 * before[3])[before[3] > 0].sum() > 20
    np.testing.assert_array_equal(label, again)


def test_values_are_cut_off_at_the_ceiling(quiet: Phantom) -> None:
    plain = render_phantom(quiet, SHAPE)[0][2]
    cut = render_phantom(looks(quiet, 2, ceiling=1.5), SHAPE)[0][2]
    ceiling = 1.5 * np.median(plain[plain > 0])
    below = plain < ceiling - 1
    np.testing.assert_array_equal(cut[below], plain[below])
    assert abs(np.unique(cut[~below]) - ceiling).max() <= 1
    assert plain.max() > 1.2 * ceiling


def test_moving_fluid_is_bright_in_patches_of_the_fluid(quiet: Phantom) -> None:
    plain = render_phantom(looks(quiet, 3, fluid=0.3), SHAPE)[0][3].astype(float)
    moving = render_phantom(looks(quiet, 3, fluid=0.3, flow=1.5), SHAPE)[0][3].astype(float)
    dark = (plain > 0) & (plain < 400)
    share = (moving[dark] > 1000).mean()
    assert 0.1 < share < 0.7
    white = np.abs(plain - 1000) < 5
    assert np.median(np.abs(moving - plain)[white]) < 5


def test_fluid_in_islands_stands_still(quiet: Phantom) -> None:
    """It is dark in FLAIR: in the midst of tissue it would look like a lesion if it were bright."""
    plain = looks(quiet, 3, fluid=0.3)
    island = dataclasses.replace(plain, islands=(Island("fluid", 12.0, 0.2),))
    before, still, moving = (
        render_phantom(one, SHAPE)[0][3].astype(float) for one in (plain, island, looks(island, 3, flow=1.0))
    )
    of_island = (before > 800) & (still < 400)
    assert of_island.sum() > 500
    assert (moving[of_island] < 500).mean() > 0.9 and moving[(before > 0) & (before < 400)].max() > 1100


def test_the_hindbrain_has_a_level_of_its_own(quiet: Phantom) -> None:
    plain, brighter = (render_phantom(looks(quiet, 3, hindbrain=one), SHAPE)[0][3].astype(float) for one in (1, 1.3))
    ratio = brighter[plain > 800] / plain[plain > 800]
    low = (np.arange(SHAPE[2]) < 0.25 * SHAPE[2]) & (plain > 800)
    assert 0.05 < (ratio > 1.2).mean() < 0.3 and np.median(brighter[low] / plain[low]) > 1.25
    assert np.median(ratio) == 1


def test_a_compartment_has_its_share_and_contrast(quiet: Phantom) -> None:
    plain = dataclasses.replace(quiet, lesions=())
    odd = dataclasses.replace(plain, compartments=(Compartment(20.0, 0.3, (1.0, 1.0, 1.0, 1.2)),))
    before, after = (render_phantom(one, SHAPE)[0].astype(float) for one in (plain, odd))
    np.testing.assert_array_equal(before[:3], after[:3])
    white = np.abs(before[3] - 1000) < 5
    share = (after[3] > 1150)[white].mean()
    assert 0.15 < share < 0.45
    assert after[3][white].max() <= 1205


@pytest.mark.parametrize("tissue", ["grey", "fluid"])
def test_an_island_is_of_its_tissue_and_has_its_share(quiet: Phantom, tissue: str) -> None:
    plain = looks(dataclasses.replace(quiet, lesions=()), 2, grey=1.5, fluid=3.0)
    island = dataclasses.replace(plain, islands=(Island(tissue, 12.0, 0.2),))
    before, after = (render_phantom(one, SHAPE)[0][2].astype(float) for one in (plain, island))
    white = np.abs(before - 1000) < 5
    level = {"grey": 1500, "fluid": 3000}[tissue]
    assert 0.05 < (np.abs(after - level) < 50)[white].mean() < 0.3
    assert after[white].max() < level + 5 and (after[white] < 1005).mean() > 0.6


def test_varied_brains_keep_what_a_data_set_promises() -> None:
    for index in range(6):
        for apart in (False, True):
            images, label = render_phantom(vary_phantom(draw_phantom(13, index), apart=apart), SHAPE)
            brain = images[0] > 0
            assert all(np.array_equal(image > 0, brain) for image in images) and images.min() == 0
            assert label.any() and not label[~brain].any() and label.max() <= 3
