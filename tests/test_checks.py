"""What a configuration gets wrong is said in one line, all of it at once."""

import math
import re
import sys
from pathlib import Path

import pytest
import torch

from common.checks import check_processes, check_settings, check_shares
from common.errors import InputError, exit_in_one_line

METADATA = {"network_data_format": {"outputs": {"pred": {"channel_def": {"0": "background", "3": "ET"}}}}}


@pytest.fixture(autouse=True)
def excepthook(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


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
        ckpt_path="",
        dataset_dir=Path("data"),
        evaluate_on="test",
    )
    assert sys.excepthook is exit_in_one_line


@pytest.mark.parametrize("device", ["cuda:99", "gpu", 3.5])
def test_device_that_is_not_there(device: object):
    with pytest.raises(InputError, match=f"device {device} was asked for and there is none here: leave --device out"):
        check_settings(device, METADATA)


@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        ("patch_size", [64, [64, 64], [0, 64, 64], ["a", 16, 16], [16.5, 16, 16], [True, 1, 1], -1], "three whole num"),
        ("window_size", [128, [0, -1, 128], [-2, 8, 8], "all"], "three whole numbers of voxels above zero, or -1"),
        ("spacing", [1, [1, -1, 1], [1, 0, 1], [1, 1], ["a", 1, 1], [math.nan, 1, 1]], "three millimetre values"),
        ("fractions", [0.5, ["a"], [0.5, 0.6], [2, -1, 0]], "three numbers from 0 to 1"),
        ("update_classes", [1, "1", ["a"], [-1]], r'a list of classes, such as "\[0,1,2,3\]"'),
        ("amp", ["false", 1], "True or False"),
        ("epochs", [0, "ten", 1.5, True], "a whole number above zero"),
        ("batch_size", [0, -2], "a whole number above zero"),
        ("val_interval", [0], "a whole number above zero"),
        ("num_workers", [-1], "a whole number, zero or above"),
        ("seed", ["abc", 0.5], "a whole number, zero or above"),
        ("minimum_enhancing", ["a"], "a whole number, zero or above"),
        ("attention_rate", [8.0], "a whole number, zero or above"),
        ("learning_rate", ["fast", 0, math.inf], "a number above zero"),
        ("overlap", [1.0, -0.1, "half"], "a number from 0 to below 1"),
        ("cache_rate", [2, "all"], "a number from 0 to 1"),
        ("dataset_dir", [5], "a path"),
        ("evaluate_on", ["tset"], "one of training, validation, test"),
    ],
)
def test_each_setting(name: str, values: list[object], wanted: str):
    for value in values:
        with pytest.raises(InputError, match=f"^{re.escape(f'{name} is {value!r}: give ')}{wanted}"):
            check_settings("cpu", METADATA, **{name: value})


def test_all_problems_at_once():
    with pytest.raises(
        InputError, match=r"patch_size .*; spacing .*; metadata\.json names no labels: add network_data"
    ):
        check_settings("cpu", {}, patch_size=[0, 0, 0], spacing=0)


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
