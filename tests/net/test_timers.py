"""What is late, seen by a worker that was stopped itself for a while."""

from __future__ import annotations

import time

import pytest
import trio

from proxy.errors import UPSTREAM_TIMED_OUT
from proxy.net import timers as timers_module
from proxy.net.timers import GIVE_BACK_EVERY_S, GIVE_BACK_SHARE

from ..core.world import running_world
from .conftest import Serve
from .driver import Client
from .outage_parts import outage_is, settings_of
from .peer import Peer, until


async def waiting_for_redis(peer: Peer, serve: Serve) -> Client:
    """Return a client who has asked for something that Redis has, and does not answer."""
    client = await (await serve(peer, settings_of())).connect()
    await client.command("DEL", "n")
    peer.hold("data")
    await client.send("INCR", "n")
    await until(lambda: peer.seen("INCR"), "it has arrived")
    return client


async def test_worker_that_was_stopped_itself_takes_nobody_for_late(peer: Peer, serve: Serve) -> None:
    """What Redis has answered meanwhile lies there unread: the link is as good as it was, and so is the write."""
    proxy = await serve(peer, settings_of(listen={"idle_timeout_s": 0.5}))
    client, idle = await proxy.connect(), await proxy.connect()
    for one in (client, idle):
        await one.command("DEL", "n")
    peer.hold("data")
    await client.send("INCR", "n")
    await until(lambda: peer.seen("INCR"), "it has arrived")
    await idle.send("DEL", "m")
    time.sleep(1.2)  # nothing of this process runs
    peer.go_on("data")

    assert await client.frame() == b":1\r\n"
    assert await idle.frame() == b":0\r\n"
    assert outage_is(proxy, "up")


async def test_redis_that_does_not_answer_after_that_is_late(peer: Peer, serve: Serve) -> None:
    """It has its time once more, and no longer."""
    client = await waiting_for_redis(peer, serve)
    time.sleep(1.2)

    assert await client.frame() == UPSTREAM_TIMED_OUT


async def test_worker_that_is_stopped_again_and_again_sees_who_is_late(peer: Peer, serve: Serve) -> None:
    """Always short of processor time, it would wait for ever otherwise."""
    client = await waiting_for_redis(peer, serve)
    for _ in range(3):
        time.sleep(0.6)
        await trio.sleep(0.08)

    with trio.fail_after(0.3):
        assert await client.frame() == UPSTREAM_TIMED_OUT


def test_memory_is_given_back_now_and_then_where_something_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while nothing happens, and the more seldom the longer it takes."""
    with running_world() as world:
        given_back: list[float] = []
        takes_s = 0.0

        def give_back() -> None:
            given_back.append(world.now)
            world.now += takes_s

        monkeypatch.setattr(timers_module, "give_back_memory", give_back)
        client = world.client()
        client.ask("GET", "k")
        world.pass_time(3 * GIVE_BACK_EVERY_S)
        first = len(given_back)
        world.pass_time(3 * GIVE_BACK_EVERY_S)
        idle = len(given_back)
        takes_s = 2 * GIVE_BACK_EVERY_S * GIVE_BACK_SHARE
        for _ in range(60):
            client.ask("SET", "k", "v")
            client.ask("GET", "k")
            world.pass_time(GIVE_BACK_EVERY_S / 10)

        assert (first, idle) == (1, 1)
        assert len(given_back) == idle + 3
