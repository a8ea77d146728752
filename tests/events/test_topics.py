"""Topic patterns."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.events.topics import takes


@pytest.mark.parametrize(
    ("pattern", "routing_key", "is_taken"),
    [
        ("ticket.created", "ticket.created", True),
        ("ticket.created", "ticket.created.x", False),
        ("ticket.*", "ticket.created", True),
        ("ticket.*", "ticket", False),
        ("ticket.*", "ticket.a.b", False),
        ("*.*", "a.b", True),
        ("*", "", False),
        ("", "", True),
        ("", "a", False),
        ("#", "", True),
        ("#", "a.b.c", True),
        ("ticket.#", "ticket", True),
        ("ticket.#", "ticket.a.b", True),
        ("ticket.#", "tickets", False),
        ("#.done", "done", True),
        ("#.done", "a.done.done", True),
        ("#.done", "a.done.b", False),
        ("a.#.b.#.c", "a.b.x.b.c", True),
        ("a.#.b.#.c", "a.x.c", False),
        ("#.#", "", True),
        ("*.#", "", False),
        ("#.*", "a", True),
        ("a.*", "a.", True),
        ("a.b*", "a.bc", False),
        ("a.b*", "a.b*", True),
    ],
)
def test_takes_goes_by_words(pattern: str, routing_key: str, is_taken: bool) -> None:
    """A * is one word, a # any number of them, and part of a word is only itself."""
    assert takes(pattern, routing_key) is is_taken


def _by_definition(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_by_definition(pattern[1:], words[n:]) for n in range(len(words) + 1))
    return bool(words) and pattern[0] in {"*", words[0]} and _by_definition(pattern[1:], words[1:])


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=6),
    st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=7),
)
def test_takes_is_what_the_definition_says(pattern: list[str], words: list[str]) -> None:
    """Whatever the pattern, the quick way and the definition agree."""
    assert takes(".".join(pattern), ".".join(words)) is _by_definition(pattern, words)


def test_takes_of_many_hashes_ends() -> None:
    """The worst pattern for the worst routing key of AMQP's 255 bytes is decided at once."""
    assert not takes(".".join(["#", "a"] * 63), ".".join(["a"] * 127) + ".b")
