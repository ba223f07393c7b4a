"""A training that is cut off anywhere and goes on ends with the same bits as one in one go."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ignite.engine import Engine, Events

from common.errors import InputError
from common.handlers.checkpoint_folder import CheckpointFolder
from tests.handlers.toy_training import EPOCHS, STEPS, Killed, Training


def kill_at(event: Events, time: int, of_evaluator: bool = False) -> Callable[[Training], None]:
    """Ends a training the `time`-th time that an event is through."""

    def attach(training: Training) -> None:
        seen = [0]

        def kill(engine: Engine) -> None:
            seen[0] += 1
            if seen[0] == time:
                raise Killed

        (training.evaluator if of_evaluator else training.trainer).add_event_handler(event, kill)

    return attach


def go_on(folder: Path, kill: Callable[[Training], None], **options: Any) -> tuple[dict[str, Any], int]:
    """Starts a training, ends it, and goes on to the end; its result, and the iteration that it went on from."""
    killed = Training(folder, **options)
    with pytest.raises(Killed):
        killed.run(kill)
    after = Training(folder, resume=True, **options)
    start = after.folder.iteration
    after.run()
    # What the killed one did after its last checkpoint is done again.
    after.losses = [entry for entry in killed.losses if entry[0] <= start] + after.losses
    return after.result(), start


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    result = Training(tmp_path_factory.mktemp("whole"), minutes=1e9).run().result()
    assert result["iteration"] == EPOCHS * STEPS
    assert len({loss for _, loss in result["losses"]}) == EPOCHS * STEPS
    return result


MOMENTS = [
    (Events.STARTED, 1, False),
    (Events.ITERATION_STARTED, 1, False),
    (Events.ITERATION_STARTED, 12, False),
    *((Events.ITERATION_COMPLETED, n, False) for n in (1, 2, 3, 4, 6, 11, 12)),
    (Events.EPOCH_COMPLETED, 1, False),
    (Events.EPOCH_COMPLETED, 2, False),
    (Events.EPOCH_STARTED, 3, False),
    (Events.STARTED, 1, True),
    (Events.ITERATION_COMPLETED, 3, True),
    (Events.COMPLETED, 1, True),
    (Events.COMPLETED, 2, True),
    (Events.COMPLETED, 1, False),
]


@pytest.mark.parametrize(
    ("event", "time", "of_evaluator"), MOMENTS, ids=lambda value: getattr(value, "name", str(value))
)
def test_killed_at_any_moment(expected: dict[str, Any], tmp_path: Path, event: Events, time: int, of_evaluator: bool):
    result, start = go_on(tmp_path, kill_at(event, time, of_evaluator))
    assert result == expected
    if event is Events.ITERATION_COMPLETED and not of_evaluator and time % STEPS:
        assert start == time


def test_killed_again_and_again(expected: dict[str, Any], tmp_path: Path):
    losses: dict[int, float] = {}
    for life in range(EPOCHS * STEPS + 1):
        training = Training(tmp_path, resume=life > 0)
        kill = kill_at(Events.ITERATION_STARTED, 2)
        try:
            training.run(kill)
        except Killed:
            losses |= dict(training.losses)
        else:
            break
    losses |= dict(training.losses)
    training.losses = list(losses.items())
    assert training.result() == expected
    assert life == EPOCHS * STEPS - 1


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_may_change(expected: dict[str, Any], tmp_path: Path, workers: int):
    with pytest.raises(Killed):
        Training(tmp_path, workers=2 - workers).run(kill_at(Events.ITERATION_COMPLETED, 5))
    after = Training(tmp_path, resume=True, workers=workers).run()
    assert after.result() | {"losses": None} == expected | {"losses": None}


def test_the_weights_of_the_best_come_back_too(expected: dict[str, Any], tmp_path: Path):
    with pytest.raises(Killed):
        Training(tmp_path).run(kill_at(Events.ITERATION_STARTED, EPOCHS * STEPS))
    (tmp_path / "model.pt").unlink()
    assert Training(tmp_path, resume=True).run().result()["files"] == expected["files"]


def test_a_finished_training_stays_as_it_is(expected: dict[str, Any], tmp_path: Path):
    Training(tmp_path).run()
    again = Training(tmp_path, resume=True).run()
    assert again.losses == []
    assert again.result() | {"losses": None} == expected | {"losses": None}
    assert not list(tmp_path.glob("*previous*"))


def test_nothing_was_validated(tmp_path: Path):
    """The last weights are the best, once, and those of an earlier run are kept, once."""

    def never(training: Training) -> None:
        training.evaluator.run = lambda *_: None  # type: ignore[method-assign]

    (tmp_path / "model.pt").write_text("of an earlier run")
    with pytest.raises(Killed):
        Training(tmp_path).run(lambda training: (never(training), kill_at(Events.COMPLETED, 1)(training))[0])
    Training(tmp_path, resume=True).run(never)
    assert (tmp_path / "model.pt").read_bytes() == (tmp_path / "last.pt").read_bytes()
    assert [file.name for file in tmp_path.glob("*previous*")] == ["model.previous-1.pt"]


@pytest.mark.parametrize("time", [1, 2, 3, 5])
def test_gradients_half_accumulated_are_not_saved(tmp_path: Path, time: int):
    whole = Training(tmp_path / "whole", accumulation=2, minutes=1e9).run().result()
    result, start = go_on(tmp_path / "killed", kill_at(Events.ITERATION_COMPLETED, time), accumulation=2)
    assert result == whole
    done = time - time % STEPS if time % STEPS != 2 else time
    assert start == (done if time % STEPS else time - 1)


def test_a_training_that_ended_early_does_not_go_on(tmp_path: Path):
    options = {"patience": 1, "interval": 1}  # each validation is worse than the one before
    whole = Training(tmp_path / "whole", minutes=1e9, **options).run().result()
    assert whole["iteration"] == 2 * STEPS
    assert go_on(tmp_path / "killed", kill_at(Events.COMPLETED, 1), **options) == (whole, 2 * STEPS)


def test_other_configurations_are_refused(tmp_path: Path):
    with pytest.raises(Killed):
        Training(tmp_path).run(kill_at(Events.ITERATION_COMPLETED, 4))
    before = sorted((tmp_path / "checkpoints").iterdir())
    # Before a trainer is there.
    with pytest.raises(InputError, match="can't go on with another configuration") as refused:
        Training(tmp_path, resume=True, rate=0.2, device="cuda:1")
    told = {line.split(" ")[0]: line for line in refused.value.problems[1:]}
    assert told["optimizer#lr"] == "optimizer#lr (0.1 then, 0.2 now)"
    assert told["device"] == "device ('cpu' then, 'cuda' now)"
    other = Training(tmp_path, resume=True, interval=3, accumulation=2, batch=4)
    with pytest.raises(InputError) as refused:
        other.run()
    assert set(refused.value.problems[1:]) == {
        "train#trainer#accumulation_steps (1 then, 2 now)",
        "train#batches#batch_size (3 then, 4 now)",
        "train#trainer#epoch_length (3 then, 2 now)",
        "train#handlers#2#interval (2 then, 3 now)",
    }
    assert sorted((tmp_path / "checkpoints").iterdir()) == before
    # The folder's name is another, too, and that is no matter.
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert Training(moved, resume=True).run().trainer.state.iteration == EPOCHS * STEPS


def test_another_gpu_is_no_other_configuration(tmp_path: Path):
    """Each of several processes has its own, and only the first one's is in the checkpoint."""
    with pytest.raises(Killed):
        Training(tmp_path, device="cuda:0").run(kill_at(Events.ITERATION_COMPLETED, 4))
    Training(tmp_path, resume=True, device="cuda:1").run()


def test_leftovers_of_writing_weights_are_removed(tmp_path: Path):
    for name in (".12-model.pt", ".12-last.pt", ".12-other.pt"):
        (tmp_path / name).write_text("half")
    Training(tmp_path).run()
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".12-other.pt", ".lock"]


def test_other_surroundings_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(Killed):
        Training(tmp_path).run(kill_at(Events.ITERATION_COMPLETED, 4))
    monkeypatch.setattr(np, "__version__", "3.0")
    Training(tmp_path, resume=True).run()
    assert "may differ in the last bits" in caplog.text
    assert f"numpy {np.version.version} then, 3.0 now" in caplog.text


@pytest.mark.parametrize(
    ("minutes", "stages", "expected"),
    [(0, (), [*range(1, 13)]), (1e9, (), [12]), (1e9, (1, 2, 1), [3, 9, 12]), (1e9, (4,), [12])],
)
def test_how_often(
    tmp_path: Path, minutes: float, stages: tuple[int, ...], expected: list[int], monkeypatch: pytest.MonkeyPatch
):
    """At the end of a stage whatever the time is."""
    saved: list[int] = []
    save = CheckpointFolder.save

    def note(self: CheckpointFolder, content: dict[str, Any]) -> Path:
        saved.append(content["iteration"])
        return save(self, content)

    monkeypatch.setattr(CheckpointFolder, "save", note)
    Training(tmp_path, minutes=minutes, stages=stages).run()
    assert saved == expected
