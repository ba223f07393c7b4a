"""Time of one matching of queries with regions, at points and at every voxel, and what the points' matching loses.

    python -m benchmarks.set_matching [--sizes 64 128] [--queries 20] [--seeds 10] [--device cuda]

A matching is that of one prediction for one image: costs of all pairs, and the assignment. Three ways, in turn:
`points` is the loss's; `every voxel` has its matrix products over the whole masks; `pair by pair` compares each whole
mask with each region by itself. The points' may take 0.03 s at 64³.

The images have a few metastases, and queries that paint them more or less well, as in the middle of a training: each
some of the regions, with a part moved or missing and something false elsewhere. `same` is how many regions get the
query that the matching at every voxel gives them, `excess` how much more the points' matching costs by the exact costs.
The last row is the whole loss with the auxiliary predictions, four in all, forward and backward.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss

from common.losses.set_prediction import SetPredictionLoss, match, matching_costs
from common.networks.transunet3d import QueryPrediction, TransUNetOutput

from .machine import machine

CHANNELS, LESIONS = 32, 6
Case = tuple[QueryPrediction, torch.Tensor, torch.Tensor]


def balls(size: int, centres: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """All voxels in any of the balls (size, size, size), 0 or 1."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(size)] * 3, indexing="ij")).float()
    inside = torch.zeros(size, size, size)
    for centre, radius in zip(centres, radii, strict=True):
        inside[(grid - centre[:, None, None, None]).square().sum(dim=0) <= radius**2] = 1
    return inside


def case(size: int, queries: int, seed: int, device: str) -> Case:
    """Prediction of one sample, mask features (1, 32, D, H, W) and label (1, 3, D, H, W)."""
    torch.manual_seed(seed)
    centres, radii = torch.rand(LESIONS, 3) * (size - 16) + 8, torch.rand(LESIONS) * 5 + 2
    label = torch.stack([balls(size, centres, share * radii) for share in (1, 0.75, 0.5)])[None]
    features = torch.randn(1, CHANNELS, size, size, size)
    for channel in range(CHANNELS // 2):  # each a map of some of the lesions, and of something else
        found = torch.rand(LESIONS) < 0.7
        moved, false = centres[found] + 1.5 * torch.randn(int(found.sum()), 3), torch.rand(2, 3) * size
        share = float(torch.rand(()) * 0.8 + 0.4)
        features[0, channel] += 6 * balls(
            size, torch.cat([moved, false]), torch.cat([share * radii[found], torch.full((2,), 3.0)])
        )
    weights = torch.cat([torch.rand(1, queries, CHANNELS // 2) ** 4, torch.randn(1, queries, CHANNELS // 2) * 0.1], 2)
    prediction = QueryPrediction(torch.randn(1, queries, 4), weights, torch.full((1, queries), -4.0))
    return QueryPrediction(*(part.to(device) for part in prediction)), features.to(device), label.to(device)


def at_points(prediction: QueryPrediction, features: torch.Tensor, label: torch.Tensor) -> dict[int, int]:
    """The loss's own matching."""
    classes, weights, bias = (part.unsqueeze(1) for part in prediction)
    _, query, region = SetPredictionLoss().match(classes, weights, bias, features.flatten(2), label.flatten(2))[0]
    return dict(zip(region.tolist(), query.tolist(), strict=True))


def exact_costs(prediction: QueryPrediction, features: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The loss's costs over all voxels (1, queries, regions)."""
    logits = prediction.weights[0] @ features[0].flatten(1) + prediction.bias[0].unsqueeze(1)
    everywhere = torch.ones(logits.shape[1], device=logits.device)
    return matching_costs(prediction.classes, logits[None], label[0].flatten(1), everywhere)


def at_every_voxel(prediction: QueryPrediction, features: torch.Tensor, label: torch.Tensor) -> dict[int, int]:
    """The same by matrix products over the whole masks."""
    return assigned(exact_costs(prediction, features, label), label)


def pair_by_pair(prediction: QueryPrediction, features: torch.Tensor, label: torch.Tensor) -> dict[int, int]:
    """The same by comparing each whole mask with each region."""
    masks = torch.einsum("qc,cdhw->qdhw", prediction.weights[0], features[0]) + prediction.bias[0, :, None, None, None]
    called, dice = prediction.classes[0].softmax(dim=1), DiceLoss(sigmoid=True)
    costs = [
        [
            5 * F.binary_cross_entropy_with_logits(mask, truth) + 5 * dice(mask[None, None], truth[None, None]) - 2 * p
            for truth, p in zip(label[0], probabilities, strict=False)
        ]
        for mask, probabilities in zip(masks, called, strict=True)
    ]
    return assigned(torch.stack([torch.stack(row) for row in costs])[None], label)


def assigned(costs: torch.Tensor, label: torch.Tensor) -> dict[int, int]:
    """Query of each region, of the least costs."""
    _, query, region = match(costs.cpu(), label[0].flatten(1).sum(dim=1).cpu() > 0)
    return dict(zip(region.tolist(), query.tolist(), strict=True))


def step(prediction: QueryPrediction, features: torch.Tensor, label: torch.Tensor) -> float:
    """The whole loss of four predictions, forward and backward."""
    predictions = [QueryPrediction(*(part.clone().requires_grad_() for part in prediction)) for _ in range(4)]
    output = TransUNetOutput([torch.zeros_like(label).requires_grad_()], predictions, features.clone().requires_grad_())
    value = SetPredictionLoss()(output, label)
    value.backward()
    return value.item()


WAYS: dict[str, Callable[[QueryPrediction, torch.Tensor, torch.Tensor], dict[int, int]]] = {
    "points": at_points,
    "every voxel": at_every_voxel,
    "pair by pair": pair_by_pair,
}


def seconds(call: Callable[[], object], device: str) -> float:
    """Of one call, finished."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128], help="voxels along each side")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10, help="images of each size")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    print(machine())
    print(f"\n{'':32}{'ms, median':>11}{'least':>9}{'times faster':>14}{'same':>10}{'excess':>9}")
    for size in arguments.sizes:
        times: dict[str, list[float]] = {name: [] for name in [*WAYS, "whole loss, 4 predictions"]}
        same = regions = 0
        excess = []
        for seed in range(arguments.seeds):
            one = case(size, arguments.queries, seed, arguments.device)
            if not seed:
                for way in (*WAYS.values(), step):
                    way(*one)  # the first call prepares
            for name, way in (*WAYS.items(), ("whole loss, 4 predictions", step)):
                times[name].append(seconds(lambda way=way, one=one: way(*one), arguments.device))
            costs, found, best = exact_costs(*one)[0], at_points(*one), at_every_voxel(*one)
            same += sum(found[region] == query for region, query in best.items())
            regions += len(best)
            totals = [sum(costs[q, k].item() for k, q in matched.items()) for matched in (found, best)]
            excess.append(totals[0] - totals[1])
        slowest = statistics.median(times["pair by pair"])
        for name, values in times.items():
            median = statistics.median(values)
            line = f"{size:4}³ {name:26}{1000 * median:11.1f}{1000 * min(values):9.1f}"
            line += f"{slowest / median:14.1f}" if name in WAYS else ""
            print(line + (f"{same:5} of {regions}{statistics.mean(excess):9.4f}" if name == "points" else ""))


if __name__ == "__main__":
    main()
