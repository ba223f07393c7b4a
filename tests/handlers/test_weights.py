"""The best and the last weights are kept whole."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events

from common.errors import InputError
from common.handlers.weights import (
    BestWeightsSaver,
    LastWeightsSaver,
    ModalityDropoutCheck,
    StageWeightsSaver,
    WeightsLoader,
)
from common.weights import load_weights, read_facts


@pytest.fixture
def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.GroupNorm(1, 2))


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


@pytest.mark.parametrize("best_epoch", [-1, 3])
def test_last_is_the_best_where_nothing_was_validated(tmp_path: Path, network: torch.nn.Module, best_epoch: int):
    trainer = Engine(lambda engine, batch: torch.nn.init.constant_(network[0].weight, engine.state.epoch))
    evaluator = SimpleNamespace(state=SimpleNamespace(best_metric_epoch=best_epoch))
    (tmp_path / "best.pt").write_text("of an earlier run")
    LastWeightsSaver(network, str(tmp_path / "last.pt"), str(tmp_path / "best.pt"), evaluator).attach(trainer)
    trainer.run([0], max_epochs=3)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["0.weight"].unique() == 3
    # Where something was validated, the best weights are the evaluator's to write.
    if best_epoch > 0:
        assert (tmp_path / "best.pt").read_text() == "of an earlier run"
    else:
        assert torch.load(tmp_path / "best.pt", weights_only=True)["0.weight"].unique() == 3
        assert (tmp_path / "best.previous-1.pt").read_text() == "of an earlier run"


def test_last_weights_every_few_epochs_and_at_the_end(tmp_path: Path, network: torch.nn.Module):
    found = []
    trainer = Engine(lambda engine, batch: torch.nn.init.constant_(network[0].weight, engine.state.epoch))
    evaluator = SimpleNamespace(state=SimpleNamespace(best_metric_epoch=1))
    saver = LastWeightsSaver(network, str(tmp_path / "last.pt"), str(tmp_path / "best.pt"), evaluator, interval=3)
    saver.attach(trainer)

    def note() -> None:
        there = (tmp_path / "last.pt").exists()
        found.append(torch.load(tmp_path / "last.pt", weights_only=True)["0.weight"].unique().item() if there else 0)

    trainer.add_event_handler(Events.EPOCH_COMPLETED, note)
    trainer.run([0], max_epochs=8)
    assert found == [0, 0, 3, 3, 3, 6, 6, 8]


@pytest.mark.parametrize(
    ("first", "epochs", "expected"), [(1, 6, {"stage1.pt": 2, "stage2.pt": 3}), (2, 4, {"stage2.pt": 1})]
)
def test_weights_of_each_stage_but_the_last(
    tmp_path: Path, network: torch.nn.Module, first: int, epochs: int, expected: dict[str, int]
):
    """Stages of two, one and three epochs; each file has the weights that its last epoch left."""
    trainer = Engine(lambda engine, batch: torch.nn.init.constant_(network[0].weight, engine.state.epoch))
    StageWeightsSaver(network, str(tmp_path), (2, 1, 3), first, {"components": "CF"}).attach(trainer)
    trainer.run([0], max_epochs=epochs)
    found = {}
    for path in tmp_path.iterdir():
        content = torch.load(path, weights_only=True)
        assert content["trained_with"] == {"components": "CF"}
        found[path.name] = content["model"]["0.weight"].unique().item()
    assert found == expected


def test_folder_is_tried_before_training(tmp_path: Path, network: torch.nn.Module):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        BestWeightsSaver(network, str(tmp_path / "taken" / "model.pt"), str(tmp_path)).attach(
            Engine(lambda engine, batch: None)
        )


FACTS = {"rate": 8, "classes": [0, 1], "modality_dropout": 0.5}


def test_what_weights_were_trained_with_is_kept_beside_them(tmp_path: Path, network: torch.nn.Module):
    evaluator = SimpleNamespace(state=SimpleNamespace(best_metric_epoch=-1))
    BestWeightsSaver(network, str(tmp_path / "best.pt"), str(tmp_path), FACTS).save(evaluated(0.5))
    trainer = Engine(lambda engine, batch: None)
    LastWeightsSaver(network, str(tmp_path / "last.pt"), str(tmp_path / "end.pt"), evaluator, FACTS).attach(trainer)
    trainer.run([0])
    for name in ("best", "last", "end"):
        assert read_facts(tmp_path / f"{name}.pt") == FACTS
        load_weights(network, tmp_path / f"{name}.pt")


def run_with(handler: WeightsLoader | ModalityDropoutCheck) -> None:
    engine = Engine(lambda engine, batch: None)
    handler.attach(engine)
    engine.run([0])


def test_weights_trained_with_other_settings_are_refused(tmp_path: Path, network: torch.nn.Module):
    path = str(tmp_path / "model.pt")
    BestWeightsSaver(network, path, str(tmp_path), FACTS).save(evaluated(0.5))
    for same in ({}, {"rate": 8}, {"classes": [0, 1], "of no importance then": 3}):
        run_with(WeightsLoader(network, path, same))
    with pytest.raises(InputError, match=r"model\.pt was trained with rate 8: say --rate 8, not 2$"):
        run_with(WeightsLoader(network, path, {"classes": [0, 1], "rate": 2}))
    torch.save(network.state_dict(), path)
    run_with(WeightsLoader(network, path, {"rate": 2}))


@pytest.mark.parametrize("facts", [{"modality_dropout": 0.0}, {"rate": 8}, None])
def test_weights_that_never_missed_a_modality_are_refused(
    tmp_path: Path, network: torch.nn.Module, facts: dict[str, float] | None
):
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    BestWeightsSaver(network, str(good), str(tmp_path), FACTS).save(evaluated(0.5))
    BestWeightsSaver(network, str(bad), str(tmp_path), facts).save(evaluated(0.5))
    run_with(ModalityDropoutCheck([good]))
    with pytest.raises(InputError, match=r"bad\.pt wasn't trained with missing modalities, .* leave --missing_modal"):
        run_with(ModalityDropoutCheck([good, bad]))
