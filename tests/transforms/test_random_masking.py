"""Masks have the asked number of tokens, each as likely as any other, and are drawn again from the same seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose

from common.errors import InputError
from common.transforms.random_masking import RandVisibleTokens, RandVisibleTokensd, prepare_masked_batch


@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(2, 60), ratio=st.floats(0.01, 0.99))
def test_laws(seed: int, tokens: int, ratio: float):
    masking = RandVisibleTokens(tokens, ratio)
    masking.set_random_state(seed)
    visible = masking.draw()
    numbers = visible.tolist()
    assert visible.dtype == torch.int64 and numbers == sorted({*numbers}) and {*numbers} <= {*range(tokens)}
    assert 1 <= len(numbers) <= tokens - 1
    assert abs((tokens - len(numbers)) - ratio * tokens) <= 0.5 or len(numbers) in (1, tokens - 1)
    masking.set_random_state(seed)
    assert masking.draw().tolist() == numbers


def test_the_papers_count():
    assert len(RandVisibleTokens(8192, 0.75).draw()) == 2048


def test_every_token_is_as_likely_as_any_other():
    """Each of 16 in 4000 draws of 4: its count has a standard deviation of 27 around 1000."""
    masking = RandVisibleTokens(16, 0.75)
    masking.set_random_state(1)
    counts = torch.stack([torch.zeros(16).scatter_(0, masking.draw(), 1) for _ in range(4000)])
    assert (counts.sum(0) - 1000).abs().max() < 4 * 27.4
    # Pairs too, so that it is no pattern that is shifted: 4 · 3 / (16 · 15) of 4000 are 200, give or take 13.8.
    pairs = (counts.T @ counts)[~torch.eye(16, dtype=torch.bool)]
    assert (pairs - 200).abs().max() < 5 * 13.8


def test_draws_differ_but_for_a_fixed_seed():
    masking = RandVisibleTokens(64)
    masking.set_random_state(0)
    assert not torch.equal(masking.draw(), masking.draw())
    fixed = [RandVisibleTokens(64, seed=3) for _ in range(2)]
    fixed[1].set_random_state(99)  # what seeds the transforms of a data set
    assert torch.equal(fixed[0].draw(), fixed[0].draw()) and torch.equal(fixed[0].draw(), fixed[1].draw())


def test_in_a_chain_it_follows_the_chains_seed():
    chain = Compose([RandVisibleTokensd(64, 0.5)])
    seen = []
    for seed in (4, 5, 4):
        chain.set_random_state(seed)
        made = chain({"image": 1})
        assert made["image"] == 1
        seen.append(made["visible"].tolist())
    assert seen[0] == seen[2] != seen[1]


@pytest.mark.parametrize(
    ("tokens", "ratio", "line"),
    [(1, 0.5, "1 token(s)"), (4, 0.0, "mask_ratio 0.0"), (4, 1.0, "mask_ratio 1.0"), (4, -1, "mask_ratio -1")],
)
def test_what_cannot_be_masked(tokens: int, ratio: float, line: str):
    with pytest.raises(InputError, match=line.replace("(", r"\(").replace(")", r"\)")):
        RandVisibleTokens(tokens, ratio)


def test_batch_for_an_engine():
    batch = {"image": MetaTensor(torch.rand(2, 1, 2, 2, 2)), "visible": torch.tensor([[0], [1]])}
    image, target, arguments, named = prepare_masked_batch(batch, "cpu", non_blocking=True)
    assert image is target and type(image) is torch.Tensor and torch.equal(image, batch["image"].as_tensor())
    assert torch.equal(arguments[0], batch["visible"]) and len(arguments) == 1 and named == {}
