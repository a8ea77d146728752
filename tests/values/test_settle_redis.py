"""What Redis is told when it is back: the script that settles a key, run by real servers."""

from __future__ import annotations

from hashlib import sha1
from typing import Any

import pytest

from proxy.values.envelope import Codec, mark_of, wrap
from proxy.values.scripts import Settlement, settle
from proxy.wire.reply import text

from ..e2e.raw import RawClient

OLD, OURS, NEW = 5 << 40, (5 << 40) + 1, 6 << 40
NIL = b"$-1\r\n"


def told(client: RawClient, stored: bytes | None = b"ours", since: int = OURS, **more: Any) -> str:
    """Settle the key `k`; return what became of it."""
    client.send(settle(Settlement(b"k", stored, since, **more)))
    return text(client.frame()).decode()


def digest(value: bytes) -> str:
    """Return the digest of a value."""
    return sha1(value).hexdigest()


@pytest.mark.parametrize(
    ("held", "outcome"),
    [
        (None, "written"),
        (wrap(b"theirs", OLD), "written"),
        (wrap(b"theirs", OURS), "written"),
        (wrap(b"theirs", NEW), "older"),
        (wrap(b"theirs", OURS + 1), "older"),
        (wrap(b"theirs", 0), "written"),
        (b"plain", "written"),
        (b"", "written"),
    ],
)
def test_value_replaces_what_is_not_newer(client: RawClient, held: bytes | None, outcome: str) -> None:
    """What has no version counts as older, as for RESPITE SETV."""
    if held is not None:
        client.command("SET", "k", held)

    assert told(client) == outcome
    assert text(client.command("GET", "k")) == (b"ours" if outcome == "written" else held)


@pytest.mark.parametrize(
    ("held", "is_gone"), [(wrap(b"theirs", OLD), True), (wrap(b"theirs", NEW), False), (b"1", True)]
)
def test_deletion_takes_what_is_not_newer(client: RawClient, held: bytes, is_gone: bool) -> None:
    """A deletion in memory is one in Redis, of older values."""
    client.command("SET", "k", held)

    assert told(client, None) == ("deleted" if is_gone else "older")
    assert client.command("EXISTS", "k") == (b":0\r\n" if is_gone else b":1\r\n")


def test_value_replaces_another_type(client: RawClient) -> None:
    """As SET does."""
    client.command("LPUSH", "k", "v")

    assert told(client) == "written"
    assert text(client.command("GET", "k")) == b"ours"


@pytest.mark.parametrize(
    ("held", "base", "outcome"),
    [
        (b"10", digest(b"10"), "written"),
        (b"11", digest(b"10"), "deleted"),
        (b"ours", digest(b"10"), "written"),
        (None, digest(b"10"), "deleted"),
        (None, "none", "written"),
        (b"10", "none", "deleted"),
        (wrap(b"10", OLD), digest(b"10"), "written"),
        (wrap(b"10", NEW), digest(b"10"), "older"),
    ],
)
def test_value_made_from_another_replaces_only_that(
    client: RawClient, held: bytes | None, base: str, outcome: str
) -> None:
    """Unless a version says more; what is neither is deleted, so that nobody goes on from the wrong one."""
    if held is not None:
        client.command("SET", "k", held)

    assert told(client, base=base, told_digest=digest(b"ours")) == outcome
    if outcome == "deleted":
        assert client.command("GET", "k") == NIL


def test_value_made_from_a_string_does_not_replace_another_type(client: RawClient) -> None:
    """Somebody else has made it something else."""
    client.command("LPUSH", "k", "v")

    assert told(client, base=digest(b"10")) == "deleted"


def test_value_that_was_told_before_is_told_again(client: RawClient) -> None:
    """Its reply was lost; it may bear a version that is later than what it was made from."""
    client.command("SET", "k", wrap(b"10", OLD))

    assert told(client, wrap(b"11", OURS), since=OLD, told=OURS, base=digest(b"10")) == "written"
    assert told(client, wrap(b"12", OURS + 1), since=OLD, told=OURS, base=digest(b"10")) == "written"
    assert told(client, wrap(b"13", OURS + 2), since=OLD, told=OURS, base=digest(b"10")) == "older"


def test_life_is_given_kept_or_taken(client: RawClient) -> None:
    """As the caller says; a value that cannot be written leaves the one there is."""
    client.command("SET", "k", "v", "EX", "1000")
    assert told(client, life="keep") == "written"
    assert int(client.command("TTL", "k")[1:]) > 990
    assert told(client, life=5_000_000) == "written"
    assert int(client.command("TTL", "k")[1:]) > 4990
    assert told(client) == "written"
    assert client.command("TTL", "k") == b":-1\r\n"
    assert told(client, b"") == "written"
    assert client.command("GET", "k") == b"$0\r\n\r\n"


@pytest.mark.parametrize("held", [b"base", b"base" * 5000])
@pytest.mark.parametrize(
    ("version", "is_other", "outcome"),
    [
        (OLD, False, "written"),
        (OLD, True, "written"),
        (OURS, False, "written"),
        (OURS, True, "older"),
        (NEW, False, "older"),
    ],
)
def test_value_made_from_another_replaces_that_alone(
    client: RawClient, held: bytes, version: int, *, is_other: bool, outcome: str
) -> None:
    """What may have been written since it was known is looked at: only the value that ours was made from may go."""
    client.command("SET", "k", wrap(held + b"+" if is_other else held, version))

    assert told(client, base=digest(held), sure=OLD, mark=mark_of(held)) == outcome


def test_compressed_value_is_known_by_its_header(client: RawClient) -> None:
    """Whatever codec and dictionary its body needs."""
    client.command("SET", "k", wrap(b"base" * 100, OURS, codec=Codec.LZ4, body=b"body", dictionary=7))
    assert told(client, sure=OLD, mark=mark_of(b"base" * 100)) == "written"
    client.command("SET", "k", wrap(b"theirs", OURS, codec=Codec.LZ4, body=b"body", dictionary=7))
    assert told(client, sure=OLD, mark=mark_of(b"base" * 100)) == "older"


def test_value_that_may_be_what_was_told_before_is_replaced(client: RawClient) -> None:
    """The reply was lost: what is there is ours."""
    client.command("SET", "k", wrap(b"ours", OURS))

    assert told(client, sure=OLD, mark=mark_of(b"base"), told=OURS) == "written"
