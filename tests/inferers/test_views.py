"""Views: each orientation once, and undone exactly."""

from __future__ import annotations

import nibabel
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.inferers.views import View, make_views

axes = st.lists(st.integers(0, 2), max_size=3)


@given(flips=axes, rotations=st.booleans(), shape=st.tuples(*[st.integers(1, 5)] * 3))
def test_each_view_is_undone(flips: list[int], rotations: bool, shape: tuple[int, int, int]):
    image = torch.rand(2, 3, *shape)
    for view in make_views(flips, rotations):
        assert torch.equal(view.undo(view.apply(image)), image)


@given(flips=axes, rotations=st.booleans())
def test_no_view_is_there_twice_and_none_is_missing(flips: list[int], rotations: bool):
    """Flips and turns make a group: of a view of a view there is a view."""
    image = torch.rand(1, 1, 3, 3, 3)
    seen = {view.apply(image).numpy().tobytes() for view in make_views(flips, rotations)}
    in_plane = {0, 1} & set(flips)
    expected = (8 if rotations else 2 ** len(in_plane)) if in_plane else (4 if rotations else 1)
    assert len(seen) == len(make_views(flips, rotations)) == expected * (2 if 2 in flips else 1)
    for one in make_views(flips, rotations):
        for other in make_views(flips, rotations):
            assert one.apply(other.apply(image)).numpy().tobytes() in seen


def test_plain_view_comes_first():
    assert make_views() == [View()]
    assert make_views([2, 0])[0] == make_views([0, 1, 2], rotations=True)[0] == View()


def test_turns_are_in_the_axial_plane_and_flips_along_their_axis():
    image = torch.arange(6).reshape(1, 1, 3, 2, 1)
    turned = View(turns=1).apply(image)
    assert turned.shape == (1, 1, 2, 3, 1)
    assert turned.flatten().tolist() == [1, 3, 5, 0, 2, 4]
    assert View((0,)).apply(image).flatten().tolist() == [4, 5, 2, 3, 0, 1]


@pytest.mark.parametrize("axes", ["RAS", "SPL", "LPS", "PIR"])
def test_directions_are_those_of_the_head_however_the_image_lies(axes: str):
    image = torch.rand(1, 1, 3, 4, 5)  # in RAS
    change = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(axes)
    )

    def turned(of: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(nibabel.orientations.apply_orientation(of[0, 0].numpy(), change).copy())[None, None]

    for flips, rotations in (([0], False), ([1], False), ([2], False), ([], True)):
        seen = {turned(view.apply(image)).numpy().tobytes() for view in make_views(flips, rotations)}
        assert {view.apply(turned(image)).numpy().tobytes() for view in make_views(flips, rotations, axes)} == seen
        assert len(seen) == (4 if rotations else 2)
