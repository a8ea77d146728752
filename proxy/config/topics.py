"""Topic patterns, as a topic exchange and [[event]] have them: words between dots, * for any word, # for any number.

    "ticket.*.new"  takes ticket.7.new         "ticket.#"  takes ticket, ticket.7, ticket.7.new

Owns what a pattern may be, and whether one takes all that another does; which routing keys it takes is decided in
`events/topics.py`. Source: AMQP 0-9-1, 3.1.3.3.
"""

from __future__ import annotations

from functools import cache
from typing import Final

ANY_WORD: Final = "*"
ANY_WORDS: Final = "#"

_MAX_BYTES: Final = 255  # a short string of AMQP


def check_topic(text: str) -> str:
    """Return the pattern. Raises ValueError with the reason for one that can hardly have been meant."""
    if not text:
        raise ValueError("an empty pattern takes only the empty routing key; # takes any")
    if len(text.encode()) > _MAX_BYTES:
        raise ValueError(f"a pattern has at most {_MAX_BYTES} bytes")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError(f"{text!r}: a pattern holds no blanks and no control characters")
    for word in text.split("."):
        if not word:
            raise ValueError(f"{text!r}: between two dots stands a word, a * or a #")
        if word not in {ANY_WORD, ANY_WORDS} and not {ANY_WORD, ANY_WORDS}.isdisjoint(word):
            raise ValueError(f"{text!r}: * is a whole word and # any number of them; {word!r} would be that very word")
    return text


def word_count(pattern: str) -> int | None:
    """Return how many words the routing keys have that a pattern takes, None if that differs."""
    words = pattern.split(".")
    return None if ANY_WORDS in words else len(words)


def takes_all_of(general: str, special: str) -> bool:
    """Say whether the first pattern takes whatever the second takes. When in doubt, where both hold a #: no."""

    @cache
    def takes(general: tuple[str, ...], special: tuple[str, ...]) -> bool:
        if not general:
            return not special
        if general[0] == ANY_WORDS:
            return takes(general[1:], special) or (bool(special) and takes(general, special[1:]))
        if not special or special[0] == ANY_WORDS:
            return False
        return general[0] in {ANY_WORD, special[0]} and takes(general[1:], special[1:])

    return takes(tuple(general.split(".")), tuple(special.split(".")))
