"""A client, its pinned link and the worker's services, scripted: what the session commands ask for is only noted.

answer(..) -> client.replies          what was decided here
ask(..) -> raw, then -> link.asked    what Redis is asked, and what the client is told once it has answered
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any

from proxy.cache.entry import Namespace, Scope
from proxy.cache.l1 import L1
from proxy.core.client_commands import ClientCommands
from proxy.core.downstream import Host
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.invalidation import Invalidated
from proxy.core.lifetimes import Lifetimes
from proxy.core.pinning import Pinning
from proxy.core.rights.logins import WRONGPASS
from proxy.core.rights.rights import Rights
from proxy.core.session import Identity, Session, Sessions
from proxy.core.session_commands import SessionCommands
from proxy.core.slots import Client, Slot
from proxy.core.values import Values
from proxy.values.clock import HybridClock
from proxy.values.dependencies import Dependents
from proxy.values.dictionary import Dictionaries
from proxy.values.fences import Fences
from proxy.values.sealing import Sealer
from proxy.values.ttl import Thresholds
from proxy.wire.commands import CommandSpec, CommandTable, Kind
from proxy.wire.encode import command
from proxy.wire.request import Raw, Request

URL_USER = Identity(b"url", b"secret")
FIELDS = ("id", "addr", "laddr", "name", "age", "idle", "flags", "db", "user", "resp", "cmd", "qbuf")


class ScriptedLink:
    """A pinned link that keeps what it is given."""

    def __init__(self) -> None:
        self.state = Pinning()
        self.tracked = False
        self.optin = False
        self.patient = False
        self.upstream_id = 900
        self.name = b""
        self.db = 0
        self.submitted: list[tuple[bytes, Slot]] = []
        self.place: tuple[Identity, int, int] | None = None

    def submit(self, raw: Raw, slot: Slot) -> None:
        """Keep a command and its slot."""
        self.submitted.append((bytes(raw), slot))

    def send_raw(self, raw: Raw) -> None:
        """Keep bytes."""
        self.submitted.append((bytes(raw), Slot(None)))

    def subscribe(self, client: Client, raw: Raw, acks: int) -> None:
        """Keep a subscription."""
        self.submitted.append((bytes(raw), Slot(None)))

    def introduce(self, session: Session) -> None:
        """Do nothing."""

    def move(self, session: Session) -> None:
        """Note where the session is now."""
        self.place = (session.identity, session.db, session.protocol)


class ScriptedClient:
    """A client that keeps its replies."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.namespace: Namespace | None = None
        self.shadow: Namespace | None = None
        self.parked = ""
        self.muting = False
        self.rights = Rights(CommandTable.builtin())
        self.ended = False
        self.leaving = False
        self.unproven = False
        self.classed = True
        self.joins = 0
        self.queue: deque[Slot] = deque()
        self.pin: ScriptedLink | None = None
        self.shared: ScriptedLink | None = None
        self.away = b""  # why there is no shared link
        self.replies: list[bytes] = []
        self.scopes: list[Scope] = []  # where it was after each rescope
        self.is_closed = False
        session.close = self._close

    def _close(self) -> None:
        self.is_closed = True

    def reply(self, raw: bytes) -> None:
        """Keep a reply."""
        self.replies.append(raw)

    def rescope(self) -> None:
        """Note where the session is now."""
        self.scopes.append(Scope(self.session.identity.user, self.session.db, self.session.protocol))

    def unpin(self) -> None:
        """Let go of the pinned link."""
        self.pin = None

    def quit(self) -> None:
        """Note the end."""
        self.ended = True

    def give_up(self, args: list[bytes]) -> None:
        """Have sent nothing behind a command that failed."""

    def route(self) -> ScriptedLink | None:
        """Have the shared link that the test gives, if any."""
        return self.shared

    def why_not(self) -> bytes:
        """Have the reason that the test gives; without one, no shared link may be asked for."""
        assert self.away, "no shared link is asked for"
        return self.away

    def park(self, why: str, requests: list[Request]) -> None:
        """Not happen: the session commands never park."""
        raise AssertionError(why)

    def pin_down(self, *, anywhere: bool = False) -> bool:
        """Not happen: who calls `ask` has pinned the client."""
        raise AssertionError("pinned")

    def owe(self, slot: Slot) -> None:
        """Owe a slot."""
        self.queue.append(slot)

    def settle(self) -> None:
        """Take the filled prefix."""
        while self.queue and self.queue[0].reply is not None:
            self.replies.append(self.queue.popleft().reply or b"")

    def stream(self, part: bytes) -> None:
        """Keep a part."""
        self.replies.append(part)

    def ask(self, raw: Raw, slot: Slot) -> None:
        """Not happen: nobody joins a flight here."""
        raise AssertionError("asked")

    def ask_again(self, raw: Raw, slot: Slot) -> bool:
        """Let it fail."""
        return False

    def abort(self, why: str) -> None:
        """Close."""
        self.is_closed = True


class ScriptedServices:
    """The worker, as sessions see it."""

    def __init__(self) -> None:
        self.sessions = Sessions()
        self.host: Host | None = None
        self.proxy_users: dict[bytes, bytes] = {}
        self.untried: set[bytes] = set()  # users whose password is tried elsewhere, and known later
        self.max_subscriptions = 0
        self.initial_identity = URL_USER
        self.initial_db = 0
        self.hellos: MutableMapping[tuple[bytes, int], bytes] = {}
        self.table = CommandTable([_client_spec("SETINFO", "NO-EVICT", "NO-TOUCH")])
        self.table_is_builtin = False
        self.clock = 1000.0
        self.good: set[Scope] = set()
        self.adopted: list[Identity] = []
        self.paused: list[float] = []
        self.asked: list[tuple[str, object]] = []  # reports and the like
        self.answers: dict[str, Any] = {}
        engine = Engine(L1(1 << 20), Stats(), enabled=True, max_age_s=60.0, max_value_bytes=1 << 20)
        sealer = Sealer(HybridClock(lambda: self.clock), Dictionaries())
        self.values = Values(engine, sealer, Fences(), Lifetimes(Thresholds(), engine.l1, lambda: 0.5))

    def client(self, **about: Any) -> ScriptedClient:
        """Connect a client."""
        number = self.sessions.next_id()
        given: dict[str, Any] = {
            "id": number,
            "address": f"192.0.2.1:{4000 + number}",
            "local_address": "192.0.2.9:6380",
            "created_at": self.clock,
            "identity": URL_USER,
            "authenticated": not self.proxy_users,
            "last_at": lambda: self.clock,
        } | about
        session = Session(**given)
        self.sessions.add(session)
        return ScriptedClient(session)

    @property
    def has_users(self) -> bool:
        """Whether the test has given any."""
        return bool(self.proxy_users)

    def log_in(self, client: Any, name: bytes, password: bytes) -> bytes | None:
        """Look into the users of the test."""
        if name in self.untried:
            return None
        return b"" if self.proxy_users.get(name) == password else WRONGPASS

    def count_denied(self, user: str) -> None:
        """Note it."""
        self.asked.append(("denied", None))

    def now(self) -> float:
        """Return the hand clock."""
        return self.clock

    def line_of(self, session: Session) -> str:
        """Return a line with a few fields."""
        return session.line(self.clock, FIELDS, b"ping")

    def is_known_good(self, scope: Scope) -> bool:
        """Return what the test says."""
        return scope in self.good

    def adopt(self, identity: Identity) -> None:
        """Note an identity."""
        self.adopted.append(identity)

    def after_all(self, name: bytes) -> Callable[[], None] | None:
        """Note it, and when it comes to that."""
        return lambda: self.asked.append(("after_all", name))

    def pause(self, seconds: float) -> None:
        """Note a pause."""
        self.paused.append(seconds)

    def refresh_table(self) -> None:
        """Note it."""
        self.asked.append(("refresh_table", None))

    def reload(self, then: Callable[[dict[str, Any]], None]) -> None:
        """Answer as the test says."""
        self.asked.append(("reload", None))
        then(self.answers["reload"])

    def invalidate(self, what: Dependents, db: int, then: Callable[[Invalidated], None]) -> None:
        """Answer as the test says."""
        self.asked.append(("invalidate", (what, db)))
        then(self.answers.get("invalidate", Invalidated(len(what.keys), 0, len(what.globs) + len(what.tags))))

    def fence(self, then: Callable[[], None]) -> None:
        """Wait for nothing."""
        then()

    def report(self, section: str) -> dict[str, Any]:
        """Return what the test says."""
        self.asked.append(("report", section))
        found = self.answers.get(section, {}) if section else self.answers
        return dict(found)

    def explain(self, key: bytes) -> dict[str, Any]:
        """Return the key."""
        self.asked.append(("explain", key))
        return {"key": key.decode()}

    def clear_l1(self) -> int:
        """Pretend."""
        self.asked.append(("clear_l1", None))
        return 7


def _client_spec(*subcommands: str) -> CommandSpec:
    """CLIENT, as a server tells it that has these subcommands of newer versions."""
    specs = {word.encode(): CommandSpec(b"CLIENT|" + word.encode(), Kind.SESSION) for word in subcommands}
    return CommandSpec(b"CLIENT", Kind.SESSION, subcommands=specs)


def table_without(*missing: str) -> CommandTable:
    """Return the table of a server whose CLIENT lacks some of the subcommands."""
    return CommandTable([_client_spec(*({"SETINFO", "NO-EVICT", "NO-TOUCH"} - set(missing)))])


def words_of(text: str | tuple[str | bytes, ...]) -> list[bytes]:
    """Split a command line."""
    parts = text.split() if isinstance(text, str) else text
    return [part.encode() if isinstance(part, str) else part for part in parts]


class Conversation:
    """Runs session commands for a client: here if that is certain, else on a pinned link that answers as told."""

    def __init__(self, services: ScriptedServices) -> None:
        self.services = services
        self.commands = SessionCommands(services)
        self.client_commands = ClientCommands(services)
        self.link = ScriptedLink()

    def here(self, client: ScriptedClient, line: str | tuple[str | bytes, ...]) -> list[bytes] | None:
        """Return what a command is answered here; None when Redis is to be asked, and nothing has happened."""
        words = words_of(line)
        before = (client.session.line(self.services.clock, FIELDS, b""), len(client.replies))
        stood = client.session.authenticated, len(client.scopes)
        if self.commands.answer(client, words, command(*words)):
            replies, client.replies = client.replies, []
            return replies
        after = (client.session.line(self.services.clock, FIELDS, b""), len(client.replies))
        assert before == after, "it was not answered, and yet something changed"
        let_in = client.session.authenticated and not stood[0]  # by the AUTH of a HELLO of which Redis has the rest
        assert let_in or stood[1] == len(client.scopes), "it was not answered, and yet the client moved"
        return None

    def asks(
        self, client: ScriptedClient, line: str | tuple[str | bytes, ...], reply: bytes = b"+OK\r\n"
    ) -> tuple[list[bytes], bytes]:
        """Ask Redis, which replies so; return the words it was asked and what the client reads."""
        words = words_of(line)
        assert self.here(client, line) is None, "it was answered here"
        client.pin = self.link
        raw, then = self.commands.ask(client, self.link, words, command(*words))
        answer = then(reply)
        client.pin = None
        return _split(bytes(raw)), answer


def _split(raw: bytes) -> list[bytes]:
    """Split a command into its words."""
    words = []
    at = raw.index(b"\n") + 1
    while at < len(raw):
        start = raw.index(b"\n", at) + 1
        size = int(raw[at + 1 : start])
        words.append(raw[start : start + size])
        at = start + size + 2
    return words
