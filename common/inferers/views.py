"""Test-time views: an image flipped and turned, and predictions brought back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import torch

__all__ = ["View", "make_views"]


class View(NamedTuple):
    """A way to look at an image: flips, then quarter turns in a plane.

    Args:
        flips: spatial axes, from 0.
        turns: quarter turns, 0 to 3.
        plane: the two spatial axes that they swap.
    """

    flips: tuple[int, ...] = ()
    turns: int = 0
    plane: tuple[int, int] = (0, 1)

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """The view of an image (B, C, D, H, W); an odd number of turns swaps two sizes."""
        return torch.rot90(image.flip([axis + 2 for axis in self.flips]), self.turns, self._dimensions()).contiguous()

    def undo(self, prediction: torch.Tensor) -> torch.Tensor:
        """A prediction (B, C, D, H, W) for the view, as one for the image."""
        return torch.rot90(prediction, -self.turns, self._dimensions()).flip([axis + 2 for axis in self.flips])

    def _dimensions(self) -> list[int]:
        return [axis + 2 for axis in self.plane]


def make_views(flips: Sequence[int] = (), rotations: bool = False, axes: str = "RAS") -> list[View]:
    """All combinations of flips and quarter turns, the plain view first.

    Combinations that show the same are one view: two flips in the plane are a half turn, so all flips and turns are 16
    views and not 32.

    Args:
        flips: directions along which to flip: 0 left-right, 1 front-back, 2 up-down.
        rotations: turn by 0, 90, 180 and 270 degrees in the axial plane.
        axes: where the image's spatial axes point to, as nibabel has it, such as "RAS" or "SPL".
    """
    # Of left-right, front-back and up-down the axis.
    places = [next(place for place, letter in enumerate(axes) if letter in pair) for pair in ("LR", "AP", "IS")]
    # No two of the 48 orientations of a cube show its corners in the same places.
    corners = torch.arange(8).reshape(1, 1, 2, 2, 2)
    distinct: dict[tuple[int, ...], View] = {}
    for view in _combinations(sorted({places[flip] for flip in flips}), 4 if rotations else 1, (places[0], places[1])):
        distinct.setdefault(tuple(view.apply(corners).flatten().tolist()), view)
    return list(distinct.values())


def _combinations(axes: Sequence[int], turns: int, plane: tuple[int, int]) -> Iterator[View]:
    for turn in range(turns):
        for number in range(len(axes) + 1):
            for chosen in combinations(axes, number):
                yield View(chosen, turn, plane)
