"""One who listens to channels of the change feed: what is still to be taken, what was lost, where to resume.

    wake <-- Channel.append                      take --> messages of all channels, by their numbers
    begin: greeted; from then on whatever may have been missed is told

Owns the places of one client in the logs of its channels. Made by `Feed.subscribe`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING

from proxy.core.feed.channels import Channel, Seat
from proxy.core.feed.messages import lost

if TYPE_CHECKING:
    from proxy.core.feed.feed import Feed


class Subscription:
    """One who listens.

    `on_ready` is called when there is something to take and there was nothing before; `on_watched`, None while nobody
    waits for that, when `is_watched` becomes True; neither may raise. A client is greeted, and `begin` called, once
    `is_watched`, which takes some round trips to Redis, or when that takes too long: then it is told later that it may
    have missed something.
    """

    def __init__(self, feed: Feed, *, poll: bool) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self.on_watched: Callable[[], None] | None = None
        self.poll = poll
        self.has_begun = False
        self.is_closed = False
        self.seats: dict[Channel, Seat] = {}
        self.had = feed.number
        """The number up to which everything has been taken."""
        self._feed = feed
        self._pending: dict[Seat, None] = {}
        self._lost = 0
        self._why = ""

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels it listens to."""
        return tuple(channel.name for channel in self.seats if channel.kind != "gaps")

    @property
    def cursor(self) -> str:
        """What to resume from: everything up to it has been taken."""
        return self._feed.cursor_at(self.had if self._pending else self._feed.number)

    @property
    def has_more(self) -> bool:
        """Whether there is something to take."""
        return bool(self._pending or self._lost or self._why)

    @property
    def is_watched(self) -> bool:
        """Whether every change in its channels is heard of from now on, or nobody can hope for that."""
        return all(map(self._feed.hears, self.seats))

    def begin(self) -> bool:
        """Begin: the client is greeted. Return whether nothing is missing since the cursor that it came with.

        Where something is, the first message says so.
        """
        self.has_begun = True
        return not self._why

    def add(self, channels: Sequence[str]) -> None:
        """Listen to more channels from now on. Raises FeedError, and changes nothing then."""
        self._feed.join(self, channels)

    def remove(self, channels: Sequence[str]) -> None:
        """Listen to these no more; of those that it does not listen to nothing is said."""
        unwanted = set(channels)
        for channel in [one for one in self.seats if one.name in unwanted and one.kind != "gaps"]:
            self._leave(channel)

    def take(self, most: int) -> list[bytes]:
        """Return up to `most` messages, in their order, what was lost first. `most` is 1 or more."""
        out: list[bytes] = []
        self._count_lost()
        if self._why or self._lost:
            # Where nobody knows what is missing, those that were counted are among it.
            out.append(lost(None, self._why) if self._why else lost(self._lost))
            self._feed.lost += self._lost
            self._lost, self._why = 0, ""
        if len(self._pending) == 1:
            self._take_slice(out, most - len(out))
        elif self._pending:
            self._take_merged(out, most - len(out))
        self._feed.delivered += len(out)
        return out

    def close(self) -> None:
        """Listen no more; a second call changes nothing."""
        if self.is_closed:
            return
        self.is_closed = True
        for channel in list(self.seats):
            self._leave(channel)
        self._feed.forget(self)

    # -- for the feed ------------------------------------------------------------------------------------------------

    def wake(self, seat: Seat) -> None:
        """Take note that a channel has something that has not been taken."""
        was_empty = not self.has_more
        self._pending[seat] = None
        if was_empty:
            self.on_ready()

    def miss(self, why: str) -> None:
        """Take note that something may be missing."""
        was_empty = not self.has_more
        self._why = why
        if was_empty:
            self.on_ready()

    # -- within ------------------------------------------------------------------------------------------------------

    def _leave(self, channel: Channel) -> None:
        seat = self.seats.pop(channel)
        self._pending.pop(seat, None)
        self._feed.leave(seat)

    def _count_lost(self) -> None:
        for seat in list(self._pending):
            behind = seat.channel.first - seat.index
            if behind > 0:
                self._lost += behind
                seat.index = seat.channel.first
                self._rest_at_end(seat)

    def _rest_at_end(self, seat: Seat) -> None:
        if seat.index >= seat.channel.end:
            del self._pending[seat]
            seat.channel.idle[seat] = None

    def _take_slice(self, out: list[bytes], most: int) -> None:
        (seat,) = self._pending
        taken = seat.channel.slice(seat.index, most)
        if taken:
            out += taken
            seat.index += len(taken)
            self.had = seat.channel.number_at(seat.index - 1)
            self._rest_at_end(seat)

    def _take_merged(self, out: list[bytes], most: int) -> None:
        heap = [(seat.channel.number_at(seat.index), at, seat) for at, seat in enumerate(self._pending)]
        heapify(heap)
        for _ in range(most):
            if not heap:
                return
            self.had, at, seat = heap[0]
            out.append(seat.channel.message_at(seat.index))
            seat.index += 1
            self._rest_at_end(seat)
            if seat in self._pending:
                heapreplace(heap, (seat.channel.number_at(seat.index), at, seat))
            else:
                heappop(heap)
