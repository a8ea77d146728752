"""The channels of the change feed: what a name means, and the messages of each that are still kept.

    ticket:7        a key             ticket:*     a glob over keys: an unescaped * ? [ makes one
    tag:queue-7     a tag             respite:..   our own, told by `Feed.tell`

A channel is a log that all of its subscribers read, each at a place of its own: a message is held once, however slow
some are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

import attrs

from proxy.config.globs import Sort, parse_glob
from proxy.values.globs import Glob, compile_glob
from proxy.values.rules import OWN_KEYS

if TYPE_CHECKING:
    from proxy.core.feed.feed import Subscription

ChannelKind = Literal["key", "glob", "tag", "own", "gaps"]

OWN_CHANNELS: Final = ("respite:figures", "respite:alerts")
"""What Respite tells of itself."""

CHANNEL_MAX_BYTES: Final = 1024
STARS_MAX: Final = 8
"""What a key is searched for, one after the other."""

BRACKETS_MAX: Final = 8
GLOB_MAX_BYTES: Final = 128
"""What makes a glob dear to compile: 256 of them come in one subscription."""

OWN_KEPT: Final = 64  # messages of an own channel: of figures only the newest are of use
TAG: Final = "tag:"
_TRIMMED_FROM: Final = (
    256  # forgotten messages at which a list is made shorter: each time, and it would cost its length
)


class FeedError(Exception):
    """Nobody can subscribe like that; the text says why. `is_full`: not now, for there are too many subscribers."""

    def __init__(self, why: str, *, is_full: bool = False) -> None:
        super().__init__(why)
        self.is_full = is_full


@attrs.define(eq=False)
class Seat:
    """The place of one subscription in one channel: `index` is that of the next message it gets."""

    subscription: Subscription
    channel: Channel
    index: int


@attrs.define(eq=False)
class Channel:
    """One channel. `raw` is the key, the glob or the tag; `head` how its messages begin.

    Messages have numbers, which rise over all channels, and an index, which counts those of this one. `watched_from`
    is the number after which nothing has been missed, None before anybody watched; `moved_ms` is when it was told
    something last, or was made. `idle` are the seats that have everything.
    """

    name: str
    kind: ChannelKind
    raw: bytes
    head: bytes
    moved_ms: int
    glob: Glob | None = None
    seats: dict[Seat, None] = attrs.field(factory=dict)
    idle: dict[Seat, None] = attrs.field(factory=dict)
    watched_from: int | None = None
    forgotten_to: int = 0
    """The number of the newest message that is not kept any more."""
    _first: int = 0
    _numbers: list[int] = attrs.field(factory=list)
    _messages: list[bytes] = attrs.field(factory=list)
    _skipped: int = 0
    """How many at the beginning of the lists are forgotten and not removed yet."""

    @property
    def first(self) -> int:
        """The index of the oldest message that is kept."""
        return self._first

    @property
    def end(self) -> int:
        """The index that the next message will have."""
        return self._first + len(self._messages) - self._skipped

    def append(self, number: int, message: bytes) -> None:
        """Keep one more message."""
        self._numbers.append(number)
        self._messages.append(message)

    def forget(self) -> int:
        """Keep the oldest message no longer; return how many bytes it had."""
        at = self._skipped
        size = len(self._messages[at])
        self.forgotten_to = self._numbers[at]
        self._messages[at] = b""
        self._first += 1
        self._skipped = at = at + 1
        if at >= _TRIMMED_FROM and at * 2 >= len(self._messages):
            del self._numbers[:at], self._messages[:at]
            self._skipped = 0
        return size

    def number_at(self, index: int) -> int:
        """Return the number of a message that is kept."""
        return self._numbers[self._skipped + index - self._first]

    def message_at(self, index: int) -> bytes:
        """Return a message that is kept."""
        return self._messages[self._skipped + index - self._first]

    def slice(self, index: int, most: int) -> list[bytes]:
        """Return up to `most` messages from an index on, which is kept."""
        at = self._skipped + index - self._first
        return self._messages[at : at + most]

    def index_after(self, number: int) -> int:
        """Return the index of the first kept message whose number is higher."""
        low, high = self._skipped, len(self._numbers)
        while low < high:
            middle = (low + high) // 2
            if self._numbers[middle] <= number:
                low = middle + 1
            else:
                high = middle
        return low - self._skipped + self._first


@lru_cache(maxsize=512)  # a glob takes up to two milliseconds: it is read first, for all to get their turn, then used
def read_channel(name: str) -> tuple[ChannelKind, bytes, Glob | None]:
    """Say what a name means. Raises FeedError for what is no channel."""
    if name in OWN_CHANNELS:
        return "own", name.encode(), None
    raw = name.encode("utf-8", "surrogateescape")
    if not raw or raw == TAG.encode():
        raise FeedError("a channel has a name: a key, a glob over keys, or tag:NAME")
    if len(raw) > CHANNEL_MAX_BYTES:
        raise FeedError(f"the name of a channel has at most {CHANNEL_MAX_BYTES} bytes")
    if name.startswith(TAG):
        return "tag", raw.removeprefix(TAG.encode()), None
    parts = parse_glob(raw)
    for sort, most, what in ((Sort.STAR, STARS_MAX, "*"), (Sort.SET, BRACKETS_MAX, "[...]")):
        if sum(part.sort is sort for part in parts) > most:
            raise FeedError(f"the glob of a channel has at most {most} {what}")
    is_key = all(part.sort is Sort.LITERAL for part in parts)
    if not is_key and len(raw) > GLOB_MAX_BYTES:
        raise FeedError(f"the glob of a channel has at most {GLOB_MAX_BYTES} bytes")
    if is_key:
        key = b"".join(bytes(part.accepts) for part in parts)
        if key.startswith(OWN_KEYS):
            raise FeedError(f"of {OWN_KEYS.decode()} there are only {' and '.join(OWN_CHANNELS)}")
        return "key", key, None
    return "glob", raw, compile_glob(raw)
