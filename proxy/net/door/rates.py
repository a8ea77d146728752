"""How fast clients may ask, `listen.rate_limit`: who has asked for more is read no further until that is made up for.

Owns who waits, and what connections of one user share; what those of one address share is its origin's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.core.rights.meter import Bucket

if TYPE_CHECKING:
    from proxy.net.clients.client import ClientConnection
    from proxy.net.clients.placement import PlacedClient
    from proxy.net.worker import Worker


class Rates:
    """Hold clients back and let them go on. One a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._of_users: dict[bytes, Bucket] = {}
        self._held_back: set[ClientConnection] = set()
        self._limit: tuple[object, ...] = ()

    def apply(self) -> None:
        """Follow the settings: where they have changed, all begin anew."""
        listen = self._worker.settings.listen
        limit = (listen.rate_limit, listen.rate_burst, listen.rate_per)
        if limit != self._limit:
            self._limit = limit
            self._of_users.clear()
            self._worker.door.origins.forget_meters()
            for client in self._worker.clients:
                client.meter = None

    def meter_of(self, client: PlacedClient) -> Bucket | None:
        """Return what counts the commands of a client, None where nothing does."""
        listen = self._worker.settings.listen
        if not listen.rate_limit:
            return None
        now = self._worker.engine.now
        if listen.rate_per == "connection":
            return client.meter or Bucket.full(listen.rate_limit, listen.rate_burst, now)
        if listen.rate_per == "address":
            origin = client.origin
            origin.meter = origin.meter or Bucket.full(listen.rate_limit, listen.rate_burst, now)
            return origin.meter
        user = client.session.proxy_user or client.session.identity.user
        meter = self._of_users.get(user)
        if meter is None:
            meter = self._of_users[user] = Bucket.full(listen.rate_limit, listen.rate_burst, now)
        return meter

    def hold_back(self, client: ClientConnection) -> None:
        """Read a client no further until its rate allows it."""
        if not client.waits_off:
            client.waits_off = True
            self._worker.stats.throttled += 1
            self._held_back.add(client)
            client.press()

    def forget(self, client: ClientConnection) -> None:
        """Let go of a client that has closed."""
        self._held_back.discard(client)

    def tick(self, now: float) -> None:
        """Read on where the rate allows it."""
        for client in list(self._held_back):
            if client.meter is None or not client.meter.is_dry(now):
                self._held_back.discard(client)
                client.waits_off = False
                client.read_at = now  # it could not be heard: its silence begins now
                client.press()
