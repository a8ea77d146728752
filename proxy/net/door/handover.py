"""The hand-over between a running proxy and the one that takes its place: listening sockets, and the word to go.

    new, `respite run --replace`                    old
    connect to the name of one of its addresses     (each makes sure that the other is of the same user)
    {"replace": version}                       -->
                                               <--  {"sockets": [..], "more": bool, ..} with the descriptors, in parts
    starts, until it can serve; nobody is accepted before
    {"serving": names of the addresses it has} -->  leaves the queues to the new one, drains, ends
                                               <--  {"done": true}

The connection ends before that: the new one has failed, and the old one goes on as if nothing had been. Both hold the
same sockets in between, so nobody who connects is ever refused, and nobody who waits in a queue is lost.

Where: an abstract unix socket (Linux), named by user and address. It lives in the network namespace, as ports do, has
no file that could be left behind, and anybody may take its name or connect to it: that is why each side asks the kernel
who the other is. What is not of the network (a path, a process) is told from its namesake in another container.
Owns these sockets. Source: unix(7), SO_PEERCRED and SCM_RIGHTS.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

import attrs
import trio

from proxy import __version__
from proxy.errors import ListenError
from proxy.log import get_logger
from proxy.net.door.addresses import Given

START_S: Final = 60.0  # how long the new one may take until it serves
_ANSWER_S: Final = 5.0
_PART: Final = 100  # sockets in one message; the kernel passes 253 at most
_MESSAGE_BYTES: Final = 64 * 1024
_REFUSED: Final = "the proxy that runs does not hand over"
log = get_logger("handover")


class HandOverError(ListenError):
    """The running proxy stays: it does not hand over, or the new one is not fit to take its place."""


@attrs.frozen
class Estate:
    """What is handed over. `admin` is the URL of the admin port, `about` what else the next one must know, as JSON."""

    given: Sequence[Given]
    admin: str
    in_place: bool
    about: dict[str, Any]


class Predecessor:
    """The proxy that runs, as the one that takes its place sees it."""

    def __init__(self, sock: socket.socket, estate: Estate, pid: int) -> None:
        self.estate = estate
        self.pid = pid
        self._sock = sock

    @classmethod
    def find(cls, names: Iterable[str]) -> Predecessor | None:
        """Ask who has one of these names for its sockets; None when nobody of ours has. Blocks for seconds at most.

        "pid:N" is had by that process, or by nobody. Raises HandOverError when it refuses, or does not answer.
        """
        if sys.platform != "linux":
            raise HandOverError("--replace needs Linux: elsewhere stop the proxy that runs, then start this one")
        for name in names:
            if (sock := _reach(name)) is None:
                continue
            try:
                return cls(sock, _ask(sock), _peer(sock)[0])
            except HandOverError:
                sock.close()
                raise
            except TimeoutError as exc:
                sock.close()
                raise HandOverError(f"{_REFUSED}: it does not answer; if it hangs, end it and try again") from exc
            except OSError as exc:
                sock.close()
                raise HandOverError(f"{_REFUSED}: {exc.strerror or exc}") from exc
            except (ValueError, KeyError, TypeError) as exc:
                sock.close()
                raise HandOverError(f"{_REFUSED}: it answers in another way; stop it, then start this one") from exc
        return None

    async def release(self, names: Iterable[str]) -> None:
        """Tell it to go: all that it had and `names` says is served here now. Raises HandOverError when it refuses.

        When it has died meanwhile there is nobody to tell, and nobody else who serves.
        """
        with trio.socket.from_stdlib_socket(self._sock) as sock, trio.move_on_after(_ANSWER_S):
            answer = b""
            with suppress(OSError):  # it may have said its last word already, which is still to be read
                await sock.send(json.dumps({"serving": list(names)}).encode())
            with suppress(OSError):
                answer = await sock.recv(_MESSAGE_BYTES)
            if not answer:
                log.warning("the proxy before this one has gone by itself", pid=self.pid)
            elif "error" in (message := json.loads(answer)):
                raise HandOverError(f"the proxy that runs stays: {message['error']}")
            else:
                log.info("took over", pid=self.pid)
            return
        log.warning("the proxy before this one does not answer", pid=self.pid)

    def close(self) -> None:
        """Give up: it goes on."""
        self._sock.close()


class Offer:
    """Answers a proxy that wants to take the place of this one.

    `estate` says what there is to hand over, or raises HandOverError; `go` is called with the pid of who serves now,
    and the names of the addresses it has.
    """

    def __init__(self, estate: Callable[[], Estate], go: Callable[[int, frozenset[str]], None]) -> None:
        self._estate = estate
        self._go = go
        self._listening: list[socket.socket] = []
        self._accepting = trio.CancelScope()
        self._is_asked = False

    @property
    def is_busy(self) -> bool:
        """Return whether another proxy has our sockets, and does not serve yet."""
        return self._is_asked

    def open(self, names: Iterable[str]) -> None:
        """Be there to be asked at these names; one that is taken is left out, and said."""
        if sys.platform != "linux":
            return
        for name in names:
            try:
                self._listening.append(_listening(name))
            except OSError as exc:  # taken, or a sandbox that has no such sockets
                log.warning("this proxy cannot be replaced by way of an address", address=name, why=exc.strerror)

    async def run(self) -> None:
        """Answer until cancelled, or until nobody is to ask any more: one has taken over, or this was closed."""
        try:
            async with trio.open_nursery() as serving:
                with self._accepting:
                    async with trio.open_nursery() as nursery:
                        for sock in self._listening:
                            nursery.start_soon(self._accept, trio.socket.from_stdlib_socket(sock), serving)
        finally:
            self.close()

    def close(self) -> None:
        """Be asked no more; a hand-over that has begun goes on."""
        self._accepting.cancel()  # at once, and first: others get the numbers of these descriptors
        while self._listening:
            self._listening.pop().close()

    async def _accept(self, listening: trio.socket.SocketType, serving: trio.Nursery) -> None:
        while True:
            sock, _ = await listening.accept()
            serving.start_soon(self._serve, sock)

    async def _serve(self, sock: trio.socket.SocketType) -> None:
        with sock:
            pid, uid = _peer(sock)
            if uid != os.getuid():
                log.warning("a process of another user asks for our sockets", pid=pid, uid=uid)
                return
            try:
                request = b""
                with trio.move_on_after(_ANSWER_S):
                    request = await sock.recv(_MESSAGE_BYTES)
                if "replace" not in _read(request):
                    log.debug("asked for nothing", pid=pid)
                    return
                if self._is_asked:
                    raise HandOverError("another one is taking over already")
                self._is_asked = True
                try:
                    await self._hand_over(sock, pid)
                finally:
                    self._is_asked = False
            except HandOverError as exc:
                await _say(sock, {"error": str(exc)})
                with trio.move_on_after(_ANSWER_S), suppress(OSError):
                    while await sock.recv(_MESSAGE_BYTES):  # closed on what is unread, our last word would be lost
                        pass
            except OSError as exc:
                log.warning("hand-over broken off, this proxy goes on", pid=pid, why=exc.strerror)

    async def _hand_over(self, sock: trio.socket.SocketType, pid: int) -> None:
        estate = self._estate()
        log.info("handing over", pid=pid)
        for at in range(0, max(len(estate.given), 1), _PART):
            part = estate.given[at : at + _PART]
            message = {
                "sockets": [{"name": one.name, "owns_file": one.owns_file} for one in part],
                "more": at + _PART < len(estate.given),
                **attrs.asdict(estate, filter=lambda field, _: field.name != "given"),
            }
            await _give(sock, message, [one.sock.fileno() for one in part])
        answer = b""
        with trio.move_on_after(START_S) as waiting:
            answer = await sock.recv(_MESSAGE_BYTES)
        if waiting.cancelled_caught:
            raise HandOverError(f"it has not served within {START_S:g} s")
        names = _read(answer).get("serving")
        if not isinstance(names, list):
            log.warning("the next proxy has failed, this one goes on", pid=pid)
            return
        self.close()  # the next one is to be found at these names
        self._go(pid, frozenset(map(str, names)))
        await _say(sock, {"done": True})


def _abstract(name: str) -> str:
    if name.startswith("unix:"):
        with suppress(OSError, ValueError):  # an abstract one is no path
            file = os.stat(name.removeprefix("unix:"))
            name = f"{name} {file.st_dev} {file.st_ino}"
    return f"\0respite-{os.getuid()}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _listening(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.bind(_abstract(name))
        sock.listen()
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _reach(name: str) -> socket.socket | None:
    """Connect to the proxy that has a name, None where none of ours has."""
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as exc:
        raise HandOverError(f"--replace cannot be used here: {exc.strerror or exc}") from exc
    sock.settimeout(_ANSWER_S)
    try:
        sock.connect(_abstract(name))
        pid, uid = _peer(sock)
    except OSError:
        sock.close()
        return None
    if uid == os.getuid() and (not name.startswith("pid:") or name == f"pid:{pid}"):
        return sock
    log.warning("who has the name of a proxy of ours is none", address=name, pid=pid, uid=uid)
    sock.close()
    return None


def _ask(sock: socket.socket) -> Estate:
    """Ask for everything, and receive it. Raises HandOverError; what else it raises says that it is not understood."""
    sock.send(json.dumps({"replace": __version__}).encode())
    given: list[Given] = []
    while True:
        data, fds, _, _ = socket.recv_fds(sock, _MESSAGE_BYTES, _PART)
        for fd in fds:  # a queue that a child of ours holds would live on when nobody accepts from it any more
            os.set_inheritable(fd, False)
        socks = [socket.socket(fileno=fd) for fd in fds]  # each is somebody's from here on
        message: dict[str, Any] = json.loads(data) if data else {"error": "it has gone"}
        if "error" in message:
            for one in given:
                one.sock.close()
            raise HandOverError(f"{_REFUSED}: {message['error']}")
        named = zip(socks, message["sockets"], strict=True)
        given += [Given(one, about["name"], about["owns_file"]) for one, about in named]
        if not message["more"]:
            return Estate(given, message["admin"], message["in_place"], message["about"])


def _read(data: bytes) -> dict[str, Any]:
    """Return what was said; nothing, if it is no message."""
    try:
        said = json.loads(data)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _peer(sock: socket.socket | trio.socket.SocketType) -> tuple[int, int]:
    """Return the pid and the user of the process at the other end, from the kernel."""
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return pid, uid


async def _give(sock: trio.socket.SocketType, message: dict[str, Any], fds: Sequence[int]) -> None:
    """Send a message, which fits a socket that nothing was sent on yet, with descriptors."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    await sock.sendmsg([json.dumps(message).encode()], rights)


async def _say(sock: trio.socket.SocketType, message: dict[str, Any]) -> None:
    try:
        await _give(sock, message, ())
    except OSError:
        log.debug("not heard: the other proxy has gone")
