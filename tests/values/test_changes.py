"""Messages between proxies: what is announced is understood, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.values.changes import (
    CHANNEL,
    DictionaryAnnounced,
    EverythingChanged,
    FencesSet,
    FencesSwept,
    KeysChanged,
    announce_dictionary,
    announce_everything,
    announce_keys,
    end_fences,
    parse_change,
    set_fences,
)
from proxy.values.fences import Fence
from proxy.wire.reply import elements, text

FIELD = b"0:glob:a*".hex()
ODD = b'\x00\xff"\r\n\\'


def words_of(command: bytes) -> list[bytes]:
    """Take a command apart."""
    return [text(word) for word in elements(command)]


def published(command: bytes) -> bytes:
    """Return what a PUBLISH sends."""
    name, channel, message = words_of(command)
    assert (b"PUBLISH", CHANNEL) == (name, channel)
    return message


@given(st.integers(0, 15), st.lists(st.binary(max_size=20)))
def test_announce_keys_is_understood(db: int, keys: list[bytes]) -> None:
    """Keys of any bytes arrive as they are."""
    assert KeysChanged(db, tuple(keys)) == parse_change(published(announce_keys(db, keys)))


@pytest.mark.parametrize("name", ["tickets", 'a"b\\', "é\n"])
def test_announce_dictionary_is_understood(name: str) -> None:
    """An id and the name of a class, whatever it is called."""
    assert DictionaryAnnounced(0xFFFFFFFF, name) == parse_change(published(announce_dictionary(0xFFFFFFFF, name)))


def test_announce_everything_is_understood() -> None:
    """It names nothing."""
    assert EverythingChanged() == parse_change(published(announce_everything()))


def test_end_fences_message_is_understood() -> None:
    """What the script is given to publish says which fences are lifted."""
    fences = (Fence(0, "glob", ODD, 5), Fence(3, "tag", b"t", (1 << 63) - 1))

    assert FencesSwept(fences) == parse_change(words_of(end_fences(fences))[5])


def test_parse_change_fences_are_understood() -> None:
    """The form that the script writes: hex fields, versions as decimal strings."""
    message = json.dumps({"fences": [[FIELD, "18446744073709551615"]]}).encode()

    assert FencesSet((Fence(0, "glob", b"a*", (1 << 64) - 1),)) == parse_change(message)


@pytest.mark.parametrize(
    "content",
    [
        *(None, [], 1, "fences", {}, {"other": []}, {"fences": None}, {"fences": {}}, {"fences": [FIELD]}),
        *({"fences": [[FIELD]]}, {"fences": [[FIELD, 5]]}, {"fences": [[FIELD, "5", "6"]]}, {"fences": [[5, "5"]]}),
        *({"fences": [[FIELD, "0"]]}, {"fences": [[FIELD, "x"]]}, {"swept": [["6", "5"]]}, {"swept": [["zz", "5"]]}),
        *({"fences": [[FIELD, "5"], ["00", "5"]]}, {"fences": [[FIELD[:2] + " " + FIELD[2:], "5"]]}),
        *({"keys": ["61"]}, {"keys": ["61"], "db": "0"}, {"keys": ["61"], "db": -1}, {"keys": ["61"], "db": True}),
        *(
            {"keys": "61", "db": 0},
            {"keys": [1], "db": 0},
            {"keys": ["61"], "db": 1.0},
            {"keys": ["61"], "db": 1 << 31},
        ),
        *(
            {"dictionary": 5},
            {"dictionary": 5, "class": 7},
            {"dictionary": "5", "class": "a"},
            {"class": "a"},
            {"keys": [], "db": 1 << 31},
        ),
        *({"keys": [], "db": 1 << 31}, {"dictionary": 1 << 32, "class": "a"}, {"dictionary": -1, "class": "a"}),
    ],
)
def test_parse_change_of_others_is_none(content: Any) -> None:
    """A message of a later version, of another program or of a joker changes nothing, and fails nothing."""
    assert parse_change(json.dumps(content).encode()) is None


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"{", b"\xff\xfe", b"\x00", b'{"fences":[]', b"[" * 100_000, b'{"keys":' + b"[" * 100_000),
        *(b'{"dictionary":' + b"9" * 5000 + b',"class":"a"}', b'{"keys":[],"db":NaN}', b"\xef\xbb\xbf{}"),
    ],
)
def test_parse_change_of_no_message_is_none(payload: bytes) -> None:
    """Bytes that are no JSON, or JSON made to hurt, are not understood."""
    assert parse_change(payload) is None


@given(st.binary(max_size=60))
def test_parse_change_of_any_bytes_never_raises(payload: bytes) -> None:
    """Whoever may publish may send anything."""
    parse_change(payload)


def test_set_fences_names_each_fence_once() -> None:
    """A batch that drops the same thing twice sets one fence, and a tag is no glob."""
    words = words_of(set_fences(2, [b"a*", ODD, b"a*"], [b"a*", b"t", b"t"], (7 << 16) + 9))

    assert [b"7", b"9", b"2:glob:a*", b"2:glob:" + ODD, b"2:tag:a*", b"2:tag:t"] == words[-6:]
