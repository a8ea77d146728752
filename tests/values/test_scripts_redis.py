"""The scripts, run by real servers: what they compare, what they change, and what they leave alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from hashlib import sha1

import pytest

from proxy.values.changes import set_fences
from proxy.values.clock import AHEAD_MAX_MS, version_at
from proxy.values.envelope import MAGIC, wrap
from proxy.values.scripts import CLOCK_KEY, facts, peek, purge, set_newer, swap
from proxy.wire.reply import elements, text

from ..e2e.raw import RawClient
from ..e2e.servers import Server

NIL = b"$-1\r\n"
ODD = bytes(range(256))
TOP = (1 << 63) - 1
# The lower first: neighbours in the low 16 bits, across them, across the halves, and where doubles are not exact.
PAIRS = [
    *((1, 2), (0xFFFE, 0xFFFF), (0xFFFF, 0x10000), ((1 << 32) - 1, 1 << 32), ((1 << 53), (1 << 53) + 1)),
    *(
        (TOP - 1, TOP),
        (TOP, TOP + 1),
        ((1 << 64) - 2, (1 << 64) - 1),
        ((5 << 32) + 1, (6 << 32)),
        (9 << 40, 9 << 40 | 1),
    ),
]


@pytest.fixture
def client(server: Server) -> Iterator[RawClient]:
    """Connect to it, empty but for a key of each other type."""
    with server.connect() as connection:
        connection.command("FLUSHALL")
        connection.command("LPUSH", "list", MAGIC)
        connection.command("HSET", "hash", "a", "b")
        connection.command("XADD", "stream", "*", "a", "b")
        yield connection


def ask(client: RawClient, raw: bytes) -> bytes:
    """Send a command of ours."""
    client.send(raw)
    return client.frame()


def get(client: RawClient, key: bytes) -> bytes:
    """Return what a key holds."""
    return text(client.command("GET", key))


def server_time(client: RawClient) -> int:
    """Return the server's time as a version."""
    seconds, us = (int(text(word)) for word in elements(client.command("TIME")))
    return version_at(seconds * 1_000_000 + us)


def test_peek_gives_envelopes_with_their_digest(client: RawClient) -> None:
    """A value that begins as an envelope comes with the digest of its bytes; all else is nil."""
    wrapped = wrap(ODD, 5)
    client.command("MSET", "a", wrapped, "plain", "x", "empty", "", "short", MAGIC[:3], "magic", MAGIC)

    found = elements(ask(client, peek([b"a", b"plain", b"list", b"none", b"empty", b"short", b"hash", b"magic", b"a"])))

    both = [wrapped, sha1(wrapped).hexdigest().encode()]
    assert both == [text(word) for word in elements(found[0])] == [text(word) for word in elements(found[8])]
    assert [NIL] * 6 == found[1:7]
    assert MAGIC == text(elements(found[7])[0])


def test_swap_when_nobody_has_written_keeps_the_ttl(client: RawClient) -> None:
    """The new value is there, and lives as long as the old one would have."""
    client.command("SET", "a", ODD, "PX", 50_000)
    client.command("SET", "b", ODD)
    for key in (b"a", b"b"):
        assert ask(client, swap(key, sha1(ODD).hexdigest().encode(), b"new" + ODD)) == b":1\r\n"

    assert b"new" + ODD == get(client, b"a") == get(client, b"b")
    assert 40_000 < int(text(client.command("PTTL", "a"))) <= 50_000
    assert client.command("PTTL", "b") == b":-1\r\n"


@pytest.mark.parametrize("key", [b"changed", b"gone", b"list", b"hash"])
def test_swap_when_somebody_has_written_changes_nothing(client: RawClient, key: bytes) -> None:
    """Another value, none, or another type: it is left as it is."""
    client.command("SET", "changed", ODD + b"x")
    before = client.command("DUMP", key)

    assert ask(client, swap(key, sha1(ODD).hexdigest().encode(), b"new")) == b":0\r\n"
    assert before == client.command("DUMP", key)


@pytest.mark.parametrize(("lower", "higher"), PAIRS)
def test_purge_what_is_not_newer_than_the_fence(client: RawClient, lower: int, higher: int) -> None:
    """A version equal to the fence's goes, one that is higher by the least there is stays."""
    client.command("MSET", "low", wrap(b"x", lower), "same", wrap(b"x", higher), "high", wrap(b"x", higher))

    assert ask(client, purge([(b"low", higher), (b"same", higher), (b"high", lower)])) == b":2\r\n"
    assert client.command("EXISTS", "low", "same") == b":0\r\n"
    assert client.command("EXISTS", "high") == b":1\r\n"


def test_purge_leaves_what_has_no_version(client: RawClient) -> None:
    """Plain values, envelopes without a version, what is cut short, other types, and what is not there."""
    left = {b"plain": b"x", b"none": wrap(b"x", 0), b"short": wrap(b"x", 5)[:13], b"empty": b""}
    for key, value in left.items():
        client.command("SET", key, value)
    keys = [*left, b"list", b"hash", b"stream", b"missing"]

    assert ask(client, purge([(key, TOP) for key in keys])) == b":0\r\n"
    assert list(left.values()) == [get(client, key) for key in left]
    assert client.command("EXISTS", "list", "hash", "stream") == b":3\r\n"


def test_purge_many_at_random_is_what_comparing_says(client: RawClient) -> None:
    """A thousand keys in one call, each judged by its own version."""
    rng = random.Random(2)
    versions = [rng.getrandbits(rng.randrange(1, 64)) + 1 for _ in range(1000)]
    fences = [max(1, version + rng.choice((-65_536, -1, 0, 1, 1 << 32))) for version in versions]
    client.command("MSET", *(word for at, one in enumerate(versions) for word in (f"k{at}", wrap(b"x", one))))
    gone = [version <= fence for version, fence in zip(versions, fences, strict=True)]

    frame = ask(client, purge([(b"k%d" % at, fence) for at, fence in enumerate(fences)]))

    assert sum(gone) == int(text(frame))
    assert gone == [client.command("EXISTS", f"k{at}") == b":0\r\n" for at in range(1000)]


def test_facts_says_what_a_string_is(client: RawClient) -> None:
    """The first 32 bytes in hex, whatever they are, the size, and the time to live."""
    client.command("SET", "a", ODD, "PX", 50_000)
    client.command("SET", "b", b"\x00\n%")

    kind, head, size, pttl = map(text, elements(ask(client, facts(b"a"))))
    assert (b"string", ODD[:32], b"256") == (kind, bytes.fromhex(head.decode()), size)
    assert 40_000 < int(pttl) <= 50_000
    assert [b"string", b"000a25", b"3", b"-1"] == [text(word) for word in elements(ask(client, facts(b"b")))]


def test_facts_of_other_types_and_of_none(client: RawClient) -> None:
    """Of another type the type alone; a key that is not there has the type none, and no bytes."""
    assert [[b"list"], [b"hash"], [b"stream"]] == [
        [text(word) for word in elements(ask(client, facts(key)))] for key in (b"list", b"hash", b"stream")
    ]
    assert [b"none", b"", b"0", b"-2"] == [text(word) for word in elements(ask(client, facts(b"missing")))]


@pytest.mark.parametrize(("lower", "higher"), [*PAIRS[:5], (100 << 16, 100 << 16 | 1), (5 << 32 | 0xFFFFFFFF, 6 << 32)])
def test_set_newer_only_over_an_older_version(client: RawClient, lower: int, higher: int) -> None:
    """Written over an older one, not over the same and not over a newer one, be it by the last bit."""
    assert ask(client, set_newer(b"a", wrap(b"1", lower), None)) == b":1\r\n"
    assert ask(client, set_newer(b"a", wrap(b"2", lower), None)) == b":0\r\n"
    assert wrap(b"1", lower) == get(client, b"a")
    assert ask(client, set_newer(b"a", wrap(b"3", higher), None)) == b":1\r\n"
    assert ask(client, set_newer(b"a", wrap(b"4", lower), None)) == b":0\r\n"
    assert wrap(b"3", higher) == get(client, b"a")


def test_set_newer_over_what_has_no_version(client: RawClient) -> None:
    """Nothing, a plain value, and an envelope without a version are older than any."""
    client.command("MSET", "plain", "x", "none", wrap(b"x", 0), "short", MAGIC)
    for key in (b"missing", b"plain", b"none", b"short"):
        assert ask(client, set_newer(key, wrap(b"y", 1), None)) == b":1\r\n"
        assert wrap(b"y", 1) == get(client, key)


def test_set_newer_sets_the_ttl_or_takes_it_away(client: RawClient) -> None:
    """As SET does: with a TTL it has that, without it has none; what is not written keeps its own."""
    ask(client, set_newer(b"a", wrap(b"1", 5), 50_000))
    assert 40_000 < int(text(client.command("PTTL", "a"))) <= 50_000
    ask(client, set_newer(b"a", wrap(b"2", 5), None))
    assert 40_000 < int(text(client.command("PTTL", "a"))) <= 50_000
    ask(client, set_newer(b"a", wrap(b"3", 6), None))

    assert client.command("PTTL", "a") == b":-1\r\n"


@pytest.mark.parametrize("key", [b"list", b"hash", b"stream"])
def test_set_newer_over_another_type_is_wrong(client: RawClient, key: bytes) -> None:
    """As GETSET says it; the key stays."""
    frame = ask(client, set_newer(key, wrap(b"x", 5), None))

    assert b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n" == frame
    assert client.command("EXISTS", key) == b":1\r\n"


def test_set_newer_more_than_an_hour_ahead_is_refused(client: RawClient) -> None:
    """The bound is exact to what passes meanwhile; up to the end of the range it holds."""
    now = server_time(client)
    for ahead in (now + ((AHEAD_MAX_MS + 2_000) << 16), TOP, TOP + 1, (1 << 64) - 1):
        frame = ask(client, set_newer(b"a", wrap(b"x", ahead), None))
        assert frame.startswith(b"-ERR respite: the version is more than an hour ahead"), ahead

    assert client.command("EXISTS", "a", CLOCK_KEY) == b":0\r\n"
    assert ask(client, set_newer(b"a", wrap(b"x", now + (AHEAD_MAX_MS << 16)), None)) == b":1\r\n"


def test_set_newer_ahead_of_the_server_a_fence_set_after_covers_it(client: RawClient) -> None:
    """From any database: the clock key of database 0 remembers it, and the connection stays where it is."""
    ahead = server_time(client) + (600_000 << 16) + 0xFFFF
    client.command("SELECT", 3)
    assert ask(client, set_newer(b"a", wrap(b"x", ahead), None)) == b":1\r\n"
    assert wrap(b"x", ahead) == get(client, b"a")
    assert client.command("EXISTS", CLOCK_KEY) == b":0\r\n"
    client.command("SELECT", 0)
    assert ahead == int(get(client, CLOCK_KEY))

    assert ahead < int(text(ask(client, set_fences(3, [b"a*"], []))))


def test_set_newer_leaves_a_clock_that_is_further_on(client: RawClient) -> None:
    """The clock key is raised, never lowered; a version of the past is not even noted."""
    now = server_time(client)
    ask(client, set_newer(b"a", wrap(b"x", now - (1 << 16)), None))
    assert client.command("EXISTS", CLOCK_KEY) == b":0\r\n"
    ask(client, set_newer(b"a", wrap(b"x", now + (600_000 << 16)), None))
    ask(client, set_newer(b"b", wrap(b"x", now + (500_000 << 16)), None))

    assert now + (600_000 << 16) == int(get(client, CLOCK_KEY))


def test_set_newer_by_a_user_without_our_keys_writes_his(client: RawClient, server: Server) -> None:
    """Who may write a key may give it a version, though what is noted of it is not his to write."""
    client.command("ACL", "SETUSER", "app", "on", "nopass", "~app:*", "+@all")
    ahead = server_time(client) + (600_000 << 16)
    with server.connect() as app:
        assert app.command("AUTH", "app", "x") == b"+OK\r\n"
        assert ask(app, set_newer(b"app:a", wrap(b"x", ahead), None)) == b":1\r\n"

    assert wrap(b"x", ahead) == get(client, b"app:a")
    assert client.command("EXISTS", CLOCK_KEY) == b":0\r\n"
