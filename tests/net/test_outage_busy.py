"""Redis runs a script: it lets links in, answers next to nothing, and has forgotten nothing. Nor do we."""

from __future__ import annotations

import pytest
import trio

from .conftest import Serve
from .driver import within
from .outage_parts import VALUE, outage_is, with_value
from .peer import Peer, error, until

BUSY = error("BUSY Redis is busy running a script.")


@pytest.mark.parametrize("asked", ["ACL", "INFO"])
async def test_question_that_is_answered_busy_tells_nothing_new(peer: Peer, serve: Serve, asked: str) -> None:
    """Who may read what, and whether fields expire, is as it was: L1 and what is left of it stay."""
    proxy, client = await with_value(serve, peer)
    watch = proxy.worker.control.watch
    watch.has_field_expiry = True
    peer.on(asked, BUSY)
    before = len(peer.seen(asked))
    watch.turn()
    await until(lambda: len(peer.seen(asked)) > before, "it is asked")
    answered = trio.Event()
    proxy.worker.control.fence(answered.set)
    await client.command("PING")
    await within(answered.wait(), "it is answered")

    assert len(proxy.worker.engine.l1) == 2
    assert not proxy.worker.engine.fields_expire
    assert not watch._is_distrusting


async def test_link_that_comes_back_to_a_busy_redis_leaves_what_l1_held(peer: Peer, serve: Serve) -> None:
    """It is served until Redis has answered a PING, and then no more."""
    proxy, client = await with_value(serve, peer)
    outage = proxy.worker.engine.outage
    await peer.refuse()
    await until(lambda: outage_is(proxy, "away"), "the breaker opens")
    for name in ("PING", "GET", "CLIENT TRACKING", "INFO", "COMMAND"):
        peer.on(name, BUSY)
    peer.listen()
    await until(lambda: proxy.links("data"), "a link is there")
    await until(lambda: not outage_is(proxy, "away"), "the breaker closes")

    assert await client.command("GET", "n:1") == VALUE
    assert await client.command("GET", "r:1") == BUSY
    assert proxy.worker.control.state == "unreachable"
    for name in ("PING", "GET", "CLIENT TRACKING", "INFO", "COMMAND"):
        peer.as_usual(name)
    await proxy.settled()
    assert outage.remains.is_empty
    assert await client.command("GET", "n:1") == VALUE


async def test_tracking_that_is_refused_because_redis_is_busy_is_asked_for_again(peer: Peer, serve: Serve) -> None:
    """It is no server that cannot redirect: the mode stays, and L1 is filled again."""
    proxy, client = await with_value(serve, peer)
    peer.on("CLIENT TRACKING", BUSY)

    def asked() -> int:
        return sum(one.words[1] == b"TRACKING" for one in peer.seen("CLIENT"))

    before = asked()
    peer.kill("data")
    await until(lambda: asked() > before + 1, "it is asked again")
    peer.as_usual("CLIENT TRACKING")
    await proxy.settled()

    assert proxy.worker.tracking.mode == "redirect"
    for _ in range(2):
        assert await client.command("GET", "n:1") == VALUE
    assert len(proxy.worker.engine.l1) == 1


async def test_subscription_that_is_refused_because_redis_is_busy_is_asked_for_again(peer: Peer, serve: Serve) -> None:
    """What other proxies announce is not missed from then on: the link is opened anew."""
    peer.on("SUBSCRIBE", BUSY)
    proxy = await serve(peer)
    await until(lambda: len(peer.seen("SUBSCRIBE")) > 1, "it is asked again")
    peer.as_usual("SUBSCRIBE")

    await until(lambda: proxy.worker.value_layer.announcements.state == "subscribed", "it is heard")
    await until(lambda: proxy.worker.control.is_up, "the link stands")
