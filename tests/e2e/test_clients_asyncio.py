"""The asyncio clients of redis-py and valkey-py do their everyday work through Respite, in RESP2 and in RESP3."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio
import valkey.asyncio

from .targets import Target

LIBRARIES: dict[str, Any] = {"redis": redis.asyncio.Redis, "valkey": valkey.asyncio.Valkey}
Work = Callable[[Any, Any], Awaitable[None]]
Run = Callable[[Work], None]


@pytest.fixture(
    params=[(name, protocol) for name in LIBRARIES for protocol in (2, 3)], ids=lambda p: f"{p[0]}-resp{p[1]}"
)
def run(request: pytest.FixtureRequest, target: Target) -> Run:
    """Run a coroutine function with two clients of the library, on empty data; asyncio's own loop, not trio's."""
    name, protocol = request.param

    def make() -> Any:
        return LIBRARIES[name](
            port=target.port, protocol=protocol, decode_responses=True, socket_timeout=10, max_connections=300
        )

    async def main(work: Work) -> None:
        client, other = make(), make()
        try:
            await client.flushall()
            await asyncio.wait_for(work(client, other), timeout=20)
        finally:
            await client.aclose()
            await other.aclose()

    def start(work: Work) -> None:
        asyncio.run(main(work))

    return start


async def _until(is_done: Callable[[], Awaitable[bool]]) -> None:
    while not await is_done():
        await asyncio.sleep(0.005)


def test_asyncio_hundreds_of_tasks_read_what_they_wrote(run: Run) -> None:
    """Two hundred tasks at once on one pool each read their own value."""

    async def work(client: Any, other: Any) -> None:
        async def one(index: int) -> bool:
            await client.set(f"k{index}", index)
            return bool(await client.get(f"k{index}") == await other.get(f"k{index}") == str(index))

        assert all(await asyncio.gather(*(one(index) for index in range(200))))
        assert len({await client.get("k7") for _ in range(50)}) == 1

    run(work)


def test_asyncio_pipeline_and_watch(run: Run) -> None:
    """A transaction brings its replies; a watched key that another wrote stops it."""

    async def work(client: Any, other: Any) -> None:
        async with client.pipeline(transaction=True) as pipe:
            assert await pipe.set("a", 1).incr("a").get("a").execute() == [True, 2, "2"]
        async with client.pipeline() as pipe:
            await pipe.watch("a")
            await other.set("a", 9)
            pipe.multi()
            pipe.set("a", 3)
            with pytest.raises((redis.WatchError, valkey.asyncio.WatchError)):
                await pipe.execute()
        assert await client.get("a") == "9"

    run(work)


def test_asyncio_pubsub_receives_while_others_publish(run: Run) -> None:
    """A subscriber task gets every message in order."""

    async def work(client: Any, other: Any) -> None:
        async def listen() -> list[str]:
            found: list[str] = []
            async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
                await pubsub.subscribe("ch")
                while len(found) < 100:
                    message = await pubsub.get_message(timeout=2)
                    if message is not None:
                        found.append(message["data"])
            return found

        listener = asyncio.create_task(listen())
        await _until(lambda: _has_subscriber(other))
        for index in range(100):
            await other.publish("ch", index)
        assert await listener == [str(index) for index in range(100)]

    run(work)


async def _has_subscriber(client: Any) -> bool:
    return bool(dict(await client.pubsub_numsub("ch"))["ch"] == 1)


def test_asyncio_cancelled_blocking_pop_takes_nothing(run: Run) -> None:
    """A blocking pop that its task gave up does not swallow what is pushed afterwards."""

    async def work(client: Any, other: Any) -> None:
        waiter = asyncio.create_task(client.blpop(["queue"], timeout=0))
        await _until(lambda: _blocked(other, 1))
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        await _until(lambda: _blocked(other, 0))
        await other.rpush("queue", "job")
        assert await other.lrange("queue", 0, -1) == ["job"]
        assert list(await client.blpop(["queue"], timeout=1)) == ["queue", "job"]

    run(work)


async def _blocked(client: Any, count: int) -> bool:
    return bool((await client.info("clients"))["blocked_clients"] == count)


def test_asyncio_lock_stream_and_scan(run: Run) -> None:
    """Locks exclude, a group's consumer gets what was added, a scan finds every key."""

    async def work(client: Any, other: Any) -> None:
        async with client.lock("lock", timeout=5):
            assert not await other.lock("lock", timeout=5).acquire(blocking=False)
        await client.xgroup_create("events", "group", id="0", mkstream=True)
        added = [await client.xadd("events", {"n": index}) for index in range(5)]
        await other.xreadgroup("group", "me", {"events": ">"}, block=1000)
        assert await client.xack("events", "group", *added) == 5
        await client.mset({f"scan:{index}": index for index in range(300)})
        assert len({key async for key in client.scan_iter("scan:*", count=20)}) == 300

    run(work)
