"""What proxies tell each other through Redis, heard on the invalidation link.

    link up   SUBSCRIBE respite:changes, then all fences and dictionaries, and the server's time
    message   fence   --> in force for L1 and every read from here on          swept --> forgotten
              keys, everything --> dropped from L1                             dictionary --> fetched

Owns how what is heard takes effect. The forms are `values.changes`'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import hiredis

from proxy.core.fencing import Fencing
from proxy.log import get_logger
from proxy.values.changes import (
    CHANNEL,
    FENCES_KEY,
    DictionaryAnnounced,
    EverythingChanged,
    FencesSet,
    FencesSwept,
    KeysChanged,
    announce_everything,
    parse_change,
)
from proxy.values.dictionary import parse_stored
from proxy.values.fences import Fence, parse_fence
from proxy.wire.encode import bulk, command

if TYPE_CHECKING:
    from proxy.core.values import Values
    from proxy.net.invalidation.control import ControlLink
    from proxy.net.links.openers import Openers

DICTIONARIES_KEY: Final = b"respite:dictionaries"
TIME: Final = command("TIME")
log = get_logger("announcements")


class Announcements:
    """Hear what others say. One a worker; `clock` is the real one, for when Redis was asked for its time."""

    def __init__(self, values: Values, fencing: Fencing, openers: Openers, clock: Callable[[], float]) -> None:
        self._values = values
        self._fencing = fencing
        self._engine = fencing.engine
        self._openers = openers
        self._clock = clock
        self._control: ControlLink | None = None
        self._owes_all = False  # others are still to be told that everything has changed
        self.state = "not subscribed"
        self.has_fences = False  # Redis has told which are in force, since the link came up

    def begin(self, control: ControlLink) -> None:
        """Take up a link that has just come up."""
        self._control = control
        self._values.forget_purged()
        self.ask_time()
        if control.is_resp3:
            control.subscribe(CHANNEL, self._refused)
            self.state = "subscribed"
        known = set(self._fencing.fences)
        control.ask(command("HGETALL", FENCES_KEY), lambda reply: self._all_fences(reply, known))
        control.ask(command("HGETALL", DICTIONARIES_KEY), self._all_dictionaries)
        if self._owes_all:
            self.tell_all()

    def end(self) -> None:
        """Take note that the link is gone."""
        self._control = None
        self.state = "not subscribed"
        self.has_fences = False
        self._openers.lost()

    def tell_all(self) -> None:
        """Tell the other workers and proxies that any key may have changed: Redis tells nobody of a SWAPDB."""
        self._owes_all = True
        if self._control is not None:
            self._control.ask(announce_everything(), self._told_all)

    def ask_time(self) -> None:
        """Ask the server for its time, if it can be asked."""
        if self._control is None:
            return
        sent_at = self._clock()

        def then(reply: Any) -> None:
            match reply:
                case [bytes(seconds), bytes(rest)] if seconds.isdigit() and rest.isdigit():
                    server_us = int(seconds) * 1_000_000 + int(rest)
                    self._values.sealer.clock.anchor(server_us, sent_at, self._clock())
                case _:
                    log.warning("the server does not tell its time", reply=str(reply)[:100])

        self._control.ask(TIME, then)

    def fetch_dictionary(self, dictionary: int) -> None:
        """Ask for a dictionary; whoever waits for it goes on when Redis has answered."""
        if self._control is None:
            self._openers.learned(dictionary)
            return
        field = b"%d" % dictionary

        def then(reply: Any) -> None:
            if isinstance(reply, bytes):
                self._learn(field, reply)
            elif reply is None:
                self._values.dictionaries.lost(dictionary)
            self._openers.learned(dictionary)

        self._control.ask(command("HGET", DICTIONARIES_KEY, field), then)

    def hear(self, payload: bytes) -> None:
        """Take a message."""
        change = parse_change(payload)
        match change:
            case FencesSet():
                self._put(change.fences)
            case FencesSwept():
                for fence in change.fences:
                    self._fencing.fences.remove(fence.db, fence.kind, fence.text, fence.version)
            case KeysChanged():
                for key in change.keys:
                    self._engine.drop(bulk(key))
            case EverythingChanged():
                self._engine.flush()
            case DictionaryAnnounced():
                self.fetch_dictionary(change.id)
            case None:
                log.warning("a message that is not understood", channel=CHANNEL.decode(), bytes=len(payload))

    def _told_all(self, reply: Any) -> None:
        self._owes_all = False
        if isinstance(reply, hiredis.ReplyError):
            log.warning("others cannot be told that everything has changed", why=str(reply))

    def _refused(self, why: str) -> None:
        self.state = why
        log.warning("announcements of other proxies cannot be heard", channel=CHANNEL.decode(), why=why)

    def _all_fences(self, reply: Any, known: set[Fence]) -> None:
        """Take all that are in force; those `known` before that are not any more were swept while nobody listened."""
        self.has_fences = True
        if isinstance(reply, hiredis.ReplyError):
            log.warning("fences cannot be read", why=str(reply))
            return
        found = [fence for field, version in _pairs(reply) if (fence := parse_fence(field, version)) is not None]
        self._put(found)
        for fence in known.difference(found):
            self._fencing.fences.remove(fence.db, fence.kind, fence.text, fence.version)

    def _put(self, fences: Sequence[Fence]) -> None:
        """Put fences in force; what is written from now on is newer than they are."""
        for fence in fences:
            self._values.sealer.clock.observe(fence.version)
        self._fencing.put(fences)

    def _all_dictionaries(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            log.warning("dictionaries cannot be read", why=str(reply))
            return
        for field, stored in _pairs(reply):
            self._learn(field, stored)

    def _learn(self, field: bytes, stored: bytes) -> None:
        found = parse_stored(field, stored)
        if found is None:
            log.warning("a dictionary that is none", field=field.decode("utf-8", "replace"))
        else:
            self._values.dictionaries.learn(found.id, found.class_name, found.codec, found.data, self._engine.now)


def _pairs(reply: Any) -> Iterator[tuple[bytes, bytes]]:
    """Yield the fields of a hash with their values, from a RESP3 map or RESP2's flat list."""
    return iter(reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True))
