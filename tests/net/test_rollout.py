"""How much of Respite is in effect changes while clients are connected: nobody is dropped, no reply lost or moved."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import trio

from proxy.core.session import Identity, Session
from proxy.wire.encode import bulk, command

from .conftest import Serve
from .driver import Client, Proxy, make_settings, warm
from .peer import DEADLINE_S, Peer, until

OK = b"+OK\r\n"
OLD, NEW = bulk(b"old"), bulk(b"new")
CLIENTS = 12
SWITCHES = 27


def apply(proxy: Proxy, mode: str = "on", percent: float = 100.0, *, verify: float = 0.0, **l1: Any) -> None:
    """Reload as the app does it."""
    worker = proxy.worker
    worker.reactor.enter()
    worker.apply(
        make_settings(rollout={"mode": mode, "percent": percent}, l1={"verify": verify, "touch_rate": 0, **l1})
    )
    worker.reactor.flush()


async def start(peer: Peer, serve: Serve, mode: str = "on", percent: float = 100.0, *, verify: float = 0.0) -> Proxy:
    """Start a proxy in a mode."""
    return await serve(peer, rollout={"mode": mode, "percent": percent}, l1={"verify": verify, "touch_rate": 0})


def modes(proxy: Proxy) -> dict[int, str]:
    """Return what is in effect for each client, by its id."""
    return {client.session.id: proxy.worker.mode_of(client.session) for client in proxy.worker.clients}


def exposure(proxy: Proxy) -> list[str]:
    """Return what each client is connected to: L1, its shadow, or nothing of it."""
    return sorted(
        "on" if client.namespace is not None else "shadow" if client.shadow is not None else "off"
        for client in proxy.worker.clients
    )


def plant(proxy: Proxy, key: bytes, reply: bytes) -> None:
    """Put into L1 what Redis does not hold, in every namespace: no push will ever take it away."""
    engine = proxy.worker.engine
    proxy.worker.reactor.enter()
    for namespace in engine.l1.namespaces.values():
        engine.l1.put(namespace, bulk(key), reply, engine.now + 100.0, engine.now)


def is_held(proxy: Proxy, key: bytes) -> bool:
    """Return whether L1 holds a key's value."""
    return any(bulk(key) in namespace.resident for namespace in proxy.worker.engine.l1.namespaces.values())


def counter(proxy: Proxy, name: str) -> Callable[[], int]:
    """Count something from now on."""
    before = getattr(proxy.worker.stats, name)
    return lambda: getattr(proxy.worker.stats, name) - before


# -- whose -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [0.0, 1.0, 10.0, 33.0, 50.0, 90.0, 99.0, 100.0])
@pytest.mark.parametrize("first", [1, 2, 77, 100_001])
async def test_percent_takes_its_share_of_any_hundred_clients(
    peer: Peer, serve: Serve, percent: float, first: int
) -> None:
    """Of a hundred that connect one after the other so many are in effect, give or take two; 0 none, 100 all."""
    proxy = await start(peer, serve, "on", percent)
    sessions = [_session(number) for number in range(first, first + 100)]
    taken = [session.id for session in sessions if proxy.worker.mode_of(session) == "on"]

    assert abs(len(taken) - percent) <= (2 if 0 < percent < 100 else 0)
    if percent == 10.0:
        assert max(after - before for before, after in itertools.pairwise(taken)) <= 21


async def test_what_is_in_effect_is_told(peer: Peer, serve: Serve) -> None:
    """In the figures and of a key: L1 that is filled and not served looks like one that is served."""
    proxy = await start(peer, serve, "shadow", 40.0)
    shadow = {"mode": "shadow", "percent": 40.0}

    assert proxy.stats()["rollout"] == proxy.worker.explain(b"k")["rollout"] == shadow
    apply(proxy, "on")
    assert proxy.stats()["rollout"] == {"mode": "on", "percent": 100.0}


async def test_percent_that_grows_takes_nobody_back(peer: Peer, serve: Serve) -> None:
    """A client that is in effect stays so while the share rises."""
    proxy = await start(peer, serve, "on", 0.0)
    sessions = [_session(number) for number in range(1, 400)]
    taken: set[int] = set()
    for percent in (1.0, 5.0, 20.0, 50.0, 80.0, 100.0):
        apply(proxy, "on", percent)
        now = {session.id for session in sessions if proxy.worker.mode_of(session) == "on"}
        assert taken < now
        taken = now

    assert len(taken) == 399


def _session(number: int) -> Session:
    return Session(id=number, address="", local_address="", created_at=0.0, identity=Identity())


@pytest.mark.parametrize("mode", ["on", "shadow"])
async def test_percent_leaves_the_rest_without_l1(peer: Peer, serve: Serve, mode: str) -> None:
    """The rest is neither served, nor counted, nor compared."""
    proxy = await start(peer, serve, mode, 50.0)
    clients = [await proxy.connect() for _ in range(CLIENTS)]
    for client in clients:
        assert await client.command("SET", "k", "new") == OK
    await proxy.settled()
    shares = list(modes(proxy).values())
    assert sorted(shares) == exposure(proxy)
    taken = shares.count(mode)
    assert 5 <= taken <= 7
    plant(proxy, b"k", OLD)
    hits = counter(proxy, "hits")
    replies = []
    for client in clients:
        if mode == "shadow" and not is_held(proxy, b"k"):
            plant(proxy, b"k", OLD)
        replies.append(await client.command("GET", "k"))

    assert replies.count(OLD) == (taken if mode == "on" else 0)
    assert replies.count(NEW) == CLIENTS - replies.count(OLD)
    assert hits() == taken


# -- switched while at work --------------------------------------------------------------------------------------------


class Counting:
    """A client that counts in one key of its own, pipelined: any reply lost, doubled or moved shows."""

    def __init__(self, client: Client, number: int) -> None:
        self.client = client
        self.key = f"n{number}"
        self.total = 0

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Send pipelines that write and read, and check every reply of them."""
        while not is_over():
            expected: list[bytes] = []
            sent = b""
            for _ in range(3):
                self.total += 1
                value = b"%d" % self.total
                sent += command("INCR", self.key) + command("GET", self.key) + command("STRLEN", self.key)
                sent += command("MGET", self.key, "same") + command("EXISTS", self.key, "same", "none")
                sent += command("GET", "same") + command("GET", "same")
                expected += [b":%b\r\n" % value, bulk(value), b":%d\r\n" % len(value)]
                expected += [b"*2\r\n" + bulk(value) + bulk(b"v"), b":2\r\n", bulk(b"v"), bulk(b"v")]
            await self.client.send_raw(sent)
            found = await self.client.frames(len(expected))
            assert found == expected, self.key


STEPS: tuple[tuple[str, float], ...] = (
    ("shadow", 100.0),
    ("on", 100.0),
    ("off", 100.0),
    ("on", 50.0),
    ("shadow", 30.0),
    ("off", 0.0),
    ("shadow", 100.0),
    ("on", 0.0),
    ("on", 100.0),
)


async def test_switching_under_load_loses_and_moves_nothing(peer: Peer, serve: Serve) -> None:
    """Through every mode and share, with pipelines under way: all replies, in order, fresh, and nobody dropped."""
    proxy = await start(peer, serve)
    peer.model.foreign("SET", "same", "v")
    counting = [Counting(await proxy.connect(), number) for number in range(CLIENTS)]
    killed, protocol_errors = counter(proxy, "killed"), counter(proxy, "protocol_errors")
    switched = 0
    with trio.fail_after(12 * DEADLINE_S):
        async with trio.open_nursery() as nursery:
            for one in counting:
                nursery.start_soon(one.run, lambda: switched >= SWITCHES)
            while switched < SWITCHES:
                apply(proxy, *STEPS[switched % len(STEPS)])
                wanted = proxy.worker.stats.commands + 200
                await until(lambda wanted=wanted: proxy.worker.stats.commands > wanted, "they go on")
                switched += 1

    assert (killed(), protocol_errors()) == (0, 0)
    assert len(proxy.worker.clients) == CLIENTS
    assert all(one.total for one in counting)
    counted = [peer.model.dbs[0][one.key.encode()].data for one in counting]
    assert counted == [b"%d" % one.total for one in counting]


@pytest.mark.parametrize("after", ["on", "off", "shadow"])
@pytest.mark.parametrize("before", ["on", "off", "shadow"])
async def test_switch_with_a_pipeline_under_way_answers_it_in_order(
    peer: Peer, serve: Serve, before: str, after: str
) -> None:
    """What was sent in one mode and is answered in the next: each reply in its place, and the next reads are fresh."""
    proxy = await start(peer, serve, before)
    peer.model.foreign("MSET", "a", "1", "b", "22")
    client, other = await proxy.connect(), await proxy.connect()
    for one in (client, other):
        assert await one.command("STRLEN", "b") == b":2\r\n"
    peer.stop("data")
    sent = command("GET", "a") + command("STRLEN", "b") + command("MGET", "a", "b") + command("EXISTS", "a", "b", "c")
    await other.send_raw(sent)
    await client.send_raw(sent)
    await until(lambda: all(one.queue for one in proxy.worker.clients), "they are under way")
    apply(proxy, after)
    await client.send_raw(command("SET", "a", "9") + command("GET", "a"))
    peer.go_on("data")
    expected = [bulk(b"1"), b":2\r\n", b"*2\r\n" + bulk(b"1") + bulk(b"22"), b":2\r\n"]

    assert await client.frames(6) == [*expected, OK, bulk(b"9")]
    assert (await other.frames(4))[1] == b":2\r\n"
    assert await other.command("GET", "a") == bulk(b"9")


# -- shadow, verify ----------------------------------------------------------------------------------------------------


async def test_shadow_client_is_never_served_from_l1(peer: Peer, serve: Serve) -> None:
    """L1 is wrong, and no push will come: the client reads what Redis holds, it is counted, and the entry is healed."""
    proxy = await start(peer, serve, "shadow")
    client = await proxy.connect()
    assert await client.command("SET", "k", "new") == OK
    await proxy.settled()
    plant(proxy, b"k", OLD)
    hits, stale, healed = counter(proxy, "hits"), counter(proxy, "stale"), counter(proxy, "healed")

    assert await client.command("GET", "k") == NEW
    assert (hits(), stale()) == (1, 1)
    await until(lambda: healed() == 1, "it is healed")
    assert not is_held(proxy, b"k")
    assert await client.command("GET", "k") == NEW
    assert await client.command("GET", "k") == NEW
    assert (stale(), healed()) == (1, 1)


async def test_shadow_that_begins_shows_what_l1_held_wrongly(peer: Peer, serve: Serve) -> None:
    """Switched from on to shadow, nothing that L1 holds is served from the next read on."""
    proxy = await start(peer, serve, "on")
    client = await proxy.connect()
    assert await client.command("SET", "k", "new") == OK
    await proxy.settled()
    plant(proxy, b"k", OLD)
    assert await client.command("GET", "k") == OLD
    apply(proxy, "shadow")

    assert await client.command("GET", "k") == NEW
    assert proxy.worker.stats.stale == 1


async def test_off_reads_from_redis_and_forgets_what_l1_held(peer: Peer, serve: Serve) -> None:
    """Switched off and on again, L1 starts empty."""
    proxy = await start(peer, serve, "on")
    client = await proxy.connect()
    assert await client.command("SET", "k", "new") == OK
    await proxy.settled()
    plant(proxy, b"k", OLD)
    apply(proxy, "off")
    hits = counter(proxy, "hits")
    assert [await client.command("GET", "k") for _ in range(2)] == [NEW] * 2
    apply(proxy, "on")
    await proxy.settled()

    assert await client.command("GET", "k") == NEW
    assert hits() == 0
    await warm(client, "k")


@pytest.mark.parametrize("name", ["GET", "STRLEN"])
async def test_verify_of_every_hit_compares_every_hit(peer: Peer, serve: Serve, name: str) -> None:
    """With `verify` 1 each hit, served at once from L1, is looked up in Redis behind it."""
    proxy = await start(peer, serve, "on", verify=1.0)
    client = await proxy.connect()
    assert await client.command("SET", "k", "new") == OK
    await proxy.settled()
    first = await client.command(name, "k")
    hits, verified = counter(proxy, "hits"), counter(proxy, "verified")
    asked = len(peer.seen(name, "data"))

    assert [await client.command(name, "k") for _ in range(20)] == [first] * 20
    await until(lambda: verified() == 20, "all are compared")
    assert hits() == 20
    assert len(peer.seen(name, "data")) - asked == 20
    assert proxy.worker.stats.stale == 0


async def test_verify_in_mode_on_heals_what_no_push_ends(peer: Peer, serve: Serve) -> None:
    """The hit is stale, which is seen and told; the next read is right."""
    proxy = await start(peer, serve, "on", verify=1.0)
    client = await proxy.connect()
    assert await client.command("SET", "k", "new") == OK
    await proxy.settled()
    plant(proxy, b"k", OLD)
    stale, healed = counter(proxy, "stale"), counter(proxy, "healed")

    assert await client.command("GET", "k") == OLD
    await until(lambda: healed() == 1, "it is healed")
    assert stale() == 1
    assert await client.command("GET", "k") == NEW


async def test_verify_switched_off_asks_nobody(peer: Peer, serve: Serve) -> None:
    """With `verify` 0, also when it was on before, a hit costs Redis nothing."""
    proxy = await start(peer, serve, "on", verify=1.0)
    client = await proxy.connect()
    assert await client.command("SET", "k", "new") == OK
    await proxy.settled()
    await warm(client, "k")
    apply(proxy, verify=0.0)
    await client.command("PING")
    asked = len(peer.seen("GET", "data"))

    assert [await client.command("GET", "k") for _ in range(20)] == [NEW] * 20
    assert await client.command("PING") == b"+PONG\r\n"
    assert len(peer.seen("GET", "data")) == asked
