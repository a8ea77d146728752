"""proxy/amqp/fields.py: tables and properties survive whatever a publisher sends, and are written as they were read."""

from __future__ import annotations

import datetime
import struct
import time
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands, decode, header

from proxy.amqp.fields import read_properties, read_table, read_timestamp, write_properties, write_table

WHOLE = st.integers(-(1 << 63), (1 << 63) - 1)
DATES = st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2100, 1, 1), timezones=st.just(datetime.UTC))
LEAVES = st.one_of(
    *(st.none(), st.booleans(), WHOLE, st.floats(allow_nan=False), st.text(max_size=20), st.binary().map(bytearray)),
    *(DATES.map(lambda at: at.replace(microsecond=0)), st.just(b"\xff\xfe"), st.just(Decimal("-12.345"))),
)
NAMES = st.text(max_size=20)
TABLES = st.dictionaries(
    NAMES,
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)),
    max_size=6,
)


@given(TABLES)
@settings(max_examples=60, deadline=None)
def test_table_is_read_as_it_was_written(table: dict[str, Any]) -> None:
    """Whatever a header may hold comes back the same, with doubles whole and bytes as bytes."""
    raw = write_table(table)

    assert read_table(raw) == (table, len(raw))


@given(st.dictionaries(NAMES, st.none() | st.booleans() | WHOLE | st.text(max_size=9) | st.just([1, {"a": "b"}])))
@settings(max_examples=60, deadline=None)
def test_table_is_what_another_codec_reads(table: dict[str, Any]) -> None:
    """Pamqp agrees with what is written."""
    assert decode.field_table(write_table(table))[1] == table


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_table_or_an_error(raw: bytes) -> None:
    """Nothing but ValueError comes out of noise."""
    for noise in (raw, struct.pack(">I", len(raw)) + raw):
        with suppress(ValueError):
            assert isinstance(read_table(noise)[0], dict)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_properties_or_an_error(raw: bytes) -> None:
    """Nothing but ValueError comes out of noise where properties should be."""
    with suppress(ValueError):
        assert isinstance(read_properties(raw, 0), commands.Basic.Properties)


def test_tables_within_tables_end_somewhere() -> None:
    """Nesting is bounded before the stack is."""
    raw = b"\0\0\0\0"
    for _ in range(1000):
        raw = struct.pack(">I", len(raw) + 3) + b"\x01aF" + raw

    with pytest.raises(ValueError, match="nested"):
        read_table(raw)


def test_crowded_table_is_read_in_linear_time() -> None:
    """The most fields that a frame can hold cost milliseconds: nobody else has to wait for seconds."""
    raw = b"".join(b"\x03%03xV" % (number % 4096) for number in range(26000))
    began = time.perf_counter()
    read_table(struct.pack(">I", len(raw)) + raw)

    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "1970-01-01T00:00:00+00:00"),
        (1_767_225_600, "2026-01-01T00:00:00+00:00"),
        (1_767_225_600_500, "2026-01-01T00:00:00.500000+00:00"),
        ((1 << 64) - 1, None),
    ],
)
def test_timestamp_is_seconds_milliseconds_or_nothing(seconds: int, expected: str | None) -> None:
    """Publishers write both, and one out of any calendar is none."""
    found = read_timestamp(struct.pack(">Q", seconds), 0)

    assert (found and found.isoformat()) == expected


def test_properties_are_what_another_codec_writes_and_reads() -> None:
    """Every property is at its place."""
    properties = commands.Basic.Properties(
        content_type="application/json",
        content_encoding="gzip",
        headers={"a": 1},
        delivery_mode=2,
        priority=9,
        correlation_id="c",
        reply_to="r",
        expiration="1000",
        message_id="m",
        timestamp=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        message_type="type",
        user_id="user",
        app_id="app",
    )
    raw = header.ContentHeader(body_size=0, properties=properties).marshal()

    assert read_properties(raw, 12) == properties
    assert header.ContentHeader._get_flags(write_properties(properties)) == header.ContentHeader._get_flags(raw[12:])
    assert read_properties(write_properties(properties), 0) == properties


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        (commands.Basic.Properties(message_id="x" * 256), "message_id"),
        (commands.Basic.Properties(priority=300), "priority"),
        (commands.Basic.Properties(headers={"a": 1 << 64}), "headers"),
        (commands.Basic.Properties(headers={"a" * 256: 1}), "headers"),
        (commands.Basic.Properties(headers={"a": {"b": {1, 2}}}), "headers"),  # type: ignore[dict-item]
        (commands.Basic.Properties(headers={"a": Decimal("1e9")}), "headers"),
    ],
)
def test_property_that_cannot_be_written_is_named(properties: commands.Basic.Properties, words: str) -> None:
    """The error says which, so that a person can find who set it."""
    with pytest.raises(ValueError, match=f"`{words}` cannot be written"):
        write_properties(properties)
