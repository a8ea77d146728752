"""Clients who have not logged in where they must: how long they may take, and who goes first when there is no room.

    accepted --> [in the order they came] --> logged in, left: forgotten
                        |--> listen.auth_timeout has passed: closed
                        |--> max_clients is reached: the first of them makes room

They have little else to lose: before a login a command has few and short words (`wire.request`), and none is run.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.net.clients.client import ClientConnection
    from proxy.net.worker import Worker

_LOOKED_AT: Final = 64  # clients, when room is needed: more would make each one who knocks cost as much as many


class Strangers:
    """Those who have come of late; whether one has logged in is asked when it counts."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._since: dict[ClientConnection, float] = {}

    def add(self, client: ClientConnection) -> None:
        """Take note of one who has just come."""
        if self._worker.settings.listen.auth_timeout_s:
            self._since[client] = self._worker.engine.now

    def forget(self, client: ClientConnection) -> None:
        """Let go of one who has closed."""
        self._since.pop(client, None)

    def make_room(self) -> bool:
        """Close one who has not logged in, of those who came first; return whether there was any."""
        while looked_at := list(islice(self._since, _LOOKED_AT)):
            found = next((client for client in looked_at if client.unproven), None)
            if found is not None:
                self._close(found, "its place was needed before it had logged in")
                return True
            let_in = [client for client in looked_at if client.session.proxy_user]
            for client in let_in:  # it stands in the way of those behind it no more
                del self._since[client]
            if not let_in:
                return False
        return False

    def tick(self, now: float) -> None:
        """Close those whose time is over."""
        timeout_s = self._worker.settings.listen.auth_timeout_s
        while self._since:
            client, since = next(iter(self._since.items()))
            if timeout_s and now - since < timeout_s:
                return
            del self._since[client]
            if timeout_s and client.unproven:
                self._close(client, "it has not logged in within listen.auth_timeout")

    def _close(self, client: ClientConnection, why: str) -> None:
        self._worker.stats.killed_unproven += 1
        self._since.pop(client, None)
        client.kill(why)
