"""A TCP relay that holds back everything by a fixed time each way: a network between two processes of one machine.

    client --> [read, stamp now + delay] --> one queue in order of due time --> [send when due] --> server
    client <-- [send when due] <------------ the same queue <----------- [read, stamp now + delay] <-- server

One process, standard library, `select.select`: its timeout has microseconds, where epoll's and trio's have whole
milliseconds. select takes descriptors below 1024 only, so a relay carries some 500 connections and refuses more.
The delay is the same for all, so one queue is in order of due time by itself and bytes of a connection keep theirs.
"""

import argparse
import ctypes
import select
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field

READ_BYTES = 65536
# A direction that holds more than this is read no further until its other end has taken some.
MAX_HELD_BYTES = 16 * 1024 * 1024
# FD_SETSIZE of the C library: select raises on higher descriptors.
MAX_DESCRIPTOR = 1023
PR_SET_TIMERSLACK = 29


@dataclass(eq=False, slots=True)
class Flow:
    """One direction of a connection: what is read from `source` is owed to `sink`."""

    source: socket.socket
    sink: socket.socket
    source_fd: int
    sink_fd: int
    unsent: bytearray = field(default_factory=bytearray)
    held_bytes: int = 0
    is_paused: bool = False
    """Not read for now, because it holds too much."""
    is_at_end: bool = False
    """The source's end of file is due: nothing but `unsent` is left to send."""
    is_finished: bool = False
    back: "Flow | None" = None


class Relay:
    """Owns the listener, every relayed socket and the queue of held bytes."""

    def __init__(self, listener: socket.socket, target: tuple[str, int], delay_s: float) -> None:
        self._listener = listener
        self._target = target
        self._delay_s = delay_s
        self._held: deque[tuple[float, Flow, bytes]] = deque()
        self._sources: dict[int, Flow] = {}
        self._sinks: dict[int, Flow] = {}
        self._reading = {listener.fileno()}

    def run(self) -> None:
        """Relay until the process is ended."""
        while True:
            self.step(None)

    def close(self) -> None:
        """Close every relayed connection; the listener is its owner's."""
        for flow in list(self._sources.values()):
            self._close(flow)

    def step(self, max_wait_s: float | None) -> None:
        """Wait for the next thing to do, at most `max_wait_s` (None: for ever), and do everything that is due."""
        wait_s = max_wait_s
        if self._held:
            until_due_s = max(0.0, self._held[0][0] - time.monotonic())
            wait_s = until_due_s if wait_s is None else min(wait_s, until_due_s)
        readable, writable, _ = select.select(self._reading, self._sinks, (), wait_s)
        for descriptor in readable:
            if flow := self._sources.get(descriptor):
                self._read(flow)
            elif descriptor == self._listener.fileno():
                self._accept()
        for descriptor in writable:
            if waiting := self._sinks.get(descriptor):
                self._send(waiting)
        self._deliver_due()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # the client went away before it was accepted
        try:
            server = socket.create_connection(self._target, timeout=2)
        except OSError as error:
            print(f"relay: cannot reach {self._target}: {error}", file=sys.stderr, flush=True)
            client.close()
            return
        if max(client.fileno(), server.fileno()) > MAX_DESCRIPTOR:
            print("relay: more connections than select can watch, refusing", file=sys.stderr, flush=True)
            client.close()
            server.close()
            return
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        forth = Flow(client, server, client.fileno(), server.fileno())
        forth.back = Flow(server, client, server.fileno(), client.fileno(), back=forth)
        for flow in (forth, forth.back):
            self._sources[flow.source_fd] = flow
            self._reading.add(flow.source_fd)

    def _read(self, flow: Flow) -> None:
        try:
            data = flow.source.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._close(flow)
            return
        self._held.append((time.monotonic() + self._delay_s, flow, data))
        flow.held_bytes += len(data)
        flow.is_paused = flow.held_bytes > MAX_HELD_BYTES
        if flow.is_paused or not data:
            self._reading.discard(flow.source_fd)

    def _deliver_due(self) -> None:
        now = time.monotonic()
        while self._held and self._held[0][0] <= now:
            _, flow, data = self._held.popleft()
            if flow.is_finished:
                continue
            flow.unsent += data
            flow.is_at_end = flow.is_at_end or not data
            self._send(flow)

    def _send(self, flow: Flow) -> None:
        """Send what is due; leave the rest to the next time the sink is writable."""
        if flow.unsent:
            try:
                sent = flow.sink.send(flow.unsent)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._close(flow)
                return
            del flow.unsent[:sent]
            flow.held_bytes -= sent
            if flow.is_paused and flow.held_bytes <= MAX_HELD_BYTES:
                flow.is_paused = False
                self._reading.add(flow.source_fd)
        if flow.unsent:
            self._sinks[flow.sink_fd] = flow
            return
        self._sinks.pop(flow.sink_fd, None)
        if flow.is_at_end:
            self._finish(flow)

    def _finish(self, flow: Flow) -> None:
        """Pass the end of file on; the connection closes when both directions have ended."""
        flow.is_finished = True
        if flow.back is None or flow.back.is_finished:
            self._close(flow)
            return
        try:
            flow.sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(flow)

    def _close(self, flow: Flow) -> None:
        """Forget both directions at once; what they still hold is skipped when it comes due."""
        for each in (flow, flow.back):
            if each is not None:
                each.is_finished = True
                self._sources.pop(each.source_fd, None)
                self._sinks.pop(each.sink_fd, None)
                self._reading.discard(each.source_fd)
                each.source.close()


def sharpen_timers() -> None:
    """Let this process's waits end when they are due, not up to 50 us later, where the kernel (Linux) offers it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


def measure_rtt_s(port: int, count: int) -> list[float]:
    """Time `count` PINGs, one after the other, to 127.0.0.1:port."""
    times = []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            start = time.monotonic()
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            received = b""
            while not received.endswith(b"\r\n"):
                received += connection.recv(64)
            times.append(time.monotonic() - start)
    return times


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    """Relay from the command line until ended by a signal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--listen", type=_address, required=True, metavar="HOST:PORT")
    parser.add_argument("--target", type=_address, required=True, metavar="HOST:PORT")
    parser.add_argument("--delay-ms", type=float, default=0.5, help="each way (default 0.5)")
    options = parser.parse_args()
    sharpen_timers()
    with socket.create_server(options.listen, backlog=512) as listener:
        listener.setblocking(False)
        Relay(listener, options.target, options.delay_ms / 1000).run()


if __name__ == "__main__":
    main()
