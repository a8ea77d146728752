"""Topic patterns as AMQP has them: `*` is one word of a routing key, `#` any number of words, none included.

Source: AMQP 0-9-1 3.1.3.3, and where it is silent RabbitMQ: an empty routing key has no words, an empty pattern takes
that one alone, and between two dots stands a word of no letters.
"""

from __future__ import annotations

from collections.abc import Sequence


def words_of(routing_key: str) -> tuple[str, ...]:
    """Return the words of a routing key."""
    return tuple(routing_key.split(".")) if routing_key else ()


def takes(pattern: str, routing_key: str) -> bool:
    """Return whether a topic pattern takes a routing key."""
    if pattern in {"#", routing_key}:
        return True
    return _takes(words_of(pattern), words_of(routing_key))


def _takes(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """Go through both at once; where they part, have the last # take one word more: the work is their product."""
    at = here = 0
    last_hash, resumed = -1, 0
    while here < len(words):
        if at < len(pattern) and pattern[at] == "#":
            last_hash, resumed = at, here
            at += 1
        elif at < len(pattern) and pattern[at] in {"*", words[here]}:
            at += 1
            here += 1
        elif last_hash >= 0:
            resumed += 1
            at, here = last_hash + 1, resumed
        else:
            return False
    return all(word == "#" for word in pattern[at:])
