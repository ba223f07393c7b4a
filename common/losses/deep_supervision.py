"""nnU-Net's loss of one resolution, and the weights of several."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch.nn.modules.loss import _Loss

__all__ = ["DiceCrossEntropy", "supervision_weights"]


class DiceCrossEntropy(_Loss):
    """nnU-Net's loss: Dice over the categories, a sample at a time, and cross-entropy, a mean over voxels.

    As in nnU-Net the background has no Dice. FANCL's paper has it as Eqs 23 to 25, of which 24 is less by one, and 25
    as printed a sum, which would leave nothing of the Dice.

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
