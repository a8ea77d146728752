"""What the core asks of its surroundings: a client, its links, and the services of the worker.

Only shapes: `net` implements them, tests script them. No decision is made here.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol

from proxy.cache.entry import Namespace, Scope
from proxy.core.pinning import Pinning
from proxy.core.rights.rights import Rights
from proxy.core.session import Identity, Session, Sessions
from proxy.core.slots import Client, Link
from proxy.wire.commands import CommandTable
from proxy.wire.request import Raw, Request

if TYPE_CHECKING:
    from proxy.core.invalidation import Invalidated
    from proxy.core.values import Values
    from proxy.values.dependencies import Dependents


class Downstream(Client, Protocol):
    """A client, as the pipeline uses it."""

    session: Session
    namespace: Namespace | None  # where its reads may be answered from, None = nowhere
    shadow: Namespace | None  # what its reads are compared with, in shadow mode; never served from
    parked: str  # why its commands wait, "" when they do not
    classed: bool  # what classes say of values holds for what it writes (rollout.mode, rollout.percent)
    muting: bool  # CLIENT REPLY: the reply of the command at hand is not sent
    rights: Rights  # what it may run: every command is found in its table

    @property
    def pin(self) -> PinnedConnection | None:
        """The connection it has to itself, None when it has none."""

    def reply(self, raw: bytes) -> None:
        """Send a reply in its turn."""

    def route(self) -> Link | None:
        """Return the shared link of its scope, None when commands must fail now."""

    def why_not(self) -> bytes:
        """Return the error for a command that has no link."""

    def park(self, why: str, requests: list[Request]) -> None:
        """Keep requests until `why` has passed; commands that arrive meanwhile queue behind them."""

    def pin_down(self, *, anywhere: bool = False) -> bool:
        """Get a connection of its own; False = one is being opened, and the client must be parked.

        `anywhere`: in whatever database, for what is about none, and cannot wait until Redis lets one select its own.
        """

    @property
    def leaving(self) -> bool:
        """Whether the client has closed its sending side, or is to be closed."""

    @property
    def unproven(self) -> bool:
        """Whether Redis has not yet let this user in: nothing may be answered in its name."""

    def unpin(self) -> None:
        """End the pinned link, if there is one, with whatever state it holds."""

    def rescope(self) -> None:
        """Follow the session: its links and its namespace are those of its user, database and protocol."""

    ended: bool  # QUIT: nothing is looked at any more

    def quit(self) -> None:
        """Close after the replies owed by now; what the client has sent since is not looked at."""

    def give_up(self, args: list[bytes]) -> None:
        """Note that a command has failed without Redis' word: what only makes sense behind it is not looked at."""


class PinnedConnection(Link, Protocol):
    """A pinned link, as the core uses it."""

    state: Pinning
    patient: bool  # a blocking command runs: its reply is late only after the time it asked for
    patience_s: float  # .. which is so long
    upstream_id: int
    name: bytes  # what CLIENT GETNAME says on it

    @property
    def db(self) -> int:
        """The database it is in."""

    def send_raw(self, raw: Raw) -> None:
        """Forward bytes whose replies nobody matches."""

    def subscribe(self, client: Client, raw: Raw, acks: int) -> None:
        """Submit a (UN)SUBSCRIBE that gets so many acknowledgements."""

    def introduce(self, session: Session) -> None:
        """Give the link the session's name, for commands that MULTI queues and Redis answers."""

    def move(self, session: Session) -> None:
        """Note that the link now is who, and speaks what, its session does."""


class Host(Protocol):
    """The other workers, where there are any, and this one among them."""

    def ask(self, question: str, *arguments: object, then: Callable[[Any], None]) -> None:
        """Ask about the whole host; `then` gets the answer in a wake-up of its own, None when none came in time."""


class Services(Protocol):
    """What a worker offers to its sessions."""

    host: Host | None  # None: this is the only worker
    sessions: Sessions
    has_users: bool  # listen.users says who is let in; else Redis decides
    max_subscriptions: int  # of one client, 0 = no limit
    initial_identity: Identity
    initial_db: int
    hellos: MutableMapping[tuple[bytes, int], bytes]  # (user, protocol) -> what HELLO was answered last

    @property
    def table(self) -> CommandTable:
        """The command table of the upstream as it is now."""

    @property
    def table_is_builtin(self) -> bool:
        """Whether the upstream has not told its commands yet."""

    def now(self) -> float:
        """Return the clock of this wake-up, in seconds."""

    def line_of(self, session: Session) -> str:
        """Return a session's line in CLIENT LIST, as this server would write it."""

    def log_in(self, client: Any, name: bytes, password: bytes) -> bytes | None:
        """Return b"" for a client that listen.users lets in, an error, or None when that will be known later.

        Then the command must be parked for "login": it is run again, or answered with the error.
        """

    def count_denied(self, user: str) -> None:
        """Count a command that was refused because its client, of this user, may not run it here."""

    def is_known_good(self, scope: Scope) -> bool:
        """Return whether Redis has accepted this user, database and protocol, and still does."""

    def adopt(self, identity: Identity) -> None:
        """Take note of credentials that Redis has accepted."""

    def after_all(self, name: bytes) -> Callable[[], None] | None:
        """Return what follows a command that may have changed any key, None for nothing.

        Who may do what is looked at after one that changes ACLs; others are told of what Redis tells nobody.
        """

    def pause(self, seconds: float) -> None:
        """Take no reply for late during CLIENT PAUSE, from now on for so many seconds; 0 ends it."""

    def refresh_table(self) -> None:
        """Ask the upstream for its commands again."""

    def reload(self, then: Callable[[dict[str, Any]], None]) -> None:
        """Read the configuration again; `then` gets, in a wake-up of its own, what was applied and what was wrong."""

    values: Values

    def invalidate(self, what: Dependents, db: int, then: Callable[[Invalidated], None]) -> None:
        """Drop keys, globs and tags in both tiers; `then` gets what was dropped."""

    def fence(self, then: Callable[[], None]) -> None:
        """Call `then` once every push that Redis has sent by now has been applied; at once if none can be awaited."""

    def report(self, section: str) -> dict[str, Any]:
        """Return the figures of `stats.json`, or one section of them."""

    def explain(self, key: bytes) -> dict[str, Any]:
        """Return what is known about a key."""

    def clear_l1(self) -> int:
        """Drop everything in L1; return how many entries went."""
