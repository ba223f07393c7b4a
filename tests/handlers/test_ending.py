"""All that is to be done at an engine's end is done, and an exception goes on its way."""

from __future__ import annotations

import pytest
from ignite.engine import Engine, Events

from common.handlers.ending import at_end


@pytest.mark.parametrize("how", ["well", "within", "before", "interrupted"])
def test_every_action_once_a_run(how: str):
    def fail(engine: Engine, batch: object = None) -> None:
        if how == "interrupted":
            raise KeyboardInterrupt
        raise ValueError("the reason")

    engine = Engine(fail if how in ("within", "interrupted") else lambda engine, batch: None)
    if how == "before":
        engine.add_event_handler(Events.STARTED, fail)
    done: list[int] = []
    for number in (1, 2):
        at_end(engine, lambda number=number: done.append(number))
    if how == "well":
        engine.run([0], max_epochs=2)
    else:
        with pytest.raises(KeyboardInterrupt if how == "interrupted" else ValueError):
            engine.run([0])
    assert done == [1, 2]
    if how == "well":
        engine.run([0])
        assert done == [1, 2, 1, 2]
