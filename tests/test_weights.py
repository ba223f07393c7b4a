"""Weights load strictly and safely."""

import logging
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from common.errors import InputError
from common.weights import (
    default_weights,
    load_weights,
    read_facts,
    read_weights,
    save_half,
    tell_origin,
    trained_setting,
)


class Payload:
    """Leaves a file behind if a loader ever executes it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (os.fspath(self.path),)


@pytest.fixture
def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.GroupNorm(1, 2))


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state}])
def test_loads_what_was_saved(tmp_path: Path, network: torch.nn.Module, wrap):
    other = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.GroupNorm(1, 2))
    torch.save(wrap(other.state_dict()), tmp_path / "model.pt")
    load_weights(network, tmp_path / "model.pt")
    assert torch.equal(network[0].weight, other[0].weight)


def test_missing(tmp_path: Path, network: torch.nn.Module):
    with pytest.raises(InputError, match=r"no weights at .*none\.pt: train first, or give the path"):
        load_weights(network, tmp_path / "none.pt")


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_damaged(tmp_path: Path, network: torch.nn.Module, keep: int):
    path = tmp_path / "model.pt"
    torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"model\.pt .*damaged"):
        load_weights(network, path)


@pytest.mark.parametrize("as_torch", [True, False])
def test_pickled_objects_are_refused_and_never_executed(tmp_path: Path, network: torch.nn.Module, as_torch: bool):
    path, trace = tmp_path / "model.pt", tmp_path / "executed"
    content = {"model": network.state_dict(), "extra": Payload(trace)}
    if as_torch:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"model\.pt holds pickled objects or is damaged: it was not loaded"):
        load_weights(network, path)
    assert not trace.exists()


def test_another_network_is_refused_whole(tmp_path: Path, network: torch.nn.Module):
    before = network[0].weight.clone()
    other = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.GroupNorm(1, 2), torch.nn.Conv3d(2, 4, 1))
    torch.save(other.state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"of another network: 2 of 4 tensors differ, such as 2\.bias"):
        load_weights(network, tmp_path / "model.pt")
    assert torch.equal(network[0].weight, before)
    torch.save(torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3), torch.nn.GroupNorm(1, 2)).state_dict(), tmp_path / "b.pt")
    with pytest.raises(InputError, match=r"1 of 4 tensors differ, such as 0\.weight"):
        load_weights(network, tmp_path / "b.pt")


def test_other_content(tmp_path: Path, network: torch.nn.Module):
    torch.save({"epoch": 3}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="holds no weights"):
        load_weights(network, tmp_path / "model.pt")


def test_packed_files_are_refused_before_they_are_unpacked(tmp_path: Path, network: torch.nn.Module):
    """Torch would read them, and a small one can hold zeros without end."""
    path = tmp_path / "model.pt"
    torch.save({**network.state_dict(), "0.weight": torch.zeros(10_000_000)}, path)
    with zipfile.ZipFile(path) as saved, zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for member in saved.namelist():
            packed.writestr(member, saved.read(member))
    assert (tmp_path / "packed.pt").stat().st_size < 100_000 and torch.load(tmp_path / "packed.pt", weights_only=True)
    with pytest.raises(InputError, match=r"packed\.pt was packed, which torch\.save doesn't do"):
        load_weights(network, tmp_path / "packed.pt")


@pytest.mark.parametrize("tensor", [torch.zeros(2, 2).to_sparse(), torch.zeros(2, 2, device="meta")])
def test_tensors_without_values_of_their_own(tmp_path: Path, network: torch.nn.Module, tensor: torch.Tensor):
    torch.save({**network.state_dict(), "0.weight": tensor}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="holds no weights: expected a state dict of dense tensors"):
        load_weights(network, tmp_path / "model.pt")


def test_reading_leaves_the_network_alone(tmp_path: Path, network: torch.nn.Module):
    before = network[0].weight.clone()
    torch.save({key: value + 1 for key, value in network.state_dict().items()}, tmp_path / "model.pt")
    state = read_weights(network, tmp_path / "model.pt")
    assert torch.equal(network[0].weight, before) and torch.equal(state["0.weight"], before + 1)


def test_facts_are_what_the_file_says(tmp_path: Path, network: torch.nn.Module):
    path = tmp_path / "model.pt"
    with pytest.raises(InputError, match=r"no weights at .*model\.pt"):
        read_facts(path)
    for content, facts in (
        (network.state_dict(), {}),
        ({"model": network.state_dict()}, {}),
        ({"model": network.state_dict(), "trained_with": [1]}, {}),
        ({"model": network.state_dict(), "trained_with": {"rate": 8}}, {"rate": 8}),
    ):
        torch.save(content, path)
        assert read_facts(path) == facts
        load_weights(network, path)


def test_safetensors(tmp_path: Path, network: torch.nn.Module):
    other = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.GroupNorm(1, 2))
    path = tmp_path / "model.safetensors"
    save_file(other.state_dict(), path, {"trained_with": '{"variant": "both"}'})
    load_weights(network, path, {"variant": "both"})
    assert torch.equal(network[0].weight, other[0].weight) and read_facts(path) == {"variant": "both"}
    with pytest.raises(InputError, match=r"was trained with variant 'both': say --variant 'both'"):
        load_weights(network, path, {"variant": "encoder"})
    save_file({"0.weight": torch.zeros(3)}, path)
    assert read_facts(path) == {}
    with pytest.raises(InputError, match=r"model\.safetensors is of another network"):
        load_weights(network, path)
    for content in (path.read_bytes()[:20], b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"model\.safetensors is damaged or no file of safetensors"):
            load_weights(network, path)


def test_own_weights_go_before_those_that_came_along(tmp_path: Path):
    assert default_weights(tmp_path) == str(tmp_path / "model.pt"), "where there are neither, what is told is missing"
    (tmp_path / "generated.pt").touch()
    assert default_weights(tmp_path) == str(tmp_path / "generated.pt")
    (tmp_path / "model.pt").touch()
    assert default_weights(tmp_path) == str(tmp_path / "model.pt")


def test_settings_follow_the_weights(tmp_path: Path):
    path = tmp_path / "model.pt"
    torch.save({"model": {}, "trained_with": {"spacing": [2.0, 2.0, 2.0], "patch_size": []}}, path)
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    assert trained_setting("spacing", [1.0], str(path)) == [2.0, 2.0, 2.0]
    assert trained_setting("spacing", [1.0], [str(tmp_path / "m*.pt")]) == [2.0, 2.0, 2.0]
    for id, weights in (("robust", path), ("patch_size", path), ("spacing", "none.pt"), ("spacing", "")):
        assert trained_setting(id, [1.0], str(weights)) == [1.0]
    assert trained_setting("spacing", [1.0], str(tmp_path / "broken.pt")) == [1.0], "what loads it tells"


def test_half_precision_halves_the_file_and_keeps_what_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    network = torch.nn.Sequential(torch.nn.Conv3d(8, 64, 3), torch.nn.BatchNorm3d(64))
    whole, half = tmp_path / "model.pt", tmp_path / "generated.pt"
    facts = {"spacing": [2.0] * 3, "data": "generated scans"}
    torch.save({"model": network.state_dict(), "trained_with": facts}, whole)
    save_half(whole, half)
    assert half.stat().st_size < 0.6 * whole.stat().st_size and read_facts(half) == facts
    again = torch.nn.Sequential(torch.nn.Conv3d(8, 64, 3), torch.nn.BatchNorm3d(64))
    load_weights(again, half)
    assert again[0].weight.dtype == torch.float32
    torch.testing.assert_close(again[0].weight, network[0].weight, rtol=1e-3, atol=1e-3)
    with caplog.at_level(logging.WARNING):
        tell_origin(half)
    assert "generated.pt: trained on generated scans alone. Experimental, for research" in caplog.text
    caplog.clear()
    torch.save({"model": network.state_dict()}, whole)
    tell_origin(whole)
    assert not caplog.text
