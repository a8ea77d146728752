"""What a topic pattern may be, and when one takes all of another."""

from __future__ import annotations

import re
from itertools import product

import pytest

from proxy.config.topics import check_topic, takes_all_of, word_count


@pytest.mark.parametrize("pattern", ["#", "*", "a", "a.*.b", "#.a.#", "ticket-1.é_x", "a" * 255])
def test_check_topic_that_may_be_meant_passes(pattern: str) -> None:
    """Words, any word, any number of words, in any order."""
    assert pattern == check_topic(pattern)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "takes only the empty routing key"),
        ("a..b", "between two dots stands a word"),
        (".a", "between two dots stands a word"),
        ("a.", "between two dots stands a word"),
        ("ticket*", "'ticket*' would be that very word"),
        ("a.##", "'##' would be that very word"),
        ("a b", "no blanks"),
        ("a\n", "no blanks"),
        ("é" * 128, "at most 255 bytes"),
    ],
)
def test_check_topic_that_can_hardly_be_meant_is_explained(pattern: str, words: str) -> None:
    """A broker takes them all and binds what never fits; here each is refused."""
    with pytest.raises(ValueError, match=re.escape(words)):
        check_topic(pattern)


@pytest.mark.parametrize(("pattern", "count"), [("a", 1), ("a.*.b", 3), ("#", None), ("a.#", None)])
def test_word_count_is_known_without_a_hash(pattern: str, count: int | None) -> None:
    """With # in it a pattern takes routing keys of many lengths."""
    assert count == word_count(pattern)


@pytest.mark.parametrize(
    ("general", "special"),
    [
        ("#", "a.b"),
        ("#", "#"),
        ("*", "a"),
        ("a.*", "a.b"),
        ("a.#", "a"),
        ("a.#", "a.#.b"),
        ("#.b", "a.*.b"),
        ("a", "a"),
    ],
)
def test_takes_all_of_what_is_more_special(general: str, special: str) -> None:
    """A * covers a word and a *, a # covers anything."""
    assert takes_all_of(general, special)


def _takes(pattern: str, words: tuple[str, ...]) -> bool:
    """Match as slowly and plainly as can be, by a regular expression over words that each end in a dot."""
    parts = {"#": r"(?:[^.]+\.)*", "*": r"[^.]+\."}
    expression = "".join(parts.get(word, re.escape(word) + r"\.") for word in pattern.split("."))
    return re.fullmatch(expression, "".join(f"{word}." for word in words)) is not None


def test_takes_all_of_is_never_wrong_when_it_says_so() -> None:
    """Of all short patterns: where one is said to take all of another, no routing key tells otherwise."""
    patterns = [".".join(words) for length in (1, 2, 3) for words in product("ab*#", repeat=length)]
    keys = [words for length in range(5) for words in product("abc", repeat=length)]
    taken = {pattern: {key for key in keys if _takes(pattern, key)} for pattern in patterns}
    said = 0
    for general, special in product(patterns, repeat=2):
        is_subset = taken[special] <= taken[general]
        if takes_all_of(general, special):
            assert is_subset, (general, special)
            said += 1
        elif "#" not in special:
            assert not is_subset, (general, special)
    assert said > len(patterns)


def test_takes_all_of_many_hashes_is_quick() -> None:
    """A pattern made to be slow is as quick as any."""
    assert not takes_all_of(".".join("#a" * 40)[:251] + ".z", ".".join("a" * 120))
