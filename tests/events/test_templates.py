"""What a template becomes for a message."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from proxy.config.event_templates import parse_pattern, parse_text
from proxy.events.event import EventError
from proxy.events.templates import Source, Unreadable, expand

BODY: Any = {
    "id": 7,
    "zero": 0,
    "name": "ä b",
    "odd name": {"x.y": "o"},
    "flag": True,
    "price": 1.5,
    "null": None,
    "empty": "",
    "none": [],
    "ids": [1, 2],
    "tenants": ["t", "u"],
    "items": [{"id": 1, "kind": "x", "subs": [{"n": 5}, {"n": 6}]}, {"id": 2, "kind": "y", "subs": [{"n": 8}]}],
    "holes": [{"id": 1}, {}],
    "nested": [[1], [2]],
    "huge": float("inf"),
}
HEADERS = {"tenant": "acme", "raw": b"\xff", "when": datetime(2024, 11, 22, tzinfo=UTC), "dec": Decimal("1.20")}
SOURCE = Source("ticket..created", HEADERS, BODY)


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("plain", ["plain"]),
        ("{{{body.id}}}", ["{7}"]),
        ("a:{body.id}:{headers.tenant}", ["a:7:acme"]),
        ("{body.zero}-{body.name}-{body.flag}-{body.price}", ["0-ä b-true-1.5"]),
        ('{body["odd name"]["x.y"]}', ["o"]),
        ("f:{body.flag}", ["f:true"]),
        ("z:{body.zero}", ["z:0"]),
        ("{headers.raw}", ["\udcff"]),
        ("{headers.when}", ["2024-11-22T00:00:00+00:00"]),
        ("{headers.dec}", ["1.20"]),
        ("{routing_key}/{routing_key.1}/{routing_key.3}", ["ticket..created/ticket/created"]),
        ("k:{body.ids}", ["k:1", "k:2"]),
        ("k:{body.ids[]}", ["k:1", "k:2"]),
        ("k:{body.ids[1]}", ["k:2"]),
        ("k:{body.none}", []),
        ("k:{body.none[].id}:{body.id}", []),
        ("{body.items[].id}", ["1", "2"]),
        ("{body.items[1].subs[].n}", ["8"]),
        ("{body.items[].subs[].n}", ["5", "6", "8"]),
    ],
)
def test_expand_becomes_what_stands_there(template: str, texts: list[str]) -> None:
    """Texts, numbers and words of the routing key are written as they are; a list stands for its elements."""
    assert expand(parse_text(template), SOURCE) == texts


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("{body.items[].id}:{body.items[].kind}", ["1:x", "2:y"]),
        ("{body.items[].kind}:{body.items[].subs[].n}", ["x:5", "x:6", "y:8"]),
        ("{body.items[].subs[].n}:{body.items[].kind}", ["5:x", "6:x", "8:y"]),
        ("{body.ids}:{body.ids[]}", ["1:1", "2:2"]),
    ],
)
def test_expand_of_one_list_goes_together(template: str, texts: list[str]) -> None:
    """Two places inside one list are of the same element."""
    assert expand(parse_text(template), SOURCE) == texts


def test_expand_of_two_lists_multiplies() -> None:
    """Lists of their own are combined each with each."""
    assert expand(parse_text("{body.ids}:{body.tenants}"), SOURCE) == ["1:t", "1:u", "2:t", "2:u"]


def test_expand_into_a_glob_escapes_what_stood_in_the_message() -> None:
    """An event whose id is * takes the keys of that id, not all of them; the template's own * stays one."""
    source = Source("", {}, {"id": r"*?[a]\x", "ids": ["a*"]})

    assert expand(parse_pattern("l:{body.id}:*"), source, is_glob=True) == [r"l:\*\?\[a\]\\x:*"]
    assert expand(parse_pattern("l:{body.ids}:*"), source, is_glob=True) == [r"l:a\*:*"]
    assert expand(parse_text("{body.id}"), source) == [r"*?[a]\x"]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{body.missing}", "`body.missing` is not there"),
        ("{body.null.x}", "`body.null.x` is not there"),
        ("{body.null}", "`body.null` is null"),
        ("{body.empty}", "`body.empty` is empty"),
        ("x:{body.empty}", "`body.empty` is empty"),
        ("{body.id.x}", "`body.id` is a number; there is no `body.id.x`"),
        ("{body.items[0]}", r"`body.items\[0\]` is an object"),
        ("{body.items.id}", r"`body.items` is a list; each element of it is `body.items\[\]`"),
        ("{body.items[2].id}", r"`body.items\[2\]` is not there"),
        ("{body.id[].x}", "`body.id` is a number where a list is wanted"),
        ("{body.holes[].id}", r"`body.holes\[1\].id` is not there"),
        ("{body.nested}", r"`body.nested\[0\]` is a list"),
        ("{body.huge}", "`body.huge` is a number"),
        ("{body}", "`body` is an object"),
        ("{headers.missing}", "`headers.missing` is not there"),
        ("{routing_key.2}", "`routing_key.2` is empty"),
        ("{routing_key.4}", "`routing_key.4` is not there: 'ticket..created' has 3 words"),
    ],
)
def test_expand_of_what_is_not_there_names_the_place(template: str, words: str) -> None:
    """A message that lacks what a template needs is refused, with the place written as templates write it."""
    with pytest.raises(EventError, match=words):
        expand(parse_text(template), SOURCE)


def test_expand_needs_the_body_only_where_it_is_named() -> None:
    """A body that is no JSON spoils no template that goes without it."""
    source = Source("a.b", {}, Unreadable("the body is no JSON"))

    assert expand(parse_text("{routing_key.2}"), source) == ["b"]
    with pytest.raises(EventError, match="the body is no JSON"):
        expand(parse_text("{body.id}"), source)


def test_expand_beyond_the_bound_of_names_is_refused() -> None:
    """10,000 names are an event, one more is none, and lists that multiply are refused before they fill the memory."""
    ids = list(range(10_000))

    assert len(expand(parse_text("{body}"), Source("", {}, ids))) == 10_000
    with pytest.raises(EventError, match="more than 10000 names"):
        expand(parse_text("{body}"), Source("", {}, [*ids, 1]))
    with pytest.raises(EventError, match="more than 10000 names"):
        expand(parse_text("{body.a}{body.b}{body.c}"), Source("", {}, {"a": ids, "b": ids, "c": ids}))


def test_expand_of_a_long_text_a_thousand_times_is_refused() -> None:
    """A text of a mebibyte, once for each element of a list, takes no gigabyte of memory."""
    source = Source("", {}, {"ids": list(range(5000)), "long": "x" * (1 << 20)})
    tracemalloc.start()
    try:
        with pytest.raises(EventError, match="characters"):
            expand(parse_text("{body.ids}{body.long}"), source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 64 << 20
