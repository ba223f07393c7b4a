"""Modalities are dropped with the wanted probability, each choice as often as any other, never all of them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose

from common.transforms.modalities import RandDropModalities, RandDropModalitiesd


def scan(channels: int = 4) -> MetaTensor:
    values = torch.arange(1, channels + 1).reshape(-1, 1, 1, 1).expand(-1, 2, 3, 2)
    return MetaTensor(values.clone().float(), affine=torch.diag(torch.tensor([1.0, 2, 3, 1])))


@given(seed=st.integers(0, 2**32 - 1), prob=st.floats(0, 1), channels=st.integers(2, 6))
def test_laws(seed: int, prob: float, channels: int):
    image = scan(channels)
    drop = RandDropModalities(prob)
    drop.set_random_state(seed)
    out = drop(image)
    assert torch.equal(image.as_tensor(), scan(channels).as_tensor())  # what is cached must stay
    for before, after, kept in zip(image, out, drop.kept, strict=True):
        assert torch.equal(after, before if kept else torch.zeros_like(before))
    assert any(drop.kept)
    assert all(drop.kept) or drop._do_transform
    assert isinstance(out, MetaTensor)
    assert torch.equal(out.affine, image.affine)
    drop.set_random_state(seed)
    assert torch.equal(drop(image), out)
    assert torch.equal(drop(image, randomize=False), out)


@pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
def test_frequencies(prob: float):
    drop = RandDropModalities(prob)
    drop.set_random_state(0)
    draws = 7000
    counts: Counter[tuple[bool, ...]] = Counter()
    for _ in range(draws):
        drop.randomize(scan())
        counts[tuple(drop.kept)] += 1
    whole = counts.pop((True,) * 4, 0)
    assert whole / draws == pytest.approx(1 - prob, abs=0.02)
    assert len(counts) == (14 if prob else 0)
    for count in counts.values():
        assert count / draws == pytest.approx(prob / 14, abs=0.25 * prob / 14)


def test_all_keys_lose_the_same_and_follow_the_seed_of_the_compose():
    compose = Compose([RandDropModalitiesd(["image", "other"], prob=1.0)])
    seen = set()
    for seed in range(20):
        outs = []
        for _ in range(2):
            compose.set_random_state(seed)
            outs.append(compose({"image": scan(), "other": scan(), "label": scan(1)}))
        assert torch.equal(outs[0]["image"], outs[1]["image"])
        assert torch.equal(outs[0]["image"], outs[0]["other"])
        assert torch.equal(outs[0]["label"], scan(1))
        seen.add(tuple(outs[0]["image"][:, 0, 0, 0].tolist()))
    assert len(seen) > 5
