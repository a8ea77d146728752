"""The form of a native event."""

from __future__ import annotations

import json
import pickle

import pytest

from proxy.events import event as event_module
from proxy.events.event import Event, EventError, event_of, parse_event

AT_MS = 1732272000123


@pytest.mark.parametrize(
    ("body", "event"),
    [
        (b'{"keys": ["a", "b", "a"]}', Event((b"a", b"b"))),
        (b'{"patterns": ["l:*"], "tags": ["t", "t"], "db": 3}', Event((), (b"l:*",), (b"t",), 3)),
        (b'{"keys": [""], "db": 0}', Event((b"",), db=0)),
        (b'{"keys": ["\\udcff\\u00e4"]}', Event((b"\xff\xc3\xa4",))),
        (b'{"keys": ["k"], "traceparent": "00-1", "at": "soon"}', Event((b"k",))),
        (b'{"keys": ["k"], "id": null, "seq": null, "version": null, "db": null}', Event((b"k",))),
        (b'{"keys": ["k"], "version": 0}', Event((b"k",))),
        (
            b'{"keys": ["k"], "id": "e", "version": 1732272000123, "publisher": "p", "seq": 0, "at": 1732272000123}',
            Event((b"k",), version=AT_MS << 16 | 0xFFFF, id="e", publisher="p", seq=0, at_ms=AT_MS),
        ),
        (b'{"keys": ["k"], "id": "\\ud800"}', Event((b"k",), id="?")),
    ],
)
def test_parse_event_reads_every_field(body: bytes, event: Event) -> None:
    """Every field is read into the form the rest of the proxy works with; what is unknown is let be."""
    assert parse_event(body) == event


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "there is no body"),
        (b"keys=a", "no JSON"),
        (b'["a"]', "no JSON object"),
        (b"{}", "names nothing"),
        (b'{"keys": [], "tags": []}', "names nothing"),
        (b'{"keys": "ab"}', "`keys` is a list of strings"),
        (b'{"keys": {"a": 1}}', "`keys` is a list of strings"),
        (b'{"keys": ["a", null]}', "`keys` is a list of strings"),
        (b'{"tags": null}', "`tags` is a list of strings"),
        (b'{"keys": ["\\ud800"]}', "surrogate"),
        (b'{"patterns": [""]}', "takes nothing"),
        (b'{"keys": ["a"], "pattern": ["t"]}', "did you mean `patterns`"),
        (b'{"keys": ["a"], "db": true}', "`db` is a whole number"),
        (b'{"keys": ["a"], "seq": 9007199254740992}', "`seq` is a whole number from 0, below"),
        (b'{"keys": ["a"], "version": 1732272000}', "`version` is 1732272000, which looks like seconds"),
        (b'{"keys": ["a"], "publisher": 7}', "`publisher` is a string"),
    ],
)
def test_parse_event_of_none_says_why(body: bytes, words: str) -> None:
    """What cannot be acted on is refused with the field and what is wanted there."""
    with pytest.raises(EventError, match=words):
        parse_event(body)


def test_event_of_thousands_of_fields_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that may be misspelt takes time in which nobody else is served: the first of them are looked at."""
    looked_at: list[str] = []
    monkeypatch.setattr(event_module, "_meant_by", lambda name: looked_at.append(name) or "")

    assert event_of({"keys": ["k"]} | {f"field{number}": 1 for number in range(10_000)}) == Event((b"k",))
    assert ["field0", "field1"] == looked_at[:2]
    assert len(looked_at) < 100


def test_event_of_takes_from_around_what_it_does_not_say() -> None:
    """Its own words go before those of the message that carried it."""
    around = {"message_id": "m", "publisher": "s", "at_ms": 1}
    silent = event_of({"keys": ["k"]}, **around)  # type: ignore[arg-type]
    spoken = event_of({"keys": ["k"], "id": "e", "publisher": "p", "at": AT_MS}, **around)  # type: ignore[arg-type]

    assert (silent.id, silent.publisher, silent.at_ms) == ("m", "s", 1)
    assert (spoken.id, spoken.publisher, spoken.at_ms) == ("e", "p", AT_MS)


@pytest.mark.parametrize("reason", ["key\ud800\n\0", "x" * 10_000, "\ud800" * 400])
def test_event_error_is_one_line_that_can_be_sent(reason: str) -> None:
    """A reason goes into a header and into logs, whatever of the message it quotes."""
    error = pickle.loads(pickle.dumps(EventError(reason)))

    assert str(error).encode().decode().isprintable()
    assert len(str(error)) <= 400


def test_parse_event_of_a_field_that_is_half_a_pair_can_be_told() -> None:
    """A misspelt field may hold what is no text; the reason is text all the same."""
    with pytest.raises(EventError, match="did you mean `keys`") as caught:
        parse_event(json.dumps({"keys": ["k"], "keys\ud800": []}).encode())

    assert str(caught.value).encode()
