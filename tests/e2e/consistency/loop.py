"""A small loop for many clients in one thread: each is a generator that says what it waits for.

    replies = yield Ask(port, bytes, count)     send, and wait for so many replies
    yield 0.01                                  wait for so many seconds

One thread, so nothing that a client notes down needs a lock, and what it noted before a send was true at the send.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import time
from collections.abc import Generator
from typing import Any

import attrs
import hiredis

from ..raw import Address, connect, encode

RETRY_S = 0.02
"""How soon somebody whom nobody let in hears of it: he will try again at once."""


class LostError(Exception):
    """The connection ended before all replies had come."""


@attrs.define(eq=False)
class Port:
    """One client connection. It is opened when somebody asks, and anew when it was lost or is spoiled."""

    address: Address
    protocol: int = 2
    db: int = 0
    who: int = -1  # the Respite that it leads to, -1 for Redis itself
    sock: socket.socket | None = None
    reader: hiredis.Reader = attrs.field(factory=hiredis.Reader)
    is_spoiled: bool = False  # to be opened anew
    unsent: bytes = b""
    greeting: int = 0  # replies that are for us, ahead of those asked for
    expected: int = 0
    replies: list[Any] = attrs.field(factory=list)
    waiting: Actor | None = None


@attrs.frozen
class Ask:
    """Bytes to send on a port, and how many replies they get."""

    port: Port
    data: bytes
    count: int


Actor = Generator[Ask | float, Any, None]


class Loop:
    """Runs actors until a time."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Actor, LostError | None]] = []
        self._order = itertools.count()
        self.running = 0  # actors that have not ended

    def spawn(self, actor: Actor) -> None:
        """Start an actor at the next turn."""
        self.running += 1
        self._sleep(actor, 0.0)

    def run_until(self, end: float) -> None:
        """Run for as long as the clock is before `end`."""
        while (now := time.monotonic()) < end:
            while self._timers and self._timers[0][0] <= now:
                _, _, actor, lost = heapq.heappop(self._timers)
                self._resume(actor, lost)
            wait_s = min(self._timers[0][0] - now if self._timers else 0.05, end - now)
            for key, mask in self._selector.select(max(wait_s, 0.0)):
                if mask & selectors.EVENT_WRITE:
                    self._flush(key.data)
                if mask & selectors.EVENT_READ:
                    self._read(key.data)

    def close(self, ports: list[Port]) -> None:
        """Close ports and the loop."""
        for port in ports:
            self._hang_up(port)
        self._selector.close()

    def _open(self, port: Port) -> bytes:
        """Connect a port, and return what brings it to its protocol and database: two commands."""
        port.sock = connect(port.address, timeout_s=5.0)
        port.reader = hiredis.Reader()
        port.replies, port.expected, port.unsent = [], 0, b""
        port.sock.setblocking(False)
        self._selector.register(port.sock, selectors.EVENT_READ, port)
        return encode("HELLO", port.protocol) + encode("SELECT", port.db)

    def _sleep(self, actor: Actor, seconds: float, then: LostError | None = None) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), actor, then))

    def _resume(self, actor: Actor, value: Any) -> None:
        try:
            wanted = actor.throw(value) if isinstance(value, LostError) else actor.send(value)
        except StopIteration:
            self.running -= 1
            return
        if isinstance(wanted, float):
            self._sleep(actor, wanted)
        else:
            self._ask(actor, wanted)

    def _ask(self, actor: Actor, ask: Ask) -> None:
        port = ask.port
        assert port.waiting is None, "two actors on one port"
        if port.is_spoiled:
            self._hang_up(port)
            port.is_spoiled = False
        port.greeting = 0
        if port.sock is None:
            try:
                port.unsent, port.greeting = self._open(port), 2
            except OSError:
                self._hang_up(port)
                self._sleep(actor, RETRY_S, LostError())
                return
        port.waiting, port.expected, port.replies = actor, ask.count + port.greeting, []
        port.unsent += ask.data
        self._flush(port)

    def _flush(self, port: Port) -> None:
        assert port.sock is not None
        try:
            sent = port.sock.send(port.unsent) if port.unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose(port)
            return
        port.unsent = port.unsent[sent:]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if port.unsent else 0)
        if self._selector.get_key(port.sock).events != events:
            self._selector.modify(port.sock, events, port)

    def _read(self, port: Port) -> None:
        if port.sock is None:
            return
        try:
            data = port.sock.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(port)
            return
        port.reader.feed(data)
        while (reply := port.reader.gets()) is not False:
            port.replies.append(reply)
        if any(isinstance(reply, hiredis.ReplyError) for reply in port.replies[: port.greeting]):
            self._hang_up(port)
            actor, port.waiting = port.waiting, None
            assert actor is not None
            self._sleep(actor, RETRY_S, LostError())
        elif port.waiting is not None and len(port.replies) >= port.expected:
            actor, port.waiting = port.waiting, None
            self._resume(actor, port.replies[port.greeting :])

    def _lose(self, port: Port) -> None:
        self._hang_up(port)
        if port.waiting is not None:
            actor, port.waiting = port.waiting, None
            self._resume(actor, LostError())

    def _hang_up(self, port: Port) -> None:
        if port.sock is not None:
            if port.sock.fileno() in self._selector.get_map():
                self._selector.unregister(port.sock)
            port.sock.close()
            port.sock = None
