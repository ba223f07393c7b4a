"""An override that nothing reads is told, with the nearest id that there is."""

from __future__ import annotations

import pytest
from monai.bundle import ConfigParser

from common.overrides import by_depth, unknown_ids

CONFIG = {
    "_meta_": {},
    "imports": [],
    "initialize": [],
    "epochs": 5,
    "expression": "$@epochs + 1",
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.1},
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [8, 8, 8]},
    "loader": {"_target_": "DataLoader"},
    "elsewhere": {"_target_": "not.there.Thing"},
    "train": {"dataloader": {"_target_": "DataLoader", "batch_size": 2}, "handlers": [{"_target_": "StatsHandler"}]},
}


def problem(id: str) -> str | None:
    return unknown_ids(ConfigParser(CONFIG), {id: 0}).get(id)


@pytest.mark.parametrize(
    "id",
    [
        "epochs",
        "initialize",
        "train",
        "train#dataloader",
        "train#dataloader#batch_size",
        "train::dataloader::batch_size",
        "train#handlers#0#name",
        "optimizer#betas",  # an argument that the config leaves to its default
        "optimizer#_disabled_",
        "inferer#roi_size#2",
        "inferer#overlap",
        "loader#pin_memory",  # among the keywords that it hands on
        "elsewhere#anything",  # is found where the bundle brings it along
    ],
)
def test_ids_that_are_read(id: str):
    assert problem(id) is None


@pytest.mark.parametrize(
    ("id", "line"),
    [
        ("epochss", "did you mean 'epochs'?"),
        ("Epochs", "did you mean 'epochs'?"),
        ("trian#dataloader#batch_size", "did you mean 'train#dataloader#batch_size'?"),
        ("train#dataloadr#batch_size", "did you mean 'train#dataloader#batch_size'?"),
        ("train#loader", "did you mean 'train#dataloader'?"),
        ("train#epochs", "in train there is dataloader, handlers"),
        ("train#handlers#1#name", "in handlers there is 0"),
        ("train#handlers#0#nam", "did you mean 'train#handlers#0#name'?"),
        ("optimizer#learning_rate", "in optimizer there is lr, params, betas, eps, weight_decay"),
        ("optimizer#beta", "did you mean 'optimizer#betas'?"),
        ("inferer#roi_size#3", "in roi_size there is 0, 1, 2"),
        ("epochs#more", "in epochs there is nothing"),
        ("expression#more", "in expression there is nothing"),
        ("import", "--list shows them all"),  # not "imports", which nobody means to override
        ("colour", "--list shows them all"),
    ],
)
def test_ids_that_are_not(id: str, line: str):
    found = problem(id)
    assert found is not None
    assert found.startswith(f"unknown id '{id}': ")
    assert line in found


def test_bundle_root_is_the_first_argument():
    assert problem("bundle_root") == "--bundle_root: the bundle is the first argument; give its folder there"


def test_each_is_told():
    assert list(unknown_ids(ConfigParser(CONFIG), {"epoch": 1, "epochs": 1, "trains": 1})) == ["epoch", "trains"]


@pytest.mark.parametrize("first", ["optimizer", "optimizer#momentum"])
def test_arguments_are_those_of_the_component_in_force(first: str):
    """Whichever is typed first."""
    new = {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}, "optimizer#momentum": 0.9, "optimizer#betas": 1}
    typed = {first: new[first], **new}
    parser = ConfigParser(CONFIG)
    (line,) = unknown_ids(parser, typed).values()
    assert line.startswith("unknown id 'optimizer#betas': in optimizer there is lr, momentum, params, dampening")
    assert parser.get("optimizer") == CONFIG["optimizer"]
    assert new["optimizer"] == {"_target_": "torch.optim.SGD", "lr": 0.1}
    assert next(iter(by_depth(typed))) == "optimizer"
