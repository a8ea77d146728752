"""The fence behind a script: its reply waits until the pushes of keys it did not declare have been applied."""

from __future__ import annotations

import pytest
import trio

from .conftest import Serve
from .driver import Client, Proxy, warm
from .peer import Peer, PeerLink, until

NEW = b"$3\r\nnew\r\n"


def _fences(peer: Peer) -> int:
    """Count the PINGs of the invalidation link beyond those of its handshake and its clockwork, which is slow here."""
    return len(peer.seen("PING", "control")) - 2


@pytest.fixture
def scripted(peer: Peer) -> Peer:
    """Let every script set `warm`, a key that it does not declare."""

    def script(_: PeerLink, __: list[bytes]) -> bytes:
        peer.model.foreign("SET", "warm", "new")
        return b"+OK\r\n"

    peer.on("EVAL", script)
    peer.on("EVAL_RO", b"+OK\r\n")
    return peer


async def _served(
    serve: Serve, peer: Peer, *, max_staleness_s: float = 60.0, fence: bool = True
) -> tuple[Proxy, Client]:
    """Start a proxy whose clockwork PINGs are far apart, with `warm` in its L1."""
    proxy = await serve(peer, l1={"max_staleness_s": max_staleness_s, "fence_scripts": fence})
    client = await proxy.connect()
    assert await client.command("SET", "warm", "v") == b"+OK\r\n"
    await proxy.settled()
    assert await warm(client) == b"$1\r\nv\r\n"
    return proxy, client


async def _is_answered(client: Client) -> bool:
    with trio.move_on_after(0.05):
        await client.frame()
        return True
    return False


@pytest.mark.parametrize("in_multi", [False, True])
async def test_script_reply_is_held_until_its_pushes_are_applied(scripted: Peer, serve: Serve, in_multi: bool) -> None:
    """While the push is on its way the writer is told nothing; once told, it reads what it wrote."""
    _, client = await _served(serve, scripted)
    scripted.hold("control")

    if in_multi:
        await client.send("MULTI")
        await client.send("EVAL", "...", "0")
        await client.send("EXEC")
        scripted.on("EXEC", lambda link, words: scripted.model.foreign("SET", "warm", "new") and b"*1\r\n+OK\r\n")
        await client.frames(2)
    else:
        await client.send("EVAL", "...", "0")
    await until(lambda: _fences(scripted) == 1, "the fence is asked for")
    assert not await _is_answered(client)
    scripted.go_on("control")

    assert (await client.frame()).endswith(b"+OK\r\n")
    assert await client.command("GET", "warm") == NEW


@pytest.mark.parametrize("in_multi", [False, True])
async def test_read_sent_behind_a_script_waits_for_its_pushes_too(scripted: Peer, serve: Serve, in_multi: bool) -> None:
    """It comes while the reply of the script is held: what L1 has is older than the script, which was asked first."""
    _, client = await _served(serve, scripted)
    scripted.on("EXEC", lambda link, words: scripted.model.foreign("SET", "warm", "new") and b"*1\r\n+OK\r\n")
    scripted.hold("control")
    for words in (("MULTI",), ("EVAL", "...", "0"), ("EXEC",)) if in_multi else (("EVAL", "...", "0"),):
        await client.send(*words)
    await until(lambda: _fences(scripted) == 1, "the fence is asked for")

    await client.send("GET", "warm")
    await client.send("STRLEN", "warm")
    await trio.sleep(0.05)
    scripted.go_on("control")

    assert (await client.frames(5 if in_multi else 3))[-2:] == [NEW, b":3\r\n"]


async def test_script_that_cannot_write_is_answered_at_once(scripted: Peer, serve: Serve) -> None:
    """EVAL_RO has no pushes to wait for."""
    _, client = await _served(serve, scripted)
    scripted.hold("control")

    assert await client.command("EVAL_RO", "...", "0") == b"+OK\r\n"


async def test_script_with_fences_off_is_answered_at_once(scripted: Peer, serve: Serve) -> None:
    """l1.fence_scripts = false gives the guarantee up for a round trip."""
    _, client = await _served(serve, scripted, fence=False)
    scripted.hold("control")

    assert await client.command("EVAL", "...", "0") == b"+OK\r\n"


async def test_script_is_answered_when_the_invalidation_link_dies(scripted: Peer, serve: Serve) -> None:
    """A lost link flushes L1: nothing stale is left, and nobody waits for ever."""
    _, client = await _served(serve, scripted)
    scripted.hold("control")
    await client.send("EVAL", "...", "0")
    await until(lambda: _fences(scripted) == 1, "the fence is asked for")

    scripted.kill("control")

    assert await client.frame() == b"+OK\r\n"
    assert await client.command("GET", "warm") == NEW


async def test_script_is_answered_when_a_silent_link_stops_l1(scripted: Peer, serve: Serve) -> None:
    """After max_staleness of silence L1 is not served, so the reply can go; a later fence waits for its own PONG."""
    proxy, client = await _served(serve, scripted, max_staleness_s=0.4)
    scripted.hold("control")
    await client.send("EVAL", "...", "0")

    assert await client.frame() == b"+OK\r\n"
    assert not proxy.stats()["l1"]["serving"]
    assert await client.command("GET", "warm") == NEW
    scripted.go_on("control")
    await until(lambda: proxy.stats()["l1"]["serving"], "L1 is served again")
    assert await warm(client) == NEW
    scripted.hold("control")
    await client.send("EVAL", "...", "0")
    assert not await _is_answered(client)
    scripted.go_on("control")
    assert await client.frame() == b"+OK\r\n"


async def test_script_released_early_leaves_its_pong_to_nobody(scripted: Peer, serve: Serve) -> None:
    """The PONG of a fence that was given up does not open the next one, whose pushes come after it."""
    proxy, client = await _served(serve, scripted)
    scripted.hold("control")
    await client.send("EVAL", "...", "0")
    await until(lambda: _fences(scripted) == 1, "the fence is asked for")
    control = proxy.worker.control
    control._release()
    proxy.worker.reactor.flush()
    assert await client.frame() == b"+OK\r\n"

    done: list[int] = []
    control.fence(lambda: done.append(1))
    control.flush()
    await until(lambda: _fences(scripted) == 2, "the second fence is asked for")
    control._take(b"PONG")  # the first fence's

    assert done == []
    control._take(b"PONG")
    assert done == [1]
    control._expected[:0] = ["fence", "fence"]  # the peer's own answers are still to come
    control._fences.sent.extendleft([[], []])
    scripted.go_on("control")


async def test_scripts_of_one_wake_up_share_a_ping(scripted: Peer, serve: Serve) -> None:
    """However many replies wait, the invalidation link is asked once a wake-up."""
    proxy, _ = await _served(serve, scripted)
    done: list[int] = []
    for number in range(3):
        proxy.worker.control.fence(lambda number=number: done.append(number))  # type: ignore[misc]
    proxy.worker.reactor.flush()

    await until(lambda: done == [0, 1, 2], "all are let go, in their order")
    assert _fences(scripted) == 1


async def test_script_of_a_client_that_left_while_it_waited_harms_nobody(scripted: Peer, serve: Serve) -> None:
    """Its slot is filled for nobody, and its link serves the next client."""
    proxy, client = await _served(serve, scripted)
    other = await proxy.connect()
    scripted.hold("control")
    await client.send("EVAL", "...", "0")
    await until(lambda: _fences(scripted) == 1, "the fence is asked for")
    client.close()

    scripted.go_on("control")

    await until(lambda: len(proxy.worker.clients) == 1, "the client is gone")
    assert await other.command("EVAL", "...", "0") == b"+OK\r\n"
    assert await other.command("GET", "warm") == NEW
