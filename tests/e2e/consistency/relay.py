"""The process between Respite and Redis, run as a module: a relay that delays, chops, freezes, kills and turns.

    Respite --all links--> relay --> Redis
                           ^
                           | words on standard input: delay 0.05 | chop 1 | freeze 1 | hold 1 | kill control | calm
                           | target 6379 | answer, when all before it has been obeyed

A link says in its first bytes what it is: `respite-control` is the invalidation link. Only that one is delayed and
frozen; the others lag, each by another share of a few milliseconds; all are chopped, held and killed. A new target is
for new links.
"""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import sys
import time
from collections import deque
from typing import Any

import attrs

READ_BYTES = 262_144
KINDS = ("control", "data", "pinned")
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


@attrs.define(eq=False)
class Way:
    """One direction of a link."""

    source: socket.socket
    sink: socket.socket
    waiting: deque[tuple[float, bytes]] = attrs.field(factory=deque)  # due, bytes
    unsent: bytes = b""


@attrs.define(eq=False)
class Tunnel:
    """One link through the relay."""

    forth: Way
    back: Way
    kind: str = ""
    share: float = 1.0  # of the lag: no two links are equally slow


class Relay:
    """The process between. One thread; all sockets non-blocking."""

    def __init__(self, port: int, target: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self._target = target
        self._tunnels: list[Tunnel] = []
        self._by_socket: dict[socket.socket, tuple[Tunnel, Way]] = {}
        self._delay_s = self._lag_s = 0.0
        self._chops = self._frozen = self._holds = False
        self._rng = random.Random(port)
        self._order = b""  # the part of an order that has come

    def run(self) -> None:
        """Relay until standard input ends."""
        print("ready", flush=True)
        while True:
            reading: list[Any] = [self._listener, sys.stdin, *self._by_socket]
            writing = [way.sink for tunnel in self._tunnels for way in (tunnel.forth, tunnel.back) if way.unsent]
            readable, writable, _ = select.select(reading, writing, [], self._until_due())
            if sys.stdin in readable:
                # Not by readline(): what that has read ahead is not seen by select().
                if not (data := os.read(sys.stdin.fileno(), READ_BYTES)):
                    return
                *lines, self._order = (self._order + data).split(b"\n")
                for line in lines:
                    self._obey(*line.decode().split())
            if self._listener in readable:
                self._accept()
            for source in readable:
                if found := self._by_socket.get(source):
                    self._read(*found)
            for tunnel in list(self._tunnels):
                self._move(tunnel, {sink.fileno() for sink in writable})

    def _obey(self, word: str, value: str = "") -> None:
        if word == "delay":
            self._delay_s = float(value)
        elif word == "lag":
            self._lag_s = float(value)
        elif word == "chop":
            self._chops = value == "1"
        elif word == "freeze":
            self._frozen = value == "1"
        elif word == "hold":
            self._holds = value == "1"
        elif word == "target":
            self._target = int(value)
        elif word == "kill" and value == "all":
            for tunnel in list(self._tunnels):
                self._kill(tunnel)
        elif word == "answer":
            print("done", flush=True)
        elif word == "kill":
            chosen = [tunnel for tunnel in self._tunnels if tunnel.kind == value]
            if chosen:
                self._kill(self._rng.choice(chosen))
        else:
            assert word == "calm"
            self._delay_s = self._lag_s = 0.0
            self._chops = self._frozen = self._holds = False

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tunnel = Tunnel(Way(client, server), Way(server, client), share=self._rng.random())
        self._tunnels.append(tunnel)
        self._by_socket[client] = (tunnel, tunnel.forth)
        self._by_socket[server] = (tunnel, tunnel.back)

    def _read(self, tunnel: Tunnel, way: Way) -> None:
        try:
            data = way.source.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._kill(tunnel, reset=False)
            return
        if not tunnel.kind:
            tunnel.kind = next((kind for kind in KINDS if b"respite-%b" % kind.encode() in data), "other")
        if tunnel.kind == "control":
            late_s = self._delay_s if way is tunnel.back else 0.0
        else:
            late_s = self._lag_s * tunnel.share
        way.waiting.append((time.monotonic() + late_s, data))

    def _is_held(self, tunnel: Tunnel) -> bool:
        return self._holds or (self._frozen and tunnel.kind == "control")

    def _move(self, tunnel: Tunnel, writable: set[int]) -> None:
        if self._is_held(tunnel):
            return
        now = time.monotonic()
        for way in (tunnel.forth, tunnel.back):
            while way.waiting and way.waiting[0][0] <= now and not way.unsent:
                due, data = way.waiting.popleft()
                if self._chops and len(data) > 1:
                    cut = self._rng.randint(1, min(len(data) - 1, 40 if tunnel.kind == "control" else len(data)))
                    way.waiting.appendleft((due, data[cut:]))
                    data = data[:cut]
                if not self._send(tunnel, way, data):
                    return
                if self._chops:
                    break  # the rest goes with the next turn
            if way.unsent and way.sink.fileno() in writable and not self._send(tunnel, way, b""):
                return

    def _send(self, tunnel: Tunnel, way: Way, data: bytes) -> bool:
        way.unsent += data
        try:
            way.unsent = way.unsent[way.sink.send(way.unsent) :]
        except BlockingIOError:
            return True
        except OSError:
            self._kill(tunnel, reset=False)
            return False
        return True

    def _until_due(self) -> float | None:
        moving = [tunnel for tunnel in self._tunnels if not self._is_held(tunnel)]
        ways = [way for tunnel in moving for way in (tunnel.forth, tunnel.back) if way.waiting and not way.unsent]
        due = min((way.waiting[0][0] for way in ways), default=None)
        return None if due is None else max(due - time.monotonic(), 0.0)

    def _kill(self, tunnel: Tunnel, *, reset: bool | None = None) -> None:
        """Close both ends, each with a reset or not; what has not been passed on is lost."""
        if tunnel not in self._tunnels:
            return
        self._tunnels.remove(tunnel)
        for way in (tunnel.forth, tunnel.back):
            del self._by_socket[way.source]
            if reset or (reset is None and self._rng.random() < 0.5):
                way.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            way.source.close()


if __name__ == "__main__":
    Relay(int(sys.argv[1]), int(sys.argv[2])).run()
