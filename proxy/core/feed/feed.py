"""The change feed: who listens to what, and what each of them is still to be told.

    net.changes --publish, gap, watched--> Feed --append--> Channel (a log) <--take-- Subscription --> WebSocket ..
                     <-- interest, on_interest --                  |
                                                     oldest of all forgotten: push.buffer

Owns channels, subscriptions and cursors. A message is encoded once a channel and held once, however many listen; who is
slower than the buffer is long loses the oldest and is told how many. Every message has a number of its own; a cursor is
EPOCH-NUMBER, and says that everything up to it has been had. Plain and synchronous: nothing here waits.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import attrs

from proxy.config.model import Push
from proxy.core.feed.channels import OWN_CHANNELS, OWN_KEPT, Channel, FeedError, Seat, read_channel
from proxy.core.feed.index import ChannelIndex, Interest, do_cover
from proxy.core.feed.messages import body_of, head_of, lost, names, report_of
from proxy.core.feed.subscription import Subscription
from proxy.values.rules import OWN_KEYS, Rules

__all__ = ["OWN_CHANNELS", "Cause", "Change", "Feed", "FeedError", "Interest", "Subscription"]

Cause = Literal["write", "event", "expired", "evicted", "flush"]

CHANNELS_MAX: Final = 256
"""Channels of one subscription."""

KEYS_A_MESSAGE: Final = 100  # so that a message stays a few KiB

_OVERHEAD_BYTES: Final = 120  # of a message, besides its bytes
_LINGER_MS: Final = 60_000  # who comes back within it finds that his channels have been watched all the time
_LINGERING_MAX: Final = 10_000
_CURSOR: Final = re.compile(r"(.+)-([0-9]{1,18})", re.ASCII)


@attrs.frozen
class Change:
    """What changed: keys, and what fences of globs and tags may be about. `db` None: it is not known which.

    With `channels`, these are told of it, whatever they are called, and no others. A version is one as envelopes have
    it (values.clock).
    """

    keys: tuple[bytes, ...]
    cause: Cause
    version: int
    at_ms: int
    patterns: tuple[bytes, ...] = ()
    tags: tuple[bytes, ...] = ()
    db: int | None = None
    channels: tuple[bytes, ...] = ()


class Feed:
    """All channels and subscriptions of this proxy.

    `now_ms` is the time since 1970; `epoch` tells the cursors of this life of the proxy from those of others.
    """

    def __init__(self, settings: Push, rules: Rules, *, now_ms: Callable[[], int], epoch: str) -> None:
        self.settings = settings
        self.on_interest: Callable[[], None] = lambda: None
        """Called when `interest` may have changed; it must not raise."""
        self.number = 0
        self.changes = 0
        self.delivered = 0
        self.lost = 0
        self.gaps = 0
        self._now_ms = now_ms
        self._epoch = epoch
        self._index = ChannelIndex(rules)
        self._channels: dict[str, Channel] = {}
        self._lingering: dict[Channel, int] = {}  # those that nobody listens to, and until when they are kept
        self._subscriptions: dict[Subscription, None] = {}
        self._kept: deque[Channel] = deque()  # the channel of each message that is kept, oldest first
        self._bytes = 0
        self._gap = Channel("", "gaps", b"", b"", 0, watched_from=0)
        self._coverage: tuple[bytes, ...] | None = None
        self._deaf = ""
        self._interest: Interest | None = None

    def take(self, settings: Push, rules: Rules) -> None:
        """Go by these settings and classes from now on."""
        self.settings = settings
        self._index.take(rules)
        self._coverage_changed()
        self._interest_changed()

    # -- who listens -------------------------------------------------------------------------------------------------

    @property
    def subscribers(self) -> int:
        """How many listen."""
        return len(self._subscriptions)

    @property
    def cursor(self) -> str:
        """What a client resumes from that has heard everything so far."""
        return self.cursor_at(self.number)

    def cursor_at(self, number: int) -> str:
        """Return the cursor of a client that has had everything up to a number."""
        return f"{self._epoch}-{number}"

    def subscribe(self, channels: Sequence[str], since: str = "", *, poll: bool = False) -> Subscription:
        """Begin to listen, from a cursor on, "" from now on; `poll`: the client will come again instead of staying.

        Raises FeedError: too many subscribers (`is_full`); no channels, too many, or some that are none.
        """
        if not channels:
            raise FeedError("name at least one channel: a key, a glob over keys, or tag:NAME")
        if len(self._subscriptions) >= self.settings.max_subscribers:
            raise FeedError(f"{len(self._subscriptions)} listen already, as many as may", is_full=True)
        subscription = Subscription(self, poll=poll)
        self.join(subscription, channels, since)
        self._subscriptions[subscription] = None
        return subscription

    def join(self, subscription: Subscription, channels: Sequence[str], since: str = "") -> None:
        """Have one listen to more channels, from a cursor on. Raises FeedError, and changes nothing then."""
        present = set(subscription.channels)
        wanted = [name for name in dict.fromkeys(channels) if name not in present]
        if len(present) + len(wanted) > CHANNELS_MAX:
            raise FeedError(f"one subscription has at most {CHANNELS_MAX} channels")
        made = {name: self._channel(name) for name in wanted if name not in self._channels}
        number, why = self._resume_from(since)
        for channel in made.values():
            self._open(channel)
        for name in wanted:
            channel = self._channels[name]
            self._lingering.pop(channel, None)
            missing = self._sit(subscription, channel, number)
            why = why or missing
            if channel.kind != "own" and self._gap not in subscription.seats:
                missing = self._sit(subscription, self._gap, number)
                why = why or missing
        if number is not None:
            subscription.had = number
        if any(self._channels[name].kind != "own" for name in wanted) and (why or self._deaf):
            subscription.miss(why or self._deaf)

    def leave(self, seat: Seat) -> None:
        """Take note that a seat is empty; its channel is kept for a while, for who comes back."""
        channel = seat.channel
        del channel.seats[seat]
        channel.idle.pop(seat, None)
        if channel.seats or channel.kind == "gaps":
            return
        if channel.kind == "own":
            self._close(channel)
            return
        polling_ms = int(self.settings.poll_max_s * 2000) if seat.subscription.poll else 0
        self._lingering[channel] = self._now_ms() + max(_LINGER_MS, polling_ms)
        if len(self._lingering) > _LINGERING_MAX:
            self._close(next(iter(self._lingering)))

    def forget(self, subscription: Subscription) -> None:
        """Take note that one has closed."""
        self._subscriptions.pop(subscription, None)

    def tick(self) -> None:
        """Let go of channels that nobody has come back to; from time to time."""
        now_ms = self._now_ms()
        for channel in [one for one, until_ms in self._lingering.items() if until_ms <= now_ms]:
            self._close(channel)

    def poll_after(self, channels: Sequence[str]) -> float:
        """Return in how many seconds a client that polls these channels should come again.

        Half as long as nothing has moved in them, but from push.poll_min to push.poll_max.
        """
        settings = self.settings
        found = [channel for name in channels if (channel := self._channels.get(name)) is not None]
        moved_ms = max((channel.moved_ms for channel in found), default=self._now_ms())
        quiet_s = (self._now_ms() - moved_ms) / 1000
        return min(max(quiet_s / 2, settings.poll_min_s), settings.poll_max_s)

    # -- what happens ------------------------------------------------------------------------------------------------

    def publish(self, change: Change) -> None:
        """Tell a change in all channels that it is about. Respite's own records are nobody's business."""
        found = self._named(change) if change.channels else self._meant(change)
        if found:
            self.changes += 1
            body = body_of(change)
            for channel, keys in found.items():
                for at in range(0, max(len(keys), 1), KEYS_A_MESSAGE):
                    self._append(channel, channel.head + names(keys[at : at + KEYS_A_MESSAGE]) + body)

    def tell(self, channel: str, payload: Mapping[str, Any]) -> None:
        """Tell something in one of our own channels, OWN_CHANNELS; nothing is encoded where nobody listens."""
        found = self._channels.get(channel)
        if found is not None:
            self._append(found, report_of(channel, self._now_ms(), payload))

    def gap(self, why: str) -> None:
        """Tell everybody that changes may have been missed up to now."""
        self.gaps += 1
        self._append(self._gap, lost(None, why))

    # -- what is watched ---------------------------------------------------------------------------------------------

    @property
    def interest(self) -> Interest:
        """What must be watched for those who listen, and those who may come back."""
        if self._interest is None:
            self._interest = self._index.interest()
        return self._interest

    def watched(self, prefixes: Sequence[bytes] | None) -> None:
        """Take note which keys are watched from now on, by what they begin with; None: nothing is, for a while.

        After a while in which nothing was watched, `gap` must follow.
        """
        self._coverage = None if prefixes is None else tuple(prefixes)
        self._deaf = ""
        self._coverage_changed()

    def deafen(self, why: str) -> None:
        """Take note that changes of keys cannot be watched at all; who listens, and who comes, is told why."""
        if self._deaf != why:
            self._coverage = None
            self._deaf = why
            self.gap(why)
            self._release()

    def hears(self, channel: Channel) -> bool:
        """Return whether changes in a channel are heard of, or nobody can hope for that."""
        if channel.kind in {"own", "gaps"} or self._deaf:
            return True
        return self._coverage is not None and channel.watched_from is not None

    def report(self) -> dict[str, Any]:
        """Return the figures, as stats.json has them."""
        return {
            "subscribers": len(self._subscriptions),
            "channels": len(self._channels),
            "changes_total": self.changes,
            "delivered_total": self.delivered,
            "lost_total": self.lost,
            "gaps_total": self.gaps,
            "buffered": len(self._kept),
            "buffered_bytes": self._bytes,
        }

    # -- within ------------------------------------------------------------------------------------------------------

    def _channel(self, name: str) -> Channel:
        kind, raw, glob = read_channel(name)
        return Channel(name, kind, raw, head_of(name), self._now_ms(), glob)

    def _open(self, channel: Channel) -> None:
        self._channels[channel.name] = channel
        if channel.kind == "own":
            return
        self._index.add(channel)
        if self._is_covered(channel):
            self._watch_from_now(channel)
        self._interest_changed()

    def _close(self, channel: Channel) -> None:
        del self._channels[channel.name]
        self._lingering.pop(channel, None)
        if channel.kind != "own":
            self._index.remove(channel)
            self._interest_changed()

    def _resume_from(self, since: str) -> tuple[int | None, str]:
        """Return the number of a cursor, None for none, and why it is of no use, "" where it is."""
        if not since:
            return None, ""
        found = _CURSOR.fullmatch(since)
        if found is None or found[1] != self._epoch or int(found[2]) > self.number:
            return None, "the cursor is not of this proxy, or from before it was restarted"
        return int(found[2]), ""

    def _sit(self, subscription: Subscription, channel: Channel, number: int | None) -> str:
        """Take a seat after the message of a number, None: at the end; return what is missing between."""
        index = channel.end if number is None else channel.index_after(number)
        seat = subscription.seats[channel] = Seat(subscription, channel, index)
        channel.seats[seat] = None
        if index < channel.end:
            subscription.wake(seat)
        else:
            channel.idle[seat] = None
        if number is None or channel.kind == "own":
            return ""
        if number < channel.forgotten_to:
            return "messages since the cursor are not kept any more"
        is_whole = channel.watched_from is not None and channel.watched_from <= number
        return "" if is_whole else "it was not watched all the time since the cursor"

    def _named(self, change: Change) -> dict[Channel, list[bytes]]:
        return {channel: list(change.keys) for name in change.channels for channel in self._index.of_name(name)}

    def _meant(self, change: Change) -> dict[Channel, list[bytes]]:
        """Return the channels that a change is about, and of which keys each of them is told."""
        found: dict[Channel, list[bytes]] = {}
        for key in change.keys:
            if not key.startswith(OWN_KEYS):
                for channel in self._index.of_key(key):
                    found.setdefault(channel, []).append(key)
        for channel in self._about(change):
            keys = found.setdefault(channel, [])
            if channel.kind == "key" and channel.raw not in keys:
                keys.append(channel.raw)
        return found

    def _about(self, change: Change) -> Iterator[Channel]:
        """Yield the channels that hear of a change by something else than the name of a key."""
        if change.cause == "flush":
            yield from self._index.channels()
        for text in change.patterns:
            yield from self._index.of_glob(text)
        for tag in change.tags:
            yield from self._index.of_tag(tag)

    def _append(self, channel: Channel, message: bytes) -> None:
        self.number += 1
        channel.append(self.number, message)
        channel.moved_ms = self._now_ms()
        if channel.kind == "own":
            if channel.end - channel.first > OWN_KEPT:
                channel.forget()
        else:
            self._kept.append(channel)
            self._bytes += len(message) + _OVERHEAD_BYTES
            while self._bytes > self.settings.buffer_bytes:
                self._bytes -= self._kept.popleft().forget() + _OVERHEAD_BYTES
        idle, channel.idle = channel.idle, {}
        for seat in idle:
            seat.subscription.wake(seat)

    def _watch_from_now(self, channel: Channel) -> None:
        # A number that no message has: what changed unseen before has none either, and cursors up to now are older.
        self.number += 1
        channel.watched_from = self.number

    def _is_covered(self, channel: Channel) -> bool:
        return self._coverage is not None and do_cover(self._coverage, self._index.prefixes_of(channel))

    def _coverage_changed(self) -> None:
        """See which channels are watched now; who listens to one that was not is told."""
        if self._coverage is not None:
            for channel in list(self._index.channels()):
                if not self._is_covered(channel):
                    channel.watched_from = None
                elif channel.watched_from is None:
                    self._watch_from_now(channel)
                    if any(seat.subscription.has_begun for seat in channel.seats):
                        self._append(channel, lost(None, "nobody watched it before", channel.name))
        self._release()

    def _release(self) -> None:
        """Let those go on that wait for their channels to be watched: before they begin, or with more channels."""
        for subscription in list(self._subscriptions):
            if subscription.on_watched is not None and subscription.is_watched:
                subscription.on_watched()

    def _interest_changed(self) -> None:
        self._interest = None
        self.on_interest()
