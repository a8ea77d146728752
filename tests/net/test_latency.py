"""A Redis that is far away, or behind a path that has become slow: late, and neither down nor wrong."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import attrs
import trio

from proxy.errors import UPSTREAM_TIMED_OUT, UPSTREAM_UNAVAILABLE
from proxy.wire.encode import command

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Client
from .outage_parts import VALUE, outage_is, settings_of, with_value
from .peer import until

ONE_WAY_S = 1.0
PIPELINED = 50
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.define(eq=False)
class Path:
    """A way to a server that holds back whatever is sent by `delay_s`, in each direction."""

    target: int
    delay_s: float = 0.0
    port: int = 0

    @property
    def url(self) -> str:
        """Where it begins."""
        return f"redis://127.0.0.1:{self.port}"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry bytes until cancelled."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._carry, [listener])

    async def _carry(self, client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream("127.0.0.1", self.target)
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._forward, client, server)
            nursery.start_soon(self._forward, server, client)

    async def _forward(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        put, take = trio.open_memory_channel[tuple[float, bytes]](10_000)

        async def deliver() -> None:
            with suppress(*BROKEN):
                async for due, data in take:
                    await trio.sleep_until(due)
                    await sink.send_all(data)
                await sink.send_eof()

        async with trio.open_nursery() as nursery, put:
            nursery.start_soon(deliver)
            with suppress(*BROKEN):
                async for data in source:
                    await put.send((trio.current_time() + self.delay_s, bytes(data)))


async def opened(nursery: trio.Nursery, redis: Server) -> Path:
    """Return a path to a server that is fast at first."""
    path = Path(redis.port)
    await nursery.start(path.run)
    return path


async def timed(client: Client, *words: str) -> tuple[bytes, float]:
    """Return the reply to a command, and how long it took."""
    began = trio.current_time()
    return await client.command(*words), trio.current_time() - began


def with_times(**times: Any) -> Any:
    """Return settings of a class that may be stale, with these times of [upstream]."""
    return settings_of(upstream={"connect_timeout_s": 10.0, **times})


async def test_redis_two_seconds_away_is_asked_and_believed(nursery: trio.Nursery, redis: Server, serve: Serve) -> None:
    """Each command takes a round trip, a pipeline takes one in all, and what others write is seen behind it."""
    path = await opened(nursery, redis)
    path.delay_s = ONE_WAY_S
    proxy = await serve(path.url, with_times(response_timeout_s=8.0))
    client = await proxy.connect()
    await until(lambda: proxy.worker.control.is_up, "the invalidation link is up", timeout_s=20.0)

    reply, took_s = await timed(client, "SET", "k", "first")
    assert reply == b"+OK\r\n"
    assert took_s > 2 * ONE_WAY_S
    began = trio.current_time()
    await client.stream.send_all(b"".join(command("INCR", "n") for _ in range(PIPELINED)))
    assert [await client.frame() for _ in range(PIPELINED)] == [b":%d\r\n" % (at + 1) for at in range(PIPELINED)]
    assert trio.current_time() - began < 4 * ONE_WAY_S

    with redis.connect() as direct:
        assert direct.command("SET", "k", "second") == b"+OK\r\n"
    written_at = time.monotonic()
    seen = [await client.command("GET", "k")]
    while seen[-1] != b"$6\r\nsecond\r\n":
        assert time.monotonic() - written_at < 3 * ONE_WAY_S + proxy.worker.settings.l1.max_staleness_s
        seen.append(await client.command("GET", "k"))
    assert outage_is(proxy, "up")
    assert proxy.stats()["commands"]["errors_total"] == 0


async def test_path_that_becomes_slow_gets_what_was_held_or_an_error_in_time(
    nursery: trio.Nursery, redis: Server, serve: Serve
) -> None:
    """The last value after the soft timeout, an error after the hard one; once it is fast again, all is as before."""
    path = await opened(nursery, redis)
    proxy, client = await with_value(serve, path.url, with_times(soft_timeout_s=0.1, response_timeout_s=0.8))

    path.delay_s = ONE_WAY_S
    await until(lambda: not proxy.worker.engine.l1.serving, "L1 is not proven any more")
    reply, took_s = await timed(client, "GET", "n:1")
    assert (reply, took_s < 0.6) == (VALUE, True)
    reply, took_s = await timed(client, "GET", "r:1")
    assert reply in {UPSTREAM_TIMED_OUT, UPSTREAM_UNAVAILABLE}
    assert took_s < 2.0

    path.delay_s = 0.0
    await until(lambda: outage_is(proxy, "up") and proxy.worker.engine.l1.serving, "it is found again", timeout_s=20.0)
    assert await client.command("SET", "n:1", "new") == b"+OK\r\n"
    assert await client.command("GET", "n:1") == b"$3\r\nnew\r\n"
    assert await client.command("GET", "r:1") == VALUE
