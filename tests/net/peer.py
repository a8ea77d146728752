"""A Redis on a real socket that does what the test says.

    Respite --socket--> PeerLink.unread --script, else model--> answers --socket--> Respite

The model Redis of `tests/core` executes what no script takes. A test stops links (commands are read, not executed),
holds them (executed, answers kept back), kills them, and refuses connections or answers; all of it by the kind that
Respite's own CLIENT SETNAME gives a link: "control", "data" or "pinned".
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import attrs
import trio

from proxy.wire.encode import bulk

from ..core.model_commands import COMMANDS, ROWS
from ..core.model_redis import Connection, ModelRedis

DEADLINE_S = 5.0
MORE_ROWS = (
    ("dump", 2, ("readonly",), 1, 1, 1),
    ("srandmember", -2, ("readonly",), 1, 1, 1),
    ("blpop", -3, ("write", "blocking"), 1, -2, 1),
    ("subscribe", -2, ("pubsub",), 0, 0, 0),
    ("publish", 3, ("pubsub", "may_replicate"), 0, 0, 0),
    ("config", -2, (), 0, 0, 0),
    ("acl", -2, (), 0, 0, 0),
    ("debug", -2, (), 0, 0, 0),
)

Script = Callable[["PeerLink", list[bytes]], bytes | None]
"""What answers a command instead of the model: the raw reply, or None for no reply (it may have closed the link)."""


Handle = Callable[[trio.SocketStream], Awaitable[None]]


@attrs.frozen
class Seen:
    """A command that reached the peer."""

    link: PeerLink
    words: list[bytes]

    @property
    def name(self) -> str:
        """The command's name."""
        return self.words[0].decode().upper()


class PeerLink:
    """One connection that Respite has opened."""

    def __init__(self, peer: Peer, stream: trio.SocketStream, number: int) -> None:
        self.peer = peer
        self.number = number
        self.kind = ""
        self.model: Connection = peer.model.connect()
        self.is_closed = False
        self._stream = stream
        self._wake = trio.Event()

    async def run(self) -> None:
        """Carry bytes until one side closes."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    async for data in self._stream:
                        self.peer.received_bytes += len(data)
                        self._receive(bytes(data))
                nursery.cancel_scope.cancel()
        finally:
            self.close()

    def _receive(self, data: bytes) -> None:
        known = len(self.model.unread)
        self.model.receive(data)
        for words in list(self.model.unread)[known:]:
            if words[0].upper() == b"CLIENT" and words[1].upper() == b"SETNAME" and not self.kind:
                self.kind = words[2].decode().removeprefix("respite-")
        self.peer.pump()

    async def _write(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self.model.answers and not self.peer.is_held(self):
                    chunk = bytes(self.model.answers)
                    self.model.answers.clear()
                    await self._stream.send_all(chunk)

    def wake(self) -> None:
        """Send what may be sent."""
        self._wake.set()

    def close(self) -> None:
        """Close at once: answers not sent are lost."""
        if not self.is_closed:
            self.is_closed = True
            self._stream.socket.close()
            self.peer.links.remove(self)
            self.peer.model.drop_connection(self.model)

    def push(self, raw: bytes) -> None:
        """Send bytes nobody asked for."""
        self.model.answers += raw
        self.wake()


class Peer:
    """The server: where it listens, its links, its script, and all it has been sent."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.model = ModelRedis(time.monotonic, {**COMMANDS, b"COMMAND": _command})
        self.links: list[PeerLink] = []
        self.log: list[Seen] = []
        self.scripts: dict[bytes, Script] = {}
        self.received_bytes = 0
        self.accepted = 0
        self.port = 0
        self._stopped: set[str | PeerLink] = set()
        self._held: set[str | PeerLink] = set()
        self._nursery = nursery
        self._listening: trio.CancelScope | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Take connections, always on the same port."""
        sock = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = sock.getsockname()[1]
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        self._nursery.start_soon(self._accept, listener)

    async def _accept(self, listener: trio.SocketListener) -> None:
        async with listener:
            with trio.CancelScope() as self._listening:
                while True:
                    stream = await listener.accept()
                    self.accepted += 1
                    link = PeerLink(self, stream, self.accepted)
                    self.links.append(link)
                    self._nursery.start_soon(link.run)

    async def refuse(self) -> None:
        """Take no more connections, and close those there are, as a server that died."""
        while self._listening is None:
            await trio.lowlevel.checkpoint()
        self._listening.cancel()
        self._listening = None
        await until(lambda: _is_refused(self.port), "the listener is closed")
        self.kill()

    # -- what is done to links ---------------------------------------------------------------------------------------

    def of(self, kind: str = "") -> list[PeerLink]:
        """Return the open links of a kind, all without one."""
        return [link for link in self.links if not kind or link.kind == kind]

    def kill(self, kind: str = "") -> None:
        """Close the links of a kind, all without one."""
        for link in self.of(kind):
            link.close()

    def stop(self, which: str | PeerLink) -> None:
        """Execute no command that comes on links of a kind, or on one."""
        self._stopped.add(which)

    def hold(self, which: str | PeerLink) -> None:
        """Execute, but keep back what is answered and pushed on links of a kind, or on one."""
        self._held.add(which)

    def go_on(self, which: str | PeerLink) -> None:
        """Undo `stop` and `hold`."""
        self._stopped.discard(which)
        self._held.discard(which)
        self.pump()

    def is_held(self, link: PeerLink) -> bool:
        """Return whether a link's answers are kept back."""
        return link.kind in self._held or link in self._held

    def is_stopped(self, link: PeerLink) -> bool:
        """Return whether a link's commands wait."""
        return link.kind in self._stopped or link in self._stopped

    def pump(self) -> None:
        """Execute what may be executed."""
        for link in list(self.links):
            while link.model.unread and not self.is_stopped(link) and not link.is_closed:
                self._execute(link)
        for link in self.links:
            link.wake()

    def _execute(self, link: PeerLink) -> None:
        words = link.model.unread[0]
        self.log.append(Seen(link, words))
        name = words[0].upper()
        script = self.scripts.get(b" ".join(words[:2]).upper()) or self.scripts.get(name)
        if script is None and name in self.model.commands:
            link.model.execute(1)
            return
        link.model.unread.popleft()
        reply = script(link, words) if script is not None else b"-ERR unknown command '%b'\r\n" % words[0]
        if reply is not None and not link.is_closed:
            link.model.answers += reply

    # -- what has happened -------------------------------------------------------------------------------------------

    def seen(self, name: str, kind: str = "") -> list[Seen]:
        """Return the commands of a name that arrived and were executed, on links of a kind."""
        return [one for one in self.log if one.name == name and (not kind or one.link.kind == kind)]

    # -- scripts -----------------------------------------------------------------------------------------------------

    def on(self, name: str, script: Script | bytes | None) -> None:
        """Answer a command (`GET`, or `CLIENT TRACKING`) by a script, with these bytes, or (None) never."""
        if callable(script):
            self.scripts[name.encode()] = script
        else:
            reply = script
            self.scripts[name.encode()] = lambda *_: reply

    def close_on(self, name: str) -> None:
        """Close the link that a command arrives on; it is not executed."""

        def script(link: PeerLink, words: list[bytes]) -> bytes | None:
            link.close()
            return None

        self.on(name, script)

    def as_usual(self, name: str) -> None:
        """Let the model answer a command again."""
        self.scripts.pop(name.encode(), None)


async def serve_raw(nursery: trio.Nursery, handle: Handle) -> int:
    """Listen with a function of the test's own for each connection; return the port."""
    (listener,) = await nursery.start(partial(trio.serve_tcp, partial(_handled, handle), 0, host="127.0.0.1"))
    return int(listener.socket.getsockname()[1])


async def _handled(handle: Handle, stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await handle(stream)


def error(text: str) -> bytes:
    """Encode an error line."""
    return b"-%b\r\n" % text.encode()


async def until(is_true: Callable[[], object], what: str, *, timeout_s: float = DEADLINE_S) -> None:
    """Poll until something is true; AssertionError when it takes longer."""
    with trio.move_on_after(timeout_s):
        while not is_true():
            await trio.sleep(0.001)
        return
    raise AssertionError(f"not within {timeout_s} s: {what}")


def open_sockets() -> frozenset[int]:
    """Name the sockets this process has open, by their inodes."""
    found = set()
    for fd in range(1024):
        with suppress(OSError):
            about = os.fstat(fd)
            if stat.S_ISSOCK(about.st_mode):
                found.add(about.st_ino)
    return frozenset(found)


def _is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _command(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    """COMMAND, in the six columns of Redis 6."""
    rows = []
    for name, arity, flags, first, last, step in (*ROWS, *MORE_ROWS):
        flag_frame = b"*%d\r\n%b" % (len(flags), b"".join(bulk(flag.encode()) for flag in flags))
        rows.append(
            b"*6\r\n%b:%d\r\n%b:%d\r\n:%d\r\n:%d\r\n" % (bulk(name.encode()), arity, flag_frame, first, last, step)
        )
    return b"*%d\r\n%b" % (len(rows), b"".join(rows))
