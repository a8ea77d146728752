"""Words for a terminal from what strangers sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cli.plain import body_lines, moment, plain_json, printable, shorten


@given(st.one_of(st.binary(), st.text(st.characters())))
def test_printable_never_holds_a_control_character(value: bytes | str) -> None:
    """Whatever it was: one line, nothing that a terminal acts on, and UTF-8."""
    assert printable(value).isprintable()
    printable(value).encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [("a\x1b[0m", "a\\x1b[0m"), (b"\xff", "\\xff"), ("ü", "ü"), ("a\nb", "a\\nb"), ("\udcff", "\\udcff"), (7, "7")],
)
def test_printable_escapes_what_is_no_text(value: object, text: str) -> None:
    """Letters stay; the rest is seen for what it is."""
    assert printable(value) == text


def test_json_body_is_indented() -> None:
    """An object is shown a field a line."""
    assert list(body_lines(b'{"a": [1]}')) == ["{", '  "a": [', "    1", "  ]", "}"]


def test_body_that_is_odd_json_is_shown_as_it_was_sent() -> None:
    """A name that stands twice is why it died, and must be seen twice."""
    assert list(body_lines(b'{"a": 1, "a": 2}')) == ['{"a": 1, "a": 2}']


def test_body_that_is_no_text_is_shown_in_hex() -> None:
    """Bytes and the letters among them, up to a bound."""
    lines = list(body_lines(b"\xff\x00abc" + b"x" * 10_000))

    assert lines[0].startswith("0000  ff 00 61 62 63 78")
    assert lines[0].endswith(" ..abcxxxxxxxxxxx")
    assert (len(lines), lines[-1]) == (33, "… and 9,493 bytes more")


def test_long_text_is_cut() -> None:
    """A body of megabytes does not run through the terminal."""
    lines = list(body_lines(b"x" * 20_000))

    assert (len(lines), len(lines[0]), lines[1]) == (2, 16_384, "… and 3,616 bytes more")


def test_no_body_has_no_lines() -> None:
    """Nothing is nothing."""
    assert list(body_lines(b"")) == []


@given(st.binary(max_size=200))
def test_body_of_any_bytes_has_printable_lines(body: bytes) -> None:
    """Not one control character reaches the terminal."""
    assert all(line.isprintable() for line in body_lines(body))


def test_plain_json_of_headers_can_be_dumped() -> None:
    """Moments, decimals and bytes become texts, however deep they lie."""
    headers = {"a": [datetime(2024, 1, 1, tzinfo=UTC), {"b": Decimal("1.5")}], "c": b"\xff", "d": None, "\udcff": True}

    assert json.loads(json.dumps(plain_json(headers))) == {
        "a": ["2024-01-01 00:00:00+00:00", {"b": "1.5"}],
        "c": "\\xff",
        "d": None,
        "\\udcff": True,
    }


@pytest.mark.parametrize(
    ("ms", "text"), [(None, "-"), (1732272000123, "2024-11-22 10:40:00.123 UTC"), (1 << 62, str(1 << 62))]
)
def test_moment_is_in_utc_or_a_number(ms: int | None, text: str) -> None:
    """A moment that no calendar has is shown as it came."""
    assert moment(ms) == text


def test_shorten_keeps_the_width() -> None:
    """What is cut ends in an ellipsis."""
    assert (shorten("abc", 3), shorten("abcd", 3)) == ("abc", "ab…")
