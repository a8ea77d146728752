"""The value layer of a worker on its invalidation link: what it asks there, and what it says of itself."""

from __future__ import annotations

import pytest

from proxy.values.changes import CHANNEL
from proxy.wire.encode import bulk

from .conftest import Serve
from .peer import Peer, PeerLink, error, until


async def test_value_layer_of_a_fresh_worker_has_every_figure(peer: Peer, serve: Serve) -> None:
    """Each is there before anything has happened, and nothing divides by zero; without classes it is not in use."""
    proxy = await serve(peer)
    await until(lambda: proxy.stats()["values"]["announcements"] == "subscribed", "it hears the others")
    values = proxy.stats()["values"]

    assert set(values) == {
        *("enabled", "writes_envelopes", "announcements", "sealed_total", "opened_total", "damaged_total"),
        *("unwrapped_total", "purged_total", "dependents_total", "raw_bytes_total", "stored_bytes_total", "saved"),
        *("compression", "dictionaries", "fences", "sweep", "ttl"),
    }
    assert set(values["sweep"]) == {"running", "share", "scanned_total", "unlinked_total", "passes_total"}
    assert (values["enabled"], values["saved"], values["fences"], values["sweep"]["running"]) == (False, 0.0, 0, False)
    assert proxy.worker.pipeline.value_commands is None


async def test_value_layer_asks_for_what_is_in_force_behind_the_subscription(peer: Peer, serve: Serve) -> None:
    """In this order no fence is missed: what is set after it was asked for is announced."""
    await serve(peer)
    await until(lambda: len(peer.seen("HGETALL", "control")) == 2, "all is asked for")

    asked = [one.words for one in peer.log if one.link.kind == "control"]
    places = [
        asked.index([b"SUBSCRIBE", CHANNEL]),
        asked.index([b"HGETALL", b"respite:fences"]),
        asked.index([b"HGETALL", b"respite:dictionaries"]),
    ]
    assert places == sorted(places)
    assert [b"TIME"] in asked


@pytest.mark.parametrize("refused", ["SUBSCRIBE", "HGETALL", "TIME"])
async def test_value_layer_that_redis_refuses_costs_nothing_else(peer: Peer, serve: Serve, refused: str) -> None:
    """A user who may not is served as ever, L1 and all; why nobody is heard is told."""
    why = f"NOPERM this user has no permissions to run the '{refused.lower()}' command"
    peer.on(refused, error(why))
    proxy = await serve(peer)
    client = await proxy.connect()
    assert await client.command("SET", "k", "v") == b"+OK\r\n"
    await proxy.settled()
    await until(lambda: peer.seen(refused, "control"), "it has been asked")

    assert [await client.command("GET", "k") for _ in range(3)] == [b"$1\r\nv\r\n"] * 3
    assert proxy.stats()["upstream"]["state"] == "up"
    assert len(peer.of("control")) == 1
    assert proxy.stats()["values"]["announcements"] == (why if refused == "SUBSCRIBE" else "subscribed")


async def test_value_layer_drops_what_another_proxy_announces(peer: Peer, serve: Serve) -> None:
    """A key, and what a fence covers; a fence that is lifted is forgotten; what is no message is passed over."""
    proxy = await serve(peer, l1={"tracking": "off"})
    client = await proxy.connect()
    for key in ("one", "two:1", "other"):
        await client.command("SET", key, "v")
    await proxy.settled()

    async def held() -> set[str]:
        asked = len(peer.seen("GET"))
        for key in ("one", "two:1", "other"):
            assert await client.command("GET", key) == b"$1\r\nv\r\n"
        return {"one", "two:1", "other"} - {one.words[1].decode() for one in peer.seen("GET")[asked:]}

    await held()
    assert await held() == {"one", "two:1", "other"}

    _announce(peer, b'{"db": 0, "keys": ["%b"]}' % b"one".hex().encode())
    _announce(peer, b"what?")
    field = b"0:glob:two:*".hex().encode()
    _announce(peer, b'{"fences": [["%b", "%d"]]}' % (field, 5 << 16))
    await until(lambda: proxy.stats()["values"]["fences"] == 1, "the fence is heard")
    assert await held() == {"other"}
    assert await held() == {"one", "two:1", "other"}

    _announce(peer, b'{"swept": [["%b", "%d"]]}' % (field, 5 << 16))
    await until(lambda: proxy.stats()["values"]["fences"] == 0, "it is lifted")


def _announce(peer: Peer, payload: bytes) -> None:
    (control,) = peer.of("control")
    assert isinstance(control, PeerLink)
    control.push(b">3\r\n" + bulk(b"message") + bulk(CHANNEL) + bulk(payload))
