"""`drop_older`, run by real servers: which values an event's version makes go, and what is said of each."""

from __future__ import annotations

import pytest

from proxy.values.envelope import MAGIC, wrap
from proxy.values.scripts import drop_older
from proxy.wire.reply import text

from ..e2e.raw import RawClient
from .test_scripts_redis import ODD, PAIRS, ask, server_time

PAST = [pair for pair in PAIRS if pair[1] < 1 << 56]  # what is higher is ahead of the server's time


def drop(client: RawClient, *versions: tuple[bytes, int | None]) -> bytes:
    """Drop; a byte a key."""
    reply = ask(client, drop_older(0, versions))
    assert reply[:1] == b"$", reply
    return text(reply)


@pytest.mark.parametrize(("lower", "higher"), PAST)
def test_drop_older_keeps_what_is_newer_by_the_least_there_is(client: RawClient, lower: int, higher: int) -> None:
    """An older value goes, one of the same version too; a newer one stays as it is."""
    client.command("MSET", "low", wrap(ODD, lower), "same", wrap(ODD, higher), "high", wrap(ODD, higher))

    assert drop(client, (b"low", higher), (b"same", higher), (b"high", lower)) == b"ggn"
    assert client.command("EXISTS", "low", "same") == b":0\r\n"
    assert text(client.command("GET", "high")) == wrap(ODD, higher)


def test_drop_older_without_a_version_drops_whatever_is_stored(client: RawClient) -> None:
    """Of any version, and of any type."""
    client.command("MSET", "new", wrap(b"x", server_time(client)), "plain", "x")
    client.command("LPUSH", "list", MAGIC)

    assert drop(client, (b"new", None), (b"plain", None), (b"list", None), (b"none", None)) == b"ggg-"
    assert client.command("DBSIZE") == b":0\r\n"


@pytest.mark.parametrize("value", [b"x", b"", wrap(b"x", 0), wrap(b"x", 5)[:13], b"\xf7\xb2Rv"])
def test_drop_older_drops_what_has_no_version(client: RawClient, value: bytes) -> None:
    """Nothing in it says that it is newer."""
    client.command("SET", "a", value)

    assert drop(client, (b"a", 1), (b"none", 1)) == b"g-"


def test_drop_older_drops_what_is_ahead_of_the_server(client: RawClient) -> None:
    """Its version comes from a clock that was dragged ahead, and says nothing of when the value was read."""
    now = server_time(client)
    ahead = now + (1000 << 16)
    client.command("MSET", "now", wrap(b"x", now), "ahead", wrap(b"x", ahead))

    assert drop(client, (b"now", now - (5 << 16)), (b"ahead", now - (5 << 16))) == b"ng"


def test_drop_older_says_it_of_each_key_in_order(client: RawClient) -> None:
    """Whatever bytes a key is made of, and when it is named twice."""
    keys = [bytes([byte]) * 3 + ODD for byte in range(256)]
    for at, key in enumerate(keys):
        if at % 3:
            client.command("SET", key, wrap(b"x", 7 if at % 3 == 1 else 9))

    assert drop(client, *[(key, 8) for key in keys]) == (b"-gn" * 86)[:256]
    assert drop(client, (keys[2], 9), (keys[2], 9)) == b"g-"
