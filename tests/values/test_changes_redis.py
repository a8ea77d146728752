"""Fences set and ended in real servers: versions that only rise, exact to the last of their 64 bits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from proxy.values.changes import (
    CHANNEL,
    CLOCK_KEY,
    FENCES_KEY,
    FencesSet,
    FencesSwept,
    end_fences,
    parse_change,
    set_fences,
)
from proxy.values.clock import version_at
from proxy.values.fences import FENCES_MAX, Fence, parse_fence
from proxy.wire.reply import elements, text

from ..e2e.raw import RawClient
from ..e2e.servers import Server

ODD = bytes(range(256))
LIFE_MS = 7_200_000


@pytest.fixture
def listener(server: Server) -> Iterator[RawClient]:
    """Listen to the channel."""
    with server.connect() as connection:
        connection.command("SUBSCRIBE", CHANNEL)
        yield connection


def ask(client: RawClient, raw: bytes) -> bytes:
    """Send a command of ours."""
    client.send(raw)
    return client.frame()


def set_(client: RawClient, *globs: bytes, least: int = 0) -> int:
    """Set fences; the version."""
    frame = ask(client, set_fences(0, globs, (), least))
    assert frame[:1] == b"$", frame
    return int(text(frame))


def heard(listener: RawClient) -> object:
    """Return the next change of the channel."""
    return parse_change(text(elements(listener.frame())[2]))


def stored(client: RawClient) -> set[Fence | None]:
    """Return what the hash holds."""
    words = [text(word) for word in elements(client.command("HGETALL", FENCES_KEY))]
    return {parse_fence(field, version) for field, version in zip(words[::2], words[1::2], strict=True)}


def server_time(client: RawClient) -> int:
    """Return the server's time as a version."""
    seconds, us = (int(text(word)) for word in elements(client.command("TIME")))
    return version_at(seconds * 1_000_000 + us)


def clock(client: RawClient) -> int:
    """Return what the clock key says."""
    return int(text(client.command("GET", CLOCK_KEY)))


def test_set_fences_is_stored_and_told(client: RawClient, listener: RawClient) -> None:
    """Globs and tags, of any bytes, are in the hash and on the channel with one version, which is the reply."""
    frame = ask(client, set_fences(3, [b"a:*", ODD], [b"t", b""]))
    version = int(text(frame))

    expected = [
        Fence(3, "glob", b"a:*", version),
        Fence(3, "glob", ODD, version),
        Fence(3, "tag", b"t", version),
        Fence(3, "tag", b"", version),
    ]
    assert set(expected) == stored(client)
    assert FencesSet(tuple(expected)) == heard(listener)
    assert version == clock(client)
    assert LIFE_MS - 10_000 < int(text(client.command("PTTL", CLOCK_KEY))) <= LIFE_MS


def test_set_fences_version_is_the_servers_time(client: RawClient) -> None:
    """It lies between what the server's clock shows before and after."""
    for _ in range(50):
        time.sleep(0.001)  # else they come faster than versions of fences pass
        before = server_time(client)
        version = set_(client, b"a:*")

        assert before < version <= server_time(client) + 1


def test_set_fences_versions_rise(client: RawClient) -> None:
    """However quickly one follows another, the later has the higher version."""
    versions = [set_(client, b"a:*") for _ in range(300)]

    assert sorted(set(versions)) == versions


@pytest.mark.parametrize(
    "least",
    [
        *((1 << 63) - 65_536 * 2, (1 << 62) + 0xFFFF, (1 << 62) + 0xFFFE, 9_999_999_999_999_999, 10**18 - 1, 10**18),
        *(4_611_686_018_427_387_903, 5_000_000_000_000_000_000 - 1, 9_007_199_254_740_993 << 8 | 255),
        *((10_000_000 << 38) + 7, 8_999_999_999_999_999_999, 7_000_000_000_000_000_001, 6_999_999_950_000_000),
    ],
)
def test_set_fences_version_is_one_above_what_the_caller_knows(client: RawClient, least: int) -> None:
    """Exact in all 64 bits, also where a double is not; what is below the server's time does not count."""
    if least < server_time(client):
        assert set_(client, b"a:*", least=least) <= server_time(client) + 1
    else:
        assert least + 1 == set_(client, b"a:*", least=least)
        assert least + 1 == clock(client)
        # .. and read back: the fence that it takes the place of, the clock gone.
        client.command("DEL", CLOCK_KEY)
        assert least + 2 == set_(client, b"a:*")


def test_set_fences_is_above_a_clock_that_is_ahead_and_runs_on(client: RawClient) -> None:
    """Whoever saw the version went on from there, one a write: so the clock is taken to have run, at half speed."""
    ahead = server_time(client) + (600_000 << 16)
    for age_ms in (0, 1, 10_000):
        client.command("DEL", FENCES_KEY)
        client.command("SET", CLOCK_KEY, ahead, "PX", LIFE_MS - age_ms)
        passed = (set_(client, b"a:*") - ahead) / 65_536

        assert age_ms / 2 + 0.06 < passed < age_ms / 2 + 500
    client.command("DEL", FENCES_KEY)
    client.command("SET", CLOCK_KEY, ahead)
    assert ahead + 4097 == set_(client, b"a:*")


def test_set_fences_over_and_over_do_not_run_away(client: RawClient) -> None:
    """A lead over the server is made up in the end: setting fences adds less than passes meanwhile."""
    ahead = server_time(client) + (600_000 << 16)
    client.command("SET", CLOCK_KEY, ahead, "PX", LIFE_MS)
    lead = ahead - server_time(client)
    for _ in range(200):
        set_(client, b"a:*")
        time.sleep(0.001)

    assert clock(client) - server_time(client) < lead


@pytest.mark.parametrize("wrong", ["", "x", "-5", "1e18", "99999999999999999999", "9223372036854775808", "9" * 400])
def test_set_fences_clock_that_says_nothing_is_passed_over(client: RawClient, wrong: str) -> None:
    """A clock key or a fence with another value than a version is as good as none, and is put right."""
    client.command("SET", CLOCK_KEY, wrong)
    client.command("HSET", FENCES_KEY, "0:glob:a:*", wrong)
    version = set_(client, b"a:*")

    assert version <= server_time(client) + 1
    assert version == clock(client)


def test_set_fences_clock_of_another_type_is_an_error_and_sets_none(client: RawClient) -> None:
    """What somebody else has made of our keys is left alone where it cannot be used."""
    client.command("LPUSH", FENCES_KEY, "x")

    assert ask(client, set_fences(0, [b"a"], [])).startswith(b"-")
    assert client.command("EXISTS", CLOCK_KEY) == b":0\r\n"


def test_set_fences_is_above_the_fence_it_takes_the_place_of(client: RawClient) -> None:
    """Though the clock is lost, a fence never goes back."""
    known = server_time(client) + (10_000 << 16)
    client.command("HSET", FENCES_KEY, "0:glob:a:*", known, "0:glob:b:*", known + 500)

    assert known + 1 == set_(client, b"a:*")
    assert {Fence(0, "glob", b"a:*", known + 1), Fence(0, "glob", b"b:*", known + 500)} == stored(client)


def test_set_fences_beyond_the_bound_are_refused_all(client: RawClient, listener: RawClient) -> None:
    """Neither stored nor told; one that is in force already may be set anew."""
    globs = [b"%d:*" % number for number in range(FENCES_MAX - 1)]
    set_(client, *globs)
    assert isinstance(heard(listener), FencesSet)

    frame = ask(client, set_fences(0, [b"new:*", b"1:*"], [b"t"]))

    assert frame.startswith(b"-ERR respite: too many fences"), frame
    assert FENCES_MAX - 1 == len(stored(client))
    set_(client, b"new:*", b"1:*")
    set_(client, *globs[:100])
    assert ask(client, set_fences(0, [b"newer:*"], [])).startswith(b"-ERR respite: too many fences")
    assert [2, 100] == [len(change.fences) for _ in range(2) if isinstance(change := heard(listener), FencesSet)]


def test_end_fences_only_those_not_set_anew(client: RawClient, listener: RawClient) -> None:
    """What was set anew while it was swept stays in force; all are told, with the versions that are over."""
    old = set_(client, b"a:*", ODD)
    new = set_(client, b"a:*")
    swept = [Fence(0, "glob", b"a:*", old), Fence(0, "glob", ODD, old), Fence(0, "glob", b"gone", old)]

    assert ask(client, end_fences(swept)) == b":1\r\n"
    assert {Fence(0, "glob", b"a:*", new)} == stored(client)
    assert FencesSwept(tuple(swept)) == [heard(listener) for _ in range(3)][2]


def test_end_fences_whose_versions_differ_in_the_last_bit_stay(client: RawClient) -> None:
    """Versions are compared in all their digits."""
    version = set_(client, b"a:*", least=1 << 62)
    for other in (version - 1, version + 1, version + (1 << 16)):
        assert ask(client, end_fences([Fence(0, "glob", b"a:*", other)])) == b":0\r\n"

    assert ask(client, end_fences([Fence(0, "glob", b"a:*", version)])) == b":1\r\n"
    assert set() == stored(client)


def test_set_fences_by_several_at_once_each_has_its_own_version(server: Server, client: RawClient) -> None:
    """Four connections at full speed: no version twice, and the last of each fence is in force."""
    found: list[list[int]] = [[] for _ in range(4)]

    def run(versions: list[int]) -> None:
        with server.connect() as connection:
            versions += [set_(connection, b"a:*") for _ in range(100)]

    threads = [threading.Thread(target=run, args=(versions,)) for versions in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    everything = [version for versions in found for version in versions]
    assert 400 == len(set(everything))
    assert {Fence(0, "glob", b"a:*", max(everything))} == stored(client)
