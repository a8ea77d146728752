"""Openers of links: they share the dictionaries that are known, and wait together for one that is not.

Owns the wait: a link that has met a value whose dictionary it does not know reads no further until Redis has said what
it is, or that nobody knows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.values.stream import StreamOpener

if TYPE_CHECKING:
    from proxy.values.dictionary import Dictionaries
    from proxy.values.envelope import Header
    from proxy.values.stream import Lookalikes


class Openers:
    """What the links of a worker share. `ask` is to call `learned` for an id, sooner or later."""

    def __init__(
        self, dictionaries: Dictionaries, opened: Callable[[Header, int], None], lookalikes: Lookalikes
    ) -> None:
        self._dictionaries = dictionaries
        self._lookalikes = lookalikes
        self._opened = opened
        self.ask: Callable[[int], None] = self.learned
        self._waiting: dict[int, list[Callable[[], None]]] = {}

    def make(self) -> StreamOpener:
        """Return the opener of one link."""
        return StreamOpener(self._dictionaries.known, self._opened, self._lookalikes)

    def knows(self, dictionary: int) -> bool:
        """Return whether a dictionary is known by now."""
        return dictionary in self._dictionaries.known

    def fetch(self, dictionary: int, then: Callable[[], None]) -> None:
        """Ask Redis for a dictionary; `then` is called when it is known, or known to be lost."""
        waiting = self._waiting.get(dictionary)
        if waiting is not None:
            waiting.append(then)
            return
        self._waiting[dictionary] = [then]
        self.ask(dictionary)

    def learned(self, dictionary: int) -> None:
        """Let those go on who waited for a dictionary: Redis has answered, or cannot be asked."""
        for then in self._waiting.pop(dictionary, ()):
            then()

    def lost(self) -> None:
        """Let all go on: whoever was asked will not answer."""
        for dictionary in list(self._waiting):
            self.learned(dictionary)
