"""Reads while Redis is away: a class that asks for it gets what L1 held, nobody else and nothing else does."""

from __future__ import annotations

import attrs
import pytest
import trio

from proxy import errors
from proxy.config.model import ClassSettings
from proxy.core.figures.report import explain_key
from proxy.wire.encode import array, bulk, command

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Client, Proxy, make_settings
from .outage_parts import CLASSES, STALE_S, VALUE, outage_is, settings_of, with_value
from .peer import Peer, PeerLink, error, until

UNAVAILABLE = errors.UPSTREAM_UNAVAILABLE
OK = b"+OK\r\n"


async def test_read_of_a_class_that_may_be_stale_is_served_while_redis_is_away(peer: Peer, serve: Serve) -> None:
    """Only keys of the class, only what was held; it is counted by class, and told by EXPLAIN."""
    proxy, client = await with_value(serve, peer)
    await peer.refuse()
    await until(lambda: outage_is(proxy, "away"), "the breaker opens")

    for _ in range(3):
        assert await client.command("GET", "n:1") == VALUE
    assert await client.command("GET", "r:1") == UNAVAILABLE
    assert await client.command("GET", "n:2") == UNAVAILABLE
    assert await client.command("SET", "n:1", "new") == UNAVAILABLE
    assert await client.command("GET", "n:1") == VALUE

    report = proxy.worker.report("")
    assert report["outage"]["stale_served"] == {"news": 4}
    assert report["outage"]["state"] == "away"
    assert report["upstream"]["breaker"] in ("open", "half-open")
    assert report["commands"]["errors_total"] == 3
    about = explain_key(proxy.worker.engine, b"n:1")
    assert about["outage"]["state"] == "away"
    assert 0 < about["outage"]["stale_for_s"] <= STALE_S
    assert "served stale" in [event["event"] for event in about["events"]]
    shown = {family.name: family for family in proxy.worker.families()}
    assert [one.value for one in shown["respite_outage_stale_served"].samples] == [4.0]


@pytest.mark.parametrize(("rules", "joined"), [("+@all", b":2\r\n"), ("-@all (+@all ~n:1) (+@all ~*)", UNAVAILABLE)])
async def test_who_has_selectors_reads_several_keys_from_redis_alone(
    peer: Peer, serve: Serve, rules: str, joined: bytes
) -> None:
    """Whether it may read both at once nobody can say while Redis is away."""
    peer.on("ACL", array([bulk(f"user default on nopass ~* &* {rules}".encode())]))
    proxy, client = await with_value(serve, peer)
    for _ in range(2):
        assert await client.command("EXISTS", "n:1") == b":1\r\n"
    await until(lambda: len(proxy.worker.engine.l1) == 3, "L1 holds that, too")
    await peer.refuse()
    await until(lambda: outage_is(proxy, "away"), "the breaker opens")

    assert await client.command("EXISTS", "n:1") == b":1\r\n"
    assert await client.command("EXISTS", "n:1", "n:1") == joined


async def test_redis_that_has_no_place_for_our_links_is_away(peer: Peer, serve: Serve) -> None:
    """It lets nobody in, as if it loaded: what L1 held is served, and the rest reads its words."""
    proxy, client = await with_value(serve, peer)
    full = error("ERR max number of clients reached")
    peer.on("PING", full)
    peer.kill()
    await until(lambda: outage_is(proxy, "away"), "the breaker opens")

    assert await client.command("GET", "n:1") == VALUE
    assert await client.command("GET", "r:1") == full
    assert proxy.stats()["commands"]["errors_total"] == 1


async def test_what_was_left_is_gone_before_redis_that_is_back_answers(peer: Peer, serve: Serve) -> None:
    """The first reply after the outage is that of Redis, and so are all that follow."""
    proxy, client = await with_value(serve, peer)
    await peer.refuse()
    up = proxy.worker.report("outage")
    assert (up["state"], up["why"], up["last_why"]) == ("up", "", "")
    assert 0 < up["since_s"] < 60  # and not since the clock began
    await until(lambda: outage_is(proxy, "away"), "the breaker opens")
    assert await client.command("GET", "n:1") == VALUE
    away = proxy.worker.report("outage")
    assert away["fallbacks"] == [{"name": "news", "stale_if_error_s": STALE_S, "offline": "fail"}]
    assert (away["why"] != "", away["last_why"], away["last_lasted_s"]) == (True, "", 0.0)
    peer.model.foreign("SET", "n:1", "new")

    peer.listen()
    seen = [await client.command("GET", "n:1")]
    while seen[-1] == VALUE:
        seen.append(await client.command("GET", "n:1"))

    assert seen[-1] == b"$3\r\nnew\r\n"
    assert not proxy.worker.engine.outage.breaker.is_open
    assert proxy.worker.engine.outage.remains.is_empty
    assert await client.command("GET", "n:1") == b"$3\r\nnew\r\n"
    back = proxy.worker.report("outage")
    assert (back["state"], back["why"], back["last_why"]) == ("up", "", away["why"])
    assert away["since_s"] <= back["last_lasted_s"] < 60


async def test_read_that_is_late_for_good_gets_what_was_left(peer: Peer, serve: Serve) -> None:
    """Redis is frozen: after response_timeout the value of before is better than an error."""
    proxy, client = await with_value(serve, peer, settings_of(l1={"max_staleness_s": 0.1}))
    for kind in ("data", "control"):
        peer.stop(kind)
    await until(lambda: not proxy.worker.engine.l1.serving, "L1 is not proven any more")
    began = trio.current_time()

    assert await client.command("GET", "n:1") == VALUE
    assert trio.current_time() - began < 1.0
    assert outage_is(proxy, "away")
    assert await client.command("GET", "r:1") == UNAVAILABLE


async def relinked(peer: Peer, proxy: Proxy, client: Client, *, after_s: float) -> None:
    """Let a client ask twice on a link that is silent, and so long after that the invalidation link be back."""
    for link in peer.of("data"):
        peer.stop(link)
    peer.stop("control")
    peer.kill("control")
    await until(lambda: not proxy.worker.engine.outage.remains.is_empty, "what L1 held is kept")
    await client.send("GET", "n:1")
    await client.send("GET", "n:1")
    with trio.move_on_after(after_s) as waited:
        await client.frame()
    assert waited.cancelled_caught, "Redis was asked"
    peer.go_on("control")
    await until(lambda: proxy.worker.engine.outage.remains.is_empty, "Redis is back")


async def test_read_on_a_silent_link_gets_what_was_left_when_redis_is_back(peer: Peer, serve: Serve) -> None:
    """What waits since before gets the value of before, while there is one: its own link may be silent for long."""
    proxy, client = await with_value(serve, peer, settings_of(upstream={"response_timeout_s": 2.0}))
    began = trio.current_time()

    await relinked(peer, proxy, client, after_s=0.6)

    assert [await client.frame(), await client.frame()] == [VALUE, VALUE]
    assert trio.current_time() - began < 1.8
    assert not proxy.worker.engine.outage.fallbacks._pending


async def test_read_that_is_on_its_way_when_redis_is_back_gets_what_redis_says(peer: Peer, serve: Serve) -> None:
    """Only the invalidation link was lost: what was missed meanwhile is not hidden by what was left."""
    proxy, client = await with_value(serve, peer, settings_of(upstream={"response_timeout_s": 4.0}))
    peer.model.foreign("SET", "n:1", "new")
    links = peer.of("data")

    await relinked(peer, proxy, client, after_s=0.1)
    for link in links:
        peer.go_on(link)

    assert [await client.frame(), await client.frame()] == [b"$3\r\nnew\r\n"] * 2


async def test_soft_timeout_serves_what_is_held_while_the_fetch_goes_on(peer: Peer, serve: Serve) -> None:
    """Who waits longer than upstream.soft_timeout gets the old value; the new one fills L1 for the next."""
    settings = settings_of(upstream={"soft_timeout_s": 0.06, "response_timeout_s": 4.0}, l1={"max_age_s": 1.5})
    proxy, client = await with_value(serve, peer, settings)
    entries = proxy.worker.engine.l1.namespaces.values()
    await until(lambda: all(e.ends_at < proxy.worker.engine.now for n in entries for e in n.resident.values()), "ended")
    peer.hold("data")

    assert await client.command("GET", "n:1") == VALUE
    about = proxy.worker.report("outage")
    assert (about["state"], about["why"]) == ("slow", "a reply took longer than upstream.soft_timeout")
    assert 0 <= about["since_s"] < 5
    await client.send("GET", "r:1")
    with trio.move_on_after(0.15) as waited:
        await client.frame()
    assert waited.cancelled_caught, "a class without a fallback waits"

    peer.go_on("data")
    await until(lambda: proxy.worker.stats.published >= 4, "the late reply fills L1")
    assert await client.frame() == VALUE


async def test_write_takes_what_was_left_of_its_key_away(peer: Peer, serve: Serve) -> None:
    """A write whose outcome is unknown may be in Redis: what was there before it is not served."""
    proxy, client = await with_value(serve, peer)
    peer.on("SET", None)
    await client.send("SET", "n:1", "new")
    await until(lambda: peer.seen("SET")[2:], "the write has arrived")
    await peer.refuse()

    assert await client.frame() == errors.UPSTREAM_LOST
    assert await client.command("GET", "n:1") == UNAVAILABLE
    assert proxy.worker.report("outage")["stale_served"] == {}


@pytest.mark.parametrize("words", [("FLUSHALL",), ("DEL", "n:1"), ("EVAL", "x", "1", "n:1")])
async def test_write_that_is_answered_leaves_nothing(peer: Peer, serve: Serve, words: tuple[str, ...]) -> None:
    """What L1 dropped while Redis was there is never served when it is away."""
    proxy, client = await with_value(serve, peer)
    peer.on("EVAL", b":1\r\n")
    await client.command(*words)
    await peer.refuse()
    await until(lambda: outage_is(proxy, "away"), "the breaker opens")

    assert await client.command("GET", "n:1") == UNAVAILABLE


async def test_what_was_left_ends_with_its_time(peer: Peer, serve: Serve) -> None:
    """stale_if_error is a bound: past it there is the error, as for everybody."""
    classes = (attrs.evolve(CLASSES[0], stale_if_error_s=0.2), CLASSES[1])
    proxy, client = await with_value(serve, peer, settings_of(classes=classes))
    await peer.refuse()
    await until(lambda: outage_is(proxy, "away"), "the breaker opens")
    assert await client.command("GET", "n:1") == VALUE

    await trio.sleep(0.3)

    assert await client.command("GET", "n:1") == UNAVAILABLE
    assert proxy.worker.engine.outage.remains.is_empty


async def test_reads_of_every_sort_are_served_from_what_was_left(peer: Peer, serve: Serve) -> None:
    """STRLEN by its request, MGET and EXISTS key by key; all keys or none."""
    proxy, client = await with_value(serve, peer)
    sent = [("MGET", "n:1", "n:1"), ("STRLEN", "n:1"), ("EXISTS", "n:1", "n:1"), ("GET", "n:1")]
    for _ in range(4):
        held = [await client.command(*words) for words in sent]
        await proxy.settled()
    await peer.refuse()
    await until(lambda: outage_is(proxy, "away"), "the breaker opens")

    assert [await client.command(*words) for words in sent] == held
    assert await client.command("MGET", "n:1", "n:2") == UNAVAILABLE
    await client.send_raw(b"".join(command(*words) for words in sent))
    assert await client.frames(len(sent)) == held


async def test_nobody_is_served_what_another_user_or_database_had(redis: Server, serve: Serve) -> None:
    """What was left belongs to one user, database and protocol, as L1 does."""
    proxy, client = await with_value(serve, redis)
    alice, other_db, resp3 = [await proxy.connect() for _ in range(3)]
    assert await alice.command("AUTH", "alice", "pw") == OK
    assert await other_db.command("SELECT", "1") == OK
    assert (await resp3.command("HELLO", "3")).startswith(b"%")
    for one in (alice, other_db, resp3):
        await one.command("PING")
    redis.kill()
    await until(lambda: outage_is(proxy, "away"), "the breaker opens")

    assert await client.command("GET", "n:1") == VALUE
    for one in (alice, other_db, resp3):
        assert await one.command("GET", "n:1") == UNAVAILABLE


@pytest.mark.parametrize(
    "text", ["LOADING Redis is loading the dataset in memory", "MASTERDOWN Link is down", "BUSY x"]
)
async def test_read_that_redis_cannot_answer_now_gets_what_was_left(peer: Peer, serve: Serve, text: str) -> None:
    """The links stand and Redis says that it loads, has no master, runs a script: the words are for the others."""
    settings = settings_of(l1={"max_age_s": 0.3})
    proxy, client = await with_value(serve, peer, settings)
    await trio.sleep(0.35)
    peer.on("GET", error(text))

    assert await client.command("GET", "n:1") == VALUE
    assert await client.command("GET", "r:1") == error(text)
    assert outage_is(proxy, "slow")
    assert proxy.worker.report("upstream")["refusals"] == {text.partition(" ")[0]: 2}


async def test_word_of_redis_about_a_key_is_no_reason_to_serve_what_was_left(peer: Peer, serve: Serve) -> None:
    """WRONGTYPE, NOPERM are the reply: the value may be served to this user no more."""
    _, client = await with_value(serve, peer, settings_of(l1={"max_age_s": 0.3}))
    await trio.sleep(0.35)
    peer.on("GET", error("NOPERM no"))

    assert await client.command("GET", "n:1") == error("NOPERM no")


async def test_large_reply_of_a_class_with_a_fallback_streams(redis: Server, serve: Serve) -> None:
    """What is too large for L1 is passed on part by part, in its place, as ever."""
    proxy = await serve(redis, attrs.evolve(make_settings(), classes=CLASSES))
    client = await proxy.connect()
    large = b"v" * 3_000_000
    assert await client.command("SET", "n:big", large) == OK
    await client.send_raw(command("GET", "n:1") + command("GET", "n:big") + command("PING"))

    assert await client.frame() == b"$-1\r\n"
    expected = b"$3000000\r\n" + large + b"\r\n+PONG\r\n"
    assert await client.exactly(len(expected)) == expected


async def test_class_that_is_taken_out_of_l1_has_no_fallback(peer: Peer, serve: Serve) -> None:
    """Who sees nothing of L1 (rollout.percent) sees nothing of what is left of it."""
    proxy, client = await with_value(serve, peer)
    passing = await proxy.connect()
    settings = proxy.worker.settings
    await passing.command("GET", "n:1")
    proxy.worker.apply(attrs.evolve(settings, rollout=attrs.evolve(settings.rollout, percent=0)))
    await peer.refuse()
    await until(lambda: outage_is(proxy, "away"), "the breaker opens")

    assert await passing.command("GET", "n:1") == UNAVAILABLE
    assert await client.command("GET", "n:1") == UNAVAILABLE


async def test_read_in_flight_gets_what_was_left_at_once(peer: Peer, serve: Serve) -> None:
    """A read whose link dies is served without waiting for the next link."""
    proxy, client = await with_value(serve, peer, settings_of(l1={"max_age_s": 0.3}))
    await trio.sleep(0.35)

    def die(link: PeerLink, _: list[bytes]) -> None:
        peer.on("GET", None)
        link.close()

    peer.on("GET", die)

    assert await client.command("GET", "n:1") == VALUE
    assert proxy.worker.stats.failed == 0


async def test_bound_in_bytes_is_kept(peer: Peer, serve: Serve) -> None:
    """outage.stale_bytes bounds what is kept; what came last stays."""
    settings = settings_of(
        outage={"stale_bytes": 2000}, classes=(ClassSettings("news", ("n:*",), stale_if_error_s=30),)
    )
    proxy = await serve(peer, settings)
    client = await proxy.connect()
    for number in range(40):
        assert await client.command("SET", f"n:{number}", "x" * 20) == OK
    await proxy.settled()
    for _ in range(2):
        for number in range(40):
            await client.command("GET", f"n:{number}")
    await until(lambda: len(proxy.worker.engine.l1) == 40, "L1 holds all")
    await peer.refuse()
    remains = proxy.worker.engine.outage.remains
    await until(lambda: 0 < len(remains) < 40, "it is sifted")

    assert 0 < remains.bytes <= 2000
    assert await client.command("GET", "n:39") == b"$20\r\n" + b"x" * 20 + b"\r\n"
    assert await client.command("GET", "n:0") == UNAVAILABLE
