"""What a worker does on behalf of its parent; the worker itself is a fake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
import trio

from proxy.app import App
from proxy.config.load import default_settings
from proxy.errors import RemoteError
from proxy.events.event import Event
from proxy.events.sink import Applied, Failed, Outcome, Sink
from proxy.net.worker import Worker
from proxy.supervisor.duties import Duties


class FakeSink:
    """Says the same of every event; of none, if there is nothing to be said."""

    def __init__(self, outcome: Outcome | None) -> None:
        self.outcome = outcome
        self.events: list[Event] = []

    async def apply(self, events: Sequence[Event]) -> list[Outcome]:
        """Note them; answer later, as Redis does."""
        self.events += events
        if self.outcome is None:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return [cast("Outcome", self.outcome)] * len(events)


def _duties(sink: FakeSink) -> Duties:
    settings = default_settings()
    duties = Duties()
    duties.app = App(cast("Worker", None), settings, lambda: settings, cast("Sink", sink))
    return duties


async def test_invalidate_hands_over_what_is_to_be_dropped() -> None:
    """What is asked for is one event, whole."""
    sink = FakeSink(Applied(keys=1, entries=2, fences=3))
    event = Event((b"k",), (b"g*",), (b"t",), 7, version=8)

    dropped = await _duties(sink).invalidate(event)

    assert dropped == {"keys": 1, "entries": 2, "fences": 3}
    assert sink.events == [event]


async def test_invalidate_that_failed_raises_the_reason() -> None:
    """Half of it is not all of it."""
    duties = _duties(FakeSink(Failed("upstream unavailable")))

    with pytest.raises(RemoteError, match="upstream unavailable"):
        await duties.invalidate(Event((b"k",)))


async def test_invalidate_that_is_never_answered_ends(autojump_clock: object) -> None:
    """Nobody waits longer than for any other reply of Redis."""
    duties = _duties(FakeSink(None))

    with pytest.raises(RemoteError, match="not answered in time"), trio.fail_after(6):
        await duties.invalidate(Event((b"k",)))


async def test_invalidate_of_a_worker_that_starts_is_an_error() -> None:
    """The parent then asks another one."""
    with pytest.raises(RemoteError, match="starting"):
        await Duties().invalidate(Event((b"k",)))


def test_handlers_name_every_question() -> None:
    """What the parent asks by name is there."""
    handlers: Any = Duties().handlers()
    assert "invalidate" in handlers
