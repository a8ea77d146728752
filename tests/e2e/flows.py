"""Flows of the differential test: several connections, steps in order, what each step brings back.

A flow runs on one target at a time and leaves a transcript; two targets are equal when their transcripts are. A step
is a tuple: the connection's name, what it sends (a line, a tuple of words, raw bytes, or None for nothing), and how
many frames it then reads (1 when left out), or CLOSED, or QUIET. Steps of the connection "@" are for the runner:

    ("@", "wait blocked_clients=1")    until INFO of the server itself says so
    ("@", "sleep 0.05")                time that must pass, for keys that expire
    ("@", "direct SET k v")            a command on the server itself, past Respite

In a line `{id:b}` stands for the id of connection b and `{addr:b}` for its address, as that side knows them.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from typing import Literal

import attrs

from .corpus import SETUP
from .exceptions import Mask
from .raw import ClosedError, NoFrameError, RawClient, encode, encode_all
from .servers import Kind, wait_for
from .targets import Target
from .words import Line, words

CLOSED: Literal["closed"] = "closed"
QUIET: Literal["quiet"] = "quiet"
QUIET_S = 0.03
SPLIT_MOST_BYTES = 20_000
FAILED = b"<failed: "

Sent = Line | bytes | None
Reads = int | Literal["closed", "quiet"]
Step = tuple[str, Sent] | tuple[str, Sent, Reads]
CLEAN: tuple[Line, ...] = (
    "SCRIPT FLUSH",
    "FUNCTION FLUSH",
    "ACL DELUSER alice bob",
    "CONFIG SET notify-keyspace-events ''",
)


@attrs.frozen
class Flow:
    """Steps that run one after another. Connections are opened when first named, in the flow's protocol.

    `mask` loosens the comparison of every frame that is no error, `why` says for what reason. Frames that match
    `ignore` are skipped while reading. `is_raw`: connections get no HELLO first, and the flow runs once.
    `since` names the first Redis that has what the flow needs; `redis_only` says what Valkey does otherwise.
    """

    name: str
    steps: tuple[Step, ...]
    mask: Mask | None = None
    why: str = ""
    ignore: bytes = b""
    is_raw: bool = False
    protocols: tuple[int, ...] = (2, 3)
    since: tuple[int, int] = (6, 0)
    redis_only: str = ""

    def why_not(self, kind: Kind) -> str:
        """Say why the flow cannot run on a kind of server; "" when it can."""
        if kind.is_valkey:
            return self.redis_only
        return "" if kind.version >= self.since else f"needs Redis {self.since[0]}.{self.since[1]}"


@attrs.define
class Run:
    """One flow on one target."""

    flow: Flow
    target: Target
    protocol: int
    is_split: bool = False  # what a step sends is cut at random bytes, where nothing closes the connection
    clients: dict[str, RawClient] = attrs.field(factory=dict)
    ids: dict[str, bytes] = attrs.field(factory=dict)

    def transcript(self) -> list[tuple[Step, bytes]]:
        """Run the steps. A step that fails ends it, with what went wrong in place of its reply."""
        done: list[tuple[Step, bytes]] = []
        step: Step = ("setup", None)
        try:
            self._prepare()
            for step in self.flow.steps:
                done.extend((step, reply) for reply in self._take(step))
        except (ClosedError, NoFrameError, OSError, AssertionError) as error:
            done.append((step, FAILED + f"{type(error).__name__}: {error}>".encode()))
        finally:
            for client in self.clients.values():
                client.close()
        return done

    def _prepare(self) -> None:
        with self.target.connect() as client:
            setup = [words(line) for line in (*CLEAN, *SETUP)]
            client.send(encode_all(setup))
            client.frames(len(setup))

    def _take(self, step: Step) -> Iterator[bytes]:
        name, sent = step[0], step[1]
        if name == "@":
            assert isinstance(sent, str)
            yield from self._direct(sent)
            return
        client = self._client(name)
        reads: Reads = step[2] if len(step) == 3 else 1
        if sent is not None:
            self._send(client, sent if isinstance(sent, bytes) else encode(*self._fill(words(sent))), reads)
        yield from self._read(client, reads)

    def _send(self, client: RawClient, data: bytes, reads: Reads) -> None:
        if self.is_split and reads != CLOSED and len(data) <= SPLIT_MOST_BYTES:
            client.send_split(data, random.Random(len(data)))
        else:
            client.send(data)

    def _client(self, name: str) -> RawClient:
        if name not in self.clients:
            client = self.clients[name] = self.target.connect(timeout_s=4.0)
            if not self.flow.is_raw:
                client.command("HELLO", self.protocol)
            if self._mentions(b"{id:%b}" % name.encode()):
                self.ids[name] = client.command("CLIENT", "ID")[1:-2]
        return self.clients[name]

    def _mentions(self, token: bytes) -> bool:
        return any(token in b" ".join(words(step[1])) for step in self.flow.steps if isinstance(step[1], str | tuple))

    def _fill(self, command: tuple[bytes, ...]) -> list[bytes]:
        return [re.sub(rb"\{(id|addr):(\w+)\}", self._value, word) for word in command]

    def _value(self, found: re.Match[bytes]) -> bytes:
        name = found[2].decode()
        client = self._client(name)
        if found[1] == b"id":
            return self.ids[name]
        host, port = client.socket.getsockname()
        return f"{host}:{port}".encode()

    def _read(self, client: RawClient, reads: Reads) -> Iterator[bytes]:
        if reads == QUIET:
            yield b"quiet" if client.is_quiet(QUIET_S) else b"noise: " + client.frame()
        elif reads == CLOSED:
            rest = client.until_closed()
            if self.flow.ignore:
                rest = b"\r\n".join(x for x in rest.split(b"\r\n") if re.search(self.flow.ignore, x) is None)
            yield rest + b"<closed>"
        else:
            for _ in range(reads):
                yield self._frame(client)

    def _frame(self, client: RawClient) -> bytes:
        while True:
            frame = client.frame()
            if not self.flow.ignore or re.search(self.flow.ignore, frame) is None:
                return frame

    def _direct(self, line: str) -> Iterator[bytes]:
        verb, _, rest = line.partition(" ")
        if verb == "sleep":
            time.sleep(float(rest))
        elif verb == "wait":
            field, _, value = rest.partition("=")
            wait_for(lambda: self.target.server.info(field) == value, what=rest, timeout_s=4.0)
        else:
            assert verb == "direct", line
            with self.target.server.connect() as client:
                yield client.command(*self._fill(words(rest)))


def differences(flow: Flow, direct: list[tuple[Step, bytes]], proxied: list[tuple[Step, bytes]]) -> list[str]:
    """List the steps whose replies differ, up to the first that failed on one side only."""
    found = [
        f"{flow.name}: fails directly at {step!r:.300}: {reply!r}" for step, reply in direct if reply.startswith(FAILED)
    ]
    for (step, left), (other, right) in zip(direct, proxied, strict=False):
        if step is not other or not _is_equal(flow, left, right):
            found.append(f"{flow.name}: {step!r:.300}\n    direct  {left[:400]!r}\n    respite {right[:400]!r}")
    if not found and len(direct) != len(proxied):
        found.append(f"{flow.name}: {len(direct)} frames direct, {len(proxied)} through Respite")
    return found


def _is_equal(flow: Flow, left: bytes, right: bytes) -> bool:
    if left == right:
        return True
    if flow.mask is None or left[:1] in b"-<" or right[:1] in b"-<":
        return False
    return flow.mask(left) == flow.mask(right)


def commands_of(flow: Flow) -> Iterator[str]:
    """Name the commands a flow speaks, sub-commands as `client|kill`."""
    for step in flow.steps:
        if step[0] != "@" and isinstance(step[1], str | tuple):
            spoken = [word.lower().decode("latin-1") for word in words(step[1])]
            yield spoken[0]
            yield "|".join(spoken[:2])
