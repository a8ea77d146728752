"""What watchers are told: what is published is understood, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.values.clock import VERSION_END
from proxy.values.telling import (
    CHANNEL,
    ChannelsTold,
    EventsTold,
    KeyTold,
    QuietTold,
    TokenTold,
    event_part,
    parse_told,
    tell_channels,
    tell_events,
    tell_token,
)
from proxy.wire.reply import elements, text

KEYS = st.lists(st.binary(max_size=5), max_size=3).map(tuple)
VERSIONS = st.integers(0, VERSION_END - 1)
DBS = st.integers(0, (1 << 31) - 1)


def published(command: bytes) -> bytes:
    """Return what a PUBLISH sends."""
    name, channel, message = (text(word) for word in elements(command))
    assert (b"PUBLISH", CHANNEL) == (name, channel)
    return message


@given(DBS, KEYS)
def test_told_keys_that_were_not_there_are_understood(db: int, keys: tuple[bytes, ...]) -> None:
    """Any bytes come back."""
    told = EventsTold(db, tuple(KeyTold(key, 0, was_there=False) for key in keys))

    assert told == parse_told(published(tell_events(db, keys)))


@given(key=st.binary(max_size=8), version=VERSIONS, was_there=st.booleans())
def test_told_key_of_a_script_is_understood(key: bytes, version: int, *, was_there: bool) -> None:
    """A script adds whether the key was there, and puts them together."""
    message = '{"events":[' + event_part(key, version or None) + f'{int(was_there)}]],"db":7' + "}"

    assert EventsTold(7, (KeyTold(key, version, was_there=was_there),)) == parse_told(message.encode())


@given(KEYS, KEYS, KEYS, VERSIONS, DBS)
def test_told_channels_are_understood(
    channels: tuple[bytes, ...], keys: tuple[bytes, ...], tags: tuple[bytes, ...], version: int, db: int
) -> None:
    """With all that the event named."""
    told = ChannelsTold(channels, keys, (b"p*",), tags, version, db)

    assert told == parse_told(published(tell_channels(told)))


def test_told_token_and_quiet_keys_are_understood() -> None:
    """A mark, and keys whose pushes say nothing new."""
    assert TokenTold("abc") == parse_told(published(tell_token("abc")))
    assert QuietTold((b"a",)) == parse_told(b'{"quiet":["61"]}')


@pytest.mark.parametrize(
    "message",
    [
        *({}, [], 1, {"events": []}, {"events": [], "db": -1}, {"events": [["61", "", 2]], "db": 0}),
        *({"events": [["6", "", 1]], "db": 0}, {"events": [["61", 1, 1]], "db": 0}, {"events": [["61", ""]], "db": 0}),
        *({"events": [["61", "0", 1]], "db": 0}, {"events": [["61", str(VERSION_END), 1]], "db": 0}, {"quiet": "61"}),
        *({"channels": []}, {"token": 1}, {"events": [["61", "", 1]], "db": True}, {"quiet": [None]}),
    ],
)
def test_message_that_is_none_of_ours_is_not_understood(message: Any) -> None:
    """Anybody may publish."""
    assert parse_told(json.dumps(message).encode()) is None


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_message_are_not_understood(raw: bytes) -> None:
    """Whatever they are."""
    assert parse_told(raw) is None
