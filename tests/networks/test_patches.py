"""Images as patches: where each pixel goes, and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.networks.patches import gather_tokens, patch_mask, patchify, unpatchify

SHAPES = st.integers(2, 3).flatmap(
    lambda axes: st.tuples(*[st.lists(st.integers(1, 3), min_size=axes, max_size=axes)] * 2)
)


@given(SHAPES, st.integers(1, 2), st.integers(1, 3))
def test_back_to_the_image(shapes: tuple[list[int], list[int]], batch: int, channels: int) -> None:
    grid, patch = shapes
    image = torch.randn(batch, channels, *(cells * edge for cells, edge in zip(grid, patch, strict=True)))
    assert torch.equal(unpatchify(patchify(image, patch), patch, grid), image)


def test_each_patch_by_loops() -> None:
    image = torch.randn(2, 3, 4, 6)
    expected = [
        [image[b, :, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].flatten() for i in range(2) for j in range(2)]
        for b in range(2)
    ]
    assert torch.equal(patchify(image, (2, 3)), torch.stack([torch.stack(row) for row in expected]))


def test_pixels_of_masked_patches() -> None:
    masked = torch.tensor([[True, False, False, True]])
    expected = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).bool()
    assert torch.equal(patch_mask(masked, (1, 2), (2, 2)), expected[None, None])


def test_gather() -> None:
    tokens = torch.arange(12.0).view(2, 3, 2)
    assert gather_tokens(tokens, torch.tensor([[2], [0]])).tolist() == [[[4, 5]], [[6, 7]]]


def test_other_number_of_axes() -> None:
    with pytest.raises(ValueError, match="zip"):
        patchify(torch.zeros(1, 1, 4, 4), (2, 2, 2))
