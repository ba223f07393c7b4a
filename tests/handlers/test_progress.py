"""A training run says beforehand what it will do, and how far it is; an error goes on its way."""

import logging

import pytest
import torch
from ignite.engine import Engine, Events

from common.errors import InputError
from common.handlers.progress import ProgressBar, announce_training


@pytest.mark.parametrize(("processes", "steps", "patches"), [(1, 5, 6), (2, 3, 12)])
def test_what_training_will_do(caplog: pytest.LogCaptureFixture, processes: int, steps: int, patches: int):
    data = {"training": [{}] * 14, "validation": [{}] * 2, "test": []}
    with caplog.at_level(logging.INFO):
        announce_training(torch.nn.Linear(3, 2), data, 5, 3, 2, "cpu", amp=False, processes=processes)
    assert caplog.messages[:2] == [
        "training on 14 cases, validating on 2 cases",
        f"5 epochs of {steps} steps, {patches} patches a step, {5 * steps} steps in all",
    ]
    assert caplog.messages[2].startswith(f"Linear with 8 parameters on {'cpu' if processes == 1 else '2 × cpu'} (")
    assert caplog.messages[2].endswith("float32")


def test_bar_counts_steps_and_shows_the_loss(capsys: pytest.CaptureFixture[str]):
    engine = Engine(lambda engine, batch: {"loss": torch.tensor(0.25)})
    ProgressBar().attach(engine)
    engine.run([0, 1, 2], max_epochs=2)
    shown = capsys.readouterr().err
    assert "6/6" in shown
    assert "epoch 2/2" in shown


@pytest.mark.parametrize("when", ["before", "within"])
def test_error_is_not_hidden(when: str):
    def fail(engine: Engine, batch: object = None) -> None:
        raise InputError("the reason")

    engine = Engine(fail)
    if when == "before":
        engine.add_event_handler(Events.STARTED, fail)
    ProgressBar().attach(engine)
    with pytest.raises(InputError, match="the reason"):
        engine.run([0])
