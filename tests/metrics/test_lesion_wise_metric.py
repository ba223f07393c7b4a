"""The metric in MONAI's ways of use: batches, lists, one-hot maps, reductions, configs, handlers."""

from __future__ import annotations

import math
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.handlers import IgniteMetricHandler
from monai.metrics import do_metric_reduction
from monai.networks.utils import one_hot
from monai.utils import MetricReduction

from common.data.labels import REGIONS
from common.errors import InputError
from common.metrics.lesion_wise import NUMBERS, lesion_wise_scores
from common.metrics.lesion_wise_metric import LesionWiseMetric, label_map_of, spacing_of

UNIT = (1.0, 1.0, 1.0)
CASES = 4


def label_maps(seed: int, cases: int = CASES) -> torch.Tensor:
    """Blobs (B, 1, D, H, W); the last case is empty."""
    rng = np.random.default_rng(seed)
    maps = np.zeros((cases, 1, 16, 14, 12), np.uint8)
    for label_map in maps[:-1, 0]:
        for label in (1, 2, 3, 3, 2):
            i, j, k = rng.integers(0, 9, 3)
            label_map[i : i + 4, j : j + 3, k : k + 3] = label
    return torch.from_numpy(maps)


PREDICTIONS, REFERENCES = label_maps(0), label_maps(1)


def expected(names: list[str], spacing: Any = UNIT, **policy: Any) -> np.ndarray:
    """(B, regions, scores), case by case."""
    cases = [
        lesion_wise_scores(prediction[0].numpy(), reference[0].numpy(), spacing, **policy)
        for prediction, reference in zip(PREDICTIONS, REFERENCES, strict=True)
    ]
    return np.array([[[getattr(case[region], name) for name in names] for region in REGIONS] for case in cases])


def test_a_batch_equals_its_members():
    names = list(NUMBERS)
    assert {"dice", "tp", "surface_dice", "lesion_f1", "relative_volume_error"} < set(names)
    assert not {"lesions", "false_positives", "sensitivity_by_size"} & set(names)
    found = LesionWiseMetric(scores=names)(PREDICTIONS, REFERENCES, spacing=UNIT)
    np.testing.assert_array_equal(found, expected(names))
    one_by_one = LesionWiseMetric(scores=names)
    for prediction, reference in zip(PREDICTIONS, REFERENCES, strict=True):
        one_by_one(prediction[None], reference[None], spacing=UNIT)
    np.testing.assert_array_equal(one_by_one.get_buffer(), found)
    np.testing.assert_array_equal(
        LesionWiseMetric(scores=names)(list(PREDICTIONS), list(REFERENCES), spacing=UNIT), found
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.bool])
def test_one_hot_maps_are_label_maps(dtype: torch.dtype):
    hot = [one_hot(maps, 4, dtype=torch.float32).to(dtype) for maps in (PREDICTIONS, REFERENCES)]
    found = LesionWiseMetric()
    found(*hot, spacing=UNIT)
    found(hot[0], REFERENCES.float(), spacing=UNIT)
    np.testing.assert_array_equal(found.get_buffer(), np.tile(expected(["dice", "hd95"]), (2, 1, 1)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_tensors_of_a_gpu():
    metric = LesionWiseMetric()
    found = metric(one_hot(PREDICTIONS, 4).cuda(), REFERENCES.cuda(), spacing=UNIT)
    assert found.is_cuda and metric.aggregate()[0].is_cuda
    np.testing.assert_array_equal(found.cpu(), expected(["dice", "hd95"]))


def scans(maps: torch.Tensor, spacings: list[tuple[float, float, float]]) -> list[MetaTensor]:
    turned = torch.tensor([[0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    affines = []
    for spacing in spacings:
        affine = torch.eye(4, dtype=torch.float64)
        affine[:3, :3] = turned * torch.tensor(spacing)
        affines.append(affine)
    return [MetaTensor(one, affine=affine) for one, affine in zip(maps, affines, strict=True)]


def test_each_case_has_the_spacing_of_its_prediction():
    spacings = [(1.0, 1.0, 3.0), (2.0, 1.5, 1.0), UNIT, (0.5, 0.5, 0.5)]
    predictions, references = scans(PREDICTIONS, spacings), scans(REFERENCES, [UNIT] * CASES)
    wanted = [expected(["hd95", "reference_volume"], spacing)[n] for n, spacing in enumerate(spacings)]
    together = LesionWiseMetric(scores=["hd95", "reference_volume"])
    for maps in (
        (predictions, references),
        (list_data_collate(predictions), list_data_collate(references)),
        (decollate_batch(list_data_collate(predictions)), REFERENCES),
    ):
        np.testing.assert_allclose(together(*maps), wanted, rtol=1e-12)
    np.testing.assert_allclose(together(predictions, references, spacing=UNIT), expected(["hd95", "reference_volume"]))


@pytest.mark.parametrize("reduction", MetricReduction)
def test_reductions_are_monais(reduction: MetricReduction):
    names = ["dice", "lesion_sensitivity"]
    values = expected(names)
    assert np.isnan(values).any() and not np.isnan(values[:-1]).any()
    wanted = [do_metric_reduction(torch.from_numpy(values[..., n].copy()), reduction) for n in range(2)]
    metric = LesionWiseMetric(scores=names, reduction=reduction, get_not_nans=True)
    metric(PREDICTIONS, REFERENCES, spacing=UNIT)
    # Twice: what isn't defined is still so when it was left out once.
    for found in (metric.aggregate(), metric.aggregate(), LesionWiseMetric.aggregate(metric, reduction)):
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=0, equal_nan=True)
            torch.testing.assert_close(ours[1], theirs[1])


def test_what_is_not_defined_is_left_out():
    metric = LesionWiseMetric(scores="lesion_sensitivity")
    metric(PREDICTIONS, REFERENCES, spacing=UNIT)
    wanted = expected(["lesion_sensitivity"])[:-1, :, 0].mean(axis=0)
    np.testing.assert_allclose(metric.aggregate(), wanted, rtol=1e-6)
    np.testing.assert_allclose(metric.aggregate("mean"), wanted.mean(), rtol=1e-6)
    assert math.isnan(metric.get_buffer()[-1, 0, 0])
    metric.reset()
    with pytest.raises(ValueError, match="nothing to aggregate"):
        metric.aggregate()


def test_policy_and_regions():
    policy = {"preset": "brats2023-gli", "threshold": 5.0, "penalty": 90.0, "dilation": 2, "tolerance": 0.1}
    metric = LesionWiseMetric(scores=["dice", "hd95", "surface_dice"], **policy)
    found = metric(PREDICTIONS, REFERENCES, spacing=UNIT)
    np.testing.assert_array_equal(found, expected(["dice", "hd95", "surface_dice"], **policy))
    edema = LesionWiseMetric(scores="dice", regions={"ED": [2]})(PREDICTIONS == 2, REFERENCES == 2, spacing=UNIT)
    assert edema.shape == (CASES, 1, 1)
    only = LesionWiseMetric(scores="dice", regions={"any": [1]})((PREDICTIONS > 0), (REFERENCES > 0), spacing=UNIT)
    np.testing.assert_array_equal(only[:, 0], expected(["dice"])[:, 0])


def test_in_a_config_and_an_evaluator():
    parser = ConfigParser(
        {
            "metric": {
                "_target_": "common.metrics.lesion_wise_metric.LesionWiseMetric",
                "preset": "brats2023-gli",
                "scores": "dice",
                "reduction": "mean",
            },
            "handler": {
                "_target_": "IgniteMetricHandler",
                "metric_fn": "@metric",
                "output_transform": "$lambda output: output",
            },
        }
    )
    handler = parser.get_parsed_content("handler")
    assert isinstance(handler, IgniteMetricHandler)
    pairs = list(zip(scans(PREDICTIONS, [UNIT] * CASES), REFERENCES, strict=True))
    engine = Engine(lambda engine, pair: ([pair[0]], [pair[1]]))
    handler.attach(engine, "lesion_dice")
    for _ in range(2):  # The second epoch starts anew.
        engine.run(pairs)
        wanted = expected(["dice"], preset="brats2023-gli")[..., 0]
        assert engine.state.metrics["lesion_dice"] == pytest.approx(wanted.mean(), rel=1e-6)
        np.testing.assert_array_equal(engine.state.metric_details["lesion_dice"][..., 0], wanted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "brats"}, "preset 'brats' is unknown; use one of brats2023-met"),
        ({"scores": "accuracy"}, "score 'accuracy' is unknown; use some of dice, hd95"),
        ({"scores": ["dice", "lesions"]}, "score 'lesions' is unknown"),
        ({"dilation": -1}, "dilation is -1: give a whole number"),
        ({"dilatoin": 3}, "dilatoin is no setting of a policy"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        LesionWiseMetric(**settings)


@pytest.mark.parametrize(
    ("prediction", "reference", "spacing", "message"),
    [
        (PREDICTIONS, REFERENCES, None, "the voxel size is unknown: give MetaTensors, or spacing"),
        (PREDICTIONS, REFERENCES[:2], UNIT, "4 predictions and 2 references"),
        (list(PREDICTIONS), list(REFERENCES[:2]), UNIT, "4 predictions and 2 references"),
        (list(PREDICTIONS), None, UNIT, "4 predictions and 0 references"),
        (PREDICTIONS, None, UNIT, "4 predictions and 0 references"),
        (PREDICTIONS[:, 0], REFERENCES, UNIT, r"an entry of shape \(16, 14, 12\)"),
        (PREDICTIONS[..., :5], REFERENCES, UNIT, "shapes differ"),
        (PREDICTIONS + 0.5, REFERENCES, UNIT, "aren't whole numbers; give labels, not probabilities"),
        (PREDICTIONS * math.nan, REFERENCES, UNIT, "aren't whole numbers"),
        (torch.softmax(one_hot(PREDICTIONS, 4), 1), REFERENCES, UNIT, "isn't one-hot"),
        (torch.zeros(4, 3, 16, 14, 12), REFERENCES, UNIT, "isn't one-hot"),
        (torch.ones(4, 3, 16, 14, 12), REFERENCES, UNIT, "isn't one-hot"),
        (PREDICTIONS, REFERENCES, (1, 1), "three positive numbers"),
    ],
)
def test_input_that_is_refused(prediction: torch.Tensor, reference: torch.Tensor, spacing: Any, message: str):
    metric = LesionWiseMetric()
    with pytest.raises(InputError, match=message) as error:
        metric(prediction, reference, spacing=spacing)
    assert "\n" not in str(error.value)
    assert metric.get_buffer() is None


def test_large_values_stay_what_they_are():
    # 65539 is 3 in 16 bits.
    assert label_map_of(torch.full((1, 2, 2, 2), 65539.0)).unique().tolist() == [65539]


def test_spacing_of_a_scan():
    (scan,) = scans(PREDICTIONS[:1], [(0.5, 2.0, 3.0)])
    assert spacing_of(scan) == [0.5, 2.0, 3.0]


def test_spacing_is_what_a_file_of_the_scan_states():
    """The affine of an oblique scan has other last digits than its header."""
    turn = torch.tensor([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]], dtype=torch.float64)
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = (turn * torch.tensor([0.9, 1.1, 1.3], dtype=torch.float64)).float().double()
    zooms = nibabel.Nifti1Image(PREDICTIONS[0, 0].numpy(), affine.numpy()).header.get_zooms()
    assert spacing_of(MetaTensor(PREDICTIONS[0], affine=affine)) == [float(zoom) for zoom in zooms]


def test_the_metric_keeps_every_case():
    metric = LesionWiseMetric()
    metric(PREDICTIONS, REFERENCES, spacing=UNIT)
    maps = (maps[1, 0].numpy() for maps in (PREDICTIONS, REFERENCES))
    assert len(metric.cases) == CASES and metric.cases[1] == lesion_wise_scores(*maps, UNIT)
    metric.reset()
    assert metric.cases == []
