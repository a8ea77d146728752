"""A value layer with nothing around it: classes, a link whose replies the test lands, a client that notes its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import hiredis

from proxy.cache.l1 import L1
from proxy.config.model import ClassSettings, Compression
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.invalidation import Invalidated
from proxy.core.lifetimes import Lifetimes
from proxy.core.pinned_commands import PinnedCommands
from proxy.core.pinning import Pinning
from proxy.core.rights.rights import Rights
from proxy.core.session import Identity, Session
from proxy.core.session_commands import SessionCommands
from proxy.core.slots import Failure, Slot
from proxy.core.value_commands import ValueCommands, Way
from proxy.core.values import Values
from proxy.errors import UPSTREAM_UNAVAILABLE
from proxy.values.clock import HybridClock
from proxy.values.dependencies import Dependents
from proxy.values.dictionary import Dictionaries
from proxy.values.envelope import MAGIC
from proxy.values.fences import Fences
from proxy.values.rules import Rules
from proxy.values.sealing import Sealer
from proxy.values.ttl import Thresholds
from proxy.wire.commands import CommandSpec, CommandTable
from proxy.wire.encode import array, bulk, command
from proxy.wire.request import Raw

from .scripted import ScriptedServices
from .scripted_slots import ScriptedClient

NOW_US = 1_700_000_000_000_000
DAMAGED = MAGIC + b"\x01\x20 and no envelope at all"

CLASSES = (
    ClassSettings("versioned", ("v:*",), version=True, tags=("all-{1}",)),
    ClassSettings("compressed", ("c:*",), compress=True),
    ClassSettings("bare", ("b:*",)),
    ClassSettings("leading", ("d:*",), version=True, invalidates=("v:{1}", "list:{1}:*", "tag:all-{1}")),
    ClassSettings("timed", ("t:*",), ttl_s=100.0, adaptive_ttl="on", max_ttl_s=10_000.0),
    ClassSettings("small", ("z:*",), dictionary=True),
    ClassSettings("ours", ("respite:*",), version=True),
)

_W, _R = [b"write"], [b"readonly"]
TABLE = CommandTable.from_reply(
    [
        *([name, -2, _W, 1, 1, 1] for name in (b"set", b"setex", b"getset", b"append", b"expire", b"incr", b"lpush")),
        *([name, -2, _W, 1, 1, 1] for name in (b"getdel", b"getex", b"hset", b"hpexpire", b"setrange")),
        *([name, -2, _R, 1, 1, 1] for name in (b"get", b"strlen", b"getrange", b"ttl", b"hgetall")),
        *([name, -2, _R, 1, -1, 1] for name in (b"mget", b"exists", b"pfcount")),
        [b"mset", -3, _W, 1, -1, 2],
        [b"del", -2, _W, 1, -1, 1],
        [b"rename", 3, _W, 1, 2, 1],
        [b"copy", -3, _W, 1, 2, 1],
        [b"move", 3, _W, 1, 1, 1],
        [b"bitop", -4, _W, 2, -1, 1],
        [b"watch", -2, [], 1, -1, 1],
        *([name, 1, [], 0, 0, 0] for name in (b"multi", b"exec", b"discard", b"ping", b"unwatch")),
        [b"eval", -3, [b"noscript", b"movablekeys"], 0, 0, 0],
        [b"swapdb", 3, _W, 0, 0, 0],
    ]
)


def words(text: str | list[bytes]) -> list[bytes]:
    """Split a command line."""
    return text.encode().split() if isinstance(text, str) else text


def spec_of(args: list[bytes]) -> CommandSpec:
    """Look a command up."""
    return TABLE.find(args)


def commands_in(raw: bytes) -> list[list[bytes]]:
    """Decode the commands that lie back to back."""
    reader = hiredis.Reader()
    reader.feed(raw)
    found = []
    while (one := reader.gets()) is not False:
        found.append(one)
    return found


class ScriptedLink:
    """A link, shared or pinned, that keeps what it is given until the test lands replies, in order."""

    def __init__(self) -> None:
        self.state = Pinning()
        self.tracked = True
        self.optin = False
        self.patient = False
        self.upstream_id = 900
        self.name = b""
        self.db = 0
        self.open = True
        self.fifo: deque[Slot] = deque()
        self.raws: list[bytes] = []

    def submit(self, raw: Raw, slot: Slot) -> None:
        """Keep a command and its slot; fail it at once when the link is lost."""
        if not self.open:
            slot.fail(Failure.UNAVAILABLE)
            return
        self.raws.append(bytes(raw))
        self.fifo.append(slot)

    def asked(self) -> list[list[bytes]]:
        """Return the commands submitted since the last time."""
        raws, self.raws = self.raws, []
        return commands_in(b"".join(raws))

    def names(self) -> list[bytes]:
        """Return the names of the commands submitted since the last time."""
        return [one[0].upper() for one in self.asked()]

    def answer(self, *replies: bytes) -> None:
        """Land replies."""
        for reply in replies:
            slot = self.fifo[0]
            if slot.left > 1:
                slot.keep(reply, 1)
            else:
                self.fifo.popleft()
                slot.land(reply)

    def lose(self, failure: Failure = Failure.LOST) -> None:
        """End: every slot is answered."""
        self.open = False
        while self.fifo:
            self.fifo.popleft().fail(failure)

    def introduce(self, session: Session) -> None:
        """Do nothing."""

    def move(self, session: Session) -> None:
        """Do nothing."""


class ValueClient(ScriptedClient):
    """A client with a session and a shared link."""

    def __init__(self, link: ScriptedLink | None = None) -> None:
        super().__init__()
        self.session = Session(
            id=1,
            address="192.0.2.1:4000",
            local_address="192.0.2.9:6380",
            created_at=0.0,
            identity=Identity(b"u", b"secret"),
            authenticated=True,
            last_at=lambda: 0.0,
        )
        self.link = link
        self.namespace: Any = None
        self.shadow: Any = None
        self.classed = True
        self.rights = Rights(TABLE)
        self.leaving = False
        self.pin: Any = None

    def route(self) -> Any:
        """Return the shared link, None when there is none."""
        return self.link

    def why_not(self) -> bytes:
        """Return the error for a command without a link."""
        return UPSTREAM_UNAVAILABLE


@attrs.define
class Asked:
    """Invalidations that were asked for; the test ends them."""

    calls: list[tuple[Dependents, int, Callable[[Any], None]]] = attrs.field(factory=list)

    def __call__(self, what: Dependents, db: int, then: Callable[[Any], None]) -> None:
        """Note one."""
        self.calls.append((what, db, then))

    def end(self, error: str = "") -> None:
        """End the oldest."""
        self.calls.pop(0)[2](Invalidated(1, 1, 1, error))


def make_engine() -> Engine:
    """Make an engine that serves L1."""
    engine = Engine(L1(1 << 24), Stats(), enabled=True, max_age_s=60.0, max_value_bytes=1 << 16)
    engine.serve()
    return engine


def make_values(classes: tuple[ClassSettings, ...] = CLASSES) -> tuple[Values, Asked]:
    """Make the value layer of a worker, and what hears of the invalidations it asks for."""
    engine = make_engine()
    clock = HybridClock(lambda: 0.0)
    clock.anchor(NOW_US, 0.0, 0.0)
    sealer = Sealer(clock, Dictionaries())
    sealer.configure(Compression(100, 0.1, 1.0, "lz4"))
    values = Values(engine, sealer, Fences(), Lifetimes(Thresholds(), engine.l1, lambda: 0.5))
    values.take(Rules(classes))
    asked = Asked()
    values.invalidate = asked
    return values, asked


def peeked(*values: bytes | None) -> bytes:
    """Write the reply to a peek, as it is behind the opener: per key the plain value of what is sealed, None = bare."""
    return array(
        [b"$-1\r\n" if value is None else array([bulk(value), bulk(b"digest of " + value)]) for value in values]
    )


class Shared:
    """A client of a shared link."""

    def __init__(self) -> None:
        self.values, self.invalidations = make_values()
        self.engine = self.values.engine
        self.commands = ValueCommands(self.engine, self.values)
        self.link = ScriptedLink()
        self.client = ValueClient(self.link)

    def take(self, line: str | list[bytes]) -> Way | None:
        """Route a command."""
        args = words(line)
        return self.commands.take(self.client, spec_of(args), args, command(*args))


class Pinned(Shared):
    """A client with a link of its own beside the shared one; what waits is sent again when it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.services = services = ScriptedServices()
        services.table = TABLE
        self.pinned_commands = PinnedCommands(self.engine, services, SessionCommands(services))
        self.pinned_commands.value_commands = self.commands
        self.pin = self.client.pin = ScriptedLink()

    def send(self, *lines: str | list[bytes]) -> bool:
        """Send commands; return whether the last was taken."""
        taken = False
        for line in lines:
            args = words(line)
            taken = self.pinned_commands.take(self.client, args, command(*args))
        return taken

    def queue(self, *lines: str | list[bytes]) -> None:
        """Queue commands in a transaction, which Redis takes."""
        self.send("MULTI", *lines)
        self.pin.answer(b"+OK\r\n", *[b"+QUEUED\r\n"] * (len(self.pin.fifo) - 1))
        self.client.received = b""

    def is_over(self) -> bool:
        """Return whether the transaction has ended and nothing of it is left."""
        state = self.pin.state
        is_clean = not (state.multi or state.preparing or state.queued_ours or state.queued_bare or state.queued_raws)
        return is_clean and not self.engine.writing and self.client.session.multi == -1 and not self.client.queue
