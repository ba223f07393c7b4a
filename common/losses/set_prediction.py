"""The loss of 3D-TransUNet: queries matched with the regions that are there, and the CNN's heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.losses import DeepSupervisionLoss
from monai.utils import convert_to_tensor
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from ..networks.query_decoder import PIECE
from ..networks.transunet3d import QueryPrediction, TransUNetOutput
from ..processes import mean
from .deep_supervision import DiceCrossEntropy, supervision_weights

__all__ = ["SetPredictionLoss", "match", "matching_costs", "stratified_points"]

SMOOTH = 1e-5
"""Added above and below in Dice, as MONAI's DiceLoss has it."""


class SetPredictionLoss(nn.Module):
    """λ₀ (BCE + Dice) of the matched masks and λ₁ of the queries' classes (Eq. 6), and Dice + BCE of the CNN's heads.

    Based on: Yang et al., "3D-TransUNet for Brain Metastases Segmentation in the BraTS2023 Challenge", section
    2.4, and Carion et al., "End-to-End Object Detection with Transformers" (2020) for the matching.

    The regions that a sample has are its targets, one for each whatever the number of lesions; a region without a
    voxel is none. In each prediction each target gets the query of its own that makes the sum of costs least, and that
    query should call the region and paint it whole. The others should call "no object" and may paint anything.

    The costs, of class, BCE and Dice, come from a sample of voxels (`stratified_points`), the same for all queries and
    predictions. The loss is exact, over all voxels, and makes no mask but those of matched queries, in pieces that the
    backward pass makes again. BCE is a mean over voxels; BCE and Dice are means over the targets of the batch, that of
    all processes where several train; class cross-entropy is the mean over queries that `no_object_weight` weights.
    Each of the three is a sum over the predictions: the last and the auxiliary ones before it count alike, as in DETR.

    Everything is computed in float32. An output without predictions has the heads' loss alone.

    Args:
        class_weight: λ₁.
        mask_weight: λ₀.
        no_object_weight: of a query without target in the class cross-entropy, above zero; 1 is any other's.
        heads_weight: of the CNN's deep supervision, whose levels have nnU-Net's weights.
        costs: of class, BCE and Dice in the matching.
        points: voxels at most of each stratum that the matching looks at.

    Attributes:
        components: last values before weighting, detached, under "class", "mask" (BCE), "dice" and "heads".

    Raises:
        InputError: `points` or `no_object_weight` is not positive.
    """

    def __init__(
        self,
        class_weight: float = 0.3,
        mask_weight: float = 0.7,
        no_object_weight: float = 1.0,
        heads_weight: float = 1.0,
        costs: Sequence[float] = (2.0, 5.0, 5.0),
        points: int = 8192,
    ) -> None:
        super().__init__()
        if points < 1:
            raise InputError(f"points {points}: the matching needs at least one of each stratum")
        if no_object_weight <= 0:  # a batch of background alone would have no weight at all
            raise InputError(f"no_object_weight {no_object_weight}: give a number above zero")
        self.weights = {"class": class_weight, "mask": mask_weight, "dice": mask_weight, "heads": heads_weight}
        self.no_object_weight, self.costs, self.points = no_object_weight, tuple(costs), points
        self.components: dict[str, torch.Tensor] = {}
        self.segmentation = DiceCrossEntropy(softmax=False)

    def forward(self, output: TransUNetOutput, label: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            output: what the network returns in training.
            label: of each region 0 or 1 (B, K, D, H, W).

        Returns:
            A scalar.

        Raises:
            InputError: there are fewer queries than regions.
        """
        supervise = DeepSupervisionLoss(self.segmentation, weights=supervision_weights(len(output.heads)))
        label = convert_to_tensor(label)  # a MetaTensor would take every operation through Python
        with torch.autocast(label.device.type, enabled=False):
            truth = (label > 0).float()
            parts = {}
            if output.mask_features is not None:
                parts = self.set_losses(output.predictions, output.mask_features, truth)
            parts["heads"] = supervise([head.float() for head in output.heads], truth)
        self.components = {name: value.detach() for name, value in parts.items()}
        return torch.stack([self.weights[name] * value for name, value in parts.items()]).sum()

    def set_losses(
        self, outputs: Sequence[QueryPrediction], mask_features: torch.Tensor, truth: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Losses of the queries: "class", "mask" and "dice", each a sum over the predictions.

        Args:
            outputs: P predictions.
            mask_features: (B, C, D, H, W).
            truth: of each region 0 or 1 (B, K, D, H, W), float32.
        """
        truth = truth.flatten(2)  # (B, K, N)
        samples, regions, voxels = truth.shape
        # (B, P, Q, K + 1), (B, P, Q, C) and (B, P, Q)
        classes, weights, bias = (torch.stack(part, dim=1).float() for part in zip(*outputs, strict=True))
        features = mask_features.flatten(2)  # (B, C, N), as wide as it is: pieces of it become float32
        predictions, queries = classes.shape[1:3]
        if queries < regions:
            raise InputError(f"queries {queries}: each of the {regions} regions needs one; give at least {regions}")
        matches = self.match(classes, weights, bias, features, truth)

        targets = torch.full((samples, predictions, queries), regions)
        for sample, (prediction, query, region) in enumerate(matches):
            targets[sample, prediction, query] = region
        importance = torch.ones(regions + 1)
        importance[-1] = self.no_object_weight
        # As many queries have a target in each of the predictions, so that the mean over all is that over each.
        entropy = F.cross_entropy(
            classes.flatten(0, 2), targets.flatten().to(classes.device), importance.to(classes.device)
        )

        masks, dices = [], []
        for sample, (prediction, query, region) in enumerate(matches):
            entropies, both, painted = mask_sums(
                weights[sample, prediction, query],
                bias[sample, prediction, query],
                features[sample],
                truth[sample],
                region.to(truth.device),
            )
            volume = truth[sample].sum(dim=1)[region]
            masks.append(entropies / voxels)
            dices.append(1 - (2 * both + SMOOTH) / (painted + volume + SMOOTH))
        mask, dice = torch.cat(masks), torch.cat(dices)
        # A batch of background alone has no mask, but its gradients are 0 and not missing.
        count = mean(len(mask) // predictions, mask.device) or 1
        return {"class": predictions * entropy, "mask": mask.sum() / count, "dice": dice.sum() / count}

    @torch.no_grad()
    def match(
        self,
        classes: torch.Tensor,
        weights: torch.Tensor,
        bias: torch.Tensor,
        features: torch.Tensor,
        truth: torch.Tensor,
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Give each target a query, in each prediction by itself.

        Args:
            classes: logits of all predictions (B, P, Q, K + 1).
            weights: of the mask features in the queries' masks (B, P, Q, C).
            bias: of the queries' masks (B, P, Q).
            features: (B, C, N).
            truth: (B, K, N).

        Returns:
            For each sample prediction, query and region of every match, (P · targets,) each, on the CPU.
        """
        costs = []
        for sample in range(len(truth)):
            points, counts = stratified_points(truth[sample], self.points)
            # index_select is up to four times as fast as [:, points].
            seen, inside = (values.index_select(1, points) for values in (features[sample], truth[sample]))
            logits = weights[sample] @ seen.float() + bias[sample].unsqueeze(2)
            costs.append(matching_costs(classes[sample], logits, inside, counts, self.costs))
        present = truth.sum(dim=2).cpu() > 0
        return [match(*sample) for sample in zip(torch.stack(costs).cpu(), present, strict=True)]


def stratified_points(truth: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose voxels over which weighted sums estimate sums over the whole image.

    Voxels that are in the same regions are a stratum; the background is one. A stratum within the limit is taken whole:
    nothing of a small lesion is missed. A larger one is cut in its order, rows of the image one after another, into
    `limit` runs of equal length, give or take one, and each gives one voxel. Its place in the run moves on by the
    golden ratio from run to run: a fixed place could fall into the same few planes of the image again and again.

    There is no randomness. Sums of the truth, the regions' volumes, are exact.

    Args:
        truth: of each region 0 or 1 (K, N).
        limit: voxels at most of each stratum.

    Returns:
        The voxels, (P,), and how many each stands for, (P,) float32.
    """
    number = 2.0 ** torch.arange(len(truth), device=truth.device) @ truth
    strata = number.to(torch.int16)  # sorted in a fraction of float32's time
    points, counts = [], []
    for voxels in strata.argsort(stable=True).split(strata.bincount().tolist()):
        if not len(voxels):
            continue
        runs = min(limit, len(voxels))
        borders = torch.arange(runs + 1, device=truth.device) * len(voxels) // runs
        lengths = borders.diff()
        place = torch.arange(runs, device=truth.device, dtype=torch.float64) * ((5**0.5 - 1) / 2) % 1
        points.append(voxels[borders[:-1] + (place * lengths).long()])
        counts.append(lengths.float())
    return torch.cat(points), torch.cat(counts)


def matching_costs(
    classes: torch.Tensor,
    logits: torch.Tensor,
    truth: torch.Tensor,
    counts: torch.Tensor,
    weights: Sequence[float] = (2.0, 5.0, 5.0),
) -> torch.Tensor:
    """What it would cost to give a query a target, of all pairs, by matrix products: minus the class's probability,
    the mean BCE over the voxels and the Dice loss, each with its weight.

    Args:
        classes: logits (..., Q, K + 1).
        logits: of the queries' masks at P voxels (..., Q, P).
        truth: of each region 0 or 1 at the same voxels (K, P).
        counts: how many voxels each stands for (P,).
        weights: of the three.

    Returns:
        (..., Q, K).
    """
    truth = truth * counts
    # BCE is softplus(x) - x y: only the second part is of the pair.
    entropy = ((F.softplus(logits) @ counts).unsqueeze(-1) - logits @ truth.T) / counts.sum()
    probability = logits.sigmoid()
    sizes = (probability @ counts).unsqueeze(-1) + truth.sum(dim=1)
    dice = 1 - (2 * (probability @ truth.T) + SMOOTH) / (sizes + SMOOTH)
    of_class, of_entropy, of_dice = weights
    return of_entropy * entropy + of_dice * dice - of_class * classes.softmax(dim=-1)[..., :-1]


def match(costs: torch.Tensor, present: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Assign queries to the regions that are present so that the sum of costs is least, in each prediction.

    Args:
        costs: (P, Q, K) with Q ≥ K.
        present: (K,), boolean.

    Returns:
        Prediction, query and region of every match, (P · targets,) each.
    """
    regions = present.nonzero().squeeze(1)
    # A network that has run away has its loss say so.
    columns = costs[:, :, regions].double().nan_to_num(1e30, 1e30, -1e30).numpy()
    matches = []
    for prediction, cost in enumerate(columns):
        query, column = map(torch.from_numpy, linear_sum_assignment(cost))
        matches.append((torch.full_like(query, prediction), query, regions[column]))
    predictions, queries, found = map(torch.cat, zip(*matches, strict=True))
    return predictions, queries, found


def mask_sums(
    weights: torch.Tensor, bias: torch.Tensor, features: torch.Tensor, truth: torch.Tensor, regions: torch.Tensor
) -> torch.Tensor:
    """Sums over all voxels that masks' BCE and Dice are made of, no more than `PIECE` voxels of the masks at a time.

    Args:
        weights: of M masks (M, C).
        bias: of the masks (M,).
        features: (C, N).
        truth: of each region 0 or 1 (K, N).
        regions: target of each mask (M,).

    Returns:
        BCE, probability inside the target, and probability, (3, M).
    """
    pieces = zip(features.split(PIECE, dim=1), truth.split(PIECE, dim=1), strict=True)
    sums = [
        checkpoint(_piece_sums, weights, bias, *piece, regions, use_reentrant=False, preserve_rng_state=False)
        for piece in pieces
    ]
    return torch.stack(sums).sum(dim=0)


def _piece_sums(
    weights: torch.Tensor, bias: torch.Tensor, features: torch.Tensor, truth: torch.Tensor, regions: torch.Tensor
) -> torch.Tensor:
    logits, target = torch.addmm(bias.unsqueeze(1), weights, features.float()), truth[regions]
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return torch.stack([entropy.sum(dim=1), (probability * target).sum(dim=1), probability.sum(dim=1)])
