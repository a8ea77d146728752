"""The seats of the workers, without a process in any of them."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from proxy.supervisor import child as child_module
from proxy.supervisor import fleet as fleet_module
from proxy.supervisor.child import _await_all_fit
from proxy.supervisor.fleet import Child, Fleet


class NoProcess:
    """What stands for a process that was started."""

    def __init__(self, *_: object, **__: object) -> None:
        self.pid = 1


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
