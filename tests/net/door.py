"""A door between a worker and a real Redis: shut, Redis is away for the worker, and lives on with what it holds.

What it can be:

    worker --> Door --> Redis       open
    worker --> Door                 shut: every connection is ended, and new ones at once
    worker --> Door ..> Redis       late: what is asked gets there only when it is released, whoever has gone by then
    worker --> Door --> Redis       mute: what is asked gets there, and replies are held back
"""

from __future__ import annotations

from contextlib import suppress

import trio

from ..e2e.servers import Server


class Door:
    """Runs in the test's nursery."""

    def __init__(self, server: Server, nursery: trio.Nursery) -> None:
        self.is_shut = False
        self.is_mute = False
        self.is_late = False
        self.late: list[tuple[trio.SocketStream, bytes]] = []  # what was asked, and gets there later
        self.mute_at = b""  # becomes mute when this is asked for, once
        self.passed: list[bytes] = []  # what was asked, in pieces as they came
        self.port = 0
        self._server = server
        self._nursery = nursery
        self._ways: set[trio.SocketStream] = set()
        self._held: list[tuple[trio.SocketStream, bytes]] = []

    @property
    def url(self) -> str:
        """Where the worker finds Redis."""
        return f"redis://127.0.0.1:{self.port}"

    async def open(self) -> Door:
        """Begin to listen."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        self._nursery.start_soon(trio.serve_listeners, self._pass, [listener])
        return self

    def shut(self) -> None:
        """End every connection, and let nobody in."""
        self.is_shut = True
        self.cut()

    def cut(self) -> None:
        """End every connection; new ones are let in, unless it is shut."""
        for way in list(self._ways):
            way.socket.close()
        self._ways.clear()
        self._held.clear()
        self.is_mute = False

    def reopen(self) -> None:
        """Let everybody in again."""
        self.is_shut = False

    async def release(self) -> None:
        """Be mute no more: what was held back comes now."""
        self.is_mute = False
        self.is_late = False
        late, self.late = self.late, []
        for sink, data in late:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await sink.send_all(data)
            if sink not in self._ways:
                sink.socket.close()
        held, self._held = self._held, []
        for sink, data in held:
            await sink.send_all(data)

    async def _pass(self, worker: trio.SocketStream) -> None:
        if self.is_shut:
            await worker.aclose()
            return
        redis = await trio.open_tcp_stream("127.0.0.1", self._server.port)
        self._ways |= {worker, redis}
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, worker, redis, nursery.cancel_scope, True)
                nursery.start_soon(self._carry, redis, worker, nursery.cancel_scope, False)
        finally:
            self._ways -= {worker, redis}
            worker.socket.close()
            if not any(sink is redis for sink, _ in self.late):
                redis.socket.close()

    async def _carry(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope, is_asked: bool
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            while data := await source.receive_some(65_536):
                if is_asked:
                    self.passed.append(bytes(data))
                    if self.mute_at and self.mute_at in data:
                        self.is_mute, self.mute_at = True, b""
                if is_asked and self.is_late:
                    self.late.append((sink, bytes(data)))
                elif is_asked or not self.is_mute:
                    await sink.send_all(data)
                else:
                    self._held.append((sink, bytes(data)))
        scope.cancel()
