"""Questions and answers between two processes of ours, over a socket pair, both ways at once.

    | length, 4 bytes | ("ask", id, name, arguments) or ("answer", id, value) or ("failed", id, words), pickled |

Both ends are the same user's and started by each other, which is why pickle will do: who can write to one end can
already do what that process can. Owns the stream: one task reads it, one writes it; a question is answered by a task
of its own, so that one that takes long holds up no other. They begin in the order in which they were asked: of two
settings that come at once the later one is what counts.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import attrs
import trio

from proxy.errors import RemoteError
from proxy.log import get_logger

ANSWER_S: Final = 3.0  # below what `respite stats` waits for; a worker answers from memory
QUEUED: Final = 1024  # questions and answers that wait for the peer to read; more, and the next question fails at once
MESSAGE_MAX: Final = 1 << 30  # a length above it is no length
_HEAD: Final = struct.Struct("!I")
_READ_BYTES: Final = 64 * 1024
log = get_logger("supervisor")

Handler = Callable[..., Awaitable[object]]


class NoAnswerError(RemoteError):
    """The other process has gone, did not answer in time, or could not do what it was asked."""


@attrs.define(eq=False)
class _Awaited:
    """Where the answer to one question is put."""

    is_there: trio.Event = attrs.field(factory=trio.Event)
    value: Any = None
    failed: str = ""


class Channel:
    """One end. `handlers` answer what the other end asks, by name; each is called with the question's arguments."""

    def __init__(self, sock: socket.socket, handlers: Mapping[str, Handler]) -> None:
        sock.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._handlers = handlers
        self._outbox, self._to_send = trio.open_memory_channel[bytes](QUEUED)
        self._awaited: dict[int, _Awaited] = {}
        self._last_id = 0
        self._is_open = True

    async def run(self) -> None:
        """Carry messages until the other process has gone or this is cancelled; then every question has failed."""
        try:
            async with self._stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read(nursery)
                nursery.cancel_scope.cancel()
        finally:
            self._is_open = False
            for awaited in self._awaited.values():
                awaited.failed = "it has gone"
                awaited.is_there.set()
            self._outbox.close()

    @property
    def is_open(self) -> bool:
        """Return whether the other process is still there to be asked."""
        return self._is_open

    async def ask(self, name: str, *arguments: object, timeout_s: float = ANSWER_S) -> Any:
        """Ask, and return the answer. Raises NoAnswerError. Cancelled, it forgets the answer, which may still come."""
        self._last_id += 1
        number = self._last_id
        awaited = self._awaited[number] = _Awaited()
        try:
            self._post(_packed(("ask", number, name, arguments)))
            with trio.fail_after(timeout_s):
                await awaited.is_there.wait()
        except trio.TooSlowError:
            raise NoAnswerError(f"no answer to {name!r} within {timeout_s:g} s") from None
        finally:
            del self._awaited[number]
        if awaited.failed:
            raise NoAnswerError(awaited.failed)
        return awaited.value

    def _post(self, message: bytes) -> None:
        """Queue a message. Raises NoAnswerError when the other end is gone, or has not read for long."""
        if not self._is_open:
            raise NoAnswerError("it has gone")
        try:
            self._outbox.send_nowait(message)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            raise NoAnswerError("it reads nothing") from None

    async def _write(self) -> None:
        try:
            async for message in self._to_send:
                await self._stream.send_all(message)
        except trio.BrokenResourceError:
            return  # the reader sees the end too, after what was sent before it

    async def _read(self, nursery: trio.Nursery) -> None:
        data = bytearray()
        while True:
            while len(data) >= _HEAD.size:
                (size,) = _HEAD.unpack_from(data)
                if size > MESSAGE_MAX:
                    log.error("no message of ours", size=size)
                    return
                end = _HEAD.size + size
                if len(data) < end:
                    break
                try:
                    message = pickle.loads(bytes(data[_HEAD.size : end]))
                except Exception:  # pickle raises whatever it comes upon
                    log.exception("no message of ours")
                    return
                self._take(message, nursery)
                del data[:end]
                await trio.lowlevel.checkpoint()  # or trio would begin those that came together in any order
            try:
                chunk = await self._stream.receive_some(_READ_BYTES)
            except trio.BrokenResourceError:
                return
            if not chunk:
                return
            data += chunk

    def _take(self, message: tuple[Any, ...], nursery: trio.Nursery) -> None:
        match message:
            case ("ask", number, name, arguments):
                nursery.start_soon(self._answer, number, name, arguments)
            case (kind, int(number), value):
                awaited = self._awaited.get(number)
                if awaited is not None:  # else whoever asked has given up
                    awaited.value, awaited.failed = (value, "") if kind == "answer" else (None, value)
                    awaited.is_there.set()

    async def _answer(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            message = _packed(("answer", number, await self._handlers[name](*arguments)))
        except Exception as exc:
            if not isinstance(exc, RemoteError):
                log.exception("question failed", name=name)
            message = _packed(("failed", number, str(exc) or type(exc).__name__))
        try:
            self._post(message)
        except NoAnswerError:
            log.debug("answer not wanted any more", name=name)


def _packed(message: tuple[object, ...]) -> bytes:
    body = pickle.dumps(message)
    return _HEAD.pack(len(body)) + body
