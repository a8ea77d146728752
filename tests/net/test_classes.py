"""What classes say to L1 while clients are served: who is held, how stale, refreshed when, tracked how."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from proxy.config.model import ClassSettings
from proxy.wire.encode import bulk

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Client, Proxy, make_settings, warm
from .peer import Peer, until

V = bulk(b"v")


def with_classes(*classes: ClassSettings, **sections: dict[str, Any]) -> Any:
    """Return settings that have classes."""
    return attrs.evolve(make_settings(**sections), classes=classes)


async def served(upstream: Peer | Server, serve: Serve, settings: Any, *keys: str) -> tuple[Proxy, Client]:
    """Start a proxy with a client; write `v` to the keys."""
    proxy = await serve(upstream, settings)
    client = await proxy.connect()
    for key in keys:
        assert await client.command("SET", key, "v") == b"+OK\r\n"
    await proxy.settled()
    return proxy, client


async def is_hit(proxy: Proxy, client: Client, key: str) -> bool:
    """Read a key that holds `v`, and tell whether L1 answered."""
    before = proxy.stats()["l1"]["hits_total"]
    assert await client.command("GET", key) == V
    return bool(proxy.stats()["l1"]["hits_total"] > before)


async def test_class_without_l1_is_read_from_redis(redis: Server, serve: Serve) -> None:
    """Its keys are never held; those of no class are."""
    settings = with_classes(ClassSettings("raw", ("raw:*",), l1=False))
    proxy, client = await served(redis, serve, settings, "raw:1", "warm")

    await warm(client, "raw:1")
    await warm(client)

    assert not await is_hit(proxy, client, "raw:1")
    assert await is_hit(proxy, client, "warm")


async def test_scope_classes_holds_only_keys_of_classes_and_tracks_only_those(redis: Server, serve: Serve) -> None:
    """Others are neither held nor in the server's tracking table."""
    settings = with_classes(ClassSettings("tickets", ("ticket:*",)), l1={"scope": "classes", "touch_rate": 0})
    proxy, client = await served(redis, serve, settings, "ticket:1", "other")
    await warm(client, "ticket:1")
    await warm(client, "other")
    for _ in range(2):  # of the first one nothing is held: Redis is asked whether its user may run GET as well
        await client.command("MGET", "ticket:2", "other2")

    assert await is_hit(proxy, client, "ticket:1")
    assert not await is_hit(proxy, client, "other")
    assert proxy.stats()["upstream"]["tracking"] == "optin"
    with redis.connect() as server:
        # An MGET is tracked as a whole: that is why other2 is there.
        assert b"tracking_total_keys:3\r\n" in server.command("INFO", "stats")
        server.command("SET", "ticket:1", "new")
    await until(lambda: proxy.stats()["l1"]["invalidations_total"] == 1, "the push is applied")
    assert await client.command("GET", "ticket:1") == bulk(b"new")


async def test_scope_classes_in_broadcast_mode_asks_for_the_prefixes(redis: Server, serve: Serve) -> None:
    """Changes of other keys are not announced at all."""
    settings = with_classes(
        ClassSettings("tickets", ("ticket:*", "ticket:vip:*")),
        ClassSettings("users", ("user:[ab]*",)),
        l1={"scope": "classes", "tracking": "broadcast"},
    )
    proxy, client = await served(redis, serve, settings, "ticket:1", "user:a1")
    await warm(client, "ticket:1")
    await warm(client, "user:a1")
    before = proxy.stats()["l1"]["invalidations_total"]

    with redis.connect() as server:
        for key in ("other", "user:a1", "ticket:1"):
            server.command("SET", key, "new")
    await until(lambda: proxy.stats()["l1"]["invalidations_total"] >= before + 2, "the pushes are applied")

    assert proxy.stats()["l1"]["invalidations_total"] == before + 2
    assert [await client.command("GET", key) for key in ("ticket:1", "user:a1")] == [bulk(b"new")] * 2
    assert "2 prefixes of the classes" in proxy.stats()["upstream"]["tracking_reason"]


async def test_class_bounds_staleness_tighter_than_l1(peer: Peer, serve: Serve) -> None:
    """A silent invalidation link stops the class at its own bound, the rest later; the next PONG brings both back."""
    settings = with_classes(
        ClassSettings("critical", ("critical:*",), max_staleness_s=0.4), l1={"max_staleness_s": 60.0, "verify": 0.0}
    )
    proxy, client = await served(peer, serve, settings, "critical:1", "warm")
    await warm(client, "critical:1")
    await warm(client)
    assert await is_hit(proxy, client, "critical:1")

    peer.hold("control")
    held_at = proxy.worker.reactor.clock()
    last_hit_at = held_at
    while proxy.worker.reactor.clock() < held_at + 1.0:
        asked_at = proxy.worker.reactor.clock()
        if await is_hit(proxy, client, "critical:1"):
            last_hit_at = asked_at

    assert last_hit_at - held_at <= 0.4
    assert await is_hit(proxy, client, "warm")
    peer.go_on("control")
    await until(lambda: proxy.worker.engine.proven_at > held_at + 0.5, "a PONG has come")
    await warm(client, "critical:1")
    assert await is_hit(proxy, client, "critical:1")


async def test_class_entries_live_on_while_pushes_are_proven(redis: Server, serve: Serve) -> None:
    """Beyond its bound a value is still served, as PONGs go on proving it: it is not read again."""
    settings = with_classes(ClassSettings("critical", ("critical:*",), max_staleness_s=0.1), l1={"verify": 0.0})
    proxy, client = await served(redis, serve, settings, "critical:1")
    await warm(client, "critical:1")
    misses = proxy.stats()["l1"]["misses_total"]
    until_s = proxy.worker.reactor.clock() + 0.5

    while proxy.worker.reactor.clock() < until_s:
        assert await is_hit(proxy, client, "critical:1")

    assert proxy.stats()["l1"]["misses_total"] == misses


async def test_early_refresh_sends_one_reader_and_serves_the_others(peer: Peer, serve: Serve) -> None:
    """Near the end that max_age sets, one reader goes to Redis; meanwhile and afterwards all are served from L1."""
    settings = make_settings(l1={"max_age_s": 1.0, "early_refresh": 0.5, "verify": 0.0, "touch_rate": 0})
    proxy, client = await served(peer, serve, settings, "warm")
    proxy.worker.engine._random = lambda: 0.9  # well before its end
    other = await proxy.connect()
    await warm(client)
    for _ in range(5):
        assert await is_hit(proxy, client, "warm")
    (namespace,) = [each for each in proxy.worker.engine.l1.namespaces.values() if each.resident]
    entry = namespace.resident[bulk(b"warm")]
    assert entry.ends_at - 0.5 <= entry.deadline <= entry.ends_at

    await until(lambda: proxy.worker.reactor.clock() > entry.deadline, "it is to be refreshed")
    peer.hold("data")
    await client.send("GET", "warm")
    await until(lambda: proxy.stats()["l1"]["refreshed_total"] == 1, "one reader goes to Redis")
    if proxy.worker.reactor.clock() < entry.ends_at - 0.1:
        assert await is_hit(proxy, other, "warm")
    peer.go_on("data")

    assert await client.frame() == V
    assert namespace.resident[bulk(b"warm")] is not entry
    assert len(peer.seen("GET")) == 2
    assert await is_hit(proxy, other, "warm")


async def test_early_refresh_leaves_alone_what_is_seldom_read(peer: Peer, serve: Serve) -> None:
    """An entry of few uses is left to end."""
    settings = make_settings(l1={"max_age_s": 0.4, "early_refresh": 0.5, "verify": 0.0, "touch_rate": 0})
    proxy, client = await served(peer, serve, settings, "warm")
    await warm(client)
    (namespace,) = [each for each in proxy.worker.engine.l1.namespaces.values() if each.resident]
    entry = namespace.resident[bulk(b"warm")]

    await until(lambda: proxy.worker.reactor.clock() > entry.deadline, "it could be refreshed")
    await client.command("GET", "warm")

    assert proxy.stats()["l1"]["refreshed_total"] == 0


async def test_classes_changed_by_reload_apply_to_connected_clients(redis: Server, serve: Serve) -> None:
    """What was held of a class that L1 now may not hold is dropped, and nobody is disconnected."""
    proxy, client = await served(redis, serve, make_settings(), "raw:1")
    await warm(client, "raw:1")
    assert await is_hit(proxy, client, "raw:1")

    proxy.worker.reactor.enter()
    proxy.worker.apply(with_classes(ClassSettings("raw", ("raw:*",), l1=False)))
    proxy.worker.reactor.flush()
    await proxy.settled()

    assert not await is_hit(proxy, client, "raw:1")
    assert not await is_hit(proxy, client, "raw:1")


@pytest.mark.parametrize(("first", "then"), [("redirect", "broadcast"), ("broadcast", "redirect"), ("auto", "off")])
async def test_tracking_changed_by_reload_applies(redis: Server, serve: Serve, first: str, then: str) -> None:
    """The server is asked anew, and what was held before is dropped."""
    proxy, client = await served(redis, serve, make_settings(l1={"tracking": first}), "warm")
    await warm(client)

    proxy.worker.reactor.enter()
    proxy.worker.apply(make_settings(l1={"tracking": then}))
    proxy.worker.reactor.flush()
    await until(lambda: proxy.stats()["upstream"]["tracking"] == then, "the mode is the new one")
    await proxy.settled()

    await warm(client)
    assert await is_hit(proxy, client, "warm")
    if then != "off":
        with redis.connect() as server:
            server.command("SET", "warm", "new")
        await until(lambda: proxy.stats()["l1"]["entries"] == 0, "the push is applied")
        assert await client.command("GET", "warm") == bulk(b"new")


async def test_governor_narrows_what_is_tracked_when_the_table_is_full(
    redis: Server, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table at its bound: only what L1 is about to hold is tracked from then on, and it is said why."""
    monkeypatch.setattr("proxy.net.invalidation.watch.GOVERN_EVERY_S", 0.1)
    with redis.connect() as server:
        server.command("CONFIG", "SET", "tracking-table-max-keys", "100")
    proxy, client = await served(redis, serve, make_settings(l1={"max_staleness_s": 0.4, "touch_rate": 0}), "warm")
    await until(lambda: proxy.stats()["upstream"]["tracked_max_keys"] == 100, "the bound is known")

    for number in range(99):
        await client.command("GET", f"k{number}")
    await until(lambda: proxy.stats()["upstream"]["tracking"] == "optin", "it is narrowed")

    upstream = proxy.stats()["upstream"]
    assert upstream["tracking_narrowed"]
    assert "tracking table is full" in upstream["tracking_reason"]
    assert proxy.worker.engine.l1.admit == "second_read"
    await client.command("GET", "warm")
    await warm(client)
    assert await is_hit(proxy, client, "warm")
