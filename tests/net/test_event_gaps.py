"""Gaps between events, in front of a real Redis: who is told of them, and what is dropped for them."""

from __future__ import annotations

import attrs
import pytest
import trio

from proxy.errors import UPSTREAM_UNAVAILABLE
from proxy.events.event import Event
from proxy.events.sink import Gap
from proxy.net.events.event_sink import EventSink, make_event_sink
from proxy.values import sequences
from proxy.wire.reply import text

from ..e2e.servers import Server, ServerOptions, find_kind
from .conftest import Serve
from .driver import make_settings, within
from .test_event_sink import CLASSES, NIL, V, put, served

GAP = Gap("p", 2, 2)


def numbered(*numbers: int, publisher: str = "p") -> list[Event]:
    """Make events of a publisher."""
    return [Event(keys=(b"k",), publisher=publisher, seq=number) for number in numbers]


async def sinks(redis: Server, serve: Serve, count: int = 2) -> list[EventSink]:
    """Start proxies whose sinks allow no grace."""
    found = []
    for _ in range(count):
        _, sink, _ = await served(redis, serve)
        sink._gaps._grace_ms = 0
        found.append(sink)
    return found


async def test_numbers_of_all_sidecars_are_put_together(redis: Server, serve: Serve) -> None:
    """In any order; events without a number, or a publisher, count for nothing."""
    one, other = await sinks(redis, serve)
    await one.note([*numbered(1, 4, 3), Event(keys=(b"k",), seq=9), Event(keys=(b"k",), publisher="q")])
    await other.note(numbered(2, 5, 4))

    assert await one.take_holes() == []
    assert text(put(redis, "HGET", "respite:sequences", "p")) == b"6 0 "
    assert put(redis, "HLEN", "respite:sequences") == b":1\r\n"


async def test_numbers_that_redis_has_no_memory_for_are_told_later(redis: Server, serve: Serve) -> None:
    """They have come: no gap, and no flush, when there is room again."""
    (sink,) = await sinks(redis, serve, 1)
    await sink.note(numbered(1))
    put(redis, "CONFIG", "SET", "maxmemory", "1")
    try:
        await sink.note(numbered(2))
        assert await sink.take_holes() == []
    finally:
        put(redis, "CONFIG", "SET", "maxmemory", "0")
    await sink.note(numbered(3))

    assert await sink.take_holes() == []
    assert text(put(redis, "HGET", "respite:sequences", "p")) == b"4 0 "


async def test_gap_is_given_to_one_sidecar_and_closed_by_its_flush(redis: Server, serve: Serve) -> None:
    """It flushes, and nobody hears of the gap again."""
    one, other = await sinks(redis, serve)
    await one.note(numbered(1, 3))

    assert (await one.take_holes(), await other.take_holes()) == ([GAP], [])
    assert await one.flush(None, "gap")
    assert await one.take_holes() == []
    assert text(put(redis, "HGET", "respite:sequences", "p")) == b"4 0 "


@pytest.mark.parametrize("how", ["dies", "fails"])
async def test_gap_that_was_not_made_up_for_is_given_to_another(
    redis: Server, serve: Serve, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the sidecar died on the way, or could not flush."""
    monkeypatch.setattr(sequences.take_holes, "__defaults__", (0, 300))
    one, other = await sinks(redis, serve)
    await one.note(numbered(1, 3))
    assert await one.take_holes() == [GAP]
    if how == "fails":
        put(redis, "SET", "respite:fences", "no hash")
        assert not await one.flush(["a:*"], "gap")
        assert await one.take_holes() == []
        put(redis, "DEL", "respite:fences")
    await trio.sleep(0.35)

    assert await other.take_holes() == [GAP]


async def test_flush_that_succeeds_at_the_second_try_closes_the_gap(redis: Server, serve: Serve) -> None:
    """What counts is that it is done in the end."""
    (one,) = await sinks(redis, serve, 1)
    await one.note(numbered(1, 3))
    await one.take_holes()
    put(redis, "SET", "respite:fences", "no hash")
    assert not await one.flush(["a:*"], "gap")
    put(redis, "DEL", "respite:fences")
    assert await one.flush(["a:*"], "gap")

    assert await one.take_holes() == []
    assert text(put(redis, "HGET", "respite:sequences", "p")) == b"4 0 "


async def test_numbers_that_redis_was_away_for_are_noted_later(redis: Server, serve: Serve) -> None:
    """What came is not missed because it could not be told."""
    (sink,) = await sinks(redis, serve, 1)
    redis.kill()
    await within(sink.note(numbered(1, 2)), "it does not wait")
    await within(sink.note(numbered(4)), "it does not wait")
    assert await within(sink.take_holes(), "it does not wait") == []
    redis.start()
    await sink.wait_up()
    await sink.note(numbered(3))

    assert await sink.take_holes() == []
    assert text(put(redis, "HGET", "respite:sequences", "p")) == b"5 0 "


async def test_gaps_wait_for_numbers_that_are_still_to_be_told(redis: Server, serve: Serve) -> None:
    """What is missing in Redis may be what has come here."""
    (sink,) = await sinks(redis, serve, 1)
    await sink.note(numbered(1, 3))
    ask = sink._gaps._ask

    async def lame(db: int, raw: bytes) -> bytes:
        return UPSTREAM_UNAVAILABLE if sequences._NOTE.encode() in raw else await ask(db, raw)

    sink._gaps._ask = lame
    await sink.note(numbered(2))
    assert await sink.take_holes() == []
    sink._gaps._ask = ask

    assert await sink.take_holes() == []
    assert text(put(redis, "HGET", "respite:sequences", "p")) == b"4 0 "


async def test_flush_of_everything_takes_the_keys_of_classes(redis: Server, serve: Serve) -> None:
    """In every database, and L1 whole; keys of no class stay in Redis: they may be no cache."""
    proxy, sink, client = await served(redis, serve, "t:1", "l:1", "other")
    put(redis, "SET", "l:2", "v", db=5)
    assert await sink.flush(None, "the queue was lost")

    assert len(proxy.worker.engine.l1) == 0
    assert [await client.command("GET", name) for name in ("t:1", "other")] == [NIL, V]
    await _until_gone(redis, "l:1")
    await _until_gone(redis, "l:2", db=5)
    assert await client.command("GET", "other") == V


async def test_flush_of_a_scope_takes_its_keys_only(redis: Server, serve: Serve) -> None:
    """Whatever class they have, or none."""
    proxy, sink, client = await served(redis, serve, "t:1", "l:1", "other:1")
    assert await sink.flush(["other:*"], "a gap")

    assert len(proxy.worker.engine.l1) == 2
    await _until_gone(redis, "other:1")
    assert [await client.command("GET", name) for name in ("t:1", "l:1")] == [V, V]


async def test_flush_while_redis_is_away_is_not_done(redis: Server, serve: Serve) -> None:
    """The caller knows, and nobody waits."""
    (sink,) = await sinks(redis, serve, 1)
    redis.kill()

    assert not await within(sink.flush(None, "a gap"), "it is answered")
    assert not await within(sink.flush(["a:*"], "a gap"), "it is answered")


async def test_flush_by_a_user_who_may_not_ask_for_databases(serve: Serve) -> None:
    """It takes those that L1 and events are about."""
    users = ["user own on >pw ~* &* +@all -info"]
    with Server(find_kind("redis7"), ServerOptions(acl=users)) as redis:
        put(redis, "SET", "l:2", "v", db=5)
        proxy = await serve(redis.url.replace("//", "//own:pw@"), attrs.evolve(make_settings(), classes=CLASSES))
        sink = make_event_sink(proxy.worker)
        await sink.note([Event(keys=(b"k",), db=5)])

        assert await sink.flush(None, "a gap")
        await _until_gone(redis, "l:2", db=5)


async def test_queue_that_is_lost_is_known_to_all_sidecars_until_one_has_flushed(redis: Server, serve: Serve) -> None:
    """One that has never been there is not lost when it is made."""
    one, other = await sinks(redis, serve)

    assert await one.queue_is_gone("q")
    assert not await one.queue_owes("q")
    assert await one.queue_is_gone("q")
    assert (await other.queue_owes("q"), await other.queue_owes("q2")) == (True, False)
    await other.queue_is_flushed("q")
    assert not await one.queue_owes("q")


async def test_queue_that_nobody_can_be_told_of_is_not_noted(redis: Server, serve: Serve) -> None:
    """Redis is away: to be said again."""
    (sink,) = await sinks(redis, serve, 1)
    redis.kill()

    assert not await sink.queue_is_gone("q")
    assert await sink.queue_owes("q") is None


async def test_queue_that_redis_does_not_tell_of_is_not_known(redis: Server, serve: Serve) -> None:
    """Whoever makes it flushes then."""
    (sink,) = await sinks(redis, serve, 1)
    put(redis, "SET", "respite:queues", "no set")

    assert await sink.queue_is_gone("q")
    assert await sink.queue_owes("q") is None


async def _until_gone(redis: Server, name: str, db: int = 0) -> None:
    with trio.fail_after(5):
        while put(redis, "EXISTS", name, db=db) != b":0\r\n":
            await trio.sleep(0.02)
