"""A training run says beforehand what it will do, and how far it is; an error goes on its way."""

import logging
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events

from common.errors import InputError
from common.handlers.progress import ProgressBar, StartMessage


def test_start_message(caplog: pytest.LogCaptureFixture):
    network = torch.nn.Linear(3, 2)
    engine = SimpleNamespace(state=SimpleNamespace(device=torch.device("cpu"), max_epochs=5, epoch_length=7))
    with caplog.at_level(logging.INFO):
        StartMessage(network, range(14), range(2), patches=2, amp=False).tell(engine)
    assert caplog.messages[:2] == [
        "training on 14 cases, validating on 2",
        "5 epochs of 7 steps, 2 patches a step, 35 steps in all",
    ]
    assert caplog.messages[2].startswith("Linear with 8 parameters on cpu")
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
