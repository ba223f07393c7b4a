"""The rows of MSConvLSTM-Att's comparison are networks that the bundle's training takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from benchmarks.ablation_msconvlstm_att import OURS, PAPER, rows
from benchmarks.msconvlstm_att_cost import OPTIONS, count
from common.networks.msconvlstm_att import MSConvLSTMAtt


def network(ids: dict[str, Any], config: dict[str, Any]) -> torch.nn.Module:
    parser = ConfigParser({"network_def": config})
    for id, value in ids.items():
        parser[id] = value
    return parser.get_parsed_content("network_def")


@pytest.mark.parametrize("name", [*rows(8)])
def test_each_row_is_a_network_of_slices(name: str, repository: Any):
    parser = ConfigParser()
    parser.read_config(repository / "bundles" / "msconvlstm_att" / "configs" / "train.json")
    made = network(rows(8)[name], parser["network_def"]).eval()
    with torch.inference_mode():
        assert made(torch.randn(2, 4, 64, 64)).shape == (2, 4, 64, 64)


def test_rows_differ_from_the_whole_in_one_id():
    table = rows(8)
    whole = table[OURS]
    for name, ids in table.items():
        if name.startswith(("without", "one")):
            assert len([id for id, value in ids.items() if value != whole.get(id)]) == 1
    assert {row for step in PAPER for row in step} == {"FCN", "U-Net", "Attention U-Net", OURS}


def test_operations_are_those_of_the_layers():
    """Attention's by hand: the counter knows nothing of the fused kernel."""
    parameters, operations = count(16, features=(4,), width=8, conv_lstm=False)
    # Convolutions with two of each channel's normalisation, query, key and value with biases, λ, and the head.
    normed = 4 * (4 * 9 + 8) + (16 + 2) * 8 + (8 * 9 + 2) * 8 + (16 * 9 + 2) * 8
    assert parameters == normed + 2 * (8 + 1) * 1 + (8 + 1) * 8 + 1 + (8 + 1) * 4
    first, half = 4 * 4 * 9 * 16**2, 8**2
    single, multi, refine = 16 * 8 * half, 8 * 8 * 9 * half, 16 * 8 * 9 * half
    maps, head = (1 + 1 + 8) * 8 * half, 8 * 4 * half
    assert operations == first + single + multi + refine + maps + head + half**2 * 9


PAGE = Path(__file__).resolve().parents[1] / "bundles" / "msconvlstm_att" / "docs" / "README.md"
ROWS = re.findall(r"\| (\w[\w ]+) \| ([\d,]+) \| [\d.]+ \|", PAGE.read_text())


@pytest.mark.parametrize(("page", "parameters"), ROWS)
def test_parameters_on_the_bundles_page(page: str, parameters: str):
    name = {"the whole network": "whole", "weights shared by the modalities": "weights shared"}.get(page, page)
    name = name.replace("squeeze and excitation", "SE")
    own = MSConvLSTMAtt(**OPTIONS[name]).parameters()
    assert sum(p.numel() for p in own) == int(parameters.replace(",", ""))


def test_all_options_are_on_the_bundles_page():
    assert len(ROWS) == len(OPTIONS)
