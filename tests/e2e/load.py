"""Real clients in threads, for tests in which something happens to the proxy meanwhile: what became of each request.

Every request is an RPUSH of an id of its own, so that Redis itself tells afterwards which were run. A client that finds
its connection closed opens another one, as real clients do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from .raw import Address, ClosedError, NoFrameError, RawClient, encode, encode_all
from .servers import Server

KEY = "load"


@attrs.define
class Told:
    """What clients were told: ids acknowledged and ids that got no answer, connections refused, errors as text."""

    acked: list[str] = attrs.field(factory=list)
    unanswered: list[str] = attrs.field(factory=list)
    half: list[bytes] = attrs.field(factory=list)
    refused: int = 0
    connections: int = 0
    errors: list[str] = attrs.field(factory=list)
    slowest_s: float = 0.0

    def add(self, other: Told) -> None:
        """Sum up."""
        self.acked += other.acked
        self.unanswered += other.unanswered
        self.half += other.half
        self.refused += other.refused
        self.connections += other.connections
        self.errors += other.errors
        self.slowest_s = max(self.slowest_s, other.slowest_s)


@attrs.frozen
class Kind:
    """How a client behaves: commands at once, batches before it connects anew (0: never), seconds between two batches.

    `is_last`: it does not connect again once its connection was closed by the other side.
    """

    name: str
    depth: int = 1
    batches: int = 0
    pause_s: float = 0.0
    is_last: bool = False


class Load:
    """Clients of several kinds at one address, from `start` to `stop`."""

    def __init__(self, address: Address, kinds: list[Kind], each: int = 2) -> None:
        self._address = address
        self._stopping = threading.Event()
        self._told: list[Told] = []
        self._threads = [
            threading.Thread(target=self._run, args=(kind, number), daemon=True)
            for kind in kinds
            for number in range(each)
        ]

    def start(self) -> None:
        """Start all, and return once each has had an answer."""
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + 10
        while sum(bool(told.acked) for told in list(self._told)) < len(self._threads):
            assert time.monotonic() < deadline, [told.errors for told in self._told]
            time.sleep(0.005)

    def stop(self) -> Told:
        """Have all end after the request they are at, and return what they were told."""
        self._stopping.set()
        return self.result()

    def result(self) -> Told:
        """Wait until all have ended, and return what they were told."""
        whole = Told()
        for thread in self._threads:
            thread.join(15)
            assert not thread.is_alive(), "a client got no answer"
        for told in self._told:
            whole.add(told)
        return whole

    def _run(self, kind: Kind, number: int) -> None:
        told = Told()
        self._told.append(told)
        count = 0
        while not self._stopping.is_set():
            try:
                client = RawClient(self._address)
            except ConnectionRefusedError:
                told.refused += 1
                if kind.is_last:
                    return
                time.sleep(0.01)
                continue
            except OSError as exc:
                told.errors.append(f"connect: {exc!r}")
                return
            told.connections += 1
            with client:
                batches = 0
                while not self._stopping.is_set() and (not kind.batches or batches < kind.batches):
                    ids = [f"{kind.name}-{number}-{count + at}" for at in range(kind.depth)]
                    count += kind.depth
                    batches += 1
                    if not _batch(client, ids, told):
                        break
                    self._stopping.wait(kind.pause_s)
                    if kind.pause_s and client.is_readable(0):
                        break  # it was closed while it was quiet: nothing was lost
                else:
                    continue
            if kind.is_last:
                return


def _batch(client: RawClient, ids: list[str], told: Told) -> bool:
    """Send one batch and read its answers; return whether all came."""
    began = time.monotonic()
    answered = 0
    try:
        client.send(encode_all([("RPUSH", KEY, one) for one in ids]))
        for one in ids:
            reply = client.frame()
            answered += 1
            if reply[:1] == b":":
                told.acked.append(one)
            else:
                told.errors.append(repr(reply))
    except ClosedError as closed:
        told.unanswered += ids[answered:]
        if closed.partial:
            told.half.append(closed.partial)
        return False
    except (OSError, NoFrameError) as exc:
        told.unanswered += ids[answered:]
        if not isinstance(exc, ConnectionError | BrokenPipeError):
            told.errors.append(repr(exc))
        return False
    told.slowest_s = max(told.slowest_s, time.monotonic() - began)
    return True


@contextmanager
def load(address: Address, kinds: list[Kind], each: int = 2) -> Iterator[Load]:
    """Run clients for the length of a block; they are stopped at its end, whatever happens in it."""
    made = Load(address, kinds, each)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def pushed(server: Server) -> list[str]:
    """Return the ids that Redis has, in its order."""
    with server.connect() as direct:
        direct.send(encode("LRANGE", KEY, 0, -1))
        frame = direct.frame().split(b"\r\n")
        return [word.decode() for word in frame[2::2]]
