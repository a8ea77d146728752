"""Writes taken apart and put together again: held to real servers, that run the app's own words beside ours."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

import pytest

from proxy.values.writes import MOST_MS, Write, asked_ms, parse, rewrite

from ..e2e.raw import RawClient, encode_all
from ..e2e.servers import REQUIRED_KINDS, Kind, Server, find_kind

TTL_MS = 7_300
OTHER_TTL_MS = 60_000
LATE_MS = 900  # what a loaded machine may take between a write and the look at its TTL


class Pair:
    """Two databases of one server: the app's words go to one, what we make of them to the other."""

    def __init__(self, server: Server) -> None:
        self.kind = server.kind
        self.app, self.ours = server.connect(), server.connect()
        self.ours.command("SELECT", 1)

    def now_ms(self) -> int:
        """Ask the server for its time."""
        seconds, micros = map(int, re.findall(rb"\r\n(\d+)", self.app.command("TIME")))
        return seconds * 1000 + micros // 1000

    def close(self) -> None:
        """Close both connections."""
        self.app.close()
        self.ours.close()


@pytest.fixture(scope="module", params=REQUIRED_KINDS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Run a server of each kind that is always there."""
    with Server(find_kind(request.param)) as server:
        found = Pair(server)
        yield found
        found.close()


@pytest.fixture(scope="module")
def valkey() -> Iterator[Pair]:
    """Run a Valkey 9."""
    with Server(find_kind("valkey9")) as server:
        found = Pair(server)
        yield found
        found.close()


def run(client: RawClient, before: Sequence[bytes], words: Sequence[bytes]) -> tuple[bytes, bytes, bytes, int]:
    """Run words on keys that are as `before` says; return the reply, the values of `k` and `m`, and the TTL of `k`."""
    commands = [[b"DEL", b"k", b"m"], *([before] if before else []), words]
    client.send(encode_all([*commands, [b"GET", b"k"], [b"GET", b"m"], [b"PTTL", b"k"]]))
    reply, *values, ttl = client.frames(len(commands) + 3)[len(commands) - 1 :]
    return reply, *values, int(ttl[1:])


BEFORE: tuple[list[bytes], ...] = ([], [b"SET", b"k", b"old"], [b"SET", b"k", b"old", b"PX", b"%d" % OTHER_TTL_MS])
BEFORE_IDS = ("missing", "no TTL", "TTL")

# The app's words, and what its app would have had to write for a TTL of 7.3 s: {s} and {ms} from now on, {S} and {MS}
# as a moment. `=` where the words stay as they are.
FORMS = [
    ("SET k v", "SET k v PX {ms}"),
    ("SET k v NX", "SET k v NX PX {ms}"),
    ("SET k v xx", "SET k v xx PX {ms}"),
    ("SET k v GET", "SET k v GET PX {ms}"),
    ("SET k v XX get", "SET k v XX get PX {ms}"),
    ("set k v EX 100", "set k v EX {s}"),
    ("SET k v px 100000", "SET k v px {ms}"),
    ("SET k v EXAT {S+100}", "SET k v EXAT {S}"),
    ("SET k v pxat {MS+100}", "SET k v pxat {MS}"),
    ("SET k v EX 100 NX", "SET k v EX {s} NX"),
    ("SET k v NX GET Ex 100", "SET k v NX GET Ex {s}"),
    ("SET k v XX PX 100000 GET", "SET k v XX PX {ms} GET"),
    ("SET k v EX 5 EX 100", "SET k v EX 5 EX {s}"),
    ("SET k v EX junk EX 100", "SET k v EX junk EX {s}"),
    ("SET k v KEEPTTL", "="),
    ("SET k v keepttl XX GET", "="),
    ("SET k v PX 4611686018427387905", "="),
    ("SET k v PXAT 1", "="),
    ("SET k v EXAT 1", "="),
    ("SETEX k 100 v", "SETEX k {s} v"),
    ("PSETEX k 100000 v", "PSETEX k {ms} v"),
    ("SETNX k v", "="),
    ("GETSET k v", "="),
    ("MSET k v m w", "="),
    ("MSETNX k v m w", "="),
    ("GETEX k", "="),
    ("GETEX k PERSIST", "="),
    ("GETEX k EX 100", "GETEX k EX {s}"),
    ("GETEX k px 100000", "GETEX k px {ms}"),
    ("GETEX k EXAT {S+100}", "GETEX k EXAT {S}"),
    ("GETEX k PXAT {MS+100}", "GETEX k PXAT {MS}"),
    ("GETEX k PXAT 1", "="),
    ("EXPIRE k 100", "EXPIRE k {s}"),
    ("PEXPIRE k 100000", "PEXPIRE k {ms}"),
    ("EXPIREAT k {S+100}", "EXPIREAT k {S}"),
    ("PEXPIREAT k {MS+100}", "PEXPIREAT k {MS}"),
    ("EXPIRE k 100 NX", "="),
    ("EXPIRE k 100 xx", "="),
    ("PEXPIRE k 100000 GT", "="),
    ("EXPIREAT k {S+100} LT", "="),
    ("PEXPIREAT k {MS+100} XX GT", "="),
    ("EXPIRE k 0", "="),
    ("EXPIRE k -1", "="),
    ("PEXPIRE k -9223372036854775807", "="),
    ("EXPIREAT k 1", "="),
    ("PEXPIREAT k -5", "="),
]
VALKEY_9_FORMS = [
    ("SET k v IFEQ old", "SET k v IFEQ old PX {ms}"),
    ("SET k v ifeq other GET EX 100", "SET k v ifeq other GET EX {s}"),
    ("SET k v PX 100000 IFEQ old", "SET k v PX {ms} IFEQ old"),
    ("MSETEX 2 k v m w", "="),
    ("MSETEX 2 k v m w EX 100", "MSETEX 2 k v m w EX {s}"),
    ("MSETEX 2 k v m w nx pxat {MS+100}", "MSETEX 2 k v m w nx pxat {MS}"),
    ("MSETEX 2 k v m w XX PX 100000", "MSETEX 2 k v m w XX PX {ms}"),
    ("MSETEX 2 k v m w KEEPTTL", "="),
]


def words_of(text: str, now_ms: int) -> list[bytes]:
    """Make words of a form."""
    moment = now_ms + TTL_MS
    numbers = {"{s}": -(-TTL_MS // 1000), "{ms}": TTL_MS, "{S}": -(-moment // 1000), "{MS}": moment}
    numbers |= {"{S+100}": now_ms // 1000 + 100, "{MS+100}": now_ms + 100_000}
    return [str(numbers.get(word, word)).encode() for word in text.split()]


def folded(words: list[bytes], now_ms: int) -> list[bytes]:
    """Give a write a TTL of 7.3 s."""
    write = parse(words[0].upper(), words)
    assert write is not None, words
    return rewrite(write, words, {}, TTL_MS, now_ms)


def check_ttl(pair: Pair, text: str, expected: str, before: list[bytes]) -> None:
    """Hold the words with another TTL to those written by hand, and what a server makes of both: reply, values, TTL."""
    now_ms = pair.now_ms()
    words = words_of(text, now_ms)
    by_hand = words if expected == "=" else words_of(expected, now_ms)

    ours = folded(words, now_ms)
    assert by_hand == ours
    *replies, ttl = run(pair.app, before, by_hand)
    *our_replies, our_ttl = run(pair.ours, before, ours)
    assert replies == our_replies
    assert ttl == pytest.approx(our_ttl, abs=LATE_MS)


def check_values(pair: Pair, text: str, before: list[bytes]) -> None:
    """Replace the values and no TTL: the reply is that of the app's words, what is found afterwards the new values."""
    now_ms = pair.now_ms()
    words = words_of(text, now_ms)
    write = parse(words[0].upper(), words)
    assert write is not None
    sealed = {at: b"\x00sealed\r\n" + words[at] for at in write.value_at}

    ours = rewrite(write, words, sealed, None, now_ms)
    assert [word for at, word in enumerate(words) if at not in sealed] == [
        word for at, word in enumerate(ours) if at not in sealed
    ]
    reply, *values, ttl = run(pair.app, before, words)
    our_reply, *our_values, our_ttl = run(pair.ours, before, ours)
    assert reply == our_reply
    for value, our_value in zip(values, our_values, strict=True):
        new = {b"$1\r\nv\r\n": b"$10\r\n\x00sealed\r\nv\r\n", b"$1\r\nw\r\n": b"$10\r\n\x00sealed\r\nw\r\n"}
        assert new.get(value, value) == our_value
    assert ttl == pytest.approx(our_ttl, abs=LATE_MS)


@pytest.mark.parametrize("before", BEFORE, ids=BEFORE_IDS)
@pytest.mark.parametrize(("text", "expected"), FORMS)
def test_write_of_any_form_is_the_apps_own_with_another_ttl_or_value(
    pair: Pair, text: str, expected: str, before: list[bytes]
) -> None:
    """A server makes of it what it makes of the app's own words; no word is sent besides, but the PX of a SET."""
    check_ttl(pair, text, expected, before)
    check_values(pair, text, before)


@pytest.mark.parametrize("before", BEFORE, ids=BEFORE_IDS)
@pytest.mark.parametrize(("text", "expected"), VALKEY_9_FORMS)
def test_write_of_a_form_that_valkey_has_is_the_apps_own_with_another_ttl_or_value(
    valkey: Pair, text: str, expected: str, before: list[bytes]
) -> None:
    """The same for SET IFEQ and MSETEX, which Redis 7 does not know."""
    check_ttl(valkey, text, expected, before)
    check_values(valkey, text, before)


def random_set(rng: random.Random, now_ms: int, kind: Kind) -> list[bytes]:
    """Make a SET of options in any order and case, some of which go together."""
    numbers = [b"100", b"1", b"0", b"-1", b"01", b"+5", b"", b"x", b"9223372036854775807", b"9223372036854775"]
    numbers += [b"1.5", b" 7", b"%d" % (now_ms // 1000 + 100), b"%d" % (now_ms + 100_000), b"5" * 30]
    words = [b"SET", b"k", b"v"]
    for _ in range(rng.choice((0, 1, 1, 2, 2, 2, 3, 3, 4))):
        option = rng.choice((b"NX", b"XX", b"GET", b"KEEPTTL", b"EX", b"PX", b"EXAT", b"PXAT", b"IFEQ", b"junk"))
        if option == b"IFEQ" and not kind.is_valkey:
            continue
        words.append(bytes(rng.choice((letter, letter | 0x20)) for letter in option))
        if option in {b"EX", b"PX"}:
            words.append(rng.choice((b"100", b"100", rng.choice(numbers))))
        elif option in {b"EXAT", b"PXAT"}:
            words.append(rng.choice((*numbers, *numbers[-3:-1] * 5)))
        elif option == b"IFEQ":
            words.append(rng.choice((b"old", b"EX")))
    return words[: rng.choice((len(words), len(words), len(words), len(words) - 1))]


def test_set_of_options_in_any_order_is_understood_as_servers_do(pair: Pair) -> None:
    """What parses is what a server takes; then its effect is that of the app's words, but for the TTL."""
    rng = random.Random(4)
    taken = 0
    for _ in range(4000):
        now_ms = pair.now_ms()
        words, before = random_set(rng, now_ms, pair.kind), rng.choice(BEFORE)
        *replies, ttl = run(pair.app, before, words)
        write = parse(b"SET", words)
        asked = asked_ms(write, words, now_ms) if write is not None else None
        # One that is too long only once the time of day is added is refused, too, and left as it is.
        is_refused = write is None or (asked or 0) + now_ms >= 2**63
        assert is_refused == replies[0].startswith(b"-"), (words, replies[0])
        if write is None:
            continue
        taken += 1
        ours = rewrite(write, words, {}, TTL_MS, now_ms)
        *our_replies, our_ttl = run(pair.ours, before, ours)
        assert replies == our_replies, (words, ours)
        is_left = write.keep_ttl or (asked is not None and not 0 < asked <= MOST_MS)
        has_set = replies[1] == b"$1\r\nv\r\n"
        if has_set and not is_left:
            assert our_ttl == pytest.approx(TTL_MS, abs=LATE_MS + 1000), (words, ours)
        else:
            assert ttl == pytest.approx(our_ttl, abs=LATE_MS), (words, ours)
        if asked is not None and 0 < asked <= MOST_MS and has_set:
            assert ttl == pytest.approx(asked, abs=LATE_MS), words
    assert taken > 1000


@pytest.mark.parametrize(
    "text",
    [
        *("SET k", "SET k v EX", "SET k v EX 0", "SET k v EX -1", "SET k v EX 1.0", "SET k v PX 9223372036854775808"),
        *("SET k v EX 10 PX 10", "SET k v EX 10 KEEPTTL", "SET k v NX XX", "SET k v FOO", "SET k v PERSIST"),
        *("SET k v EX 9223372036854776", "SET k v EXAT 0", "SETEX k 0 v", "SETEX k x v", "SETEX k 10", "SETEX k 1 v w"),
        *("PSETEX k -1 v", "SETNX k", "SETNX k v w", "GETSET k", "MSET k", "MSET k v m", "MSETNX", "GETEX"),
        *("GETEX k EX", "GETEX k EX 0", "GETEX k KEEPTTL", "GETEX k EX 10 PERSIST", "GETEX k NX", "EXPIRE k"),
        *("EXPIRE k x", "EXPIRE k 9223372036854776", "EXPIRE k 10 NX XX", "EXPIRE k 10 GT LT", "EXPIRE k 10 FOO"),
        *("EXPIRE k 10 NXX", "PEXPIREAT k 1.5"),
    ],
)
def test_what_a_server_refuses_is_not_taken_apart(pair: Pair, text: str) -> None:
    """The server has the words for it."""
    words = text.encode().split()

    assert parse(words[0], words) is None
    assert run(pair.app, [b"SET", b"k", b"old"], words)[0].startswith(b"-")


@pytest.mark.parametrize(
    "text", ["MSETEX", "MSETEX 0 k v", "MSETEX 2 k v", "MSETEX x k v", "MSETEX 1 k v EX 0", "MSETEX 1 k v m w"]
)
def test_malformed_msetex_is_not_taken_apart(text: str) -> None:
    """Whichever server is behind."""
    words = text.encode().split()

    assert parse(words[0], words) is None


@pytest.mark.parametrize("name", [b"GET", b"APPEND", b"HSET", b"PERSIST", b"INCR", b"SETRANGE", b"HEXPIRE", b""])
def test_other_commands_are_not_taken_apart(name: bytes) -> None:
    """Those that carry no whole string value and no TTL of a key."""
    assert parse(name, [name, b"k", b"10", b"v"]) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SET k v", None),
        ("SET k v EX 10", 10_000),
        ("SET k v PX 10", 10),
        ("SET k v EXAT 1003", 3_000),
        ("SET k v PXAT 1000001", 1),
        ("SET k v KEEPTTL", None),
        ("PSETEX k 5 v", 5),
        ("GETEX k", None),
        ("EXPIRE k -1", -1_000),
        ("PEXPIREAT k 999999", -1),
        ("EXPIRE k 10 GT", None),
        ("MSET k v", None),
    ],
)
def test_asked_ms_is_what_the_app_asks_for_from_now_on(text: str, expected: int | None) -> None:
    """At 1,000,000 ms of the server's time; None where the TTL is not asked for, or depends on the one there is."""
    words = text.encode().split()
    write = parse(words[0], words)
    assert write is not None

    assert expected == asked_ms(write, words, 1_000_000)


def test_moment_is_left_alone_while_the_servers_time_is_not_known() -> None:
    """What it asks for cannot be told, and no other moment can be made of a TTL."""
    words = [b"SET", b"k", b"v", b"EXAT", b"1700000000"]
    write = parse(b"SET", words)
    assert write is not None

    assert asked_ms(write, words, 0) == 0
    assert words == rewrite(write, words, {}, TTL_MS, 0)
    assert rewrite(write, words, {}, TTL_MS, 1_600_000_000_000) != words


@pytest.mark.parametrize(("ttl_ms", "seconds"), [(1, b"1"), (999, b"1"), (1000, b"1"), (1001, b"2"), (30_000, b"30")])
def test_whole_seconds_are_rounded_up(ttl_ms: int, seconds: bytes) -> None:
    """Never to 0, which Redis refuses; never above a bound of whole seconds."""
    words = [b"SETEX", b"k", b"10", b"v"]
    write = parse(b"SETEX", words)
    assert write is not None

    assert [b"SETEX", b"k", seconds, b"v"] == rewrite(write, words, {}, ttl_ms, 0)


def test_write_names_where_its_values_stand() -> None:
    """One place a key, in the order of the keys; words that are views as well as bytes."""
    words: list[bytes] = [b"MSETEX", b"2", b"a", b"EX", b"NX", memoryview(b"large"), b"PX", b"5"]  # type: ignore[list-item]

    assert Write((b"a", b"NX"), (3, 5), 7, "ms", ttl_absolute=False) == parse(b"MSETEX", words)
    assert Write((b"k", b"m"), (2, 4), keep_ttl=True) == parse(b"MSET", [b"MSET", b"k", b"v", b"m", b"w"])
    assert parse(b"SET", [b"SET", memoryview(b"k"), memoryview(b"v" * 9), memoryview(b"e" * 9)]) is None  # type: ignore[list-item]
    assert parse(b"SET", [b"SET", memoryview(b"k"), memoryview(b"v" * 9)]) == Write((b"k",), (2,))  # type: ignore[list-item]


def test_getex_alone_is_a_read_too() -> None:
    """Who counts reads must count it: an app may read with nothing else."""
    found = {
        text: parse(text.split()[0].encode(), text.encode().split())
        for text in ("GETEX k EX 10", "SET k v EX 10", "EXPIRE k 10")
    }

    assert [True, False, False] == [write is not None and write.is_read for write in found.values()]
