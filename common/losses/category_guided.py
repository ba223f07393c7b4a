"""The loss of CGA U-Net: soft Dice, attention map, and distance between the classes' prototypes, in two stages."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from monai.networks import one_hot
from torch import nn

from ..errors import InputError
from ..networks.cga_unet import CGAOutput

__all__ = ["CategoryGuidedLoss", "attention_loss", "inter_class_distance", "inter_class_loss"]


class CategoryGuidedLoss(nn.Module):
    """Weighted sum of the losses that train CGA U-Net.

    Based on: Li et al., "Category Guided Attention Network for Brain Tumor Segmentation in MRI" (2021),
    sections 3.1, 3.2 and 3.4.

    - L_M, soft Dice on the softmax of the logits, summed over the classes but the background as in the authors'
      release (the paper doesn't say). Each class's Dice is over the voxels of the whole batch, so that false positives
      of a class still count in a crop without it.
    - L_A, mean squared error between the attention map and the one-hot label, see `attention_loss`.
    - L_I, see `inter_class_loss`, added from epoch `inter_start` on.

    Everything is computed in float32. An output without attention (`attention_rate=0`) has L_M only.

    Args:
        dice_weight: weight of L_M.
        cross_entropy_weight: weight of a cross-entropy over all classes, which the paper doesn't have: 0. A Dice of the
            foreground classes alone is as content with background called by a class whose Dice is near 0 anyway, and
            a short training on small lesions can stay there; 1 leads it out.
        attention_weight: weight of L_A; the paper's is that of L_M.
        inter_weight: weight of L_I. The paper's keeps L_I "at the same order of magnitude" as the others and is not
            given. In short trials on crops of two real scans, L_M was about 1.3, L_A 0.03 and the "log" L_I -8 when
            L_I joined; the default brings it to 0.08, between the two. Without a lower bound the features grow for
            the sake of L_I: 90 steps later D was about 100 times what it is without L_I, and 6,000 times with ten
            times the weight. The trials don't tell which weight segments better. 0 is Table 4's "Baseline + Intra"
            and a negative weight its "Baseline - Inter".
        inter_start: number of epochs trained before L_I joins.
        inter_form: see `inter_class_loss`.

    Attributes:
        epoch: number of epochs finished so far; see `set_epoch`.
        components: last values of L_M, L_A and L_I before weighting, detached, under "dice", "attention" and "inter",
            and "cross_entropy" where that has a weight.
            L_I is there from the start, whether it has joined or not.

    Raises:
        InputError: when `inter_form` is unknown.
    """

    def __init__(
        self,
        dice_weight: float = 1.0,
        cross_entropy_weight: float = 0.0,
        attention_weight: float = 1.0,
        inter_weight: float = 0.01,
        inter_start: int = 20,
        inter_form: str = "log",
    ) -> None:
        super().__init__()
        if inter_form not in _INTER_FORMS:
            raise InputError(f"inter_form {inter_form!r}: it must be one of {', '.join(_INTER_FORMS)}")
        self.weights = {
            "dice": dice_weight,
            "cross_entropy": cross_entropy_weight,
            "attention": attention_weight,
            "inter": inter_weight,
        }
        self.inter_start = inter_start
        self.inter_form = inter_form
        self.epoch = 0
        self.components: dict[str, torch.Tensor] = {}
        self.dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, reduction="none", batch=True)

    def set_epoch(self, epoch: int) -> None:
        """Say how many epochs are finished, before each epoch and after resuming; L_I joins at `inter_start`."""
        self.epoch = epoch

    def forward(self, output: CGAOutput, label: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            output: what the network returns in training.
            label: class of each voxel (B, 1, D, H, W), of any spatial size that the network takes.

        Returns:
            A scalar.
        """
        with torch.autocast(output.logits.device.type, enabled=False):
            parts = {"dice": self.dice(output.logits.float(), label).sum()}
            if self.weights["cross_entropy"]:
                parts["cross_entropy"] = F.cross_entropy(output.logits.float(), label[:, 0].long())
            if output.attention is not None:
                parts["attention"] = attention_loss(output.attention, label)
            if output.prototypes is not None and output.present is not None:
                parts["inter"] = inter_class_loss(output.prototypes, output.present, self.inter_form)
        self.components = {name: value.detach() for name, value in parts.items()}
        if self.epoch < self.inter_start:
            parts.pop("inter", None)
        return torch.stack([self.weights[name] * value for name, value in parts.items()]).sum()


def attention_loss(attention: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Mean squared error between an attention map and the one-hot label, background included (section 3.2).

    The label is taken at every rate-th voxel: at a rate of 8, voxels 0, 8, 16 …, which are the centres of what the
    map's voxels see, at any size.

    Args:
        attention: (B, K, d, h, w), with d = ceil(D / rate) and so on, of one rate that is a power of two.
        label: class of each voxel (B, 1, D, H, W).
    """
    # The only power of two that the sizes allow: half of it would give more voxels, twice as much fewer.
    steps = (math.ceil(full / small) for full, small in zip(label.shape[2:], attention.shape[2:], strict=True))
    rate = max(1 << (step - 1).bit_length() for step in steps)
    small_label = label[:, :, ::rate, ::rate, ::rate]
    return F.mse_loss(attention.float(), one_hot(small_label, attention.shape[1]))


def inter_class_distance(prototypes: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Sum D of the Euclidean distances between the prototypes of the classes that are present (Eq. 9).

    The sum runs over i and j as written, so each pair counts twice. Values beyond ±1e17 count as that, and pass no
    gradient, so that the squares of features that have run away don't overflow float32.

    Args:
        prototypes: (B, K, C).
        present: (B, K), boolean.

    Returns:
        (B,), 0 where fewer than two classes are present.
    """
    prototypes = prototypes.clamp(-1e17, 1e17)
    # vector_norm's gradient at 0 is 0, where that of a square root of a sum of squares is NaN.
    distances = torch.linalg.vector_norm(prototypes.unsqueeze(2) - prototypes.unsqueeze(1), dim=3)
    return (distances * (present.unsqueeze(2) & present.unsqueeze(1))).sum(dim=(1, 2))


def inter_class_loss(prototypes: torch.Tensor, present: torch.Tensor, form: str = "log") -> torch.Tensor:
    """Inter-class loss, which falls as the classes' prototypes move apart (Eq. 10), averaged over the batch.

    Args:
        prototypes: (B, K, C).
        present: (B, K), boolean. A sample with fewer than two classes contributes 0 and no gradient.
        form: "log" is the paper's log(1 / (1 + D)), which has no lower bound; "bounded" is the authors' release's
            ln(1 + 100 / D), which falls to 0. The latter has a pole at D = 0, where it is held at D = 0.001.
    """
    losses = _INTER_FORMS[form](inter_class_distance(prototypes, present))
    return torch.where(present.sum(dim=1) > 1, losses, 0.0).mean()


_INTER_FORMS = {
    "log": lambda distance: -torch.log1p(distance),
    "bounded": lambda distance: torch.log1p(100.0 / distance.clamp_min(1e-3)),
}
