"""An errand to the broker for somebody at a terminal: a trio run of its own, its signals, and a connection for it.

Owns how an errand ends: done, stopped by SIGINT or SIGTERM, or failed with one line for a person. Used by `desk.py`
(dead letters) and `watch.py` (events as they come).
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Final

import attrs
import trio

from proxy.amqp.connection import Connection, connect
from proxy.amqp.tls import client_context
from proxy.config.model import Amqp
from proxy.errors import AmqpError, RespiteError

_CONNECT_TIMEOUT_S: Final = 5.0
# A terminal may be stopped for a moment; a proxy, which must see a dead broker at once, asks for less.
_HEARTBEAT_S: Final = 10.0


class DeskError(RespiteError):
    """The broker could not be asked, or refused; the text is one line for a person."""


@attrs.define
class Stop:
    """Whether somebody wants the errand to end. The first signal asks a gentle errand and ends any other at once."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    is_gentle: bool = False
    """The errand looks at `is_asked` often enough."""
    is_asked: bool = False

    def ask(self) -> None:
        """Take a signal."""
        if self.is_asked or not self.is_gentle:
            self.scope.cancel()
        self.is_asked = True


def launch(errand: Callable[[Stop], Awaitable[None]]) -> Stop:
    """Run an errand to its end, or until it is stopped; the caller sees by `is_asked` which. Main thread only.

    Raises what the errand raises, by itself even if trio had it in a group.
    """
    stop = Stop()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(_signals, stop)
            with stop.scope:
                await errand(stop)
            nursery.cancel_scope.cancel()

    with unwrapped():
        trio.run(main, strict_exception_groups=True)
    return stop


@asynccontextmanager
async def connected(amqp: Amqp) -> AsyncIterator[Connection]:
    """Connect to the first broker that answers. Raises DeskError, with what each of them said; what the body raises."""
    async with AsyncExitStack() as stack:
        yield await _first_answering(amqp, stack)


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the first error of ours inside of groups by itself, or the only one."""
    try:
        yield
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        ours = [error for error in leaves if isinstance(error, RespiteError)]
        if ours and all(isinstance(error, RespiteError | trio.Cancelled) for error in leaves):
            raise ours[0] from None
        if len(leaves) > 1:
            raise
        raise leaves[0] from None


async def _first_answering(amqp: Amqp, stack: AsyncExitStack) -> Connection:
    failures = []
    for endpoint in amqp.urls:
        try:
            with unwrapped():
                return await stack.enter_async_context(
                    connect(
                        endpoint,
                        context=client_context(amqp.tls).current() if endpoint.is_tls else None,
                        name="respite command",
                        heartbeat_s=_HEARTBEAT_S,
                        timeout_s=_CONNECT_TIMEOUT_S,
                    )
                )
        except AmqpError as exc:
            text = str(exc)
            failures.append(text if endpoint.display in text else f"{endpoint.display}: {text}")
    raise DeskError(f"no broker could be asked; {'; '.join(failures)}; check amqp.url, or name one with --amqp URL")


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _signals(stop: Stop, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            stop.ask()
