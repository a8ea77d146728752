"""What became of a batch of requests that is watched: how long its client waited, and which replies were errors.

Owns the place behind the batch in its client's queue, where its end is seen without anything that is not watched
having to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from proxy.core.figures.stats import Histogram
from proxy.core.slots import WHOLE, Slot
from proxy.wire.reply import FrameScanner, ReplyError

if TYPE_CHECKING:
    from proxy.core.figures.tally import Counted

LOOKED_THROUGH_BYTES: Final = 16 * 1024
"""Replies of several requests in one piece are taken apart up to here, for errors are short."""


class Watch:
    """A batch on its way. `whose` has two for each request: its command, its class."""

    __slots__ = ("_clock", "_waited", "_weights", "_whose", "began_at")

    def __init__(
        self,
        whose: Sequence[Counted],
        weights: Sequence[int],
        began_at: float,
        waited: Histogram,
        clock: Callable[[], float],
    ) -> None:
        self._whose = whose
        self._weights = weights
        self.began_at = began_at
        self._waited = waited
        self._clock = clock

    def end(self, pieces: Sequence[bytes]) -> None:
        """Take the replies, in as many pieces as there are; the client of a pipeline has waited for the last."""
        waited_s = self._clock() - self.began_at
        weights = self._weights
        if len(weights) == 1:  # as most are
            whose = self._whose
            Histogram.add_to_all((self._waited, whose[0].waited, whose[1].waited), waited_s, weights[0])
        else:
            for at, one in enumerate(self._whose):
                one.waited.add(waited_s, weights[at // 2])
            self._waited.add(waited_s, sum(weights))
        for at in _errors(pieces, len(self._weights)):
            self._whose[2 * at].errors += self._weights[at]
            self._whose[2 * at + 1].errors += self._weights[at]


class WatchSlot(Slot):
    """The place behind a batch: it owes nothing, and is told when it is its turn."""

    __slots__ = ("_slots", "_watch")

    def __init__(self, watch: Watch, slots: Sequence[Slot]) -> None:
        self.client = None
        self.left = 0
        self.parts = None
        self.mode = WHOLE
        self._watch: Watch | None = watch
        self._slots = slots

    @property
    def reply(self) -> bytes:  # type: ignore[override]
        """Nothing to send. Only who settles a queue asks, once everything before it has been taken."""
        watch, self._watch = self._watch, None
        if watch is not None:
            # Of what was streamed the end is left, which begins anywhere.
            watch.end([b"" if slot.streams else slot.reply or b"" for slot in self._slots])
        return b""


def _errors(pieces: Sequence[bytes], count: int) -> list[int]:
    """Return which of `count` replies are errors, as far as it can be told."""
    if len(pieces) != count:
        # Not joined to be measured: they may be hundreds of times the same megabyte.
        raw = b"".join(pieces) if sum(map(len, pieces)) <= LOOKED_THROUGH_BYTES else b""
        pieces = _split(raw) if b"-" in raw else []
    return [at for at, reply in enumerate(pieces[:count]) if reply[:1] in (b"-", b"!")]


def _split(raw: bytes) -> list[bytes]:
    """Return the whole frames that bytes begin with; nothing here may rely on there being any."""
    scanner = FrameScanner()
    found: list[bytes] = []
    at = 0
    try:
        while at < len(raw) and (end := scanner.scan(raw, at)) > 0:
            found.append(raw[at:end])
            at = end
    except (ReplyError, ValueError):
        return []
    return found
