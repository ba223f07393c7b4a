"""What a configuration gets wrong is said in one line, all of it at once."""

import sys

import pytest

from common.checks import check_settings, check_shares
from common.errors import InputError, exit_in_one_line

METADATA = {"network_data_format": {"outputs": {"pred": {"channel_def": {"0": "background", "3": "ET"}}}}}


@pytest.fixture(autouse=True)
def excepthook(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def test_good_settings_and_the_hook():
    check_settings("cpu", METADATA, [8, 8, 8], [-1, 96, 96], [1, 1, 2.5], {"amp": True})
    assert sys.excepthook is exit_in_one_line


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"device": "cuda:7"}, "device cuda:7 was asked for and there is none here: leave --device out"),
        ({"patch_size": [0, 128, 128]}, r"patch_size \[0, 128, 128\] is not three numbers above zero"),
        ({"window_size": [0, -1, 128]}, r"window_size \[0, -1, 128\] is not three numbers above zero, or -1"),
        ({"patch_size": [128, 128]}, r"patch_size \[128, 128\] is not three numbers above zero"),
        ({"spacing": [1, -1, 1]}, r"spacing \[1, -1, 1\] is not three millimetre values above zero"),
        ({"metadata": {}}, "metadata.json names no labels: add network_data_format.outputs.pred.channel_def"),
        ({"switches": {"amp": "false"}}, "amp is 'false': say --amp True or --amp False"),
    ],
)
def test_each_problem(monkeypatch: pytest.MonkeyPatch, settings: dict, line: str):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=line):
        check_settings(**{"device": "cpu", "metadata": METADATA, **settings})


def test_all_problems_at_once():
    with pytest.raises(InputError, match=r"patch_size .*; window_size .*; spacing .*; metadata\.json"):
        check_settings("cpu", {}, [0, 0, 0], [0, 0, 0], [0, 0, 0])


def test_each_process_needs_a_case():
    data = {"training": [{}, {}], "validation": [{}], "test": []}
    check_shares(data, 1)
    with pytest.raises(InputError, match="1 validation cases for 2 processes: each needs one"):
        check_shares(data, 2)
