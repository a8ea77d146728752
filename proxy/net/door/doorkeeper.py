"""Who is let in, and who is sent away: clients from the moment their connection stands until they are gone.

Owns the limits that are looked at before a client has said a word, and the ends that are none of its own doing: it
broke a limit, its user is no more, its password counts for nothing any longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.core.rights.origins import Origins
from proxy.core.session import Identity, Session
from proxy.errors import TOO_MANY_CLIENTS
from proxy.log import get_logger
from proxy.net.clients.client import ClientConnection
from proxy.net.door.rates import Rates
from proxy.net.door.strangers import Strangers
from proxy.net.links.dial import Stream

if TYPE_CHECKING:
    from proxy.net.links.upstream import Group
    from proxy.net.worker import Worker

log = get_logger("worker")


class Doorkeeper:
    """Let clients in and see them out. One a worker; the clients who are in are the worker's."""

    def __init__(self, worker: Worker) -> None:
        self.origins = Origins()
        self.strangers = Strangers(worker)
        self.rates = Rates(worker)
        self._worker = worker

    def accept(self, stream: Stream) -> None:
        """Take a new client, or refuse it at the limit."""
        worker = self._worker
        listen = worker.settings.listen
        address = _address(stream, peer=True)
        origin = self.origins.find(address)
        if listen.max_clients_per_address and origin.clients >= listen.max_clients_per_address:
            worker.stats.crowded += 1
            self._refuse(stream)
            return
        if len(worker.clients) >= listen.max_clients and not self.strangers.make_room():
            worker.stats.rejected += 1
            self._refuse(stream)
            return
        worker.stats.accepted += 1
        session = Session(
            id=worker.sessions.next_id(),
            address=address,
            local_address=_address(stream, peer=False),
            created_at=worker.engine.now,
            identity=worker.initial_identity,
            db=worker.initial_db,
            authenticated=not worker.has_users,
        )
        client = ClientConnection(worker, stream, session, origin)
        self.origins.enter(origin)
        session.close = client.close
        session.last_at = lambda: client.read_at
        worker.clients.add(client)
        self.strangers.add(client)
        worker.sessions.add(session)

    def handshake_failed(self) -> None:
        """Count one who never became a client."""
        self._worker.stats.handshakes_failed += 1

    def forget(self, client: ClientConnection) -> None:
        """Let go of a client that has closed."""
        self._worker.clients.discard(client)
        self.rates.forget(client)
        self.origins.leave(client.origin, self._worker.engine.now)
        self.strangers.forget(client)
        self._worker.sessions.remove(client.session)
        client.session.end()

    @staticmethod
    def _refuse(stream: Stream) -> None:
        try:
            stream.send(TOO_MANY_CLIENTS)
        except OSError:
            log.debug("refusal not read")
        stream.close()

    def apply(self) -> None:
        """Follow the settings: users who are no more are sent away, as Redis does with its own.

        Who was in before there were users stays in, as where Redis is given a password.
        """
        worker = self._worker
        for client in list(worker.clients):
            if client.session.proxy_user and client.session.proxy_user not in worker.user_names:
                client.kill("its user was removed from listen.users")
            elif not worker.has_users:
                client.session.authenticated = True  # whom Redis lets in is in
        self.rates.apply()

    def relieve(self) -> None:
        """Close those with the most unread replies, until there is some room again in what all may have."""
        worker = self._worker
        enough = worker.unread_limit * 7 // 8  # or each byte more would have all clients looked at
        for client in sorted(worker.clients, key=lambda one: one.unsent_bytes, reverse=True):
            if worker.unread_bytes <= enough:
                return
            client.kill_unread("all clients together are over listen.output_buffer_total, and it has the most unread")

    @staticmethod
    def log_killed(session: Session, why: str) -> None:
        """Say that a client broke a limit."""
        log.warning("client closed", id=session.id, address=session.address, why=why)

    def users_changed(self, users: set[bytes]) -> None:
        """Close the sessions of users that are no more, as Redis closes their connections."""
        for client in list(self._worker.clients):
            user = client.session.identity.user
            if user and user not in users:
                client.kill("its user was deleted")

    def default_changed(self) -> None:
        """Have Redis say anew whether it lets in who does not log in: there may be a password now."""
        worker, user = self._worker, Identity().user
        worker.links.prove(user)
        worker.pool.prove(user)
        for protocol in (2, 3):
            worker.hellos.pop((user, protocol), None)

    def refused(self, group: Group) -> None:
        """Close the sessions of a user whose password Redis does not take any more: they must log in again."""
        for client in list(self._worker.clients):
            if client.group is group:
                client.close_when_settled()


def _address(stream: Stream, *, peer: bool) -> str:
    try:
        address = stream.getpeername() if peer else stream.getsockname()
    except OSError:
        return "?:0"
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{host}:{address[1]}"
    return f"{stream.getsockname() or address}:0"
