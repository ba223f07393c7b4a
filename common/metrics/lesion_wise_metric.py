"""The lesion-wise scores as a metric of MONAI's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction
from monai.utils import MetricReduction

from ..data.labels import REGIONS
from ..errors import InputError
from .lesion_wise import NUMBERS, Policy, RegionScores, lesion_wise_scores, policy_of

__all__ = ["LesionWiseMetric", "label_map_of", "spacing_of"]


def label_map_of(tensor: torch.Tensor) -> torch.Tensor:
    """A label map (D, H, W) on the CPU from one of shape (1, D, H, W) or from a one-hot one (C, D, H, W).

    Raises:
        InputError: the shape is another, the values aren't whole numbers, or several channels aren't one-hot.
    """
    if tensor.ndim != 4:
        raise InputError(
            f"an entry of shape {tuple(tensor.shape)}: give label maps (1, D, H, W) or one-hot (C, D, H, W)"
        )
    tensor = tensor.detach().as_subclass(torch.Tensor)
    if len(tensor) > 1:
        if not ((tensor == 0) | (tensor == 1)).all() or not (tensor.sum(0) == 1).all():
            raise InputError(
                "an entry of several channels isn't one-hot: each voxel has 1 in one of them and 0 elsewhere"
            )
        return tensor.byte().argmax(0).byte().cpu()
    label_map = tensor[0]
    if label_map.is_floating_point():
        if not (label_map == label_map.round()).all():
            raise InputError("a label map holds values that aren't whole numbers; give labels, not probabilities")
        label_map = label_map.to(torch.int32)
    return label_map.cpu()


def spacing_of(tensor: torch.Tensor) -> list[float]:
    """Voxel size in mm that a MetaTensor's affine tells, as the float32 values that a NIfTI file of it would state.

    So the scores are those of the file that it is saved to.

    Raises:
        InputError: it is no MetaTensor.
    """
    if not isinstance(tensor, MetaTensor):
        raise InputError("the voxel size is unknown: give MetaTensors, or spacing=(x, y, z) in mm")
    return [float(np.float32(value)) for value in tensor.pixdim]


def _as_many(references: Any, predictions: Any) -> Any:
    """The references, of which there must be as many."""
    count = 0 if references is None else len(references)
    if len(predictions) != count:
        raise InputError(f"{len(predictions)} predictions and {count} references; give as many of either")
    return references


class LesionWiseMetric(CumulativeIterationMetric):
    """Lesion-wise scores (`lesion_wise_scores`) of batches, with MONAI's reductions.

    Takes label maps (B, 1, D, H, W) or one-hot maps (B, C, D, H, W), on any device, or lists of decollated ones; the
    computing is the CPU's. `aggregate` reduces over cases (B) and regions (C) as MONAI's other metrics do, where values
    that aren't defined (the lesion sensitivity of a case without lesions) are left out.

    Args:
        preset: see `lesion_wise_scores`.
        scores: numbers of `RegionScores`, such as "dice", "hd95", "lesion_f1", "fp".
        regions: name → labels that make it up; the channels of the result.
        reduction: of MONAI's `MetricReduction`.
        get_not_nans: `aggregate` also gives how many values there were.
        policy: dilation, threshold, penalty or tolerance in place of the preset's.

    Attributes:
        cases: region → `RegionScores` of each case since the last reset; those that this process computed.

    Raises:
        InputError: a score or the preset is unknown, or a value of the policy means nothing.
    """

    def __init__(
        self,
        preset: str | Policy = "brats2023-met",
        scores: Sequence[str] | str = ("dice", "hd95"),
        regions: Mapping[str, Sequence[int]] = REGIONS,
        reduction: MetricReduction | str = MetricReduction.MEAN_BATCH,
        get_not_nans: bool = False,
        **policy: Any,
    ) -> None:
        super().__init__()
        self.policy, self.regions = policy_of(preset, **policy), dict(regions)
        self.scores = [scores] if isinstance(scores, str) else list(scores)
        self.reduction, self.get_not_nans = reduction, get_not_nans
        if unknown := [name for name in self.scores if name not in NUMBERS]:
            raise InputError(f"score {unknown[0]!r} is unknown; use some of {', '.join(NUMBERS)}")

    def reset(self) -> None:
        """Forget all cases."""
        super().reset()
        self.cases: list[dict[str, RegionScores]] = []

    def _compute_list(self, y_pred: Any, y: Any = None, **kwargs: Any) -> Any:
        """Scores of decollated entries; MONAI's own way goes as far as the shorter list."""
        return super()._compute_list(y_pred, _as_many(y, y_pred), **kwargs)

    def _compute_tensor(
        self, y_pred: torch.Tensor, y: torch.Tensor | None = None, spacing: Sequence[float] | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Scores (B, regions, scores) of a batch; `spacing` in mm, that of each prediction's affine where not given."""
        batch = []
        for prediction, reference in zip(y_pred, _as_many(y, y_pred), strict=True):
            found = lesion_wise_scores(
                label_map_of(prediction).numpy(),
                label_map_of(reference).numpy(),
                spacing_of(prediction) if spacing is None else spacing,
                self.policy,
                regions=self.regions,
            )
            self.cases.append(found)
            batch.append([[float(getattr(found[region], name)) for name in self.scores] for region in self.regions])
        return torch.tensor(batch, dtype=torch.float64, device=y_pred.device)

    def aggregate(self, reduction: MetricReduction | str | None = None) -> Any:
        """Reduce what was computed so far.

        Args:
            reduction: in place of the one given at first.

        Returns:
            a tensor, or (tensor, not_nans) with `get_not_nans`; a list of these where there are several scores.
        """
        data = self.get_buffer()
        if not isinstance(data, torch.Tensor):
            raise ValueError("there is nothing to aggregate yet")
        reduced = [do_metric_reduction(data[..., n], reduction or self.reduction) for n in range(len(self.scores))]
        results = [both if self.get_not_nans else both[0] for both in reduced]
        return results if len(results) > 1 else results[0]
