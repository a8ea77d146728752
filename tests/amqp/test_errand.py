"""How an errand to the broker ends when somebody wants it to."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from proxy.amqp.errand import DeskError, Stop, launch


async def test_first_signal_asks_a_gentle_errand_and_the_second_ends_it() -> None:
    """What runs is finished first; who is in a hurry asks twice."""
    stop = Stop(is_gentle=True)
    stop.ask()
    assert (stop.is_asked, stop.scope.cancel_called) == (True, False)
    stop.ask()
    assert stop.scope.cancel_called


def test_signal_ends_any_other_errand_at_once() -> None:
    """Nothing is half done while it still connects."""

    async def errand(_stop: Stop) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep_forever()

    assert launch(errand).is_asked


def test_error_within_groups_is_raised_by_itself() -> None:
    """A person reads one line, whatever nurseries it came through."""

    async def fail() -> None:
        raise DeskError("no broker")

    async def errand(_stop: Stop) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)

    with pytest.raises(DeskError, match="no broker"):
        launch(errand)
