"""A training that a signal stops: it saves first, and goes on to the same bits."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Engine, Events

from tests.handlers.toy_training import Training


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return Training(tmp_path_factory.mktemp("whole"), minutes=1e9).run().result()


def signalled(iteration: int, *numbers: int) -> Callable[[Training], None]:
    """Makes a training get these signals when an iteration starts."""

    def ask(engine: Engine) -> None:
        if engine.state.iteration == iteration:
            for number in numbers:
                os.kill(os.getpid(), number)

    return lambda training: training.trainer.add_event_handler(Events.ITERATION_STARTED, ask) and None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_saves_and_stops(
    expected: dict[str, Any], tmp_path: Path, number: int, workers: int, capfd: pytest.CaptureFixture[str]
):
    before = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
    training = Training(tmp_path, minutes=1e9, workers=workers)
    with pytest.raises(SystemExit) as stopped:
        training.run(signalled(4, number))
    assert stopped.value.code == 130
    told = capfd.readouterr().err
    assert "stopping after this iteration" in told
    assert "stopped after iteration 4 of 12" in told and "type the same command again with --resume True" in told
    assert [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)] == before
    del training
    after = Training(tmp_path, resume=True, workers=workers)
    assert after.folder.iteration == 4
    assert after.run().result() | {"losses": None} == expected | {"losses": None}
    assert [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_sigterm_changes_nothing(tmp_path: Path, number: int):
    """timeout(1) sends its signal twice, and a scheduler signals all processes."""
    with pytest.raises(SystemExit):
        Training(tmp_path, minutes=1e9).run(signalled(5, number, signal.SIGTERM))
    assert (tmp_path / "checkpoints" / "iteration-5.pt").is_file()


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_after_a_signal_stops_at_once(tmp_path: Path, first: int):
    with pytest.raises(KeyboardInterrupt):
        Training(tmp_path, minutes=1e9).run(signalled(5, first, signal.SIGINT))
    assert not list((tmp_path / "checkpoints").iterdir())


def test_ctrl_c_at_a_terminal_reaches_the_workers_too(tmp_path: Path):
    """And they go on delivering, so that the iteration can be finished."""

    def ask(engine: Engine) -> None:
        if engine.state.iteration == 4:
            for worker in engine.data_loader._iterator._workers:
                os.kill(worker.pid, signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    training = Training(tmp_path, workers=2, minutes=1e9)
    with pytest.raises(SystemExit):
        training.run(lambda training: training.trainer.add_event_handler(Events.GET_BATCH_STARTED, ask) and None)
    assert (tmp_path / "checkpoints" / "iteration-5.pt").is_file()
