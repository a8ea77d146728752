"""Logins of `listen.users` that cannot be answered at once: tried in a thread, one after another, failures late.

    AUTH --> core.rights.logins knows --> in
         --> parked --> [ thread: scrypt ] --> right: the command runs again, and now it is known
                                           --> wrong: after the delay of its address, WRONGPASS

Owns the bounds: one try at a time, few logins of an address and few of all under way. More of an address are refused
before their password is looked at, right or wrong, so that a flood learns nothing. With too many of all under way, a
password that is known gets in from where none has failed of late: a flood from everywhere keeps out who is new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from proxy.log import get_logger

if TYPE_CHECKING:
    from proxy.config.passwords import PasswordHash
    from proxy.net.clients.client import ClientConnection
    from proxy.net.worker import Worker

OF_ADDRESS: Final = 8  # logins of one address under way
OF_ALL: Final = 256
LOOKED_OVER: Final = 256  # clients that wait for one try, before those who have left are looked for among them
TOO_MANY: Final = b"-ERR respite: too many logins at once, try again later\r\n"
log = get_logger("logins")


class LoginDesk:
    """Try passwords. One a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._nursery: trio.Nursery | None = None
        self._threads = trio.CapacityLimiter(1)
        self._under_way = 0
        self._tries: dict[bytes, list[ClientConnection]] = {}  # who waits for the same name and password
        self._proved = b""  # the mark of a password just found right, while those who gave it are let in

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Clients that wait are then closed with the worker."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def log_in(self, client: ClientConnection, name: bytes, password: bytes) -> bytes | None:
        """Return b"" for a client that is let in, an error for one that is not, None when that will be known later.

        Then the client must be parked with the command in front: that is run again, or answered with the error.
        """
        worker = self._worker
        origin = client.origin
        logins = worker.logins
        mark = logins.mark(name, password)
        if mark == self._proved:
            return b""
        if origin.logins >= OF_ADDRESS or self._nursery is None:
            return self._refuse()
        now = worker.reactor.time()
        is_full = self._under_way >= OF_ALL
        if not (is_full and not origin.is_forgiven(now)) and logins.knows(name, password):
            return b""
        if is_full:
            origin.fail(now)  # it has had its guess
            return self._refuse()
        waiting = self._tries.get(mark)
        if waiting is not None:
            if not len(waiting) % LOOKED_OVER:
                waiting[:] = [one for one in waiting if not one.closed]
            waiting.append(client)
            return None
        self._tries[mark] = [client]
        self._under_way += 1
        origin.logins += 1
        self._nursery.start_soon(self._try, mark, name, password, logins.hash_to_try(name))
        return None

    def _refuse(self) -> bytes:
        self._worker.stats.logins_refused += 1
        return TOO_MANY

    def _log_failed(self, name: bytes, address: str) -> None:
        """Say that a login has failed: not whose, where no such user is; it may be a password in the wrong place."""
        user = name.decode() if name in self._worker.user_names else "?"
        log.warning("login failed", user=user, address=address)

    async def _try(self, mark: bytes, name: bytes, password: bytes, against: PasswordHash | None) -> None:
        """Try one password, and tell all who gave it."""
        worker = self._worker
        origin = self._tries[mark][0].origin
        try:
            is_right = await self._matches(password, against)
            is_right = is_right and against is not None and worker.logins.prove(name, password, against)
            if not is_right:
                # Of several who gave the same wrong password each has failed.
                now = worker.reactor.time()
                delay_s = max(client.origin.fail(now) for client in self._tries[mark])
                worker.stats.logins_failed += len(self._tries[mark])
                self._log_failed(name, origin.name)
                await trio.sleep(delay_s)
        finally:
            origin.logins -= 1
            self._under_way -= 1
            waiting = self._tries.pop(mark)
        worker.reactor.enter()
        self._proved = mark if is_right else b""
        for client in waiting:
            worker.reactor.guard(client, client.logged_in if is_right else client.turned_away)
        self._proved = b""
        worker.reactor.flush()

    async def _matches(self, password: bytes, against: PasswordHash | None) -> bool:
        if against is None:
            return False
        try:
            return await trio.to_thread.run_sync(against.matches, password, limiter=self._threads)
        except (ValueError, MemoryError) as exc:  # no memory for a try: that is nobody's password, and no end of ours
            log.warning("a password could not be tried", why=str(exc) or type(exc).__name__)
            return False
