"""Figures by class, command and link of a worker before a real Redis."""

from __future__ import annotations

from typing import Any

import attrs

from proxy.config.model import ClassSettings
from proxy.core.figures.watching import WatchSlot
from proxy.core.slots import Slot
from proxy.wire.encode import command

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Proxy, make_settings
from .peer import until


def row(proxy: Proxy, section: str, name: str) -> dict[str, Any]:
    """Return a row of stats.json by its name."""
    return next(row for row in proxy.stats()[section] if row["name"] == name)


async def test_tally_of_commands_that_redis_alone_knows(serve: Serve, redis: Server) -> None:
    """Blocking commands are counted, and their waiting is not; subcommands have names of their own; nobody's is one."""
    proxy = await serve(redis)
    client, other = await proxy.connect(), await proxy.connect()
    await client.command("MULTI")  # a pinned link is there, and nothing has to wait for one
    await client.command("SET", "a", "1")
    assert await client.command("EXEC") == b"*1\r\n+OK\r\n"
    waited = proxy.worker.stats.waited.count

    await client.send("BLPOP", "queue", 0)
    (connection,) = (one for one in proxy.worker.clients if one.session.id == 1)
    await until(lambda: connection.pin is not None and connection.pin.patient, "it waits")
    assert not any(isinstance(slot, WatchSlot) for slot in connection.queue)
    await other.command("RPUSH", "queue", "x")
    assert await client.frame() == b"*2\r\n$5\r\nqueue\r\n$1\r\nx\r\n"
    assert (await client.command("NOSUCH", "x")).startswith(b"-ERR unknown command")
    assert (await client.command("OBJECT", "ENCODING", "a")).startswith(b"$")
    assert (await client.command("LPUSH", "a", "x")).startswith(b"-WRONGTYPE")

    assert row(proxy, "commands_by_name", "BLPOP")["commands_total"] == 1
    assert row(proxy, "commands_by_name", "BLPOP")["mean_us"] == 0.0
    assert row(proxy, "commands_by_name", "OBJECT|ENCODING")["commands_total"] == 1
    assert row(proxy, "commands_by_name", "LPUSH")["errors_total"] == 1
    assert row(proxy, "commands_by_name", "(other)")["commands_total"] == 1
    assert row(proxy, "commands_by_name", "EXEC")["commands_total"] == 1
    assert "NOSUCH" not in [one["name"] for one in proxy.stats()["commands_by_name"]]
    assert proxy.worker.stats.waited.count > waited
    assert sum(one["commands_total"] for one in proxy.stats()["commands_by_name"]) == proxy.worker.stats.commands


async def test_tally_finds_the_error_among_replies_in_one_piece(serve: Serve, redis: Server) -> None:
    """Writes that follow each other share a slot; the error is that of the one in the middle. A value is none."""
    proxy = await serve(redis)
    client = await proxy.connect()

    await client.send_raw(command("SET", "a", "x") + command("INCR", "a") + command("SET", "a", "-ERR y"))
    replies = await client.frames(3)
    await client.send_raw(command("STRLEN", "a") * 2 + command("GET", "a"))
    await client.frames(3)

    assert [reply[:1] for reply in replies] == [b"+", b"-", b"+"]
    errors = {one["name"]: one["errors_total"] for one in proxy.stats()["commands_by_name"]}
    assert errors == {"SET": 0, "INCR": 1, "STRLEN": 0, "GET": 0}


async def test_tally_takes_the_end_of_a_streamed_value_for_no_error(serve: Serve, redis: Server) -> None:
    """What is left of it when it ends may begin with anything."""
    proxy = await serve(redis, l1={"enabled": False})
    client = await proxy.connect()
    value = b"-" * 3_000_000
    await client.command("SET", "big", value)

    assert await client.command("GET", "big") == b"$3000000\r\n%b\r\n" % value

    assert row(proxy, "commands_by_name", "GET")["errors_total"] == 0
    assert row(proxy, "commands_by_name", "GET")["mean_us"] > 0


async def test_tally_keeps_no_reply_of_a_long_batch(serve: Serve, redis: Server) -> None:
    """Each is gone once it is sent, however many are still to come."""
    proxy = await serve(redis)
    client = await proxy.connect()
    await client.send_raw(b"".join(command("GET", "a") + command("TTL", "a") for _ in range(20)))
    assert len(await client.frames(40)) == 40
    (connection,) = proxy.worker.clients
    connection.queue.extend(Slot(None) for _ in range(20))
    watch = proxy.worker.engine.tally.watch([([b"GET", b"a"], b"")], proxy.worker.table)
    connection.see_off(watch, 0, 0)
    kept = connection.queue[-1]
    connection.queue.clear()

    assert isinstance(kept, WatchSlot)
    assert not kept._slots


async def test_tally_subscribers_get_nothing_but_what_they_are_owed(serve: Serve, redis: Server) -> None:
    """A watched SUBSCRIBE, PING and UNSUBSCRIBE are answered as ever, and the link is given back."""
    proxy = await serve(redis)
    client = await proxy.connect()

    await client.send_raw(command("PING") + command("SUBSCRIBE", "a", "b") + command("PING"))
    found = await client.frames(4)
    await client.command("UNSUBSCRIBE", "a")
    await client.command("UNSUBSCRIBE", "b")

    assert found[0] == b"+PONG\r\n"
    assert found[3] == b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
    assert await client.command("GET", "none") == b"$-1\r\n"


async def test_links_tell_what_went_over_them(serve: Serve, redis: Server) -> None:
    """Commands, bytes and latency of each link, and of each kind, those that ended included."""
    proxy = await serve(redis)
    client = await proxy.connect()
    await client.command("SET", "a", "x" * 1000)
    await proxy.settled()
    for _ in range(3):
        await client.command("GET", "a")
    (data,) = proxy.links("data")
    (control,) = proxy.links("invalidation")
    before = row(proxy, "link_kinds", "data")

    assert data["commands_total"] >= 3
    assert data["sent_bytes_total"] > 1000
    assert data["received_bytes_total"] > 1000
    assert data["mean_us"] > 0.0
    assert (control["state"], control["protocol"]) == ("up", 3)
    assert control["received_bytes_total"] > 0
    assert {**before, "mean_us": data["mean_us"]} == {"name": "data", "up": 1} | {
        name: data[name] for name in before if name not in ("name", "up")
    }

    link = proxy.worker.links.groups[next(iter(proxy.worker.links.groups))].links[0]
    proxy.worker.reactor.enter()
    await client.send("GET", "b")
    link.lose("a test")
    proxy.worker.reactor.flush()
    await client.frame()

    after = row(proxy, "link_kinds", "data")
    assert after["commands_total"] > before["commands_total"]
    assert after["received_bytes_total"] > before["received_bytes_total"]


async def test_classes_are_named_as_the_configuration_has_them_now(serve: Serve, redis: Server) -> None:
    """A reload that renames a class counts under the new name; what was counted stays."""
    settings = make_settings()
    proxy = await serve(redis, settings)
    client = await proxy.connect()
    await client.command("GET", "ticket:1")
    assert row(proxy, "classes", "(none)")["misses_total"] == 1

    proxy.worker.apply(attrs.evolve(settings, classes=(ClassSettings("tickets", ("ticket:*",)),)))
    await proxy.settled()
    await client.command("GET", "ticket:1")
    await client.command("GET", "ticket:1")

    tickets = row(proxy, "classes", "tickets")
    assert (tickets["misses_total"], tickets["hits_total"], tickets["hit_rate"]) == (1, 1, 0.5)
    assert row(proxy, "classes", "(none)")["misses_total"] == 1


async def test_hot_and_recent_show_keys(serve: Serve, redis: Server) -> None:
    """The hottest key is named first, and what ended an entry with its cause."""
    proxy = await serve(redis)
    client = await proxy.connect()
    await client.command("SET", "hot", "x")
    await proxy.settled()
    for _ in range(20):
        await client.command("GET", "hot")
    await client.command("GET", "cold")
    await client.command("GET", "cold")

    await until(lambda: [one["name"] for one in proxy.stats()["hot"]][:1] == ["hot"], "the hot key is seen")
    await client.command("SET", "hot", "y")

    recent = proxy.stats()["recent"]
    assert ("hot", "own write") in [(one["key"], one["cause"]) for one in recent]
    assert all(one["ago_s"] >= 0 for one in recent)
    assert [one["ago_s"] for one in recent] == sorted(one["ago_s"] for one in recent)
