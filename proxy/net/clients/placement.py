"""Where a client's commands go: the shared links of its user, database and protocol, or a pinned link of its own.

Owns the client's place: it follows the session when that logs in, selects or switches protocol, and decides whether
reads may be answered from L1 at all.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

import attrs

from proxy.cache.entry import Namespace, Scope
from proxy.core.rights.logins import WRONGPASS
from proxy.core.rights.meter import Bucket
from proxy.core.rights.origins import Origin
from proxy.core.rights.rights import Rights
from proxy.core.session import Session
from proxy.core.slots import RetrySlot, Slot
from proxy.errors import PINNED_SHARE_USED
from proxy.net.clients.sender import Sender
from proxy.net.links.dial import Stream
from proxy.net.links.link import Link
from proxy.net.links.pinned import PinnedLink, Place
from proxy.net.links.upstream import Group
from proxy.wire.request import Raw, Request

if TYPE_CHECKING:
    from proxy.net.worker import Worker


RETRIED_MAX: Final = 256
"""A client with more outstanding reads is told that they failed: each of them would look for writes among all."""


class PlacedClient(Sender):
    """A sender with a place. Subclasses read."""

    __slots__ = (
        "_backlog",
        "_closing",
        "_gone",
        "checked",
        "classed",
        "group",
        "joins",
        "link",
        "meter",
        "namespace",
        "origin",
        "parked",
        "pin",
        "rights",
        "shadow",
    )

    def __init__(self, worker: Worker, stream: Stream, session: Session, origin: Origin) -> None:
        super().__init__(worker, stream, session)
        self.group: Group | None = None
        self.link: Link | None = None
        self.namespace: Namespace | None = None
        self.shadow: Namespace | None = None
        self.pin: PinnedLink | None = None
        self.parked = ""  # why its commands wait: "settle", "reply", "link" or "login"
        self.joins = 0
        self.classed = worker.is_classed(session)
        self.origin = origin
        self.rights: Rights = worker.rights.of(session.proxy_user)
        self.meter: Bucket | None = None  # None: it may ask for as much as it likes
        self.checked = False  # each command is looked at, or counted: none is answered from its bytes alone
        self._backlog: list[Request] = []  # requests of a parked client
        self._closing = False  # close once everything owed has been sent
        self._gone = False  # it closed its sending side, and that was noticed without reading

    @abstractmethod
    def park(self, why: str, requests: list[Request]) -> None:
        """Keep requests until `why` has passed."""

    @abstractmethod
    def unpark(self) -> None:
        """Run what was kept."""

    @abstractmethod
    def give_up(self, args: list[bytes]) -> None:
        """Note that a command has failed without Redis' word."""

    @abstractmethod
    def close_when_settled(self) -> None:
        """Close once everything owed has been sent."""

    @property
    def leaving(self) -> bool:
        """Whether the client has closed its sending side, or is to be closed."""
        return self._closing or self._gone

    @property
    def waits_long(self) -> bool:
        """Return whether what was asked for last waits for a connection, for other replies, or for an event."""
        pin = self.pin
        return bool(self.parked) or (pin is not None and (pin.patient or pin.state.stream or pin.state.subscribed))

    @property
    def unproven(self) -> bool:
        """Whether Redis has not yet let this user in, or would not if it said something."""
        session, group = self.session, self.group
        if not session.authenticated:
            return True
        if group is None:
            return self.worker.asks_for_login and session.identity == self.worker.initial_identity
        return group.is_unauthenticated

    def acknowledged(self) -> None:
        """Note that subscriptions have begun, or ended."""
        if self.pin is not None:
            names = self.pin.state.subscriptions
            self.session.subscriptions = len(names.get(b"", ())) + len(names.get(b"s", ()))
            self.session.patterns = len(names.get(b"p", ()))

    def route(self) -> Link | None:
        """Return the shared link for the next command: the one that owes us replies, else the best of the group."""
        link = self.link
        if link is not None and link.open and (self.queue or (link.connected and not link.paused)):
            return link
        group = self.group
        if group is None or group.closed:
            group = self.regroup()
        link = self.link = group.pick()
        return link

    def why_not(self) -> bytes:
        """Return the error for a command that has no link."""
        self.worker.stats.failed += 1
        return self.regroup().why_not() if self.group is None else self.group.why_not()

    def ask(self, raw: Raw, slot: Slot) -> None:
        """Submit a read for a slot that is in the queue already."""
        if self.closed:
            slot.fill(b"")
            return
        link = self.route()
        if link is None:
            slot.refuse(self.why_not())
        else:
            link.submit(raw, slot)

    def ask_again(self, raw: Raw, slot: Slot) -> bool:
        """Ask once more, on the link that comes next, for a slot in the queue whose read was lost with its link.

        Not where a write was sent behind it, which may have been applied: it would read what comes later. Nor where its
        time is over, which began when it was asked first.
        """
        queue = self.queue
        if self.pin is not None or len(queue) > RETRIED_MAX:
            return False
        if any(one.is_write and one.reply is None for one in queue):
            return False
        engine = self.worker.engine
        until = slot.submitted_at + self.worker.settings.upstream.response_timeout_s
        if until <= engine.now:
            return False
        self.worker.stats.failed -= 1
        again = RetrySlot(slot)
        engine.outage.retry(again, until)
        self.ask(raw, again)
        return True

    def rescope(self) -> None:
        """Follow the session: its links and its namespace are those of its user, database and protocol."""
        self.link = None
        if self.group is not None:
            self.worker.leave(self.group)
            self.group = None
        self.expose()

    def regroup(self) -> Group:
        """Join the group of the session's present scope."""
        session = self.session
        scope = Scope(session.identity.user, session.db, session.protocol)
        self.group = self.worker.join(scope, session.identity)
        self.expose()
        return self.group

    def expose(self) -> None:
        """Let reads be answered from L1, or compared, or neither: never while pinned, muted, parked or not let in."""
        session = self.session
        mode = self.worker.mode_of(session)
        self.classed = self.worker.is_classed(session)
        self.rights = self.worker.rights.of(session.proxy_user)
        self.meter = self.worker.door.rates.meter_of(self)
        self.look()
        if (
            self.group is None
            or self.pin is not None
            or self.parked
            or self._closing
            or session.muted
            or session.skips
            or self.muting
            or not session.authenticated
            or mode == "off"
        ):
            self.namespace = self.shadow = None
        elif mode == "shadow":
            self.namespace, self.shadow = None, self.group.namespace
        else:
            self.namespace, self.shadow = self.group.namespace, None

    def look(self) -> None:
        """Look at each command from now on, or not, as rights and rates ask for it."""
        self.checked = self.rights.looks_at_reads or self.meter is not None

    def pin_down(self, *, anywhere: bool = False) -> bool:
        """Get a connection of its own; False = one is being opened, and the client must be parked."""
        session = self.session
        place = Place(session.identity, session.db, session.protocol)
        most = self.worker.settings.listen.max_pinned_per_address
        if most and self.origin.pinned >= most:
            self.worker.stats.pins_refused += 1
            self.parked = "link"
            self.worker.pool.decline(lambda: self.worker.reactor.guard(self, self._refused_pin))
            return False
        self.origin.pinned += 1
        link = self.worker.pool.take_nowait(place)
        if link is None:
            self.parked = "link"
            self.worker.pool.take(attrs.evolve(place, db=0) if anywhere else place, self._pinned)
            return False
        self._hold(link)
        return True

    def _hold(self, link: PinnedLink) -> None:
        link.holder = self
        self.pin = link
        self.namespace = self.shadow = None
        self.session.upstream_id = link.upstream_id

    def _pinned(self, link: PinnedLink | None, refusal: bytes) -> None:
        """Go on with the link that was opened; a mistake of ours in that ends this client only."""
        self.worker.reactor.guard(self, lambda: self._take_pinned(link, refusal))

    def _take_pinned(self, link: PinnedLink | None, refusal: bytes) -> None:
        """Go on with the link that was opened, or answer the command that needed it."""
        if link is None or self.closed:
            self.origin.pinned -= 1
        if self.closed:
            if link is not None:
                self.worker.pool.give_back(link)
            return
        if link is not None:
            self._hold(link)
            self.unpark()
        else:
            self._fail_first(refusal)

    def _refused_pin(self) -> None:
        """Answer the command that would have needed a link: those of the client's address are used up."""
        if not self.closed:
            self._fail_first(PINNED_SHARE_USED)

    def logged_in(self) -> None:
        """Run the login again that was parked: by now its password is known."""
        if not self.closed:
            self.unpark()

    def turned_away(self) -> None:
        """Answer the login that was parked: name or password are wrong."""
        if not self.closed:
            self._fail_first(WRONGPASS)

    def _fail_first(self, refusal: bytes) -> None:
        """Answer the command that the client is parked for with an error, and go on with what is behind it."""
        if self._backlog:
            args, _ = self._backlog.pop(0)
            self.worker.stats.failed += 1
            self.reply(self.worker.pipeline.instead(self, args, refusal))  # type: ignore[arg-type]  # the whole client
            # After these Redis would say the same to each of those behind it.
            if not refusal.startswith((b"-NOAUTH", b"-WRONGPASS")):
                self.give_up(args)
        self.unpark()

    def pin_quiet(self) -> None:
        """Give the link back if nothing holds it any more, and run what waited for its replies."""
        link = self.pin
        if link is None:
            return
        link.state.once = False
        if link.state.is_free:
            self._let_go()
            if self._is_place_of(link):
                self.expose()
            else:
                self.rescope()
            self._wait_for_held()
            self.worker.pool.give_back(link)
        self._mark()

    def _wait_for_held(self) -> None:
        """Have what comes wait for replies that are held: L1 may not know yet what the script has changed."""
        if self.queue and not self.parked:
            self.park("settle", [])

    def _is_place_of(self, link: PinnedLink) -> bool:
        """Return whether what was done on the link has left the session where it was."""
        scope = self.group.scope if self.group is not None else None
        place = link.place
        return scope == Scope(place.identity.user, place.db, place.protocol) and (
            self.group is not None and self.group.identity == place.identity
        )

    def pin_lost(self, why: str) -> None:
        """Go on without the link if it held nothing; else close, as the session's state is gone with it."""
        link = self._let_go()
        if link is not None and not link.state.is_free:
            self.close_when_settled()
        self.rescope()
        self._wait_for_held()
        self._mark()

    def unpin(self) -> None:
        """End the pinned link, if there is one, with whatever state it holds."""
        link = self._let_go()
        if link is not None:
            link.holder = None
            link.lose("reset")

    def _let_go(self) -> PinnedLink | None:
        """Hold no link any more; return the one that was held."""
        link, self.pin = self.pin, None
        self.session.upstream_id = 0
        if link is not None:
            self.origin.pinned -= 1
        return link

    def streaming_link(self) -> Link | None:
        """Return the link a large reply comes from."""
        return self.pin or self.link
