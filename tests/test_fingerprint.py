"""Two fingerprints are equal just when nothing that matters differs, and a difference is named with its place."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceLoss
from monai.transforms import Compose, Lambdad, RandFlipd, RandScaleIntensityd, Spacingd
from torch import nn

from common.fingerprint import differences, fingerprint


def transforms(prob: float = 0.5, axis: int = 0, factors: float = 0.1) -> Compose:
    return Compose([RandFlipd("image", prob, axis), RandScaleIntensityd("image", factors)])


def network(dropout: float = 0.2, width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, width, 3), nn.GroupNorm(2, width), nn.Dropout(dropout))


def training(rate: float = 0.1, power: float = 0.9, kind: type[torch.optim.Optimizer] = torch.optim.Adam) -> dict:
    optimizer = kind(network().parameters(), lr=rate)
    return {
        "optimizer": optimizer,
        "lr_scheduler": torch.optim.lr_scheduler.PolynomialLR(optimizer, 10, power),
    }


def adding(k: int) -> Any:
    def add(x: int) -> int:
        return x + k

    return add


def of_config(k: int) -> Any:
    parser = ConfigParser({"k": k, "f": "$lambda x: x > @k"})
    return parser.get_parsed_content("f")


EQUAL: list[Any] = [
    lambda: {"function": adding(1), "of a config": of_config(1), "method": network().forward},
    lambda: {"epochs": 5, "patch_size": [1, 2], "name": "a", "nothing": None},
    lambda: {"train": {"preprocessing": transforms(), "cases": ["a", "b"]}},
    lambda: {"network": network()},
    lambda: {"loss": DiceLoss(softmax=True, other_act=None)},
    training,
    lambda: {"inferer": SlidingWindowInferer([8, 8, 8], mode="gaussian")},
    lambda: {"function": partial(np.clip, a_min=0), "lambda": lambda x: x + 1, "set": {"a", "b", "c"}},
]


@pytest.mark.parametrize("make", EQUAL)
def test_made_alike_is_alike(make: Any):
    parts = make()
    assert differences(fingerprint(parts), fingerprint(make())) == []
    assert all(fingerprint(parts).values())


def test_random_states_and_weights_do_not_matter():
    torch.manual_seed(1)
    first, one = network(), transforms().set_random_state(1)
    second, other = network(), transforms().set_random_state(2)
    assert not torch.equal(first[0].weight, second[0].weight)
    assert fingerprint({"n": first, "t": one}) == fingerprint({"n": second, "t": other})


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        ({"epochs": 5}, {"epochs": 6}, "epochs (5 then, 6 now)"),
        ({"amp": True}, {"amp": 1}, "amp (True then, 1 now)"),
        ({"patch_size": [8, 8, 8]}, {"patch_size": [8, 8, 9]}, "patch_size ([8, 8, 8] then, [8, 8, 9] now)"),
        ({"t": transforms()}, {"t": transforms(prob=0.3)}, "t#transforms#0#prob (0.5 then, 0.3 now)"),
        ({"t": transforms()}, {"t": transforms(axis=1)}, "t#transforms#0#flipper#spatial_axis (0 then, 1 now)"),
        ({"t": transforms()}, {"t": transforms(factors=0.2)}, "t#transforms#1#scaler#factors"),
        ({"t": transforms()}, {"t": Compose([])}, "t#transforms"),
        (
            {"train": {"preprocessing": Spacingd("image", [1, 1, 1])}},
            {"train": {"preprocessing": Spacingd("image", [1, 1, 2])}},
            "train#preprocessing#spacing_transform#pixdim",
        ),
        ({"n": network()}, {"n": network(dropout=0.1)}, "n#2#p (0.2 then, 0.1 now)"),
        ({"n": network()}, {"n": network(width=8)}, "n#0#out_channels (4 then, 8 now)"),
        (training(), training(rate=0.2), "optimizer#lr (0.1 then, 0.2 now)"),
        (training(), training(power=1.0), "lr_scheduler#power (0.9 then, 1.0 now)"),
        (training(), training(kind=torch.optim.SGD), "optimizer (Adam then, SGD now)"),
        ({"loss": DiceLoss(batch=True)}, {"loss": DiceLoss()}, "loss#batch (True then, False now)"),
        ({"f": Lambdad("a", lambda x: x + 1)}, {"f": Lambdad("a", lambda x: x + 2)}, "f#func"),
        ({"f": Lambdad("a", lambda x: x + 1)}, {"f": Lambdad("a", lambda x: x - 1)}, "f#func"),
        ({"f": lambda x: x > 0}, {"f": lambda x: x < 0}, "f"),
        ({"f": lambda x, t=1: x + t}, {"f": lambda x, t=2: x + t}, "f#defaults#0 (1 then, 2 now)"),
        ({"f": adding(1)}, {"f": adding(2)}, "f#around#k (1 then, 2 now)"),
        ({"f": [adding(1)]}, {"f": [adding(2)]}, "f#0#around#k (1 then, 2 now)"),
        ({"f": of_config(1)}, {"f": of_config(2)}, "f#ids#k (1 then, 2 now)"),
        ({"f": np.clip}, {"f": torch.clip}, "f (numpy.clip then, "),
        ({"t": torch.zeros(2)}, {"t": torch.ones(2)}, "t (torch.float32 [2] "),
        ({"t": torch.zeros(2).bfloat16()}, {"t": torch.ones(2).bfloat16()}, "t (torch.bfloat16 [2] "),
        ({"t": torch.zeros(())}, {"t": torch.ones(())}, "t (0.0 then, 1.0 now)"),
        ({"cases": ["a", "b"]}, {"cases": ["a", "c"]}, "cases ([a"),
        ({"cases": ["a" * 50]}, {"cases": ["b" * 50]}, "cases"),
        ({"one": 1}, {"one": 1, "two": 2}, "two (nothing then, 2 now)"),
        ({"one": 1, "two": 2}, {"one": 1}, "two (2 then, nothing now)"),
    ],
)
def test_what_differs_is_named(then: dict, now: dict, told: str):
    found = differences(fingerprint(then), fingerprint(now))
    assert found[0].replace("'", "").startswith(told)
    if told in ("cases", "t#transforms"):
        assert found[0] == told or "then" in found[0]


def test_every_place_is_told_and_of_very_many_the_first():
    then = fingerprint({"epochs": 1, "t": transforms(), "seed": 0})
    now = fingerprint({"epochs": 2, "t": transforms(prob=0.1, axis=2), "seed": 0})
    assert differences(then, now) == [
        "epochs (1 then, 2 now)",
        "t#transforms#0#prob (0.5 then, 0.1 now)",
        "t#transforms#0#flipper#spatial_axis (0 then, 2 now)",
    ]
    many = differences(fingerprint({"n": range(30)}), fingerprint({"n": range(30, 60)}))
    assert len(many) == 21 and many[-1] == "10 more places differ"


def test_objects_that_hold_one_another():
    class Node:
        pass

    one, other = Node(), Node()
    one.other, other.other, other.value = other, one, 3  # type: ignore[attr-defined]
    engine = Engine(lambda engine, batch: None)
    assert fingerprint({"n": one, "e": engine})["n"]["other#value"] == "3"


def test_the_same_in_every_process():
    """No address in it, and no order that comes from the hashes of strings."""
    texts = [text for make in EQUAL for facts in fingerprint(make()).values() for text in facts.values()]
    assert not [text for text in texts if " at 0x" in text]
    letters = {letter: None for letter in "zyxwvutsrqponmlkjihgfedcba"}
    for many in (set(letters), frozenset(letters)):
        assert fingerprint({"s": many})["s"][""] == f"[{', '.join(map(repr, sorted(letters)))}]"
    nameless = fingerprint({"f": lambda letter: letter in {"b", "a"}})["f"][""]
    assert "['a', 'b']" in nameless
