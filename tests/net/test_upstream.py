"""Data links: what clients read when one is lost, how it comes back, and how many there are."""

from __future__ import annotations

import pytest
import trio

from proxy import errors
from proxy.net import timers as timers_module
from proxy.net.links import upstream as upstream_module
from proxy.wire.encode import command

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Client, Proxy
from .peer import Peer, PeerLink, error, until

UNAVAILABLE = errors.UPSTREAM_UNAVAILABLE
LOST = errors.UPSTREAM_LOST
TIMED_OUT = errors.UPSTREAM_TIMED_OUT
OK = b"+OK\r\n"


async def _linked(proxy: Proxy) -> Client:
    """Connect a client whose data link stands."""
    client = await proxy.connect()
    assert await client.command("STRLEN", "k") == b":0\r\n"
    await proxy.settled()
    return client


async def _owed(proxy: Proxy, count: int) -> None:
    """Wait until clients are owed so many replies."""
    await until(
        lambda: sum(slot.left for client in proxy.worker.clients for slot in client.queue) == count,
        f"{count} replies are owed",
    )


# -- what the client reads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("INCR", "n"), ("GET", "k"), ("STRLEN", "k"), ("FLUSHALL",), ("MGET", "a", "b")])
async def test_link_that_never_stood_answers_unavailable(peer: Peer, serve: Serve, words: tuple[str, ...]) -> None:
    """A command that waited for the first attempt, which failed, was never sent: it can be tried again."""
    proxy = await serve(peer, upstream={"response_timeout_s": 0.2})
    client = await proxy.connect()
    peer.stop("data")

    assert await client.command(*words) == UNAVAILABLE
    assert peer.seen(words[0]) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("INCR", "n"), LOST),
        (("SET", "k", "v"), LOST),
        (("FLUSHALL",), LOST),
        (("EVAL", "set a b", "0"), LOST),
        (("PUBLISH", "ch", "hi"), LOST),
        (("GET", "k"), UNAVAILABLE),
        (("MGET", "a", "b"), UNAVAILABLE),
        (("STRLEN", "k"), UNAVAILABLE),
    ],
)
async def test_link_lost_with_a_command_on_it_says_whether_it_may_have_been_applied(
    peer: Peer, serve: Serve, words: tuple[str, ...], expected: bytes
) -> None:
    """A write that was sent may have been applied; a read is asked once more, and no third time."""
    proxy = await serve(peer)
    client = await _linked(proxy)
    before = len(peer.seen(words[0]))
    peer.close_on(words[0])

    assert await client.command(*words) == expected
    assert len(peer.seen(words[0])) == before + (1 if expected == LOST else 2)


@pytest.mark.parametrize("words", [("GET", "k"), ("MGET", "a", "k"), ("STRLEN", "k"), ("PTTL", "k")])
@pytest.mark.parametrize("is_kept", [True, False])
async def test_read_whose_link_is_lost_is_answered_by_the_next(
    peer: Peer, serve: Serve, words: tuple[str, ...], *, is_kept: bool
) -> None:
    """Nothing is lost with the link of a read: it is asked once more, whether L1 is to hold it or not."""
    proxy = await serve(peer, rollout={"mode": "on" if is_kept else "off"})
    client = await (_linked(proxy) if is_kept else proxy.connect())
    assert await client.command("SET", "k", "v") == OK
    expected = await client.command(*words)
    assert await client.command("SET", "k", "v") == OK

    def close_once(link: PeerLink, _: list[bytes]) -> None:
        peer.as_usual(words[0])
        link.close()

    peer.on(words[0], close_once)

    assert await client.command(*words) == expected
    assert proxy.worker.engine.outage.retried == 1
    assert proxy.worker.stats.failed == 0


async def test_read_with_a_write_behind_it_is_not_asked_once_more(peer: Peer, serve: Serve) -> None:
    """The write may have been applied: the read would see what its client asked for later."""
    proxy = await serve(peer)
    client = await _linked(proxy)
    peer.stop("data")
    await client.send_raw(command("GET", "k") + command("SET", "k", "v"))
    (link,) = peer.of("data")
    await until(lambda: len(link.model.unread) == 3, "both have arrived, and the PTTL")
    peer.go_on("data")
    peer.kill("data")

    assert await client.frames(2) == [UNAVAILABLE, LOST]


@pytest.mark.parametrize("words", [("INCR", "n"), ("GET", "k"), ("FLUSHALL",)])
async def test_link_that_answers_nothing_times_out(peer: Peer, serve: Serve, words: tuple[str, ...]) -> None:
    """A command without a reply for response_timeout is answered, and its link closed."""
    proxy = await serve(peer, upstream={"response_timeout_s": 0.3})
    client = await _linked(proxy)
    (link,) = peer.of("data")
    peer.stop("data")
    began = trio.current_time()

    assert await client.command(*words) == TIMED_OUT
    assert 0.3 <= trio.current_time() - began < 1.5
    await until(lambda: link.is_closed, "the link is closed")


async def test_link_lost_in_a_pipeline_answers_each_command_in_order(peer: Peer, serve: Serve) -> None:
    """What was answered stays answered; the rest is told apart, write from read."""
    proxy = await serve(peer)
    client = await _linked(proxy)

    def answer_and_stop(link: PeerLink, words: list[bytes]) -> bytes:
        peer.stop("data")
        return b":7\r\n"

    peer.on("SLY", answer_and_stop)
    sent = [("INCR", "n"), ("SLY", "x", "y"), ("GET", "k"), ("SET", "k", "v"), ("STRLEN", "k"), ("INCR", "n")]
    await client.send_raw(b"".join(command(*words) for words in sent))

    assert await client.frames(2) == [b":1\r\n", b":7\r\n"]
    peer.kill("data")
    assert await client.frames(4) == [UNAVAILABLE, LOST, UNAVAILABLE, LOST]


async def test_link_lost_inside_a_short_reply_has_the_read_asked_again(peer: Peer, serve: Serve) -> None:
    """Half a reply that has not been forwarded is thrown away."""
    proxy = await serve(peer)
    client = await _linked(proxy)
    (link,) = peer.of("data")
    peer.on("STRLEN", b"$100\r\nhalf")
    await client.send("STRLEN", "k")
    (group,) = proxy.worker.links.groups.values()
    fifo = group.links[0].fifo
    await until(lambda: bool(fifo) and fifo[0].parts is not None, "half of the reply has arrived")
    peer.as_usual("STRLEN")
    link.close()

    assert await client.frame() == b":0\r\n"


async def test_link_lost_inside_a_streamed_reply_closes_the_client(peer: Peer, serve: Serve) -> None:
    """A client that has half of a large reply can be told nothing more: it is closed, and only it."""
    proxy = await serve(peer)
    client, other = await _linked(proxy), await proxy.connect()
    assert await other.command("STRLEN", "k") == b":0\r\n"
    (link,) = peer.of("data")
    peer.on("SLY", b"$200000\r\n" + b"x" * 150_000)
    await client.send("SLY", "x", "y")
    half = b""
    while len(half) < 100_000:
        half += await client.stream.receive_some(1 << 16)
    link.close()

    assert set(half + await client.until_closed()) <= set(b"$200000\r\nx")
    await until(lambda: peer.of("data"), "a new link")
    assert await other.command("STRLEN", "k") == b":0\r\n"


# -- never twice -------------------------------------------------------------------------------------------------------


async def test_link_lost_sends_nothing_again(peer: Peer, serve: Serve) -> None:
    """Neither writes nor reads are repeated on the next link."""
    proxy = await serve(peer)
    client = await _linked(proxy)
    for number in range(1, 11):
        peer.close_on("INCR")
        assert await client.command("INCR", "n") == LOST
        await until(lambda: peer.of("data"), "a new link")
        peer.as_usual("INCR")
        assert await client.command("STRLEN", "n") in (b":0\r\n", b":1\r\n", b":2\r\n")
        assert await client.command("INCR", "n") == b":%d\r\n" % number

    assert len(peer.seen("INCR")) == 20
    assert len(peer.seen("STRLEN")) == 11


async def test_commands_of_the_first_attempt_wait_and_keep_their_order(peer: Peer, serve: Serve) -> None:
    """What comes while the first link is being opened is sent once it stands, in its order, once."""
    proxy = await serve(peer)
    client = await proxy.connect()
    peer.stop("data")
    await client.send_raw(b"".join(command("INCR", "n") for _ in range(200)))
    await _owed(proxy, 200)
    await client.send("GET", "n")
    await _owed(proxy, 201)
    peer.go_on("data")

    assert await client.frames(200) == [b":%d\r\n" % number for number in range(1, 201)]
    assert await client.frame() == b"$3\r\n200\r\n"


# -- while Redis is away -----------------------------------------------------------------------------------------------


async def test_commands_fail_at_once_while_redis_is_away(peer: Peer, serve: Serve) -> None:
    """Nobody waits for a Redis that is known to be away, whatever the command needs."""
    proxy = await serve(peer, upstream={"connect_timeout_s": 30.0, "response_timeout_s": 30.0})
    client = await _linked(proxy)
    await peer.refuse()
    await until(lambda: proxy.worker.links.groups and _failures(proxy) > 0, "the loss is known")

    began = trio.current_time()
    for _ in range(20):
        for words in (("GET", "k"), ("INCR", "n"), ("FLUSHALL",), ("MGET", "a"), ("MULTI",), ("BLPOP", "q", "0")):
            assert await client.command(*words) == UNAVAILABLE
    assert await client.command("SELECT", "3") == UNAVAILABLE
    assert trio.current_time() - began < 2
    assert await client.command("CLIENT", "GETNAME") == b"$-1\r\n"


def _failures(proxy: Proxy) -> int:
    return max(group.failures for group in proxy.worker.links.groups.values())


async def test_redis_that_returns_is_found_within_two_seconds(peer: Peer, serve: Serve) -> None:
    """However long Redis was away, the first command is answered soon after its return, on the same connection."""
    proxy = await serve(peer)
    client = await _linked(proxy)
    await peer.refuse()
    breaker = proxy.worker.engine.outage.breaker
    await until(lambda: breaker.failures >= 9, "nine attempts have failed", timeout_s=10)

    peer.listen()
    back_at = trio.current_time()
    while (reply := await client.command("INCR", "n")) == UNAVAILABLE:
        assert trio.current_time() - back_at < 2

    assert reply == b":1\r\n"
    await proxy.settled()
    assert trio.current_time() - back_at < 3


async def test_redis_that_accepts_and_closes_is_asked_more_and_more_seldom(peer: Peer, serve: Serve) -> None:
    """Attempts that fail are repeated with a growing delay."""
    proxy = await serve(peer)
    client = await _linked(proxy)
    peer.close_on("PING")
    peer.close_on("INFO")
    peer.kill()
    accepted = peer.accepted
    began = trio.current_time()
    while trio.current_time() - began < 1.5:
        assert await client.command("GET", "k") == UNAVAILABLE
        await trio.sleep(0.002)

    assert 6 <= peer.accepted - accepted <= 24  # a data link and the invalidation link: some 7 attempts each


async def test_link_refused_by_redis_relays_its_words(redis: Server, serve: Serve) -> None:
    """Who logged in once and is not let in any more reads why, and must log in again: the session is closed."""
    proxy = await serve(redis)
    alice, other = await proxy.connect(), await _linked(proxy)
    assert await alice.command("AUTH", "alice", "pw") == OK
    assert await alice.command("INCR", "n") == b":1\r\n"
    with redis.connect() as direct:
        assert direct.command("ACL", "SETUSER", "alice", "resetpass", ">new") == OK
        assert direct.command("CLIENT", "KILL", "USER", "alice") != b":0\r\n"

    replies = await alice.until_closed()
    assert replies == b"" or replies.startswith(b"-WRONGPASS")
    assert await other.command("GET", "n") == b"$1\r\n1\r\n"


# -- how many links ----------------------------------------------------------------------------------------------------


async def test_group_without_clients_is_given_up(peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database nobody uses any more keeps no link and nothing in L1; one with an idle client does."""
    monkeypatch.setattr(upstream_module, "IDLE_S", 0.15)
    proxy = await serve(peer)
    kept, leaver = await _linked(proxy), await proxy.connect()
    assert await leaver.command("SELECT", "3") == OK
    await leaver.command("SET", "k", "v")
    await until(lambda: all(row["tracked"] for row in proxy.links("data")), "tracked")
    for _ in range(2):
        assert await leaver.command("GET", "k") == b"$1\r\nv\r\n"
    assert proxy.stats()["l1"]["entries"] == 1

    leaver.close()
    await until(lambda: [row["db"] for row in proxy.links("data")] == [0], "the link of database 3 is given up")

    await until(lambda: len(peer.of("data")) == 1, "its connection is closed")
    assert proxy.stats()["l1"]["entries"] == 0
    assert [scope.db for scope in proxy.worker.engine.l1.namespaces] == [0]
    assert await kept.command("STRLEN", "k") == b":0\r\n"
    assert await kept.command("SELECT", "3") == OK
    assert await kept.command("GET", "k") == b"$1\r\nv\r\n"


async def test_slow_reader_stalls_one_link_and_others_get_another(
    peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a large reply waits for its slow client the group's other clients travel on a second link."""
    monkeypatch.setattr(timers_module, "STALL_S", 60.0)
    proxy = await serve(peer)
    other = await _linked(proxy)
    large = b"v" * 60_000_000
    peer.on("SLY", b"$%d\r\n%b\r\n" % (len(large), large))
    slow = await proxy.connect_narrow()
    await slow.send("SLY", "x", "y")
    await until(lambda: proxy.worker.stalled, "the link is read no further")

    began = trio.current_time()
    assert [await other.command("INCR", "n") for _ in range(50)] == [b":%d\r\n" % n for n in range(1, 51)]
    assert trio.current_time() - began < 1
    assert [row["state"] for row in proxy.links("data")] == ["up", "up"]
    assert await slow.frame(20) == b"$%d\r\n%b\r\n" % (len(large), large)
    assert await slow.command("INCR", "n") == b":51\r\n"


async def test_link_lost_drops_what_it_fed(peer: Peer, serve: Serve) -> None:
    """With the link Redis forgets what it read: what L1 holds of it would never be invalidated."""
    proxy = await serve(peer)
    client, elsewhere = await _linked(proxy), await proxy.connect()
    assert await elsewhere.command("SELECT", "1") == OK
    assert await elsewhere.command("STRLEN", "k") == b":0\r\n"
    await proxy.settled()
    for _ in range(2):
        await client.command("GET", "k")
        await elsewhere.command("GET", "k")
    assert proxy.stats()["l1"]["entries"] == 2
    (link,) = [link for link in peer.of("data") if link.model.db == 0]

    peer.stop("control")
    link.close()
    await until(lambda: proxy.stats()["l1"]["entries"] == 1, "one entry is dropped")
    peer.model.foreign("SET", "k", "new")
    peer.go_on("control")

    await until(lambda: len(peer.of("data")) == 2, "a new link")
    assert await client.command("GET", "k") == b"$3\r\nnew\r\n"


async def test_link_error_replies_are_the_clients(peer: Peer, serve: Serve) -> None:
    """An error of Redis is a reply like any other: the link stays."""

    def oom(link: PeerLink, words: list[bytes]) -> bytes:
        return error("OOM command not allowed when used memory > 'maxmemory'.")

    proxy = await serve(peer)
    client = await _linked(proxy)
    peer.on("INCR", oom)
    accepted = peer.accepted

    assert (await client.command("INCR", "n")).startswith(b"-OOM")
    assert peer.accepted == accepted
