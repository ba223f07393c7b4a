"""What is done when an engine's run ends, however it ends."""

from __future__ import annotations

from collections.abc import Callable

from ignite.engine import Engine, Events

__all__ = ["at_end"]


def at_end(engine: Engine, action: Callable[[], None]) -> None:
    """Call `action` once when a run of the engine ends, well or by an exception, which then goes on its way.

    ignite takes an exception for handled as soon as anybody listens to it, and of several listeners the first that
    raises it again keeps it from the others; so there is one for all actions.
    """
    ending: _Ending | None = getattr(engine, "ending", None)
    if ending is None:
        ending = engine.ending = _Ending()  # type: ignore[attr-defined]
        engine.add_event_handler(Events.STARTED, ending.expect)
        engine.add_event_handler(Events.COMPLETED | Events.EXCEPTION_RAISED, ending.run)
    ending.actions.append(action)


class _Ending:
    def __init__(self) -> None:
        self.actions: list[Callable[[], None]] = []
        self.is_due = True

    def expect(self, engine: Engine) -> None:
        self.is_due = True

    def run(self, engine: Engine, error: BaseException | None = None) -> None:
        if self.is_due:  # ignite tells of an exception within an iteration twice
            self.is_due = False
            for action in self.actions:
                action()
        if error is not None:
            raise error
