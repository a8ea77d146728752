"""Everything a proxy listens on, how it came by it, and how it leaves: opened, given by systemd, or taken over.

    start   given? -> addresses -> starts -> fit? -> accepts -> took_over: the one before us may go
    stop    drained: turned away, taken in, closed  |  replaced: another one has the sockets, ours are only closed

Owned by who is one for its addresses: the only worker, or the parent of several. Also starts the proxy that is to
take the place of this one, when SIGUSR2 says so.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Final, Literal

import trio

from proxy.config.model import Listen
from proxy.errors import ListenError
from proxy.log import get_logger
from proxy.net.door.activation import take_given
from proxy.net.door.addresses import ADMIN, Addresses, Given, name_at
from proxy.net.door.handover import Estate, HandOverError, Offer, Predecessor
from proxy.net.service_manager import ServiceManager

SERVES_S: Final = 50.0  # how long one that takes over may take in all: the other one gives up after START_S
READY_S: Final = 10.0  # how long one that takes over waits for Redis, before it leaves things as they are
SETTLE_S: Final = 0.02  # handshakes that the kernel has begun are through by then, where clients are near
_LOOK_S: Final = 0.25
log = get_logger("entrance")


class Entrance:
    """The addresses of one proxy. `replaces`: take them over from the one that has them, if there is one."""

    def __init__(self, listen: Listen, environment: MutableMapping[str, str], *, replaces: bool = False) -> None:
        """Find out what is given. Raises ListenError: by what cannot be used, or by who does not hand over."""
        self.manager = ServiceManager.of(environment)
        self.kept: frozenset[str] = frozenset()  # the addresses that the next proxy has
        self.is_replaced = False
        self.is_leaving = False
        self._is_closing = False
        self._listen = listen
        self._on_replaced: Callable[[], None] = lambda: None
        self._admin: list[socket.socket] = []
        self._offer = Offer(self._estate, self._replaced)
        self._predecessor: Predecessor | None = None
        given = take_given(environment)
        in_place = bool(given)
        if replaces and not given:
            names = [f"pid:{os.getppid()}", *(name_at(endpoint) for endpoint in listen.urls), *self._admin_name()]
            self._predecessor = Predecessor.find(names)
            if self._predecessor is None:
                log.info("no proxy of this user serves these addresses: this is a start like any other")
        if self._predecessor is not None:
            estate = self._predecessor.estate
            given, in_place = list(estate.given), estate.in_place
            self.manager.follow(estate.about)
        self.addresses = Addresses((one for one in given if one.name != ADMIN), in_place=in_place)
        self._given_admin = [one.sock for one in given if one.name == ADMIN]

    @property
    def takes_over(self) -> bool:
        """Whether another proxy serves until this one does."""
        return self._predecessor is not None

    @property
    def state(self) -> Literal["open", "handing over", "draining"]:
        """Whether clients may come; while it hands over, the next proxy has our sockets and does not serve yet."""
        if self.is_leaving:
            return "draining"
        return "handing over" if self._offer.is_busy else "open"

    @contextmanager
    def in_time(self) -> Iterator[None]:
        """Start within the block: one that takes over and hangs there is waited for by another, who serves meanwhile.

        Raises HandOverError when it has not come to its end within SERVES_S.
        """
        if not self.takes_over:
            yield
            return
        with trio.move_on_after(SERVES_S) as patience:
            yield
        if patience.cancelled_caught:
            raise HandOverError(f"this one does not serve within {SERVES_S:g} s: the proxy that runs goes on")

    def take_admin(self) -> list[socket.socket]:
        """Return the sockets of the admin port that were given, none when it is to be opened; the caller's now."""
        given, self._given_admin = self._given_admin, []
        predecessor = self._predecessor
        in_place = predecessor is None or predecessor.estate.in_place
        if in_place and self._listen.admin:
            return given
        if predecessor is not None and predecessor.estate.admin == self._listen.admin:
            return given
        for sock in given:
            sock.close()
        if given and in_place:
            raise ListenError("there is a socket for the admin port: set listen.admin, or take the socket's unit away")
        return []

    def hold_admin(self, fds: Iterable[int]) -> None:
        """Keep the sockets of the admin port, for who comes after this proxy."""
        self._admin = [socket.socket(fileno=os.dup(fd)) for fd in fds]

    async def took_over(self) -> None:
        """Let the one before go, for this one serves, and be there for the next. Raises HandOverError when it stays."""
        names = [*self.addresses.names, *self._admin_name()]
        if self._predecessor is not None:
            await self._predecessor.release(names)
            self.addresses.inherit()
        self._offer.open([*names, f"pid:{os.getpid()}"])

    async def run(self, on_replaced: Callable[[], None]) -> None:
        """Let another proxy take the place of this one, until cancelled; `on_replaced` is called when it has."""
        self._on_replaced = on_replaced
        await self._offer.run()

    async def turn_away(self) -> None:
        """Let nobody connect any more, but to what another proxy serves now. From here on nothing is handed over."""
        self._is_closing = True
        self._keep_what_goes_on()
        self.addresses.turn_away(self.kept)
        if not self.kept.issuperset(self.addresses.names):
            await trio.sleep(SETTLE_S)

    def close(self) -> None:
        """Let go of everything; may be repeated."""
        if self._predecessor is not None:
            self._predecessor.close()
        self._keep_what_goes_on()
        self.addresses.close(self.kept)
        self._offer.close()
        for sock in (*self._admin, *self._given_admin):
            sock.close()

    def _keep_what_goes_on(self) -> None:
        """Leave the queues alone that are not ours alone: systemd's, and those that the next proxy has got already."""
        if self.addresses.in_place or (self._offer.is_busy and not self.is_replaced):
            self.kept |= frozenset(self.addresses.names)

    def _admin_name(self) -> list[str]:
        """Return what the admin port is called, unless it says nothing of which proxy it is."""
        url = self._listen.admin
        return [f"admin:{url}"] if url and not url.endswith(":0") else []

    def _estate(self) -> Estate:
        if self._is_closing:
            raise HandOverError("it is stopping; start this one again when it has ended")
        given = [*self.addresses.to_give(), *(Given(sock, ADMIN) for sock in self._admin)]
        return Estate(given, self._listen.admin, self.addresses.in_place, self.manager.about())

    def _replaced(self, pid: int, names: frozenset[str]) -> None:
        self.is_replaced = True
        self.kept = names
        self.manager.replaced_by(pid)
        self._on_replaced()


async def await_fit(ready: Callable[[], Awaitable[tuple[bool, str]]]) -> None:
    """Return once `ready` says that clients can be served: before that, nothing is taken over.

    Raises HandOverError when it does not within READY_S.
    """
    why = ""
    with trio.move_on_after(READY_S):
        while True:
            is_ready, why = await ready()
            if is_ready:
                return
            await trio.sleep(_LOOK_S)
    raise HandOverError(f"not fit to take over ({why}): the proxy that runs goes on")


async def start_next() -> None:
    """Start the command of this process anew, to take its place; returns when that has failed, or is cancelled.

    It outlives us: it is no child to be waited for once it serves.
    """
    words = [sys.executable, *sys.orig_argv[1:]]
    if "--replace" not in words:
        words.append("--replace")
    try:
        pid = os.posix_spawn(sys.executable, words, os.environ)
    except OSError as exc:
        log.warning("the next proxy cannot be started", why=exc.strerror)
        return
    log.info("started the proxy that is to take over", pid=pid)
    while True:
        await trio.sleep(_LOOK_S)
        code = None  # not to be known where whoever started us has told the kernel to wait for our children
        with suppress(ChildProcessError):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            code = os.waitstatus_to_exitcode(status)
        log.error("the next proxy has ended", pid=pid, code=code)
        return
