"""Replies of a link, from bytes to slots: frames are found by offset, never decoded, and land in order.

      chunk [frame][frame][fra      fifo [slot][slot][slot]       the head takes each, or a batch of them in one slice

Owns the fifo, and what a chunk ends in the middle of. Where bytes come from is `link`'s.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from proxy.core.slots import Failure, Slot
from proxy.wire.reply import FrameScanner, ReplyError

_OKS: Final = b"+OK\r\n" * 512


class Landing:
    """The slots a link owes, and what lands replies in them."""

    __slots__ = ("_push_parts", "_scanner", "fifo", "tracked")

    def __init__(self) -> None:
        self.fifo: deque[Slot] = deque()
        self.tracked = False  # Redis tracks what is read here: leases may be opened
        self._scanner = FrameScanner()
        self._push_parts: list[bytes] | None = None  # a push cut by the end of a chunk

    def receive(self, data: bytes) -> None:
        """Land the frames of a chunk, in order. Raises ReplyError for what is no RESP, or no reply to anything."""
        scanner = self._scanner
        pos = self._continue(data) if scanner.busy else 0
        fifo = self.fifo
        find = data.find
        size = len(data)
        while pos < size:
            kind = data[pos]
            if kind == 0x3E:
                end = scanner.scan(data, pos)
                if end < 0:
                    self._push_parts = [data[pos:]]
                    return
                self.on_push(data[pos:end])
                pos = end
                continue
            if not fifo:
                self.on_surplus(data[pos:])
                return
            slot = fifo[0]
            left = slot.left
            start = pos
            if left > 1 and kind == 0x2B and data.startswith(_OKS[: 5 * left], pos) and left <= 512:
                pos += 5 * left
                left = 0
            while left:
                if kind == 0x24:  # `$`: four of five replies; inlined, as a call costs half of what it does
                    end = find(b"\n", pos) + 1
                    if end:
                        length = int(data[pos + 1 : end])
                        end += length + 2 if length >= 0 else 0
                        if left > 2:  # a pipeline often asks for values of one size: compare the next heads
                            head = data[pos : data.find(b"\n", pos) + 1]
                            step = end - pos
                            while left > 1 and end + step <= size and data.startswith(head, end):
                                end += step
                                left -= 1
                    if not end or end > size:
                        end = scanner.scan(data, pos)
                elif kind in b"+:-":
                    end = find(b"\n", pos) + 1 or scanner.scan(data, pos)
                else:
                    end = scanner.scan(data, pos)
                if end < 0:
                    if pos > start:
                        slot.keep(data[start:pos], slot.left - left)
                    slot.partial(data[pos:])
                    return
                left -= 1
                pos = end
                if pos >= size or (left and (kind := data[pos]) == 0x3E):
                    break
            if left:
                slot.keep(data[start:pos], slot.left - left)
            else:
                fifo.popleft()
                try:  # costs nothing while nothing is raised
                    slot.land(data[start:pos])
                except Exception:
                    self._stumble(slot)
                    raise

    @staticmethod
    def _stumble(slot: Slot) -> None:
        """Answer the client of a slot that fell over its reply, before the link ends for it."""
        if slot.reply is None:
            slot.fail(Failure.LOST)

    def _continue(self, data: bytes) -> int:
        """Go on with the frame the last chunk ended in; return where it ends."""
        end = self._scanner.scan(data, 0)
        piece = data if end < 0 else data[:end]
        if self._push_parts is not None:
            self._push_parts.append(piece)
            if end >= 0:
                push, self._push_parts = b"".join(self._push_parts), None
                self.on_push(push)
        else:
            slot = self.fifo[0]
            if end < 0:
                slot.partial(piece)
            elif slot.left > 1:
                slot.keep(piece, 1)
            else:
                self.fifo.popleft()
                try:
                    slot.land(piece)
                except Exception:
                    self._stumble(slot)
                    raise
        return end if end >= 0 else len(data)

    def on_surplus(self, data: bytes) -> None:
        """Take bytes that answer nothing: the order of slots cannot be trusted any more."""
        raise ReplyError("the upstream sent a reply to nothing")

    def on_push(self, frame: bytes) -> None:
        """Take an out-of-band frame. On a data link it is no client's: at most it says that tracking has ended."""
        if b"tracking-redir-broken" in frame[:64]:
            self.tracked = False
