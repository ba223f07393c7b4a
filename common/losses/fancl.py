"""The loss of FANCL: truth and curriculum at every resolution, and the attention's distance from the golden one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from monai.losses import DeepSupervisionLoss, DiceLoss
from monai.utils import convert_to_tensor
from torch import nn
from torch.nn.modules.loss import _Loss

from ..errors import InputError
from ..networks.fancl import FANCL, FANCLOutput

__all__ = ["DiceCrossEntropy", "FANCLLoss", "supervision_weights"]


class FANCLLoss(nn.Module):
    """L_FANCL = L_cur(t) + L_gt + L_FGA (Eqs 22 and 27), each of the first two at every supervised resolution.

    Based on: Liu et al., "FANCL: Feature-Guided Attention Network with Curriculum Learning for Brain Metastases
    Segmentation", section III.E.

    A target has, for each category and voxel, the curriculum that it enters with: 0 where the category isn't, 1 to T,
    and T + 1 where it is and no curriculum has it. So one map holds the truth (above 0) and C_t (1 to t), and C_1 ⊆ C_2
    ⊆ … ⊆ truth whatever it holds. Coarser levels take the nearest of its voxels, as nnU-Net does.

    Everything is computed in float32. Without curriculum L_cur is left out, and L_FGA where the network has no
    attention: Table III's rows.

    Args:
        network: the network, whose attention says how the golden one is computed.
        stages: epochs of each stage.
        curriculum: whether C_t supervises beside the truth.
        softmax: see `DiceCrossEntropy`.
        attention_weight: weight of L_FGA; the paper's is 1.

    Attributes:
        stage: t, counted from 1; see `set_epoch`.
        components: last values of L_gt, L_cur and L_FGA before weighting, detached, under "truth", "curriculum" and
            "attention".

    Raises:
        InputError: there is no stage, or one without epochs.
    """

    def __init__(
        self,
        network: FANCL,
        stages: Sequence[int] = (80, 80, 340),
        curriculum: bool = True,
        softmax: bool = True,
        attention_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not stages or min(stages) < 1:
            raise InputError(f"stages {list(stages)}: give the epochs of each, at least one")
        self.boundaries = [*accumulate(stages)]
        self.curriculum, self.attention_weight = curriculum, attention_weight
        # The method alone: as a module of the loss, the attention's weights would be the loss's.
        self.golden = None if network.attention is None else network.attention.golden
        self.components: dict[str, torch.Tensor] = {}
        self.segmentation = DiceCrossEntropy(softmax)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Say how many epochs are finished, before each epoch and after resuming: it makes the stage.

        What comes after the last belongs to it.
        """
        self.stage = next(
            (number for number, end in enumerate(self.boundaries, 1) if epoch < end), len(self.boundaries)
        )

    def forward(self, output: FANCLOutput, label: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            output: what the network returns in training.
            label: of each category (B, categories, D, H, W), see above.

        Returns:
            A scalar.
        """
        supervise = DeepSupervisionLoss(self.segmentation, weights=supervision_weights(len(output.heads)))
        label = convert_to_tensor(label)  # a MetaTensor would take every operation through Python
        with torch.autocast(label.device.type, enabled=False):
            truth = (label > 0).float()
            parts = {"truth": supervise(output.heads, truth)}
            if self.curriculum:
                parts["curriculum"] = supervise(output.heads, truth * (label <= self.stage))
            if output.attention is not None and self.golden is not None:
                golden = self.golden(truth[:, -output.attention.shape[1] :])
                parts["attention"] = F.mse_loss(output.attention.float(), golden)  # Eq. 26
        self.components = {name: value.detach() for name, value in parts.items()}
        weights = {"attention": self.attention_weight}
        return torch.stack([weights.get(name, 1.0) * value for name, value in parts.items()]).sum()


class DiceCrossEntropy(_Loss):
    """nnU-Net's loss (Eqs 23-25): Dice over the categories, a sample at a time, and cross-entropy, a mean over voxels.

    As in nnU-Net the background has no Dice. Eq. 24 is less by one, and Eq. 25 as printed a sum, which would leave
    nothing of the Dice.

    Args:
        softmax: the categories exclude one another, and what none has is background, the logits' first channel; else
            each category has a sigmoid of its own (regions, which overlap).
    """

    def __init__(self, softmax: bool = True) -> None:
        super().__init__()
        self.softmax = softmax
        self.dice = DiceLoss(include_background=not softmax, softmax=softmax, sigmoid=not softmax)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            logits: (B, categories, D, H, W), with softmax one channel more, the background's, as first.
            target: of each category, 0 or 1 (B, categories, D, H, W).

        Returns:
            A scalar.
        """
        if not self.softmax:
            return self.dice(logits, target) + F.binary_cross_entropy_with_logits(logits, target)
        target = torch.cat([1 - target.amax(dim=1, keepdim=True), target], dim=1)
        return self.dice(logits, target) + F.cross_entropy(logits, target)


def supervision_weights(heads: int) -> list[float]:
    """nnU-Net's: 1, ½, ¼ and so on for ever coarser heads, none for the coarsest of several, adding up to 1."""
    weights = [0.5**level for level in range(max(1, heads - 1))] + [0.0] * (heads > 1)
    return [weight / sum(weights) for weight in weights]
