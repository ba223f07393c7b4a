"""Weights load strictly and safely; the best and the last are kept whole."""

import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine

from common.errors import InputError
from common.handlers.weights import BestWeightsSaver, LastWeightsSaver, WeightsLoader, load_weights


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


def test_loader_without_a_path_leaves_the_network(network: torch.nn.Module):
    before = network[0].weight.clone()
    engine = Engine(lambda engine, batch: None)
    WeightsLoader(network, "").attach(engine)
    engine.run([0])
    assert torch.equal(network[0].weight, before)


def evaluated(metric: float) -> SimpleNamespace:
    return SimpleNamespace(state=SimpleNamespace(key_metric_name="dice", metrics={"dice": metric}))


def test_best_is_kept(tmp_path: Path, network: torch.nn.Module):
    path = tmp_path / "models" / "model.pt"
    saver = BestWeightsSaver(network, str(path), str(tmp_path))
    for metric, value in ((0.5, 1.0), (0.7, 2.0), (0.6, 3.0), (float("nan"), 4.0)):
        torch.nn.init.constant_(network[0].weight, value)
        saver.save(evaluated(metric))
    assert torch.load(path, weights_only=True)["0.weight"].unique() == 2.0
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]


def test_first_weights_of_a_run_are_kept_though_the_metric_is_no_number(tmp_path: Path, network: torch.nn.Module):
    (tmp_path / "model.pt").write_text("of an earlier run")
    saver = BestWeightsSaver(network, str(tmp_path / "model.pt"), str(tmp_path / "run"))
    saver.save(evaluated(float("nan")))
    load_weights(network, tmp_path / "model.pt")
    torch.nn.init.constant_(network[0].weight, 2.0)
    saver.save(evaluated(0.1))
    assert torch.load(tmp_path / "model.pt", weights_only=True)["0.weight"].unique() == 2.0
    assert (tmp_path / "run" / "model.previous-1.pt").read_text() == "of an earlier run"


def test_weights_of_every_earlier_run_are_kept(tmp_path: Path, network: torch.nn.Module):
    for run in (1.0, 2.0, 3.0):
        saver = BestWeightsSaver(network, str(tmp_path / "model.pt"), str(tmp_path / "run"))
        torch.nn.init.constant_(network[0].weight, run)
        saver.save(evaluated(0.5))
    kept = {
        path.name: torch.load(path, weights_only=True)["0.weight"].unique().item() for path in tmp_path.glob("**/*.pt")
    }
    assert kept == {"model.previous-1.pt": 1, "model.previous-2.pt": 2, "model.pt": 3}


@pytest.mark.parametrize("validations", [0, 3])
def test_last_is_the_best_where_nothing_was_validated(tmp_path: Path, network: torch.nn.Module, validations: int):
    trainer = Engine(lambda engine, batch: torch.nn.init.constant_(network[0].weight, engine.state.epoch))
    evaluator = SimpleNamespace(state=SimpleNamespace(iteration=validations))
    (tmp_path / "best.pt").write_text("of an earlier run")
    LastWeightsSaver(network, str(tmp_path / "last.pt"), str(tmp_path / "best.pt"), evaluator).attach(trainer)
    trainer.run([0], max_epochs=3)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["0.weight"].unique() == 3
    # Where something was validated, the best weights are the evaluator's to write.
    if validations:
        assert (tmp_path / "best.pt").read_text() == "of an earlier run"
    else:
        assert torch.load(tmp_path / "best.pt", weights_only=True)["0.weight"].unique() == 3
        assert (tmp_path / "best.previous-1.pt").read_text() == "of an earlier run"


def test_folder_is_tried_before_training(tmp_path: Path, network: torch.nn.Module):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        BestWeightsSaver(network, str(tmp_path / "taken" / "model.pt"), str(tmp_path)).attach(
            Engine(lambda engine, batch: None)
        )
