"""Events made true in front of a real Redis: what readers get afterwards, whatever dies meanwhile."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import attrs
import pytest
import trio

from proxy.config.model import ClassSettings
from proxy.errors import UPSTREAM_UNAVAILABLE
from proxy.events.event import Event
from proxy.events.sink import Applied, Failed, Outcome, Sink
from proxy.net.events.event_sink import EventSink, make_event_sink
from proxy.values.changes import FENCES_KEY
from proxy.values.clock import AHEAD_MAX_MS, version_at
from proxy.values.envelope import wrap
from proxy.wire.encode import bulk
from proxy.wire.reply import elements, text

from ..e2e.servers import Server, ServerOptions, find_kind
from .conftest import Serve
from .driver import Client, Proxy, make_settings, warm, within
from .peer import Peer, PeerLink, until

NIL = b"$-1\r\n"
V = bulk(b"v")
CLASSES = (ClassSettings("tickets", ("t:*",), version=True, tags=("of-{1}",)), ClassSettings("lists", ("l:*",)))


async def served(upstream: Peer | Server, serve: Serve, *names: str, **l1: object) -> tuple[Proxy, EventSink, Client]:
    """Start a proxy with a sink and a client; L1 holds `v` of the names."""
    proxy = await serve(upstream, attrs.evolve(make_settings(l1={"touch_rate": 0, **l1}), classes=CLASSES))
    client = await proxy.connect()
    await client.command("PING")
    await proxy.settled()
    for name in names:
        assert await client.command("SET", name, "v") == b"+OK\r\n"
        assert await warm(client, name) == V
    return proxy, make_event_sink(proxy.worker), client


async def apply(sink: EventSink, *events: Event) -> list[Outcome]:
    """Apply, with a deadline."""
    return await within(sink.apply(events), "the events are applied")


async def server_ms(client: Client) -> int:
    """Return the server's time."""
    seconds, us = (int(text(word)) for word in elements(await client.command("TIME")))
    return seconds * 1000 + us // 1000


def put(redis: Server, *words: bytes | str, db: int = 0) -> bytes:
    """Write behind the proxy's back."""
    with redis.connect() as client:
        client.command("SELECT", db)
        return client.command(*words)


def unmarked(proxy: Proxy) -> Callable[[], bool]:
    """Say whether no key is marked as being written."""
    return lambda: not proxy.worker.engine.writing and not proxy.worker.engine.writing_all


async def test_keys_are_gone_from_both_tiers(redis: Server, serve: Serve) -> None:
    """Others stay; an event says how many it was."""
    proxy, sink, client = await served(redis, serve, "a", "b", "c")

    assert await apply(sink, Event(keys=(b"a", b"none")), Event(keys=(b"b",))) == [Applied(1, 1), Applied(1, 1)]
    assert unmarked(proxy)()
    assert [await client.command("GET", name) for name in "abc"] == [NIL, NIL, V]


async def test_redis_without_memory_drops_keys_and_puts_fences_off(redis: Server, serve: Serve) -> None:
    """Keys free some; for a fence there is no room, which is no fault of the event."""
    _, sink, client = await served(redis, serve, "a")
    put(redis, "CONFIG", "SET", "maxmemory", "1")
    try:
        key, fence = await apply(sink, Event(keys=(b"a",)), Event(patterns=(b"l:*",)))
    finally:
        put(redis, "CONFIG", "SET", "maxmemory", "0")

    assert (key, await client.command("GET", "a")) == (Applied(1, 1), NIL)
    assert isinstance(fence, Failed)
    assert (fence.is_short, fence.is_away, fence.is_final) == (True, False, False)


async def test_key_is_gone_from_l1_before_its_push_comes(peer: Peer, serve: Serve) -> None:
    """However late that is: the reader who knows of the event never gets what L1 held."""
    _, sink, client = await served(peer, serve, "warm")
    peer.on("EVAL", lambda _, words: peer.model.foreign("DEL", words[3]) and bulk(b"g"))
    peer.hold("control")

    assert await apply(sink, Event(keys=(b"warm",))) == [Applied(1, 1)]
    assert await client.command("GET", "warm") == NIL
    peer.go_on("control")


async def test_read_before_the_event_fills_l1_no_more(peer: Peer, serve: Serve) -> None:
    """Not one that was under way when it came, not one that came while Redis was asked."""
    proxy, sink, client = await served(peer, serve, "warm")
    engine = proxy.worker.engine
    space = next(space for space in engine.l1.namespaces.values() if bulk(b"warm") in space.resident)
    link = object()
    early = engine.open(space, bulk(b"cold"), link)

    def script(_: PeerLink, words: list[bytes]) -> bytes:
        assert not engine.can_lease(bulk(b"cold"))
        peer.model.foreign("DEL", words[3])
        return bulk(b"g")

    peer.on("EVAL", script)
    await apply(sink, Event(keys=(b"cold",)))
    early.reply = V
    engine.finish(early, -1)

    assert await client.command("GET", "cold") == NIL
    assert engine.can_lease(bulk(b"cold"))


async def test_value_that_is_newer_than_the_event_stays(redis: Server, serve: Serve) -> None:
    """One of the event's version, an older one, and one that has no version go."""
    _, sink, client = await served(redis, serve)
    version = version_at(await server_ms(client) * 1000) - (5000 << 16)
    for name, stored in ((b"new", version + 1), (b"same", version), (b"old", version - 1)):
        put(redis, "SET", name, wrap(b"v", stored))
    put(redis, "SET", "plain", "v")
    outcomes = await apply(
        sink, *(Event(keys=(name,), version=version) for name in (b"new", b"same", b"old", b"plain"))
    )

    assert outcomes == [Applied(is_old=True), Applied(1), Applied(1), Applied(1)]
    assert [await client.command("GET", name) for name in ("new", "same", "old", "plain")] == [V, NIL, NIL, NIL]
    assert await apply(sink, Event(keys=(b"new",))) == [Applied(1, 1)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
async def test_newest_version_of_a_batch_wins(redis: Server, serve: Serve, order: Sequence[int]) -> None:
    """Whatever the order of arrival, and however often it comes."""
    _, sink, client = await served(redis, serve)
    put(redis, "SET", "k", wrap(b"v", 500))
    events = [Event(keys=(b"k",), version=version) for version in (400, 600, 499)]
    outcomes = await apply(sink, *(events[at] for at in (*order, *order)))

    assert sum(one.keys for one in outcomes if isinstance(one, Applied)) == 1
    assert await client.command("GET", "k") == NIL


async def test_event_means_the_database_it_names(redis: Server, serve: Serve) -> None:
    """None: the one clients begin in. One that is not there fails for good, at each try, and takes nobody along."""
    proxy, sink, client = await served(redis, serve, "k")
    put(redis, "SET", "k", "v", db=3)
    (outcome,) = await apply(sink, Event(keys=(b"k",), db=3))
    assert isinstance(outcome, Applied)
    assert outcome.keys == 1  # its entry of database 0 is gone before or with it: pushes name no database
    assert put(redis, "EXISTS", "k", db=3) == b":0\r\n"
    assert await client.command("GET", "k") == V

    for one in (sink, sink, make_event_sink(proxy.worker)):
        wrong, right = await apply(one, Event(keys=(b"k",), db=16), Event(keys=(b"none",)))
        assert isinstance(wrong, Failed)
        assert (wrong.is_final, wrong.is_away, "out of range" in wrong.reason) == (True, False, True)
        assert right == Applied()


async def test_databases_that_are_not_there_cost_no_links(redis: Server, serve: Serve) -> None:
    """Once one is known not to be, none above it is asked for."""
    proxy, sink, _ = await served(redis, serve)
    await apply(sink, Event(keys=(b"k",), db=16))
    before = len(proxy.worker.links.groups)
    await apply(sink, *(Event(keys=(b"k",), db=db) for db in range(17, 200)))

    assert len(proxy.worker.links.groups) == before
    assert await apply(sink, Event(keys=(b"k",), db=15)) == [Applied()]


async def test_version_too_far_ahead_of_the_server_fails_for_good(redis: Server, serve: Serve) -> None:
    """An hour is believed; the same holds while nothing is known of the server's time."""
    proxy, sink, client = await served(redis, serve, "k")
    now_ms = await server_ms(client)
    beyond, within_it = ((now_ms + AHEAD_MAX_MS + extra << 16) for extra in (5_000, -5_000))
    for is_anchored in (True, False):
        assert await client.command("SET", "k", "v") == b"+OK\r\n"
        proxy.worker.value_layer.clock.is_anchored = is_anchored
        wrong, right = await apply(sink, Event(keys=(b"k",), version=beyond), Event(keys=(b"x",), version=within_it))
        assert isinstance(wrong, Failed)
        assert (wrong.is_final, right) == (True, Applied())
        assert await client.command("GET", "k") == V


async def test_version_of_an_event_moves_no_clock(redis: Server, serve: Serve) -> None:
    """What is written here afterwards bears the server's time: events of others are not old by it."""
    proxy, sink, client = await served(redis, serve)
    now_ms = await server_ms(client)
    await apply(sink, Event(keys=(b"t:1",), version=now_ms + AHEAD_MAX_MS - 5_000 << 16))

    assert proxy.worker.value_layer.clock.next() >> 16 < now_ms + 60_000


async def test_globs_and_tags_are_fences_at_the_present_time(redis: Server, serve: Serve) -> None:
    """Also those of an event with an old version: in Redis for all, in force here, before the outcome is there."""
    proxy, sink, client = await served(redis, serve, "t:1", "t:2", "l:1", "other")
    outcomes = await apply(sink, Event(patterns=(b"l:*",), tags=(b"of-1",), version=5), Event(patterns=(b"l:*",)))

    assert outcomes == [Applied(entries=1, fences=2), Applied(fences=1)]  # t:1 is watched: it goes when it is read
    assert set(elements(put(redis, "HKEYS", FENCES_KEY))) <= {bulk(b"0:glob:l:*"), bulk(b"0:tag:of-1")}
    assert [await client.command("GET", name) for name in ("t:1", "t:2", "other")] == [NIL, V, V]
    await until(lambda: put(redis, "EXISTS", "l:1") == b":0\r\n", "the sweeper has been there")
    await until(lambda: not len(proxy.worker.values.fences), "the fences are lifted")


async def test_key_the_user_may_not_touch_takes_no_other_along(serve: Serve) -> None:
    """Its event is tried again; those that came with it are true."""
    users = ["user own on >pw ~t:* ~l:* ~respite:* &* +@all"]
    with Server(find_kind("redis7"), ServerOptions(acl=users)) as redis:
        put(redis, "MSET", "t:1", "v", "secret", "v", "l:1", "v")
        proxy = await serve(redis.url.replace("//", "//own:pw@"))
        sink = make_event_sink(proxy.worker)
        good, bad, also = await apply(
            sink, Event(keys=(b"t:1",)), Event(keys=(b"secret", b"l:1")), Event(keys=(b"t:1", b"l:1"))
        )

        assert (good, also) == (Applied(1), Applied(1))
        assert isinstance(bad, Failed)
        assert (bad.is_away, bad.is_final, bad.reason[:6]) == (False, False, "NOPERM")
        assert put(redis, "EXISTS", "secret", "t:1", "l:1") == b":1\r\n"


@pytest.mark.parametrize("tracking", ["auto", "broadcast", "off"])
async def test_other_proxies_hear_of_it(redis: Server, serve: Serve, tracking: str) -> None:
    """By push, or by announcement where Redis tells nobody."""
    _, sink, _ = await served(redis, serve, "k", "t:1", tracking=tracking)
    other, _, reader = await served(redis, serve, "k", "t:1", tracking=tracking)
    await until(lambda: other.stats()["values"]["announcements"] == "subscribed", "it hears the others")
    await apply(sink, Event(keys=(b"k",), patterns=(b"t:*",)))

    with trio.fail_after(2):
        while [await reader.command("GET", name) for name in ("k", "t:1")] != [NIL, NIL]:
            await trio.sleep(0.01)


async def test_event_is_not_applied_before_the_others_are_told(peer: Peer, serve: Serve) -> None:
    """Where L1 lives by announcements, one that is refused is tried again."""
    _, sink, _ = await served(peer, serve, tracking="off")
    peer.on("EVAL", bulk(b"g"))
    peer.on("PUBLISH", b"-NOPERM no\r\n")

    assert await apply(sink, Event(keys=(b"k",))) == [Failed("NOPERM no")]


async def test_cancelled_apply_leaves_no_mark(redis: Server, serve: Serve) -> None:
    """Marks are taken off when Redis answers after all."""
    proxy, sink, client = await served(redis, serve, "k")
    redis.pause()
    with trio.move_on_after(0.1):
        await sink.apply([Event(keys=(b"k", b"x"), patterns=(b"l:*",))])
        raise AssertionError("Redis was paused")
    assert bulk(b"k") in proxy.worker.engine.writing
    redis.resume()

    await until(unmarked(proxy), "nothing is marked")
    assert await client.command("GET", "k") == NIL


async def test_events_are_held_while_redis_is_away_and_applied_soon_after(redis: Server, serve: Serve) -> None:
    """Who waits is answered, nothing is marked, and `wait_up` returns within two seconds of the return."""
    proxy, sink, client = await served(redis, serve, "k")
    events = [Event(keys=(b"k",)), Event(patterns=(b"l:*",)), Event(keys=(b"k",), db=3)]
    found: list[Outcome] = []

    async def under_way() -> None:
        found.extend(await apply(sink, *events))

    redis.pause()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(under_way)
        await trio.sleep(0.05)
        redis.kill()
    for outcome in (*found, *await apply(sink, *events)):
        assert isinstance(outcome, Failed)
        assert (outcome.is_away, outcome.is_final) == (True, False)
    assert unmarked(proxy)()

    with trio.move_on_after(0.5) as waited:
        await sink.wait_up()
    assert waited.cancelled_caught
    redis.restart()
    began = time.monotonic()
    await within(sink.wait_up(), "Redis is up")
    assert [type(one) for one in await apply(sink, *events)] == [Applied] * 3
    assert time.monotonic() - began < 2
    assert await client.command("GET", "k") == NIL


async def test_wait_up_waits_for_the_database_that_was_away(
    redis: Server, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its events would be tried again as fast as can be."""
    proxy, sink, _ = await served(redis, serve)
    invalidator = proxy.worker.value_layer.invalidator
    send = invalidator.send

    def lame(db: int, raw: bytes, then: Callable[[bytes], None]) -> None:
        if db == 3:
            then(UPSTREAM_UNAVAILABLE)
        else:
            send(db, raw, then)

    with monkeypatch.context() as patch:
        patch.setattr(invalidator, "send", lame)
        good, held = await apply(sink, Event(keys=(b"k",)), Event(keys=(b"k",), db=3))
        assert (good, isinstance(held, Failed) and held.is_away) == (Applied(), True)
        with trio.move_on_after(0.4) as waited:
            await sink.wait_up()
        assert waited.cancelled_caught

    await within(sink.wait_up(), "the database is up")


async def test_wait_up_waits_for_a_server_that_takes_writes(peer: Peer, serve: Serve) -> None:
    """One that answers, but as a replica does, is not up."""
    _, sink, _ = await served(peer, serve)
    peer.on("UNLINK", b"-READONLY You can't write against a read only replica.\r\n")
    with trio.move_on_after(0.4) as waited:
        await sink.wait_up()
    assert waited.cancelled_caught
    peer.on("UNLINK", b":0\r\n")

    await within(sink.wait_up(), "it takes writes")


async def test_subscribers_hear_of_what_is_true_before_the_outcome_is_there(redis: Server, serve: Serve) -> None:
    """Not of what failed; one that raises harms nobody."""
    _, sink, _ = await served(redis, serve, "k")
    told: list[tuple[Event, Applied]] = []

    def broken(_: Event, __: Applied) -> None:
        raise RuntimeError("a bug")

    contract: Sink = sink
    assert await contract.apply([]) == []
    sink.on_applied += [broken, lambda event, outcome: told.append((event, outcome))]
    good, bad = Event(keys=(b"k",)), Event(keys=(b"respite:x",))
    outcomes = await apply(sink, bad, good)

    assert told == [(good, outcomes[1])]


async def test_batch_of_more_names_than_fit_is_applied_in_portions(redis: Server, serve: Serve) -> None:
    """All of it, in order, with the others served meanwhile."""
    proxy, sink, client = await served(redis, serve)
    with redis.connect() as raw:
        raw.command("MSET", *(word for number in range(5000) for word in (b"%d" % number, b"v")))
    events = [Event(keys=tuple(b"%d" % number for number in range(at, at + 2500))) for at in (0, 2500)]

    assert await apply(sink, *events, Event(keys=(b"0",))) == [Applied(2500), Applied(2500), Applied()]
    assert await client.command("DBSIZE") == b":0\r\n"
    assert unmarked(proxy)()


async def test_no_reader_gets_what_is_older_than_an_applied_event(redis: Server, serve: Serve) -> None:
    """On any connection, in either protocol, while others read and write the same keys as fast as they can."""
    proxy, sink, _ = await served(redis, serve)
    rng = random.Random(3)
    names = [b"k%d" % number for number in range(5)]
    least = dict.fromkeys(names, 0)
    faults: list[tuple[bytes, int, int]] = []

    async def read(protocol: int) -> None:
        client = await proxy.connect()
        await client.command("HELLO", protocol)
        while True:
            name = rng.choice(names)
            known = least[name]
            reply = await client.command("GET", name)
            if reply[:2] not in (b"$-", b"_\r") and int(text(reply)) < known:
                faults.append((name, known, int(text(reply))))

    async with trio.open_nursery() as nursery:
        for protocol in (2, 3, 2, 3):
            nursery.start_soon(read, protocol)
        with redis.connect() as raw, trio.move_on_after(2.5):
            for number in range(1, 1_000_000):
                name = rng.choice(names)
                # The value of before is written late, as who has read the source too early does: then the event comes.
                raw.command("SET", name, b"%d" % (number - 1))
                await trio.sleep(0.001 * rng.random())
                outcome, _ = await apply(sink, Event(keys=(name,)), Event(keys=(rng.choice(names),)))
                assert isinstance(outcome, Applied)
                least[name] = number
        nursery.cancel_scope.cancel()

    assert faults == []
    assert min(least.values()) > 20
