"""A load at a steady pace: many connections, each with one GET outstanding, sent when it is due.

Latency counts from when a request was due, so that a server that is late is not asked less.
"""

import heapq
import select
import socket
import time
from collections.abc import Sequence

from bench._lib import BenchError

VALUE = b"x" * 100
KEYS = 1000
ANSWER_TIMEOUT_S = 10.0


class Generator:
    """Keeps one GET outstanding a busy connection, each sent when it is due."""

    def __init__(self, connections: Sequence[socket.socket], rate: float) -> None:
        self._sockets = {connection.fileno(): connection for connection in connections}
        self._poller = select.epoll(len(connections))
        for descriptor in self._sockets:
            self._poller.register(descriptor, select.EPOLLIN)
        self._interval_s = len(connections) / rate
        now = time.monotonic()
        self._due = [
            (now + self._interval_s * index / len(connections), descriptor, now)
            for index, descriptor in enumerate(self._sockets)
        ]
        heapq.heapify(self._due)
        self._waiting: dict[int, tuple[float, bytearray]] = {}
        self._turn = 0
        self.latency_s: list[float] = []
        self.late_s: list[float] = []

    def run(self, until: float) -> None:
        """Send what falls due until then and take every reply to it; what was seen is added to what was seen before.

        Raises BenchError if a reply does not come.
        """
        while (now := time.monotonic()) < until or self._waiting:
            if now > until + ANSWER_TIMEOUT_S:
                raise BenchError(f"{len(self._waiting)} GETs were not answered in {ANSWER_TIMEOUT_S:.0f} s")
            while self._due and self._due[0][0] <= now < until:
                self._send(*heapq.heappop(self._due))
            # Past the end nothing is sent, so only replies can wake us.
            wake_at = min(until, self._due[0][0]) if self._due and now < until else until
            wait_s = wake_at - time.monotonic() if now < until else 1.0
            for descriptor, _ in self._poller.poll(max(0.0, wait_s)):
                self._receive(descriptor)

    def _send(self, due: float, descriptor: int, free_since: float) -> None:
        self._turn += 1
        key = f"key:{self._turn % KEYS}".encode()
        self._sockets[descriptor].sendall(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key))
        self.late_s.append(time.monotonic() - max(due, free_since))
        self._waiting[descriptor] = (due, bytearray())

    def _receive(self, descriptor: int) -> None:
        data = self._sockets[descriptor].recv(4096)
        if not data or descriptor not in self._waiting:
            raise BenchError(f"a busy connection was closed, or told {data!r}")
        due, received = self._waiting[descriptor]
        received += data
        expected = b"$%d\r\n%s\r\n" % (len(VALUE), VALUE)
        if len(received) < len(expected):
            return
        if received != expected:
            raise BenchError(f"a GET was answered {bytes(received[:80])!r}")
        now = time.monotonic()
        del self._waiting[descriptor]
        self.latency_s.append(now - due)
        # The schedule stands whatever the reply took: a slow server delays requests, it does not make them fewer.
        heapq.heappush(self._due, (due + self._interval_s, descriptor, now))

    def close(self) -> None:
        """Let go of the poller; the connections are the caller's."""
        self._poller.close()
