"""Hears every change of the keys that somebody listens to, whoever makes it, and tells the feed.

    feed.interest --prefixes--> ChangeLink --push, message--> why did it change? --> feed.publish
                                    |
        more is wanted: a second link, a mark that both hear, the first one's part up to it, then the second one's

Owns the links, of which there is none while nobody listens. What is not certain to have been heard is told as a gap.
What a push means is `core.feed.reader`'s.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import hiredis
import trio

from proxy.core.feed.clock import LatestClock
from proxy.core.feed.feed import Feed, Interest
from proxy.core.feed.index import do_cover
from proxy.core.feed.reader import ChangeReader
from proxy.core.session import Identity
from proxy.errors import RemoteError
from proxy.log import get_logger
from proxy.net.changes.change_link import PING, ChangeLink
from proxy.net.links.backoff import Backoff
from proxy.net.links.dial import Upstream
from proxy.values import telling
from proxy.values.telling import TokenTold, parse_told, tell_token

NARROW_AFTER_S: Final = 30.0  # that long more is watched than is wanted: who went may come back
HAND_OVER_S: Final = 2.0
TICK_S: Final = 1.0
log = get_logger("feed")


class ChangeWatch:
    """Watch for one feed. `breathe` serves those who wait for the loop."""

    def __init__(
        self,
        feed: Feed,
        upstream: Upstream,
        *,
        silent_s: float,
        breathe: Callable[[], None] = lambda: None,
    ) -> None:
        endpoint = upstream.endpoint
        self.silent_s = silent_s
        self.state = "off"
        """off (nobody listens), connecting, watching, events only (Redis tells of no other changes), unreachable."""
        self.why = ""
        self._feed = feed
        self._upstream = upstream
        self._identity = Identity(endpoint.username.encode(), endpoint.password.encode())
        self._clock = LatestClock(trio.current_time, lambda: time.time_ns() // 1000)
        self._reader = ChangeReader(feed, self._clock.now_us, trio.current_time, breathe)
        self._changed = trio.Event()
        self._link: ChangeLink | None = None
        self._hearing = Hearing(self._reader.hear)
        self._missed = ""  # why something has not been heard, until that has been told
        self._wide_since = 0.0
        self._is_away = False
        feed.on_interest = self._look

    def report(self) -> dict[str, Any]:
        """Return what it is doing, as stats.json has it."""
        prefixes = [] if self._link is None else [one.decode("utf-8", "replace") for one in self._link.prefixes]
        return {"state": self.state, "why": self.why, "prefixes": prefixes}

    async def run(self) -> None:
        """Watch until cancelled."""
        backoff = Backoff()
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                pause_s = await self._turn(nursery, backoff)
                with trio.move_on_after(pause_s):
                    await self._changed.wait()
                self._feed.tick()
                self._reader.tidy()

    def _look(self) -> None:
        self._changed.set()

    async def _turn(self, nursery: trio.Nursery, backoff: Backoff) -> float:
        """Do what is to be done about the link; return when to look again, if nothing happens before."""
        interest = self._feed.interest
        if self._link is not None and self._link.ended.is_set():
            self._lose(self._link.why)
        if not interest.is_wanted:
            self._stop()
            return TICK_S
        if self._link is not None and not self._is_due(interest):
            return TICK_S
        try:
            await self._renew(nursery, interest)
        except RemoteError as exc:
            self._fail(str(exc))
            # Not cut short by those who come meanwhile: a server that is down is not asked more often for them.
            await trio.sleep(backoff.next_s())
            return 0
        backoff.reset()
        return 0

    def _is_due(self, interest: Interest) -> bool:
        """Return whether another link is needed: something is not watched, or too much for a while."""
        assert self._link is not None
        is_old = trio.current_time() - self._wide_since > NARROW_AFTER_S
        if self._link.deaf:
            return is_old  # an administrator may have let us meanwhile
        if not do_cover(self._link.prefixes, interest.prefixes):
            return True
        if do_cover(interest.prefixes, self._link.prefixes):
            self._wide_since = trio.current_time()
            return False
        return is_old

    async def _renew(self, nursery: trio.Nursery, interest: Interest) -> None:
        """Open a link for what is wanted, and go on with it. Raises RemoteError; then the one there was goes on."""
        old = self._link
        if old is None:
            self._reader.begin(interest.prefixes)
            if self.state == "off":
                self.state = "connecting"
        hearing = Hearing(self._reader.hear)
        if old is not None:
            hearing.wait_for(token := secrets.token_hex(8))
        new = await ChangeLink.open(
            self._upstream,
            self._identity,
            interest.prefixes,
            hearing.hear,
            clock=self._clock,
            silent_s=self.silent_s,
        )
        nursery.start_soon(self._run_link, new, hearing)
        if old is not None:
            try:
                await self._hand_over(old, new, hearing, token)
            except RemoteError:
                new.close()
                raise
        self._link, self._hearing = new, hearing
        self._wide_since = trio.current_time()
        self._take_up(new)

    async def _run_link(self, link: ChangeLink, hearing: Hearing) -> None:
        await link.run(hearing.hear)
        self._changed.set()

    async def _hand_over(self, old: ChangeLink, new: ChangeLink, hearing: Hearing, token: str) -> None:
        """Go on with the new link from a mark that both hear, once the old one has come to it.

        Nothing is told twice then, nothing is missed, and all of it in its order. Who may not set a mark is told some
        changes twice. Raises RemoteError when the new link is lost.
        """
        before = self._hearing
        with trio.move_on_after(HAND_OVER_S):
            if old.hears_messages and new.hears_messages and await self._mark(new, before, token):
                await first_of(before.passed, old.ended)
                await first_of(hearing.passed, new.ended)
            else:
                # What the new one has passed over so far, the old one has said when it answers.
                hearing.open()
                with suppress(RemoteError):
                    await old.ask(PING, lambda _: before.passed.set())
                    await first_of(before.passed, old.ended)
        if new.ended.is_set():
            if before.passed.is_set():
                self._feed.gap(new.why)  # what came on the old one after the mark has been passed over
            before.open()
            raise RemoteError(new.why)
        if not before.passed.is_set():
            self._missed = old.why or "one link could not take over from another in time"
        self._reader.prefixes = new.prefixes
        before.close()
        hearing.open()
        old.close()

    async def _mark(self, new: ChangeLink, before: Hearing, token: str) -> bool:
        """Set a mark; return False where that is refused."""
        before.stop_at(token)
        answered = trio.Event()
        replies: list[Any] = []

        def then(reply: Any) -> None:
            replies.append(reply)
            answered.set()

        await new.ask(tell_token(token), then)
        await first_of(answered, new.ended)
        return bool(replies) and not isinstance(replies[0], hiredis.ReplyError)

    def _take_up(self, link: ChangeLink) -> None:
        was_deaf = self._reader.is_deaf
        self._reader.is_deaf = bool(link.deaf)
        if link.deaf:
            self.state, self.why = "events only", link.deaf
            self._feed.deafen(link.deaf)
        else:
            self.state, self.why = "watching", ""
            self._feed.watched(link.prefixes)
            if was_deaf:
                self._missed = self._missed or "changes could not be heard for a while"
        log.debug("changes are watched", prefixes=len(link.prefixes), state=self.state, why=self.why)
        if self._missed:
            self._feed.gap(self._missed)
            self._missed = ""
        self._is_away = False

    def _lose(self, why: str) -> None:
        log.warning("changes are not heard", why=why)
        self._link = None
        self._missed = why
        self.state, self.why = "unreachable", why
        self._feed.watched(None)

    def _fail(self, why: str) -> None:
        """Take note that a link could not be opened; those who listen are told once that they hear nothing."""
        if self._link is not None:
            log.debug("no second link", why=why)
            return
        self.state, self.why = "unreachable", why
        if self._missed and not self._is_away:
            self._feed.gap(f"changes cannot be heard: {why}")
        self._is_away = True

    def _stop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
            self._feed.watched(None)
        self._missed = ""
        self.state, self.why = "off", ""


class Hearing:
    """What is heard of a link: everything, nothing before a mark, or nothing after one."""

    def __init__(self, then: Callable[[list[Any]], None]) -> None:
        self.passed = trio.Event()
        """The mark has come."""
        self._then = then
        self._begins_at = ""
        self._ends_at = ""
        self._is_closed = False
        self._kept: list[list[Any]] | None = None  # what came after the mark, until it is its turn

    def wait_for(self, token: str) -> None:
        """Hear nothing before this mark; keep what comes after it, until `open`."""
        self._begins_at = token

    def stop_at(self, token: str) -> None:
        """Hear nothing after this mark."""
        self._ends_at = token

    def open(self) -> None:
        """Hear everything, what was kept first."""
        self._begins_at = self._ends_at = ""
        self._is_closed = False
        kept, self._kept = self._kept or [], None
        for frame in kept:
            self._then(frame)

    def close(self) -> None:
        """Hear nothing any more."""
        self._is_closed = True

    def hear(self, frame: list[Any]) -> None:
        """Take what has come."""
        if self._is_closed:
            return
        if self._kept is not None:
            self._kept.append(frame)
        elif self._begins_at:
            if _is_mark(frame, self._begins_at):
                self._kept = []
                self.passed.set()
        elif self._ends_at and _is_mark(frame, self._ends_at):
            self._is_closed = True
            self.passed.set()
        else:
            self._then(frame)


def _is_mark(frame: list[Any], token: str) -> bool:
    match frame:
        case [b"message", telling.CHANNEL, bytes(payload)]:
            return parse_told(payload) == TokenTold(token)
    return False


async def first_of(one: trio.Event, other: trio.Event) -> None:
    """Return once one of two events has come."""
    async with trio.open_nursery() as nursery:
        for event in (one, other):
            nursery.start_soon(_end_after, event, nursery.cancel_scope)


async def _end_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
