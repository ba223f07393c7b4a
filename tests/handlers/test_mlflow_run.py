"""A training in MLflow's database: what is in it, and what becomes of it when the training is stopped and goes on."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from ignite.engine import Engine, Events

from common.handlers.mlflow_run import MLflowRun
from common.records import recorded

pytestmark = pytest.mark.slow  # making the database takes seconds

SETTINGS = {"learning_rate": 0.5, "patch_size": [8, 8, 8], "num_workers": 0, "weights": ""}
LOSSES = {1: [4.0, 2.0], 2: [1.0, 2.0], 3: [0.5, 0.5]}


@pytest.fixture(autouse=True)
def at_exit(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What would be called when the process ends: by then the database of a test is gone."""
    registered: list[Callable[[], None]] = []
    monkeypatch.setattr("common.handlers.mlflow_run.atexit.register", registered.append)
    return registered


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for MLflow's database, which takes seconds to make."""
    return tmp_path_factory.mktemp("a folder") / "new"


def handler(uri: str, output_dir: Path, goes_on: bool = False, **settings: Any) -> tuple[MLflowRun, Engine]:
    """A handler on a trainer that needs no network: its losses are `LOSSES`, by epoch and iteration."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    evaluator = Engine(lambda engine, batch: None)

    def score(engine: Engine) -> None:
        engine.state.metrics = {"val_mean_dice": 0.1 * trainer.state.epoch, "val_dice_WT": float("nan")}

    evaluator.add_event_handler(Events.EPOCH_COMPLETED, score)

    def step(engine: Engine, batch: int) -> dict[str, torch.Tensor]:
        return {"loss": torch.tensor(LOSSES[engine.state.epoch][batch], requires_grad=True) * 1}

    trainer = Engine(step)
    run = MLflowRun(
        uri,
        "toy",
        output_dir,
        output_dir / "model.pt",
        {**SETTINGS, **settings},
        lambda output: {"train_loss": output["loss"], "twice": 2 * output["loss"]},
        optimizer,
        evaluator,
        goes_on,
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run([0]))
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda _: optimizer.param_groups[0].update(lr=0.5 / (1 + trainer.state.epoch))
    )
    run.attach(trainer)
    return run, trainer


def runs_of(store: Path, output_dir: Path) -> list[Any]:
    """The runs of a training, newest first."""
    client = mlflow.MlflowClient(f"sqlite:///{store}/mlruns.db")
    experiment = client.get_experiment_by_name("toy")
    runs = client.search_runs(experiment.experiment_id, order_by=["attributes.start_time DESC"])
    return [run for run in runs if run.info.run_name == str(output_dir)]


def history(store: Path, run: Any, metric: str) -> list[tuple[int, float]]:
    client = mlflow.MlflowClient(f"sqlite:///{store}/mlruns.db")
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]


def test_parameters_metrics_and_artifacts(store: Path, tmp_path: Path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    with recorded(tmp_path, "train", {}):
        handler(str(store), tmp_path)[1].run([0, 1], max_epochs=2)
    (run,) = runs_of(store, tmp_path)
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "learning_rate": "0.5",
        "patch_size": "[8, 8, 8]",
        "num_workers": "0",
        "weights": "",
        "max_epochs": "2",
        "epoch_length": "2",
    }
    assert history(store, run, "train_loss") == [(1, 3.0), (2, 1.5)]
    assert history(store, run, "twice") == [(1, 6.0), (2, 3.0)]
    assert history(store, run, "learning_rate") == [(1, 0.25), (2, pytest.approx(0.5 / 3))]
    assert history(store, run, "val_mean_dice") == [(1, 0.1), (2, 0.2)]
    artifacts = store / "mlruns" / run.info.run_id / "artifacts"
    assert {path.name for path in artifacts.iterdir()} == {"model.pt", "run-train-1.json"}
    assert (artifacts / "model.pt").read_bytes() == b"weights"
    record = json.loads((artifacts / "run-train-1.json").read_text())
    assert record["workflow"] == "train" and "outcome" not in record


def test_training_that_goes_on_adds_to_its_run(store: Path, tmp_path: Path, at_exit: list[Callable[[], None]]):
    trainer = handler(str(store), tmp_path)[1]
    trainer.add_event_handler(Events.EPOCH_STARTED(once=2), stop)
    with pytest.raises(SystemExit):
        trainer.run([0, 1], max_epochs=2)
    for call in at_exit:
        call()
    (run,) = runs_of(store, tmp_path)
    assert run.info.status == "KILLED"
    trainer = handler(str(store), tmp_path, goes_on=True, num_workers=4)[1]
    trainer.load_state_dict({"epoch": 1, "max_epochs": 2, "epoch_length": 2})
    trainer.run([0, 1])
    (run,) = runs_of(store, tmp_path)
    assert run.info.status == "FINISHED"
    assert run.data.params["num_workers"] == "0"
    assert history(store, run, "train_loss") == [(1, 3.0), (2, 1.5)]


def stop(engine: Engine) -> None:
    raise SystemExit(130)


def test_training_that_starts_anew_gets_a_run_of_its_own(store: Path, tmp_path: Path):
    trainer = handler(str(store), tmp_path)[1]
    trainer.add_event_handler(Events.EPOCH_STARTED(once=2), stop)
    with pytest.raises(SystemExit):
        trainer.run([0, 1], max_epochs=2)
    assert [run.info.status for run in runs_of(store, tmp_path)] == ["RUNNING"]  # as after kill -9
    for number in (2, 3):
        handler(str(store), tmp_path)[1].run([0, 1], max_epochs=1)
        statuses = [run.info.status for run in runs_of(store, tmp_path)]
        assert statuses == ["FINISHED"] * (number - 1) + ["KILLED"]


def test_nothing_is_said_of_a_finished_run(store: Path, tmp_path: Path):
    run, trainer = handler(str(store), tmp_path)
    run.abandon()
    trainer.run([0, 1], max_epochs=1)
    run.abandon()
    assert [run.info.status for run in runs_of(store, tmp_path)] == ["FINISHED"]


def test_database_by_its_address(store: Path, tmp_path: Path):
    handler(f"sqlite:///{store}/mlruns.db", tmp_path)[1].run([0, 1], max_epochs=1)
    (run,) = runs_of(store, tmp_path)
    assert run.data.metrics["train_loss"] == 3.0
    assert run.info.artifact_uri.startswith(f"{store.as_uri()}/mlruns/")


def train_when_all_are_ready(store: Path, output_dir: Path, ready: Barrier) -> None:
    ready.wait()
    handler(str(store), output_dir)[1].run([0, 1], max_epochs=1)


def test_two_at_once_make_the_database(tmp_path: Path):
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(2, timeout=120)
    folders = [tmp_path / "one", tmp_path / "two"]
    arguments = [(tmp_path / "new", folder, ready) for folder in folders]
    processes = [spawn.Process(target=train_when_all_are_ready, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    for folder in folders:
        assert [run.info.status for run in runs_of(tmp_path / "new", folder)] == ["FINISHED"]


def test_a_disk_without_locks(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    handler(str(store), tmp_path)[1].run([0, 1], max_epochs=1)
    assert caplog.text.count("processes don't wait for one another here (Function not implemented)") == 1
    assert [run.info.status for run in runs_of(store, tmp_path)] == ["FINISHED"]
