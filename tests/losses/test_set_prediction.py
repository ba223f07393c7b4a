"""3D-TransUNet's loss against plain loops, its matching against all others, and the voxels that it looks at."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from common.errors import InputError
from common.losses import set_prediction
from common.losses.deep_supervision import DiceCrossEntropy
from common.losses.set_prediction import SetPredictionLoss, match, matching_costs, stratified_points
from common.networks.transunet3d import QueryPrediction, TransUNet3D, TransUNetOutput

SHAPE = (3, 4, 5)


def tiny_output(samples: int = 2, predictions: int = 2, queries: int = 4) -> TransUNetOutput:
    """Logits of three regions and random queries over two mask features."""
    torch.manual_seed(0)

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(shape, requires_grad=True)

    return TransUNetOutput(
        [leaf(samples, 3, *SHAPE)],
        [
            QueryPrediction(leaf(samples, queries, 4), leaf(samples, queries, 2), leaf(samples, queries))
            for _ in range(predictions)
        ],
        leaf(samples, 2, *SHAPE),
    )


def tiny_label(samples: int = 2) -> torch.Tensor:
    """Nested regions; the second sample has the first alone."""
    label = torch.zeros(samples, 3, *SHAPE, dtype=torch.uint8)
    label[:, 0, :2, 1:, 1:4] = 1
    label[::2, 1, 1, 1:3] = label[::2, 0, 1, 1:3]
    label[::2, 2, 1, 1, 2] = 1
    return label


def leaves(output: TransUNetOutput) -> list[torch.Tensor]:
    return [*output.heads, *itertools.chain(*output.predictions), output.mask_features]


def in_order(output: TransUNetOutput, order: list[int]) -> TransUNetOutput:
    """The same queries in another order."""
    reordered = [QueryPrediction(*(part[:, order] for part in prediction)) for prediction in output.predictions]
    return output._replace(predictions=reordered)


def softmax(logits: list[float]) -> list[float]:
    return [math.exp(value) / sum(map(math.exp, logits)) for value in logits]


def loop_mask(weights: list[float], bias: float, features: list[list[float]]) -> list[float]:
    """Probability of each voxel in a query's mask, which is sigmoid(weights · features + bias)."""
    channels = range(len(features))
    return [
        1 / (1 + math.exp(-bias - sum(weights[c] * features[c][v] for c in channels))) for v in range(len(features[0]))
    ]


def loop_entropy(mask: list[float], truth: list[float]) -> float:
    return sum(-math.log(p if y else 1 - p) for p, y in zip(mask, truth, strict=True)) / len(mask)


def loop_dice(mask: list[float], truth: list[float]) -> float:
    both = sum(p * y for p, y in zip(mask, truth, strict=True))
    return 1 - (2 * both + 1e-5) / (sum(mask) + sum(truth) + 1e-5)


def loop_parts(output: TransUNetOutput, label: torch.Tensor, no_object_weight: float = 1.0) -> dict[str, float]:
    """Eq. 6 by the definitions: every mask whole, every assignment tried."""
    samples, regions = label.shape[:2]
    parts = {"class": 0.0, "mask": 0.0, "dice": 0.0}
    truths = label.flatten(2).tolist()
    targets = [[k for k in range(regions) if any(truths[b][k])] for b in range(samples)]
    features = output.mask_features.flatten(2).tolist()
    for prediction in output.predictions:
        classes, weights, bias = (part.tolist() for part in prediction)
        nominator = denominator = 0.0
        for b in range(samples):
            queries = range(len(bias[b]))
            called = [softmax(classes[b][q]) for q in queries]
            masks = [loop_mask(weights[b][q], bias[b][q], features[b]) for q in queries]

            def cost(q: int, k: int, called=called, masks=masks, b=b) -> float:
                truth = truths[b][k]
                return -2 * called[q][k] + 5 * loop_entropy(masks[q], truth) + 5 * loop_dice(masks[q], truth)

            best = min(
                itertools.permutations(queries, len(targets[b])),
                key=lambda chosen, b=b, cost=cost: sum(map(cost, chosen, targets[b])),
            )
            for q in queries:
                k = targets[b][best.index(q)] if q in best else regions
                importance = no_object_weight if k == regions else 1.0
                nominator -= importance * math.log(called[q][k])
                denominator += importance
            for q, k in zip(best, targets[b], strict=True):
                parts["mask"] += loop_entropy(masks[q], truths[b][k]) / sum(map(len, targets))
                parts["dice"] += loop_dice(masks[q], truths[b][k]) / sum(map(len, targets))
        parts["class"] += nominator / denominator
    return parts


@pytest.mark.parametrize("no_object_weight", [1.0, 0.1])
@pytest.mark.parametrize("piece", [1 << 18, 7])
def test_parts_and_total_equal_plain_loops(
    no_object_weight: float, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_prediction, "PIECE", piece)
    output, label = tiny_output(), tiny_label()
    loss = SetPredictionLoss(no_object_weight=no_object_weight, heads_weight=0.5)
    total = loss(output, label)
    expected = loop_parts(output, label, no_object_weight)
    expected["heads"] = DiceCrossEntropy(softmax=False)(output.heads[0], label.float()).item()
    assert {name: value.item() for name, value in loss.components.items()} == pytest.approx(expected, rel=1e-5)
    assert not any(value.requires_grad for value in loss.components.values())
    weighted = 0.3 * expected["class"] + 0.7 * (expected["mask"] + expected["dice"]) + 0.5 * expected["heads"]
    assert total.item() == pytest.approx(weighted, rel=1e-5)


def test_gradients_are_those_of_whole_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    output, label = tiny_output(samples=1, predictions=1, queries=1), tiny_label(samples=1)[:, :1]
    output = TransUNetOutput([output.heads[0][:, :1]], output.predictions, output.mask_features)
    prediction, features = output.predictions[0], output.mask_features
    output.predictions[0] = prediction._replace(classes=prediction.classes[..., :2])
    loss = SetPredictionLoss(class_weight=0, heads_weight=0)
    wanted = [prediction.weights, prediction.bias, features]
    mask = torch.einsum("bqc,bcdhw->bqdhw", prediction.weights, features) + prediction.bias[..., None, None, None]
    expected = torch.autograd.grad(0.7 * DiceCrossEntropy(softmax=False)(mask, label.float()), wanted)
    monkeypatch.setattr(set_prediction, "PIECE", 7)
    for gradient, exact in zip(torch.autograd.grad(loss(output, label), wanted), expected, strict=True):
        torch.testing.assert_close(gradient, exact)


def test_costs_equal_plain_loops() -> None:
    output, label = tiny_output(samples=1, predictions=1), tiny_label(samples=1)
    classes, weights, bias = (part[0].detach() for part in output.predictions[0])
    features, truth = output.mask_features[0].flatten(1).detach(), label[0].flatten(1).float()
    costs = matching_costs(classes, weights @ features + bias[:, None], truth, torch.ones(60), (2, 3, 4))
    assert costs.shape == (4, 3)
    for q, k in itertools.product(range(4), range(3)):
        mask = loop_mask(weights[q].tolist(), bias[q].item(), features.tolist())
        expected = 3 * loop_entropy(mask, truth[k].tolist()) + 4 * loop_dice(mask, truth[k].tolist())
        assert costs[q, k].item() == pytest.approx(expected - 2 * softmax(classes[q].tolist())[k], rel=1e-4)


@given(st.integers(1, 3), st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_no_assignment_costs_less(regions: int, more: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    costs = torch.randn(2, regions + more, regions, generator=generator)
    present = torch.rand(regions, generator=generator) < 0.7
    prediction, query, region = match(costs, present)
    wanted = present.nonzero().squeeze(1).tolist()
    for one in range(2):
        mine = prediction == one
        assert sorted(region[mine].tolist()) == wanted and len(set(query[mine].tolist())) == len(wanted)
        least = min(
            sum(costs[one, q, k].item() for q, k in zip(chosen, wanted, strict=True))
            for chosen in itertools.permutations(range(regions + more), len(wanted))
        )
        assert costs[one, query[mine], region[mine]].sum().item() == pytest.approx(least, abs=1e-5)


@given(st.permutations(range(4)))
def test_the_order_of_queries_doesnt_matter(order: list[int]) -> None:
    output, label, loss = tiny_output(), tiny_label(), SetPredictionLoss()
    expected = loss(output, label).item()
    assert loss(in_order(output, order), label).item() == pytest.approx(expected, rel=1e-5)


def test_only_matched_masks_and_all_classes_learn() -> None:
    output, label = tiny_output(), tiny_label()
    SetPredictionLoss()(output, label).backward()
    for prediction in output.predictions:
        assert (prediction.classes.grad != 0).all()
        assert (prediction.weights.grad != 0).any(dim=2).sum(dim=1).tolist() == [3, 1]
        assert ((prediction.weights.grad != 0).any(dim=2) == (prediction.bias.grad != 0)).all()
    assert (output.mask_features.grad != 0).all() and (output.heads[0].grad != 0).all()


def test_a_mask_that_has_run_away_matters_only_where_matched() -> None:
    output, label, loss = tiny_output(queries=3), tiny_label(), SetPredictionLoss()
    label[:, 1:] = 0
    with torch.no_grad():
        for prediction in output.predictions:
            prediction.weights[:, 1] = math.nan
    assert loss(output, label).isfinite()
    label[:, 1:] = 1
    assert loss(output, label).isnan()


def test_background_alone_has_classes_and_no_masks() -> None:
    output, label, loss = tiny_output(), torch.zeros_like(tiny_label()), SetPredictionLoss()
    loss(output, label).backward()
    nothing = sum(
        -math.log(softmax(query)[3])
        for prediction in output.predictions
        for query in prediction.classes.flatten(0, 1).tolist()
    )
    assert loss.components["class"].item() == pytest.approx(nothing / 8, rel=1e-5)
    assert loss.components["mask"] == loss.components["dice"] == 0
    # None at all would make distributed training wait for it.
    for part in [output.mask_features, *(p.weights for p in output.predictions), *(p.bias for p in output.predictions)]:
        assert part.grad is not None and (part.grad == 0).all()


def test_a_perfect_prediction_costs_nothing() -> None:
    label = tiny_label()
    features, regions = label.float(), torch.tensor([[2, 0, 1, 3], [3, 0, 3, 3]])  # of the queries; 3 is no object
    weights = torch.nn.functional.one_hot(regions, 4).float()
    prediction = QueryPrediction(40 * weights, 40 * weights[..., :3], torch.full((2, 4), -20.0))
    loss = SetPredictionLoss()
    value = loss(TransUNetOutput([80 * features - 40], [prediction] * 3, features), label)
    assert 0 <= value.item() < 1e-4
    # A query that calls the region wrongly costs its class and leaves the mask as it is.
    prediction.classes[1, 1] = torch.tensor([0.0, 0, 40, 0])
    loss(TransUNetOutput([features], [prediction], features), label)
    assert loss.components["class"].item() == pytest.approx(40 / 8) and loss.components["mask"] < 1e-5


def test_as_many_queries_as_regions_are_enough_and_fewer_are_not() -> None:
    label = tiny_label(samples=1)
    output = tiny_output(samples=1, queries=3)
    SetPredictionLoss()(output, label).backward()
    assert all((prediction.weights.grad != 0).all() for prediction in output.predictions)
    with pytest.raises(InputError, match="queries 2: each of the 3 regions"):
        SetPredictionLoss()(tiny_output(samples=1, queries=2), label)


def test_any_number_of_lesions_is_one_target() -> None:
    output, label, loss = tiny_output(samples=1), torch.zeros(1, 3, *SHAPE), SetPredictionLoss()
    label[:, 0, ::2, ::2, ::2] = 1  # 12 of them, with 4 queries
    loss(output, label).backward()
    assert {name: loss.components[name].item() for name in ("class", "mask", "dice")} == pytest.approx(
        loop_parts(output, label), rel=1e-5
    )
    assert all((prediction.weights.grad != 0).any(dim=2).sum() == 1 for prediction in output.predictions)


def test_without_queries_there_are_only_the_heads() -> None:
    output, label, loss = tiny_output(), tiny_label(), SetPredictionLoss()
    heads = [*output.heads, torch.randn(2, 3, 2, 2, 3), torch.randn(2, 3, 1, 1, 2)]
    value = loss(TransUNetOutput(heads, [], None), label)
    coarse = torch.nn.functional.interpolate(label.float(), (2, 2, 3), mode="nearest-exact")
    one = DiceCrossEntropy(softmax=False)
    assert value.item() == pytest.approx((one(heads[0], label.float()) * 2 + one(heads[1], coarse)).item() / 3)
    assert [*loss.components] == ["heads"]


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_points_stand_for_all_voxels(limit: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth = (torch.rand(3, 200, generator=generator) < torch.tensor([[0.5], [0.3], [0.02]])).float()
    points, counts = stratified_points(truth, limit)
    assert len(points.unique()) == len(points)
    assert (truth[:, points] @ counts).tolist() == truth.sum(dim=1).tolist() and counts.sum() == 200
    for regions in itertools.product((0, 1), repeat=3):
        stratum = truth.eq(torch.tensor(regions).unsqueeze(1)).all(dim=0)
        assert stratum[points].sum() == min(limit, stratum.sum())


@pytest.mark.parametrize("limit", [64, 512, 1000, 4096])
def test_points_are_everywhere_in_the_image(limit: int) -> None:
    # At a fixed place in runs of 64 voxels, or a multiple of that, all points would be in one sagittal plane.
    truth = torch.zeros(1, 64, 64, 64)
    points, counts = stratified_points(truth.flatten(1), limit)
    for axis in torch.unravel_index(points, (64, 64, 64)):
        assert len(axis.unique()) >= 0.6 * min(64, limit)
        assert abs(axis.double().mean().item() - 31.5) < 3
    ramp = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 64)] * 3, indexing="ij")).square().sum(dim=0).flatten()
    assert (ramp[points] @ counts).item() == pytest.approx(ramp.sum().item(), rel=0.05)


def lesions_and_queries(size: int) -> tuple[torch.Tensor, TransUNetOutput]:
    """Three voxels of every region and a large lesion of the first two; queries that paint nothing, but three."""
    label = torch.zeros(1, 3, size, size, size)
    label[0, :2, 8:24, 8:24, 8:24] = 1
    label[0, :, 40, 40, 40:43] = 1
    ball = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, size)] * 3, indexing="ij")).square().sum(dim=0) < 0.3
    features = torch.stack([label[0, 2], label[0, 1], ball.float()])[None]
    weights, bias = torch.zeros(1, 20, 3), torch.full((1, 20), -5.0)
    weights[0, 7, 0] = weights[0, 11, 1] = weights[0, 4, 2] = 8.0
    return label, TransUNetOutput(
        [torch.zeros_like(label)], [QueryPrediction(torch.zeros(1, 20, 4), weights, bias)], features
    )


def test_a_lesion_of_three_voxels_gets_the_query_that_paints_it() -> None:
    label, output = lesions_and_queries(64)
    stacked = [part.unsqueeze(1) for part in output.predictions[0]]
    flat = output.mask_features.flatten(2), label.flatten(2)
    ((_, query, region),) = SetPredictionLoss(points=1024).match(*stacked, *flat)
    matched = dict(zip(region.tolist(), query.tolist(), strict=True))
    assert matched[2] == 7 and 11 in (matched[0], matched[1])
    every = SetPredictionLoss(points=64**3).match(*stacked, *flat)[0]
    assert all(map(torch.equal, (query, region), every[1:]))


def test_points_estimate_the_costs_of_all_voxels() -> None:
    label, output = lesions_and_queries(64)
    classes, weights, bias = (part[0] for part in output.predictions[0])
    truth, logits = label[0].flatten(1), weights @ output.mask_features[0].flatten(1) + bias[:, None]
    exact = matching_costs(classes, logits, truth, torch.ones(64**3))
    points, counts = stratified_points(truth, 2048)
    estimate = matching_costs(classes, logits[:, points], truth[:, points], counts)
    torch.testing.assert_close(estimate, exact, rtol=0.02, atol=0.02)


def test_same_input_same_value() -> None:
    output, label = tiny_output(), tiny_label()
    values = [SetPredictionLoss(points=5)(output, label) for _ in range(2)]
    assert torch.equal(*values)
    gradients = [torch.autograd.grad(value, leaves(output)) for value in values]
    assert all(map(torch.equal, *gradients))


def test_everything_is_float32_under_autocast() -> None:
    output, label, loss = tiny_output(), tiny_label(), SetPredictionLoss()
    halved = TransUNetOutput(
        [head.bfloat16() for head in output.heads],
        [QueryPrediction(*(part.bfloat16() for part in prediction)) for prediction in output.predictions],
        output.mask_features.bfloat16(),
    )
    with torch.autocast("cpu"):
        value = loss(halved, label)
    assert value.dtype == torch.float32 and all(part.dtype == torch.float32 for part in loss.components.values())
    widened = TransUNetOutput(
        [head.float() for head in halved.heads],
        [QueryPrediction(*(part.float() for part in prediction)) for prediction in halved.predictions],
        halved.mask_features.float(),
    )
    assert torch.equal(value, loss(widened, label))
    value.backward()
    assert all(leaf.grad.isfinite().all() for leaf in leaves(output))


VARIANTS = {"none": (0, 0), "encoder": (1, 0), "decoder": (0, 2), "both": (1, 2)}


def small_network(variant: str, queries: int = 5) -> TransUNet3D:
    torch.manual_seed(0)
    encoder_layers, decoder_layers = VARIANTS[variant]
    return TransUNet3D(
        1, 3, (8, 16, 24, 32), encoder_layers, decoder_layers, queries, (2, 2, 2), 24, 2, 48, 32, 2, 64, dropout=0
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("lesion", [0, 1])
def test_one_step_of_each_variant_reaches_every_weight(variant: str, lesion: int) -> None:
    network, label = small_network(variant), torch.zeros(1, 3, 16, 16, 24)
    label[:, :2, 4:9, 4:9, 4:9] = lesion
    with torch.autocast("cpu"):
        output = network(torch.randn(1, 1, 16, 16, 24))
    value = SetPredictionLoss()(output, label)
    value.backward()
    assert value.isfinite()
    for name, parameter in network.named_parameters():
        # None at all would make distributed training wait for it.
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_a_short_training_makes_queries_of_the_regions() -> None:
    network, loss = small_network("decoder"), SetPredictionLoss()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    label = torch.zeros(1, 3, 16, 16, 16)
    label[0, 0, 3:13, 3:13, 3:13] = label[0, 1, 5:11, 5:11, 5:11] = 1  # the third region is absent
    image = torch.randn(1, 1, 16, 16, 16) + 3 * label.sum(dim=1, keepdim=True)
    for _ in range(40):
        optimizer.zero_grad()
        loss(network(image), label).backward()
        optimizer.step()
    with torch.no_grad():
        segmented = network.eval()(image) > 0
    both = (segmented & (label > 0)).sum(dim=(0, 2, 3, 4))
    dice = 2 * both / (segmented + label).sum(dim=(0, 2, 3, 4)).clamp(min=1)
    assert dice[0] > 0.9 and dice[1] > 0.9 and not segmented[0, 2].any()


def test_metadata_ends_here() -> None:
    output, label, loss = tiny_output(), tiny_label(), SetPredictionLoss()
    value = loss(output, MetaTensor(label))
    assert type(value) is torch.Tensor and torch.equal(value, loss(output, label))


def test_wrong_points() -> None:
    with pytest.raises(InputError, match="points 0"):
        SetPredictionLoss(points=0)
