"""Which tokens of an image a masked autoencoder sees: drawn here, applied by the network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable, Transform

from ..errors import InputError

__all__ = ["RandVisibleTokens", "RandVisibleTokensd", "prepare_masked_batch"]


class RandVisibleTokens(Randomizable):
    """Draw which tokens stay visible: every choice of that many tokens is as likely as any other.

    Based on: He et al., "Masked Autoencoders Are Scalable Vision Learners", section 3 (random sampling without
    replacement, uniform). Only numbers are drawn; the same numbers mask the same tokens again.

    Args:
        tokens: how many there are.
        ratio: share of them that is masked; rounded so that at least one is masked and one visible.
        seed: draw the same tokens each time, as a validation needs; None for others each time.

    Attributes:
        visible: how many tokens stay visible.

    Raises:
        InputError: there are fewer than two tokens, or the ratio isn't between 0 and 1.
    """

    def __init__(self, tokens: int, ratio: float = 0.75, seed: int | None = None) -> None:
        if tokens < 2:
            raise InputError(
                f"{tokens} token(s): masking needs at least two; make patch_size larger or token_size smaller"
            )
        if not 0 < ratio < 1:
            raise InputError(f"mask_ratio {ratio}: give a number above 0 and below 1")
        self.tokens, self.ratio, self.seed = tokens, ratio, seed
        self.visible = min(max(tokens - round(ratio * tokens), 1), tokens - 1)

    def draw(self) -> torch.Tensor:
        """The numbers (V,) of the visible tokens, rising, int64."""
        if self.seed is not None:
            self.set_random_state(self.seed)
        return torch.from_numpy(self.R.permutation(self.tokens)[: self.visible]).sort().values


class RandVisibleTokensd(Randomizable, Transform):
    """Draws by `RandVisibleTokens`, and adds an entry with the numbers of the visible tokens.

    Args:
        tokens, ratio, seed: as there.
        name: of the entry.
    """

    def __init__(self, tokens: int, ratio: float = 0.75, seed: int | None = None, name: str = "visible") -> None:
        self.masking, self.name = RandVisibleTokens(tokens, ratio, seed), name

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandVisibleTokensd:
        """Seed what is drawn."""
        super().set_random_state(seed, state)
        self.masking.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the entry."""
        return {**data, self.name: self.masking.draw()}


def prepare_masked_batch(
    batch: Mapping[str, torch.Tensor],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor], dict[str, Any]]:
    """A batch as MONAI's engines take it: what goes into the network, what the loss compares with, and the mask.

    Args:
        batch: "image" (B, C, D, H, W), and "visible" (B, V) of `RandVisibleTokensd`.
        device: to which both are brought.
        non_blocking: see `torch.Tensor.to`.
        options: likewise.

    Returns:
        the image twice, in place of an input and a label; the network's further arguments; and no named ones.
    """
    image = batch["image"]
    # The loss would take a MetaTensor's every operation through Python.
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    moved = plain.to(device=device, non_blocking=non_blocking, **options)
    return moved, moved, (batch["visible"].to(device=device, non_blocking=non_blocking),), {}
