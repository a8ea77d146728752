"""The change watch and servers that go, come back, or hang."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from proxy.net.changes.change_link import ChangeLink
from proxy.net.changes.change_watch import ChangeWatch, Hearing
from proxy.values import telling
from proxy.values.scripts import drop_older
from proxy.wire.encode import command

from ..e2e.servers import Server, ServerOptions, find_kind
from .peer import until
from .watching import SILENT_S, Watching


@pytest.fixture
def server() -> Iterator[Server]:
    """Run a server for one test."""
    with Server(find_kind("redis7")) as server:
        yield server


@pytest.fixture
def watching(server: Server, nursery: trio.Nursery) -> Watching:
    """Watch it."""
    made = Watching(server.url)
    nursery.start_soon(made.watch.run)
    return made


async def test_server_that_is_restarted_is_told_twice(server: Server, watching: Watching) -> None:
    """Once when it cannot be reached, so that nobody trusts what is shown; once when all is heard of again."""
    listener = await watching.listen("a")
    server.kill()
    (first,) = await listener.told()
    server.start()
    (second,) = await listener.told()
    with server.connect() as client:
        client.command("SET", "a", "x")

    assert "cannot be heard" in first["why"]
    assert (None, None) == (first["count"], second["count"])
    assert [("write", ["a"])] == await listener.causes()


async def test_who_comes_while_the_server_is_away_is_watched_when_it_is_back(
    server: Server, watching: Watching
) -> None:
    """And misses nothing from then on, though he may be told of the loss that he came into."""
    first = await watching.listen("a")
    server.kill()
    await first.told()
    subscription = watching.feed.subscribe(["a"])
    is_watched = subscription.is_watched
    server.start()
    second = await watching.listen("b")

    with server.connect() as client:
        client.command("SET", "b", "x")

    assert not is_watched
    assert subscription.is_watched
    await until(lambda: second.updates, "the write is told")
    assert [("write", ["b"])] == second.updates


async def test_server_that_hangs_is_told_as_a_loss(server: Server, watching: Watching) -> None:
    """Silence is no sign that nothing changes."""
    listener = await watching.listen("a")
    began = trio.current_time()
    server.pause()
    try:
        await watching.reaches("unreachable")
        took_s = trio.current_time() - began
    finally:
        server.resume()
    await watching.reaches("watching")

    assert "silent" in str(listener.losses) or "no reply" in str(listener.losses)
    assert took_s < 5 * SILENT_S


async def test_link_that_dies_before_its_mark_is_told_as_a_loss(
    server: Server, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second link goes on; what the first one would have said until then is unknown."""
    listener = await watching.listen("a")
    set_mark = ChangeWatch._mark

    async def mark_when_dead(self: ChangeWatch, *arguments: Any) -> bool:
        assert self._link is not None
        self._link.close()
        await self._link.ended.wait()
        return await set_mark(self, *arguments)

    monkeypatch.setattr(ChangeWatch, "_mark", mark_when_dead)
    await watching.listen("b")
    (lost,) = await listener.told()
    with server.connect() as client:
        client.command("SET", "a", "x")

    assert ("lost", None, "closed") == (lost["type"], lost["count"], lost["why"])
    assert [("write", ["a"])] == await listener.causes()


async def test_second_link_that_dies_after_the_mark_is_told_as_a_loss(
    server: Server, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one goes on, but has passed over what the second one was to say."""
    listener = await watching.listen("a")
    set_mark = ChangeWatch._mark
    dead: list[ChangeLink] = []

    async def mark_and_die(self: ChangeWatch, new: ChangeLink, before: Hearing, token: str) -> bool:
        is_set = await set_mark(self, new, before, token)
        if not dead:
            await before.passed.wait()
            dead.append(new)
            new.close()
            await new.ended.wait()
        return is_set

    monkeypatch.setattr(ChangeWatch, "_mark", mark_and_die)
    await watching.listen("b")
    (lost,) = await listener.told()
    with server.connect() as client:
        client.command("SET", "a", "x")

    assert ("lost", None) == (lost["type"], lost["count"])
    assert [("write", ["a"])] == await listener.causes()


def mark(token: str) -> list[bytes]:
    """Return a mark as it is heard."""
    return [b"message", telling.CHANNEL, b'{"token":"%b"}' % token.encode()]


def test_hearing_passes_over_what_was_before_its_mark_and_keeps_what_comes_after() -> None:
    """Until it is its turn; then in order, and everything."""
    heard: list[object] = []
    hearing = Hearing(heard.append)
    hearing.wait_for("t")

    for frame in (["before"], mark("other"), mark("t"), ["after"]):
        hearing.hear(frame)
    kept = list(heard)
    hearing.open()
    hearing.hear(["then"])

    assert ([], [["after"], ["then"]]) == (kept, heard)
    assert hearing.passed.is_set()


def test_hearing_ends_at_its_mark() -> None:
    """What comes after is another link's to tell."""
    heard: list[object] = []
    hearing = Hearing(heard.append)
    hearing.stop_at("t")

    for frame in (["before"], mark("t"), ["after"]):
        hearing.hear(frame)
    ended = list(heard)
    hearing.open()
    hearing.hear(["again"])

    assert ([["before"]], [["before"], ["again"]]) == (ended, heard)


async def test_server_that_speaks_resp2_only_leaves_events(nursery: trio.Nursery) -> None:
    """It can push nothing that is no message of a subscription: that is said, and events are heard."""
    options = ServerOptions(extra=('rename-command HELLO ""',))
    with Server(find_kind("redis7"), options) as server, server.connect() as client:
        watching = Watching(server.url)
        nursery.start_soon(watching.watch.run)
        listener = await watching.listen("a")

        await trio.sleep(2 * SILENT_S)  # it is asked for signs of life meanwhile, in the one way that it allows
        client.command("SET", "a", "x")
        client.send(drop_older(0, [(b"a", None)]))
        client.frame()

        assert ["lost", "event"] == [one.get("cause", one["type"]) for one in await listener.told(2)]
        assert "events only" == watching.watch.state


async def test_server_that_is_busy_when_it_is_asked_is_asked_again(server: Server, watching: Watching) -> None:
    """That a script runs is no reason to hear no changes from then on."""
    listener = await watching.listen("a")
    with server.connect() as runner, server.connect() as killer:
        killer.command("CONFIG", "SET", "busy-reply-threshold", "10")
        runner.send(command("EVAL", "while true do end", 0))
        await until(lambda: killer.command("PING").startswith(b"-BUSY"), "it is busy")
        assert watching.watch._link is not None
        watching.watch._link.close()
        await watching.reaches("unreachable")
        await trio.sleep(0.2)
        assert watching.watch.state == "unreachable"
        killer.command("SCRIPT", "KILL")
        await watching.reaches("watching")
        killer.command("SET", "a", "x")

    await until(lambda: listener.updates, "the write is told")
    assert listener.losses
