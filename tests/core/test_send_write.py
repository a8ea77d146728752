"""The short way of the hot path for writes of a key and a value: what it sends, and what it leaves to others."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.values import Values
from proxy.wire.encode import command
from proxy.wire.request import Raw

from .scripted_values import commands_in, make_values, spec_of
from .test_values import MAGICAL, VERSION, opened


def sent(values: Values, args: list[bytes], raw: Raw, *, in_effect: bool = True) -> list[Raw] | None:
    """Return what the short way of the hot path sends, None where it is not to be taken."""
    found: list[Raw] = []
    if values.send_write(found, spec_of(args), args, raw, in_effect=in_effect):
        return found
    assert not found
    return None


def test_send_write_is_what_rewrite_would_send() -> None:
    """It has the same effect, and sends the client's own bytes where there is none."""
    values, _ = make_values()
    args, plain = [b"SET", b"v:1", b"text"], [b"SET", b"v:1", b"7"]

    (found,) = commands_in(b"".join(sent(values, args, command(*args)) or []))

    assert found[:2] == [b"SET", b"v:1"]
    assert opened(found[2]) == (b"text", VERSION)
    raw = command(*plain)
    assert sent(values, plain, raw) == [raw]
    raw = command(*args)
    assert sent(values, args, raw, in_effect=False) == [raw]
    values.writes_envelopes = False
    assert sent(values, args, raw) == [raw]
    assert values.figures.sealed == 1


@pytest.mark.parametrize("size", [2, 0x80, 4096, 20_000, 0x20_0000 - 1, 0x20_0000])
def test_send_write_of_a_value_is_the_same_in_pieces(size: int) -> None:
    """It is not copied behind its header; a view, as large words are, is as good as bytes."""
    values, _ = make_values()
    value = b"\x1f\x8b" + b"x" * (size - 2)  # compressed already, as it seems
    for given in (value, memoryview(value)):
        args: list[Any] = [b"SET", b"v:1", given]

        pieces = sent(values, args, command(b"SET", b"v:1", value))

        assert pieces is not None
        assert any(piece is value for piece in pieces) is (given is value)
        (found,) = commands_in(b"".join(pieces))
        assert found[:2] == [b"SET", b"v:1"]
        assert opened(found[2])[0] == value


def test_send_write_of_a_key_that_is_a_view() -> None:
    """A key may be a large word, too, and its value a small one."""
    values, _ = make_values()
    key = b"v:" + b"1" * 70_000
    args: list[Any] = [b"SET", memoryview(bytearray(key)), b"text"]

    (found,) = commands_in(b"".join(sent(values, args, command(b"SET", key, b"text")) or []))

    assert found[:2] == [b"SET", key]
    assert opened(found[2])[0] == b"text"


@pytest.mark.parametrize(
    "args", [[b"SET", b"t:1", b"one"], [b"SET", b"d:1", b"one"], [b"SET", b"v:1", b"one", b"NX"], [b"DEL", b"d:1"]]
)
def test_send_write_leaves_alone_what_needs_more(args: list[bytes]) -> None:
    """Another TTL, other keys to be dropped: that is not the short way's."""
    assert sent(make_values()[0], args, command(*args)) is None


def test_send_write_behind_a_fence_needs_more() -> None:
    """The older value must go first."""
    values, _ = make_values()
    values.fences.put(0, "glob", b"v:*", VERSION)

    assert sent(values, [b"SET", b"v:1", b"one"], b"raw") is None


def test_send_write_wraps_what_looks_like_an_envelope_whatever_its_key() -> None:
    """Of no class, of one without envelopes, on a connection without classes."""
    values, _ = make_values()
    for key in (b"x", b"b:1", b"c:1", b"v:1"):
        args = [b"SET", key, MAGICAL]
        (found,) = commands_in(b"".join(sent(values, args, command(*args), in_effect=False) or []))
        assert opened(found[2]) == (MAGICAL, 0)


def test_send_write_counts_small_values_too() -> None:
    """What is written, and who wants to know of small values, is told of those that pass as they are."""
    values, _ = make_values()
    told: list[bytes] = []
    values.sealer.on_small = told.append
    args = [b"SET", b"c:1", b"small"]

    assert sent(values, args, b"raw") == [b"raw"]

    assert told == [b"small"]
    assert values.sealer.figures.written_bytes == 5
