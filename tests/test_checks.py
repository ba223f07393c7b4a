"""What a configuration gets wrong is said in one line, all of it at once."""

import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from common.checks import check_processes, check_settings, check_shares
from common.errors import InputError, exit_in_one_line

METADATA = {"network_data_format": {"outputs": {"pred": {"channel_def": {"0": "background", "3": "ET"}}}}}


@pytest.fixture(autouse=True)
def excepthook(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)


def test_good_settings_and_the_hook():
    check_settings(
        torch.device("cpu"),
        METADATA,
        patch_size=[8, 8, 8],
        window_size=[-1, 96, 96],
        spacing=[1, 1, 2.5],
        amp=True,
        overlap=0,
        fractions=[1, 0, 0],
        update_classes=[],
        inter_weight=-0.01,
        weights="",
        dataset_dir=Path("data"),
        evaluate_on="test",
    )
    assert sys.excepthook is exit_in_one_line


@pytest.mark.parametrize("device", ["cuda:99", "gpu", 3.5])
def test_device_that_is_not_there(device: object):
    with pytest.raises(
        InputError, match=f"^device is {device!r}: give one that this machine has, such as cpu, or leave it out"
    ):
        check_settings(device, METADATA)


@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        ("patch_size", [64, [64, 64], [0, 64, 64], ["a", 16, 16], [16.5, 16, 16], [True, 1, 1], -1], "three whole num"),
        ("window_size", [128, [0, -1, 128], [-2, 8, 8], "all"], "three whole numbers of voxels above zero, or -1"),
        ("spacing", [1, [1, -1, 1], [1, 0, 1], [1, 1], ["a", 1, 1], [math.nan, 1, 1]], "three millimetre values"),
        (
            "fractions",
            [0.5, ["a"], [0.5, 0.6], [2, -1, 0], [0.5, 0.6, 0.2], [0, 0.5, 0.5]],
            "three numbers from 0 to 1",
        ),
        ("update_classes", [1, "1", ["a"], [-1], [1, 1]], r'a list of different classes, such as "\[0,1,2,3\]"'),
        ("amp", ["false", 1], "True or False"),
        ("epochs", [0, "ten", 1.5, True], "a whole number above zero"),
        ("batch_size", [0, -2], "a whole number above zero"),
        ("val_interval", [0], "a whole number above zero"),
        ("num_workers", [-1], "a whole number, zero or above"),
        ("seed", ["abc", 0.5], "a whole number, zero or above"),
        ("minimum_enhancing", ["a"], "a whole number, zero or above"),
        ("attention_rate", [8.0, 3, -2], "8, 4, 2, or 0 for none"),
        ("learning_rate", ["fast", 0, math.inf], "a number above zero"),
        ("overlap", [1.0, -0.1, "half"], "a number from 0 to below 1"),
        ("cache_gib", [-1, "all"], "a number, zero or above"),
        ("dataset_dir", [5, "", None], "a path"),
        ("mlflow_uri", [5, "file:///runs"], "a folder, sqlite:///FILE, or the address of an MLflow server"),
        ("evaluate_on", ["tset"], "one of training, validation, test"),
    ],
)
def test_each_setting(name: str, values: list[object], wanted: str):
    for value in values:
        with pytest.raises(InputError, match=f"^{re.escape(f'{name} is {value!r}: give ')}{wanted}"):
            check_settings("cpu", METADATA, **{name: value})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"weights": "no.pt"}, ["no weights at no.pt: train first, or give the path of the file that has them"]),
        ({"weights": "no.pt", "members": ["a.pt"], "draw": 1}, []),
        ({"weights": "", "pretrained": "no.pt"}, ["no pre-trained blocks at no.pt: run pretrain first, or leave"]),
        ({"weights": "", "pretrained": ""}, []),
        ({"weights": "", "members": []}, ["weights is empty: give the file of the network's weights, or members"]),
        ({"weights": 5, "epochs": 0}, ["weights is 5: give a path", "epochs is 0: give a whole"]),
        ({"weights": __file__, "members": [], "draw": 2}, ["draw is 2 and members is empty: name the checkpoints"]),
        ({"epochs": 0, "unused": ["epochs"]}, []),
    ],
)
def test_weights_and_what_is_unused(settings: dict[str, Any], told: list[str]):
    try:
        check_settings("cpu", METADATA, **settings)
        problems: tuple[str, ...] = ()
    except InputError as error:
        problems = error.problems
    assert len(problems) == len(told) and all(map(str.startswith, problems, told)), problems


def test_all_problems_at_once():
    with pytest.raises(
        InputError, match=r"patch_size .*; spacing .*; metadata\.json names no labels: add network_data"
    ) as raised:
        check_settings("cpu", {}, patch_size=[0, 0, 0], spacing=0)
    assert len(raised.value.problems) == 3


def test_mlflow_that_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("common.checks.find_spec", lambda name: None)
    check_settings("cpu", METADATA, mlflow_uri="")
    with pytest.raises(
        InputError,
        match=r"^mlflow_uri is set and MLflow isn't installed: pip install mlflow-skinny alembic sqlalchemy, or",
    ):
        check_settings("cpu", METADATA, mlflow_uri="runs")


def test_hook_of_another_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "excepthook", print)
    check_settings("cpu", METADATA)
    assert sys.excepthook is print


def test_setting_without_a_rule():
    with pytest.raises(KeyError):
        check_settings("cpu", METADATA, colour="red")


def test_processes_come_from_a_launcher(monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    check_processes()
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(InputError, match="WORLD_SIZE isn't set: start it with torchrun --standalone"):
        check_processes()


def test_each_process_needs_a_case():
    data = {"training": [{}, {}], "validation": [{}], "test": []}
    check_shares(data, 1)
    with pytest.raises(InputError, match="1 validation cases for 2 processes: each needs one"):
        check_shares(data, 2)
