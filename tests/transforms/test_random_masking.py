"""Which patches are masked is as likely as any other choice, and drawn again from the same seed."""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from common.networks.adaptive_masking import choose_patches
from common.transforms.random_masking import RandPatchNoised, prepare_masked_batch


def draw(transform: RandPatchNoised) -> torch.Tensor:
    return transform({})["noise"]


def test_a_number_for_each_patch():
    noise = draw(RandPatchNoised(8192))
    assert noise.shape == (8192,) and noise.dtype == torch.float32 and noise.min() >= 0 and noise.max() < 1
    assert noise.unique().numel() > 8180 and choose_patches(noise[None], 6144).sum() == 6144


def test_every_patch_is_as_likely_as_any_other():
    """Each of 16 in 4000 draws of 4: its count has a standard deviation of 27 around 1000."""
    transform = RandPatchNoised(16)
    transform.set_random_state(1)
    counts = choose_patches(torch.stack([draw(transform) for _ in range(4000)]), 4).float()
    assert (counts.sum(0) - 1000).abs().max() < 4 * 27.4
    # Pairs too, so that it is no pattern that is shifted: 4 · 3 / (16 · 15) of 4000 are 200, give or take 13.8.
    pairs = (counts.T @ counts)[~torch.eye(16, dtype=torch.bool)]
    assert (pairs - 200).abs().max() < 5 * 13.8


def test_draws_differ_but_for_a_fixed_seed():
    transform = RandPatchNoised(64)
    transform.set_random_state(0)
    assert not torch.equal(draw(transform), draw(transform))
    fixed = [RandPatchNoised(64, seed=3) for _ in range(2)]
    fixed[1].set_random_state(99)  # what seeds the transforms of a data set
    assert torch.equal(draw(fixed[0]), draw(fixed[0])) and torch.equal(draw(fixed[0]), draw(fixed[1]))


def test_in_a_chain_it_follows_the_chains_seed():
    chain = Compose([RandPatchNoised(64)])
    seen = []
    for seed in (4, 5, 4):
        chain.set_random_state(seed)
        made = chain({"image": 1})
        assert made["image"] == 1
        seen.append(made["noise"].tolist())
    assert seen[0] == seen[2] != seen[1]


def test_batch_for_an_engine():
    batch = {"image": MetaTensor(torch.rand(2, 1, 2, 2, 2)), "noise": torch.tensor([[0.5], [0.1]])}
    image, target, arguments, named = prepare_masked_batch(batch, "cpu", non_blocking=True)
    assert image is target and type(image) is torch.Tensor and torch.equal(image, batch["image"].as_tensor())
    assert torch.equal(arguments[0], batch["noise"]) and len(arguments) == 1 and named == {}
