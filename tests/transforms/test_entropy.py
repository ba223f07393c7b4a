"""Entropy of class probabilities, against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from monai.data import MetaTensor

from common.transforms.entropy import EntropyMapd, entropy_map


def test_against_scipy():
    drawn = np.random.default_rng(0).dirichlet((0.3,) * 4, size=(3, 4, 5)).transpose(3, 0, 1, 2)
    found = entropy_map(torch.from_numpy(drawn))
    assert found.shape == (1, 3, 4, 5)
    np.testing.assert_allclose(found[0], scipy.stats.entropy(drawn, base=4, axis=0), atol=1e-9)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([1, 0, 0, 0], 0),
        ([0, 0, 0, 1], 0),
        ([0.25] * 4, 1),
        ([0, 0, 0.5, 0.5], 0.5),
        ([0, 0, 0, 0], 0),  # outside the box that the network saw
        ([0.2, 0, 0.5, 0], 0.5),  # at its edge, mixed with zeros
        ([0, 0, 0, 1.0000001], 0),
        ([0, 0, -1e-8, 1], 0),
    ],
)
def test_single_voxels(column: list[float], expected: float):
    found = entropy_map(torch.tensor(column, dtype=torch.float32).reshape(4, 1, 1, 1))
    assert float(found) == pytest.approx(expected, abs=1e-5) and 0 <= float(found) <= 1


def test_beside_the_probabilities():
    affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    pred = MetaTensor(torch.full((4, 2, 2, 2), 0.25), affine=affine)
    data = EntropyMapd("pred")({"pred": pred, "case": "a"})
    assert list(data) == ["pred", "case", "entropy"] and data["pred"] is pred
    assert torch.equal(data["entropy"].affine, affine) and bool((data["entropy"] == 1).all())
