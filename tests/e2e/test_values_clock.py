"""Versions come from Redis' time: two proxies whose machines' clocks are an hour apart order writes alike."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest

from .raw import RawClient
from .servers import Kind, Server, wait_for
from .values_checker import LaunchedRespite, running

HOUR_S = 3600
BITS = 16  # of a version: the fraction of its millisecond
NIL, OK = b"$-1\r\n", b"+OK\r\n"
NOT_OURS = b"-ERR respite: the class of the key has no version = true\r\n"
BAD_VERSION = (
    b"-ERR respite: a version is a positive integer: milliseconds since 1970, or what RESPITE VERSION says\r\n"
)
TOO_FAR = b"-ERR respite: the version is more than an hour ahead of the server\r\n"
CLASSES: Sequence[Mapping[str, Any]] = (
    {"name": "items", "match": ["item:*"], "version": True, "tags": ["all"]},
    {"name": "others", "match": ["other:*"]},
)
SHIFTED = """
import datetime, time

def shift(function, by):
    return lambda *args: function(*args) + by

time.time, time.time_ns = shift(time.time, {by}), shift(time.time_ns, {by} * 10**9)
of, of_ns = time.clock_gettime, time.clock_gettime_ns
time.clock_gettime = lambda clock: of(clock) + (clock == time.CLOCK_REALTIME) * {by}
time.clock_gettime_ns = lambda clock: of_ns(clock) + (clock == time.CLOCK_REALTIME) * {by} * 10**9

class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls):
        return cls.now(datetime.timezone.utc).replace(tzinfo=None)

datetime.datetime = Shifted
"""


@attrs.frozen
class Setup:
    """A server, and a client of each of two proxies on it; the clock of the second one is wrong."""

    server: Server
    clients: Sequence[RawClient]


def shifted_path(directory: Path, by_s: int) -> Path:
    """Make a directory that shifts the clock of every Python which has it on its path."""
    (directory / "sitecustomize.py").write_text(SHIFTED.format(by=by_s))
    return directory


@pytest.fixture(scope="module", params=[HOUR_S, -HOUR_S], ids=["ahead", "behind"])
def setup(request: pytest.FixtureRequest, redis7: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """Run them."""
    path = shifted_path(tmp_path_factory.mktemp("clock"), request.param)
    with ExitStack() as stack:
        server = stack.enter_context(Server(redis7))
        settings = {"upstream": {"url": server.url}, "class": list(CLASSES), "log": {"level": "error"}}
        respites = [stack.enter_context(running(LaunchedRespite(settings, path=found))) for found in (None, path)]
        yield Setup(server, [stack.enter_context(respite.connect()) for respite in respites])


def version_of(client: RawClient, key: str) -> int:
    """Ask for the version of a key's value."""
    reply = client.command("RESPITE", "VERSION", key)
    assert reply[:1] == b":", reply
    return int(reply[1:])


def get(client: RawClient, key: str) -> bytes | None:
    """Read a key."""
    reply = client.command("GET", key)
    return None if reply == NIL else reply.split(b"\r\n")[1]


def server_ms(setup: Setup) -> int:
    """Ask the server for its time."""
    with setup.server.connect() as direct:
        words = direct.command("TIME").split(b"\r\n")
    return int(words[2]) * 1000 + int(words[4]) // 1000


def test_shifted_clock_is_shifted(tmp_path: Path) -> None:
    """What these tests rest upon: a process started so has the wrong time, and the right monotonic one."""
    code = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp(), time.monotonic())"
    environment = {**os.environ, "PYTHONPATH": str(shifted_path(tmp_path, HOUR_S))}
    words = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    wall, shown, monotonic = map(float, words.stdout.split())

    assert abs(wall - time.time() - HOUR_S) < 60
    assert abs(shown - time.time() - HOUR_S) < 60
    assert abs(monotonic - time.monotonic()) < 60


def test_versions_of_writes_after_reads_through_either_proxy_rise(setup: Setup) -> None:
    """Who has read the other's value writes a later version, however soon."""
    rng = random.Random(4)
    versions = []
    for number in range(200):
        client = setup.clients[rng.randrange(2)]
        client.command("GET", "item:read")
        assert client.command("SET", "item:read", f"value {number}") == OK
        versions.append(version_of(client, "item:read"))

    assert versions == sorted(set(versions))


def test_versions_of_writes_that_alternate_rise_and_are_the_server_s_time(setup: Setup) -> None:
    """Of different keys, and without a read between them: both proxies have learnt the time from the server."""
    before_ms = server_ms(setup)
    for number in range(40):
        assert setup.clients[number % 2].command("SET", f"item:blind:{number}", "x") == OK
        time.sleep(0.05)  # more than it takes to learn the time: by that much one of them may be behind
    versions = [version_of(setup.clients[0], f"item:blind:{number}") for number in range(40)]
    after_ms = server_ms(setup)

    assert versions == sorted(set(versions))
    assert before_ms - 1_000 <= versions[0] >> BITS
    assert versions[-1] >> BITS <= after_ms


def test_setv_writes_over_what_is_older_only(setup: Setup) -> None:
    """Through either proxy, over a value that the other one wrote: 1 and the value, or 0 and nothing."""
    for writer, other in (setup.clients, setup.clients[::-1]):
        assert writer.command("SET", "item:setv", "first") == OK
        version = version_of(writer, "item:setv")

        assert other.command("RESPITE", "SETV", "item:setv", version - 1, "older") == b":0\r\n"
        assert other.command("RESPITE", "SETV", "item:setv", version, "equal") == b":0\r\n"
        assert get(writer, "item:setv") == get(other, "item:setv") == b"first"
        assert other.command("RESPITE", "SETV", "item:setv", version + 1, "newer") == b":1\r\n"
        assert get(other, "item:setv") == b"newer"
        wait_for(lambda writer=writer: get(writer, "item:setv") == b"newer", what="the other one hears")  # type: ignore[misc]
        assert version_of(writer, "item:setv") == version + 1


def test_setv_takes_milliseconds(setup: Setup) -> None:
    """A small number is milliseconds since 1970: those of the stored version are not newer, the next ones are."""
    ours, theirs = setup.clients
    assert ours.command("SET", "item:ms", "first") == OK
    ms = version_of(ours, "item:ms") >> BITS

    assert theirs.command("RESPITE", "SETV", "item:ms", ms, "same") == b":0\r\n"
    assert theirs.command("RESPITE", "SETV", "item:ms", ms + 1, "next") == b":1\r\n"
    assert version_of(ours, "item:ms") == (ms + 1) << BITS
    assert get(theirs, "item:ms") == b"next"


def test_setv_of_a_key_that_is_not_there_or_has_no_version_writes(setup: Setup) -> None:
    """Any version is newer than none."""
    client = setup.clients[1]
    with setup.server.connect() as direct:
        direct.command("DEL", "item:none")
        assert client.command("RESPITE", "SETV", "item:none", 1, "first") == b":1\r\n"
        assert direct.command("SET", "item:none", "by somebody else") == OK
    assert client.command("RESPITE", "SETV", "item:none", 1, "second") == b":1\r\n"
    assert client.command("RESPITE", "VERSION", "item:none") == b":%d\r\n" % (1 << BITS)


def test_setv_with_a_life_gives_it_and_without_one_none(setup: Setup) -> None:
    """EX in seconds, PX in milliseconds, in any case."""
    client = setup.clients[1]
    for number, (words, low, high) in enumerate(
        ((("EX", 100), 90_000, 100_000), (("px", 5_000), 3_000, 5_000), ((), -1, -1)), start=1
    ):
        assert client.command("RESPITE", "SETV", "item:life", number, "x", *words) == b":1\r\n"
        assert low <= int(client.command("PTTL", "item:life")[1:]) <= high


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (("other:1", 1, "x"), NOT_OURS),
        (("nowhere", 1, "x"), NOT_OURS),
        (("item:w", "abc", "x"), BAD_VERSION),
        (("item:w", 0, "x"), BAD_VERSION),
        (("item:w", -1, "x"), BAD_VERSION),
        (("item:w", 1 << 63, "x"), BAD_VERSION),
        (("item:w", 1, "x", "KEEPTTL"), b"-ERR syntax error\r\n"),
        (("item:w", 1, "x", "EX"), b"-ERR syntax error\r\n"),
        (("item:w", 1, "x", "EX", 1, "PX"), b"-ERR syntax error\r\n"),
        (("item:w", 1, "x", "EX", 0), b"-ERR invalid expire time in 'respite' command\r\n"),
        (("item:w", 1, "x", "PX", "abc"), b"-ERR invalid expire time in 'respite' command\r\n"),
    ],
)
def test_setv_of_wrong_words_is_an_error_and_writes_nothing(
    setup: Setup, words: Sequence[str | int], reply: bytes
) -> None:
    """What is wrong is said."""
    client = setup.clients[1]

    assert client.command("RESPITE", "SETV", *words) == reply
    assert get(client, str(words[0])) is None


def test_setv_of_too_few_words_and_of_another_type_is_refused(setup: Setup) -> None:
    """As Redis refuses them."""
    client = setup.clients[0]
    client.command("RPUSH", "item:list", "x")

    assert client.command("RESPITE", "SETV", "item:w", 1)[:1] == b"-"
    assert client.command("RESPITE", "SETV", "item:list", 1, "x")[:10] == b"-WRONGTYPE"


def test_setv_more_than_an_hour_ahead_of_the_server_is_refused_by_both(setup: Setup) -> None:
    """The hour is the server's; half of it is taken, and so is what is written by others after it."""
    ahead_ms = server_ms(setup) + 1000 * HOUR_S
    for number, client in enumerate(setup.clients):
        key = f"item:ahead:{number}"
        assert client.command("RESPITE", "SETV", key, ahead_ms + 60_000, "x") == TOO_FAR
        assert client.command("RESPITE", "SETV", key, (ahead_ms + 60_000) << BITS, "x") == TOO_FAR
        assert get(client, key) is None


def test_fence_of_one_covers_the_writes_of_the_other(setup: Setup) -> None:
    """Those before it, and not those after it; at once, and when the sweep has passed."""
    for number, (one, other) in enumerate((setup.clients, setup.clients[::-1])):
        key = f"item:fenced:{number}"
        assert other.command("SET", key, "old") == OK
        assert get(one, key) == get(other, key) == b"old"
        assert one.command("RESPITE", "INVALIDATE", "MATCH", "item:fenced:*")[:1] == b":"

        assert get(one, key) is None
        wait_for(lambda other=other, key=key: get(other, key) is None, what="the other one hears")  # type: ignore[misc]
        assert other.command("SET", key, "new") == OK
        assert get(other, key) == get(one, key) == b"new"
        wait_until_swept(setup)
        assert get(other, key) == get(one, key) == b"new"


def test_fence_covers_a_version_that_is_ahead_of_the_server_and_writes_after_it_live(setup: Setup) -> None:
    """Half an hour ahead: the fence is above it, and both write above the fence. So does a proxy that starts later."""
    ours, theirs = setup.clients
    ahead_ms = server_ms(setup) + 500 * HOUR_S
    assert theirs.command("RESPITE", "SETV", "item:far", ahead_ms, "old") == b":1\r\n"
    assert ours.command("RESPITE", "INVALIDATE", "TAG", "all")[:1] == b":"

    assert get(ours, "item:far") is None
    wait_for(lambda: get(theirs, "item:far") is None, what="the other one hears")
    for client in setup.clients:
        assert client.command("SET", "item:far", "new") == OK
        assert version_of(client, "item:far") >> BITS >= ahead_ms
        assert get(client, "item:far") == b"new"
    wait_until_swept(setup)
    assert get(ours, "item:far") == b"new"


def wait_until_swept(setup: Setup) -> None:
    """Wait until no fence is in force."""
    with setup.server.connect() as direct:
        wait_for(lambda: direct.command("HLEN", "respite:fences") == b":0\r\n", what="the fences are lifted")
