"""The loss of FANCL: truth and curriculum at every resolution, and the attention's distance from the golden one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from monai.losses import DeepSupervisionLoss
from monai.utils import convert_to_tensor
from torch import nn

from ..errors import InputError
from ..networks.fancl import FANCL, FANCLOutput
from .deep_supervision import DiceCrossEntropy, supervision_weights

__all__ = ["FANCLLoss"]


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
