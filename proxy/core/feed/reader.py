"""What a push of Redis, or a message of a proxy, says about keys, and why they changed.

    notification    expired, evicted     --.
    respite:events  named by an event      |--> the cause --> feed     before the push, in the same turn of Redis' loop
                    swept: told already  --'
    invalidate      a key, everything    -----> feed: with the cause, as a write, or not at all where it has been told
    respite:changes fences, everything   -----> feed: what a glob or a tag takes, a flush

Owns the causes. Redis pushes what changed, whoever did it, and not why. In broadcast mode it does so at the end of a
turn of its loop, after everything that was published in it; two changes of a key in one turn are one push. A change
that nothing gives a cause for was a write: an expiry is one, too, where Redis is not configured to notify of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, Final

from proxy.core.feed.feed import Cause, Change, Feed
from proxy.errors import RemoteError
from proxy.log import get_logger
from proxy.values import changes, telling
from proxy.values.changes import EverythingChanged, FencesSet, KeysChanged, parse_change
from proxy.values.clock import version_at
from proxy.values.telling import ChannelsTold, EventsTold, QuietTold, parse_told

PUSH_WITHIN_S: Final = 1.0
"""After what says why; a push that comes later is of another change."""

SAY_EVERY_S: Final = 60.0
"""Of messages that are not understood: anybody may publish any number of them."""

KEYS_A_GO: Final = 100  # told before others get their turn
_KEYEVENT: Final = re.compile(rb"__keyevent@([0-9]{1,9})__:(expired|evicted)")
log = get_logger("feed")


class ChangeReader:
    """Reads what is heard. `prefixes` are what the keys begin with that are pushed; `is_deaf`: none is.

    `now_us` is the server's time, `now` the clock of this process in seconds; `breathe` serves those who wait.
    """

    def __init__(
        self, feed: Feed, now_us: Callable[[], int], now: Callable[[], float], breathe: Callable[[], None]
    ) -> None:
        self.prefixes: tuple[bytes, ...] = ()
        self.is_deaf = False
        self._feed = feed
        self._now_us = now_us
        self._now = now
        self._breathe = breathe
        self._causes: dict[bytes, tuple[Cause, int, float]] = {}  # why the next push of a key comes, its database, when
        self._silent_until = 0.0  # about messages that are not understood
        self._told: dict[bytes, float] = {}  # keys of which the next push has been told, and when

    def begin(self, prefixes: tuple[bytes, ...]) -> None:
        """Begin anew: nothing that was said before says anything about what is heard from now on."""
        self.prefixes = prefixes
        self._causes.clear()
        self._told.clear()

    def hear(self, frame: Sequence[Any]) -> None:
        """Take a push or a message. Raises RemoteError for a push that is not understood: what it says is missed."""
        match frame:
            case [b"invalidate", None]:
                self._publish("flush")
            case [b"invalidate", [*keys]] if all(isinstance(key, bytes) for key in keys):
                self._pushed(keys)
            case [b"invalidate", *_]:
                raise RemoteError("a push that cannot be understood")
            case [b"message", telling.CHANNEL, bytes(payload)]:
                self._told_by_proxies(payload)
            case [b"message", changes.CHANNEL, bytes(payload)]:
                self._announced(payload)
            case [b"pmessage", _, bytes(channel), bytes(key)] if found := _KEYEVENT.fullmatch(channel):
                if key.startswith(self.prefixes):
                    self._causes[key] = ("expired" if found[2] == b"expired" else "evicted", int(found[1]), self._now())
        self._breathe()

    def tidy(self) -> None:
        """Forget what was said of pushes that have not come."""
        due = self._now() - PUSH_WITHIN_S
        self._told = {key: at for key, at in self._told.items() if at > due}
        self._causes = {key: said for key, said in self._causes.items() if said[2] > due}

    # -- within ------------------------------------------------------------------------------------------------------

    def _pushed(self, keys: Sequence[bytes]) -> None:
        due = self._now() - PUSH_WITHIN_S
        found: dict[tuple[Cause, int | None], list[bytes]] = {}
        for key in keys:
            if self._told.pop(key, due) > due:
                continue
            said = self._causes.pop(key, None)
            why: tuple[Cause, int | None] = ("write", None) if said is None or said[2] <= due else said[:2]
            found.setdefault(why, []).append(key)
        for (cause, db), some in found.items():
            for at in range(0, len(some), KEYS_A_GO):
                self._publish(cause, some[at : at + KEYS_A_GO], db=db)
                self._breathe()

    def _told_by_proxies(self, payload: bytes) -> None:
        told = parse_told(payload)
        match told:
            case EventsTold():
                for version, some in groupby(told.keys, key=lambda one: one.version):
                    keys = list(some)
                    self._publish("event", [one.key for one in keys], version, db=told.db)
                    self._pass_over(one.key for one in keys if one.was_there)
            case QuietTold():
                self._pass_over(told.keys)
            case ChannelsTold(channels, keys_named, patterns, tags):
                now_us = self._now_us()
                version = told.version or version_at(now_us)
                change = Change(keys_named, "event", version, now_us // 1000, patterns, tags, told.db, channels)
                self._feed.publish(change)
            case None if self._now() >= self._silent_until:
                self._silent_until = self._now() + SAY_EVERY_S
                log.warning("a message that is not understood", channel=telling.CHANNEL.decode(), bytes=len(payload))

    def _announced(self, payload: bytes) -> None:
        match parse_change(payload):
            case FencesSet(fences):
                for fence in fences:
                    globs, tags = ((fence.text,), ()) if fence.kind == "glob" else ((), (fence.text,))
                    at_ms = self._now_us() // 1000
                    self._feed.publish(Change((), "event", fence.version, at_ms, globs, tags, fence.db))
            case KeysChanged(db, keys) if self.is_deaf:
                self._publish("event", keys, db=db)
            case EverythingChanged():
                self._publish("flush")

    def _publish(self, cause: Cause, keys: Sequence[bytes] = (), version: int = 0, *, db: int | None = None) -> None:
        now_us = self._now_us()
        self._feed.publish(Change(tuple(keys), cause, version or version_at(now_us), now_us // 1000, db=db))

    def _pass_over(self, keys: Iterable[bytes]) -> None:
        now = self._now()
        for key in keys:
            if key.startswith(self.prefixes):
                self._told[key] = now
