"""Clients of one user and database that speak different protocols: what is held is held for all of them."""

from __future__ import annotations

import pytest
import trio

from proxy.core.outage.offline import settling
from proxy.net.links.link import Link
from proxy.net.links.upstream import DataLinks, Group
from proxy.wire.encode import bulk

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Client
from .offline_parts import OK, Scene, scene
from .peer import until


@pytest.fixture
async def made(redis: Server, serve: Serve, nursery: trio.Nursery) -> Scene:
    """Return a worker in front of a Redis that is there."""
    return await scene(redis, serve, nursery)


@pytest.fixture
async def other(made: Scene) -> Client:
    """Return a client of the other protocol, that has its link."""
    client = await made.proxy.connect()
    assert (await client.command("HELLO", "3")).startswith(b"%")
    assert await client.command("PING") == b"+PONG\r\n"
    return client


async def away(made: Scene) -> None:
    """Let Redis go away, and the worker notice."""
    made.door.shut()
    await until(lambda: made.proxy.worker.gate.is_shut, "Redis is away")


def keep_out(monkeypatch: pytest.MonkeyPatch, protocol: int) -> trio.Event:
    """Let links of a protocol find no way to Redis until the event that is returned is set."""
    may_come = trio.Event()
    connect = DataLinks._connect

    async def connected(links: DataLinks, group: Group, extra: Link | None = None) -> bool:
        if group.scope.protocol == protocol and not may_come.is_set():
            await trio.sleep(0.01)
            links._reactor.enter()
            if links.gate.is_shut:
                links.gate.failed("kept out")
            group.failures += 1
            links._reactor.flush()
            return False
        return await connect(links, group, extra)

    monkeypatch.setattr(DataLinks, "_connect", connected)
    return may_come


async def test_client_whose_link_comes_last_still_finds_what_it_wrote(
    made: Scene, other: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is not told on the first link, and the key then forgotten, while its own link is not there yet."""
    await away(made)
    may_come = keep_out(monkeypatch, 2)
    assert await made.client.command("SET", "kept:1", "new") == OK
    made.door.reopen()
    await until(lambda: any(row["state"] == "up" for row in made.proxy.links("data")), "one link is there")
    for _ in range(20):
        assert await made.client.command("GET", "kept:1") == bulk(b"new")
        assert await other.command("GET", "kept:1") == bulk(b"new")
        await trio.sleep(0.01)

    may_come.set()
    await made.back()
    assert await made.client.command("GET", "kept:1") == bulk(b"new")
    assert await other.command("GET", "kept:1") == bulk(b"new")


async def test_link_that_does_not_come_is_not_waited_for_for_ever(
    redis: Server, made: Scene, other: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is told after a while: others have written there, too."""
    monkeypatch.setattr(settling, "HALF_S", 0.2)
    await away(made)
    keep_out(monkeypatch, 2)
    assert await made.client.command("SET", "kept:1", "new") == OK
    await made.back()

    assert await other.command("GET", "kept:1") == bulk(b"new")
