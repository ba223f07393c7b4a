"""Lesion-wise scores of maps whose scores can be worked out by hand, and maps that are refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from common.data.labels import CONVENTIONS, REGIONS, from_canonical
from common.errors import InputError
from common.metrics.lesion_wise import PRESETS, RegionScores, lesion_wise_scores, policy_of

UNIT = (1.0, 1.0, 1.0)
SHAPE = (30, 12, 12)
# 64 voxels each; the second is two voxels from the first, the third far away.
FIRST, SECOND, THIRD = (np.s_[start : start + 4, 3:7, 3:7] for start in (2, 8, 20))


def draw(*boxes: Any, label: int = 3) -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    for box in boxes:
        array[box] = label
    return array


def score(prediction: np.ndarray, reference: np.ndarray, **policy: Any) -> RegionScores:
    return lesion_wise_scores(prediction, reference, UNIT, **policy)["ET"]


def test_dilation_joins_lesions():
    reference = draw(FIRST, SECOND)
    joined = score(draw(FIRST), reference)
    assert [lesion.volume for lesion in joined.lesions] == [128]
    assert (joined.tp, joined.fn, joined.dice) == (1, 0, 2 * 64 / (128 + 64))
    apart = score(draw(FIRST), reference, dilation=0)
    assert [(lesion.volume, lesion.dice, lesion.detected) for lesion in apart.lesions] == [
        (64, 1, True),
        (64, 0, False),
    ]
    assert (apart.tp, apart.fn, apart.dice, apart.hd95) == (1, 1, 0.5, 374 / 2)


def test_a_component_that_only_touches_the_dilation_is_a_match_without_overlap():
    beside = score(draw(np.s_[6, 3:7, 3:7]), draw(FIRST))
    assert (beside.tp, beside.fp, beside.dice, beside.lesions[0].detected) == (1, 0, 0, True)
    assert 1 < beside.hd95 < 5
    # The dilation takes in neighbours by face and edge, not those by the corner.
    at_edge, at_corner = (draw((6, 7, last)) for last in (6, 7))
    assert (score(at_edge, draw(FIRST)).tp, score(at_edge, draw(FIRST)).fp) == (1, 0)
    assert (score(at_corner, draw(FIRST)).tp, score(at_corner, draw(FIRST)).fp) == (0, 1)
    assert score(at_corner, draw(FIRST), dilation=2).tp == 1


def test_a_component_may_serve_two_lesions():
    bridge = score(draw(np.s_[2:24, 3:7, 3:7]), draw(FIRST, THIRD))
    assert (bridge.tp, bridge.fp, bridge.fn) == (2, 0, 0)
    for lesion in bridge.lesions:
        assert (lesion.matched_components, lesion.dice) == (((2, 3, 3),), 2 * 64 / (64 + 352))
        # All but the last few hundredths of the bridge's surface.
        assert 16 <= lesion.hd95 <= 18
    assert bridge.dice == 2 * 64 / (64 + 352)
    assert bridge.lesion_precision == bridge.lesion_sensitivity == bridge.lesion_f1 == 1
    assert bridge.panoptic_quality == pytest.approx(64 / 352)


def test_a_lesion_is_measured_against_all_its_components():
    in_two = score(draw(np.s_[2, 3:7, 3:7], np.s_[5, 3:7, 3:7]), draw(FIRST))
    assert in_two.lesions[0].matched_components == ((2, 3, 3), (5, 3, 3))
    assert (in_two.dice, in_two.tp, in_two.fp) == (2 * 32 / (64 + 32), 1, 0)


@pytest.mark.parametrize(("preset", "limit"), [("brats2023-met", 2), ("brats2023-men", 50), ("brats2023-ped", 50)])
def test_only_lesions_above_the_threshold_count(preset: str, limit: int):
    at, above = (draw(np.s_[2:4, 1:6, 1:6]) for _ in range(2))
    at[2:4, 1:6, 1:6].flat[limit:] = 0
    above[2:4, 1:6, 1:6].flat[limit + 1 :] = 0
    if limit == 50:
        above[4, 3, 3] = 3
    nothing = draw()
    small = score(nothing, at, preset=preset)
    assert [(lesion.volume, lesion.scored) for lesion in small.lesions] == [(limit, False)]
    assert (small.dice, small.hd95, small.tp, small.fn, small.fp) == (1, 0, 0, 0, 0)
    assert (small.volume_dice, small.volume_hd95, small.sensitivity) == (0, 374, 0)
    large = score(nothing, above, preset=preset)
    assert [(lesion.volume, lesion.scored) for lesion in large.lesions] == [(limit + 1, True)]
    assert (large.dice, large.hd95, large.fn) == (0, 374, 1)
    assert score(nothing, at, preset=preset, threshold=limit - 0.5).fn == 1
    # A match of a lesion that doesn't count is no false positive; what is false always counts.
    assert (score(at, at, preset=preset).tp, score(at, at, preset=preset).fp) == (0, 0)
    assert (score(at, nothing, preset=preset).fp, score(at, nothing, preset=preset).hd95) == (1, 374)


def test_the_penalty_is_that_of_missed_and_false_lesions():
    scores = score(draw(FIRST, (28, 10, 10)), draw(FIRST, THIRD), penalty=90)
    assert (scores.tp, scores.fn, scores.fp) == (1, 1, 1)
    assert (scores.dice, scores.hd95) == (1 / 3, 180 / 3)
    assert scores.lesions[1].hd95 == math.inf
    assert score(draw(FIRST), draw(), penalty=90).volume_hd95 == 90


@pytest.mark.parametrize("preset", PRESETS)
def test_empty_maps(preset: str):
    penalty = 373.1287 if preset == "fancl" else 374
    both, missed, false = (
        score(*maps, preset=preset) for maps in ((draw(), draw()), (draw(), draw(FIRST)), (draw(FIRST), draw()))
    )
    for empty, dice, hd95 in ((both, 1, 0), (missed, 0, penalty), (false, 0, penalty)):
        assert (empty.dice, empty.volume_dice, empty.hd95, empty.volume_hd95) == (dice, dice, hd95, hd95)
    assert (both.sensitivity, missed.sensitivity, false.sensitivity) == (1, 0, 0)
    size = math.prod(SHAPE)
    assert (both.specificity, missed.specificity, false.specificity) == (1, 1, (size - 64) / size)
    assert (both.lesions, both.false_positives, missed.false_positives, false.lesions) == ([], [], [], [])
    assert (missed.fn, false.fp) == (1, 1)
    assert math.isnan(both.surface_dice) and missed.surface_dice == false.surface_dice == 0
    assert [(one.lesion_f1, one.panoptic_quality) for one in (both, missed, false)] == [(1, 1), (0, 0), (0, 0)]
    assert math.isnan(both.lesion_sensitivity) and math.isnan(both.lesion_precision)
    assert math.isnan(false.relative_volume_error) and missed.relative_volume_error == -1


def test_fancl_scores_the_whole_volume():
    prediction, reference = draw(FIRST, (28, 10, 10)), draw(FIRST, THIRD)
    scores = score(prediction, reference, preset="fancl")
    assert (scores.dice, scores.hd95) == (scores.volume_dice, scores.volume_hd95)
    assert scores.dice == 2 * 64 / (65 + 128)
    assert 10 < scores.hd95 < 20
    assert (scores.tp, scores.fn, scores.fp) == (1, 1, 1)


def test_sizes_and_volumes():
    scores = score(draw(np.s_[2:6, 3:7, 3:6], (28, 10, 10)), draw(FIRST, THIRD, (0, 0, 0)), threshold=0)
    assert scores.sensitivity_by_size((0, 1, 10, 64)) == {(0, 1): (0, 1), (1, 10): (0, 0), (10, 64): (1, 2)}
    assert (scores.volume_error, scores.relative_volume_error) == (49 - 129, (49 - 129) / 129)
    assert scores.lesions[1].centroid == (3.5, 4.5, 4.5)
    assert scores.false_positives[0].first_voxel == (28, 10, 10)


def test_specificity_of_a_reference_that_fills_the_image():
    full = np.full((3, 3, 3), 3)
    assert score(full, full).specificity == 0


@pytest.mark.parametrize("convention", sorted(CONVENTIONS.keys() - {"brats"}))
def test_regions_say_what_the_labels_mean(convention: str):
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, 4, (6, 7, 8)).astype(np.uint8) for _ in range(2)]
    source = {canonical: value for value, canonical in CONVENTIONS[convention].items()}
    regions = {name: [source[label] for label in labels] for name, labels in REGIONS.items()}
    expected = lesion_wise_scores(*maps, UNIT)
    found = lesion_wise_scores(*(from_canonical(label_map, convention) for label_map in maps), UNIT, regions=regions)
    assert found == expected


def test_labels_of_no_region_are_background():
    reference, prediction = draw(FIRST), draw(FIRST)
    prediction[THIRD] = 4
    assert score(prediction, reference) == score(reference, reference)
    assert list(lesion_wise_scores(prediction, reference, UNIT, regions={"cavity": (4,)})) == ["cavity"]


@pytest.mark.parametrize(
    ("prediction", "reference", "spacing", "preset", "message"),
    [
        (
            draw(),
            draw()[1:],
            UNIT,
            "brats2023-met",
            r"shapes differ: prediction \(30, 12, 12\), reference \(29, 12, 12",
        ),
        (draw()[None], draw()[None], UNIT, "brats2023-met", "a label map is 4D"),
        (draw(), draw()[0], UNIT, "brats2023-met", "a label map is 2D"),
        (draw().astype("f4"), draw(), UNIT, "brats2023-met", "a label map is of type float32"),
        (draw(), draw().astype("c8"), UNIT, "brats2023-met", "a label map is of type complex64"),
        (draw(), draw(), (1, 1), "brats2023-met", r"spacing \(1, 1\): give three positive numbers"),
        (draw(), draw(), None, "brats2023-met", "spacing None: give three positive numbers"),
        (draw(), draw(), "abc", "brats2023-met", "three positive numbers"),
        (draw(), draw(), [[1, 1, 1]], "brats2023-met", "three positive numbers"),
        (draw(), draw(), (1 + 1j, 1, 1), "brats2023-met", "three positive numbers"),
        (draw(), draw(), (1, 1, 1, 1), "brats2023-met", "three positive numbers"),
        (draw(), draw(), (1, 0, 1), "brats2023-met", "three positive numbers"),
        (draw(), draw(), (1, -1, 1), "brats2023-met", "three positive numbers"),
        (draw(), draw(), (1, 1, math.nan), "brats2023-met", "three positive numbers"),
        (draw(), draw(), (math.inf, 1, 1), "brats2023-met", "three positive numbers"),
        (draw(), draw(), UNIT, "brats2024", "preset 'brats2024' is unknown; use one of brats2023-met, "),
    ],
)
def test_refused(prediction: np.ndarray, reference: np.ndarray, spacing: Any, preset: str, message: str):
    with pytest.raises(InputError, match=message) as error:
        lesion_wise_scores(prediction, reference, spacing, preset)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("labels", [(0,), (), 3, (1, 0), "12", (1.5,)])
def test_regions_that_are_refused(labels: Any):
    with pytest.raises(InputError, match=r"region X is .*: give a list of labels other than 0"):
        lesion_wise_scores(draw(), draw(), UNIT, regions={"X": labels})


def test_numbers_of_any_kind_make_a_policy():
    for two in (2, 2.0, np.float32(2), np.int64(2)):
        assert score(draw(FIRST), draw(FIRST), threshold=two) == score(draw(FIRST), draw(FIRST))
    assert score(draw(FIRST), draw(FIRST), dilation=np.int64(1)) == score(draw(FIRST), draw(FIRST))
    with pytest.raises(InputError, match="threshold is True: give a volume in mm³"):
        score(draw(), draw(), threshold=True)
    with pytest.raises(InputError, match="dilatoin is no setting of a policy; use some of dilation"):
        policy_of("brats2023-met", dilatoin=3)


def test_a_policy_in_place_of_a_presets_name():
    prediction, reference = draw(FIRST, THIRD), draw(FIRST)
    wanted = score(prediction, reference, preset="brats2023-gli", penalty=5)
    assert score(prediction, reference, preset=policy_of("brats2023-gli", penalty=5)) == wanted


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("dilation", [0, 1])
def test_lines_of_voxels(axis: int, dilation: int):
    """Images, or boxes cut from them, that are one voxel wide along two axes."""
    prediction, reference = np.zeros((2, 9), np.uint8)
    prediction[[1, 5]], reference[[1, 2, 6]] = 3, 3
    line = [1, 1, 1]
    line[axis] = 9
    narrow = lesion_wise_scores(prediction.reshape(line), reference.reshape(line), UNIT, dilation=dilation, threshold=0)
    wide = [np.zeros((11, 11, 11), np.uint8) for _ in range(2)]
    for volume, row in zip(wide, (prediction, reference), strict=True):
        np.moveaxis(volume, axis, 0)[1:10, 5, 5] = row
    for region, scores in lesion_wise_scores(*wide, UNIT, dilation=dilation, threshold=0).items():
        assert (scores.dice, scores.hd95, scores.tp, scores.fp) == tuple(
            getattr(narrow[region], name) for name in ("dice", "hd95", "tp", "fp")
        )
    assert (narrow["ET"].tp, narrow["ET"].fp) == ((1, 1) if dilation == 0 else (2, 0))


@pytest.mark.parametrize(
    "policy", [{"dilation": -1}, {"dilation": 1.5}, {"threshold": -1}, {"threshold": math.nan}, {"penalty": math.inf}]
)
def test_a_policy_that_means_nothing_is_refused(policy: dict[str, float]):
    with pytest.raises(InputError, match=f"{next(iter(policy))} "):
        score(draw(), draw(), **policy)
