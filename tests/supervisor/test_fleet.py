"""The seats of the workers, without a process in any of them."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import trio
import trio.testing

from proxy.supervisor import child as child_module
from proxy.supervisor import fleet as fleet_module
from proxy.supervisor.child import _await_all_fit
from proxy.supervisor.fleet import Child, Fleet, StartError

from ..net.driver import within


class NoProcess:
    """What stands for a process that was started."""

    def __init__(self, *_: object, **__: object) -> None:
        self.pid = 1
        self.returncode = 0

    def kill(self) -> None:
        """Be gone as before."""

    def poll(self) -> int:
        """Return an exit code."""
        return 0


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Make two seats, whose processes do nothing."""
    monkeypatch.setattr(fleet_module.subprocess, "Popen", NoProcess)

    def no_job(*_: object) -> Any:
        raise AssertionError("no job is asked for here")

    return Fleet(2, no_job, {}, lambda: ())


def _started(fleet: Fleet) -> list[Child]:
    return [fleet._start(seat) for seat in fleet.seats]


async def test_fit_is_answered_when_every_worker_is(fleet: Fleet, nursery: trio.Nursery) -> None:
    """Whoever is accepted by the first would be cut off if the second could not serve; later nobody is waited for."""
    first, second = _started(fleet)
    heard: list[int] = []

    async def ask(number: int, child: Child) -> None:
        await child.channel._handlers["fit"]()
        heard.append(number)

    nursery.start_soon(ask, 1, first)
    await trio.testing.wait_all_tasks_blocked()
    assert heard == []

    nursery.start_soon(ask, 2, second)
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(heard) == [1, 2]
    await ask(3, first)
    for child in (first, second):
        child.channel._stream.socket.close()


async def test_worker_asks_whether_all_are_fit_once_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """And accepts nobody before the answer."""
    done: list[str] = []

    class Parent:
        async def ask(self, question: str, *, timeout_s: float) -> None:
            done.append(question)

    class Worker:
        async def ready(self) -> tuple[bool, str]:
            return True, "serving"

    async def fit(ready: object) -> None:
        done.append("ready")

    monkeypatch.setattr(child_module, "await_fit", fit)
    await _await_all_fit(Parent(), Worker())  # type: ignore[arg-type]

    assert done == ["ready", "fit"]


async def test_worker_that_serves_waits_for_no_other(fleet: Fleet, nursery: trio.Nursery) -> None:
    """One that hangs is asked to accept for who is away: that it does not answer is nobody else's fault."""
    async with trio.open_nursery() as fleet._nursery:
        hanging, back = _started(fleet)
        fleet.seats[0].child, fleet.seats[1].child = hanging, back
        fleet.seats[0].served.set()
        hanging.accepts = True
        hanging.covers = frozenset({1})  # as of when the other one had gone

        await within(back.channel._handlers["serving"](["redis://127.0.0.1:1"]), "the answer")

        await trio.testing.wait_all_tasks_blocked()
        assert fleet._covering.locked()  # the one that hangs is being asked
        fleet._nursery.cancel_scope.cancel()
    _close(hanging, back)


async def test_worker_that_did_not_hear_is_told_again(
    fleet: Fleet, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """What it was told before may be done when it goes on: it must hear then that those who were away are back."""
    child, other = _started(fleet)
    heard: list[tuple[str, object]] = []
    seat = fleet.seats[0]
    seat.child, child.accepts = child, True
    seat.served.set()
    fleet.seats[1].served.set()
    await fleet._cover()
    assert child.covers is None

    async def ask(question: str, seats: object) -> None:
        heard.append((question, seats))

    child.channel.ask = ask  # type: ignore[method-assign, assignment]
    fleet.seats[1].child, other.accepts = other, True
    await fleet._cover()

    assert heard == [("cover", frozenset())]
    _close(child, other)


async def test_worker_that_cannot_be_started_again_ends_no_other(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The system has no memory or no descriptor for it at the moment: it is tried again. The first start fails."""
    failing = [True]

    def popen(*_: object, **__: object) -> NoProcess:
        if failing:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return NoProcess()

    monkeypatch.setattr(fleet_module.subprocess, "Popen", popen)
    with pytest.RaisesGroup(StartError, StartError):
        await fleet.run()
    for seat in fleet.seats:
        seat.served.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fleet.run)
        await trio.sleep(5)
        assert [seat.restarts for seat in fleet.seats] == [0, 0]
        failing.clear()
        await trio.sleep(15)
        assert all(seat.restarts for seat in fleet.seats)
        nursery.cancel_scope.cancel()


def _close(*children: Child) -> None:
    for child in children:
        child.channel._stream.socket.close()
