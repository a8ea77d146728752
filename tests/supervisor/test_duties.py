"""What a worker does on behalf of its parent; the worker itself is a fake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import attrs
import pytest
import trio

from proxy.admin.routes import Event
from proxy.app import App
from proxy.config.load import default_settings
from proxy.core.invalidation import Invalidated
from proxy.errors import RemoteError
from proxy.net.worker import Worker
from proxy.supervisor.duties import Duties
from proxy.values.dependencies import Dependents


@attrs.define
class FakeWorker:
    """Notes what it is to drop, and answers with what the test put in; None is never."""

    outcome: Invalidated | None
    initial_db: int = 3
    noted: list[tuple[Dependents, int] | str] = attrs.field(factory=list)

    @property
    def reactor(self) -> FakeWorker:
        """Be the reactor, too."""
        return self

    def enter(self) -> None:
        """Note it."""
        self.noted.append("enter")

    def flush(self) -> None:
        """Note it."""
        self.noted.append("flush")

    def invalidate(self, what: Dependents, db: int, then: Callable[[Invalidated], None]) -> None:
        """Note it; answer later, as Redis does."""
        self.noted.append((what, db))
        if self.outcome is not None:
            trio.lowlevel.current_trio_token().run_sync_soon(then, self.outcome)


def _duties(worker: FakeWorker) -> Duties:
    settings = default_settings()
    duties = Duties()
    duties.app = App(cast("Worker", worker), settings, lambda: settings)
    return duties


@pytest.mark.parametrize(("asked", "db"), [(None, 3), (0, 0), (7, 7)])
async def test_invalidate_hands_over_what_is_to_be_dropped(asked: int | None, db: int) -> None:
    """An event without a database is about the one that clients begin in; what is asked for is sent at once."""
    worker = FakeWorker(Invalidated(keys=1, entries=2, fences=3))

    dropped = await _duties(worker).invalidate(Event((b"k",), (b"g*",), (b"t",), asked))

    assert dropped == {"keys": 1, "entries": 2, "fences": 3}
    assert worker.noted == ["enter", (Dependents((b"k",), (b"g*",), (b"t",)), db), "flush"]


async def test_invalidate_that_failed_raises_the_reason() -> None:
    """Half of it is not all of it."""
    duties = _duties(FakeWorker(Invalidated(keys=1, error="upstream unavailable")))

    with pytest.raises(RemoteError, match="upstream unavailable"):
        await duties.invalidate(Event((b"k",)))


async def test_invalidate_that_is_never_answered_ends(autojump_clock: object) -> None:
    """Nobody waits longer than for any other reply of Redis."""
    duties = _duties(FakeWorker(None))

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
