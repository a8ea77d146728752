"""The randomised checker: two real Respites, many clients, faults, and an oracle that judges every read.

readers, own writers --> Respite 0 --> relay with faults --+--> Redis --> its replica
readers, own writers --> Respite 1 --> relay with faults --+      ^
strangers, who read, write and flush -----------------------------+
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import attrs
import hiredis

from ..raw import RawClient, encode
from ..servers import Kind, Server, wait_for
from ..targets import ROOT, Respite, Settings
from .actors import flusher, reader, watcher, writer
from .faults import HARM, Faults
from .loop import Loop, Port
from .moves import TOO_LARGE
from .oracle import RESPITES, Register
from .reads import Read
from .reads_sorted import READS
from .states import EMPTY
from .trouble import KINDS, OPTIONS, Trouble
from .world import Counts, World

MAX_STALENESS_S = 0.3
MARGIN_S = 0.25
"""How long processes that share two cores may keep each other from running."""

MIXED = ("string", "hash", "list", "set", "zset", "stream")
FAMILIES: tuple[tuple[tuple[str, ...], int], ...] = (
    (("string",), 8),
    (("hash",), 5),
    (("list",), 4),
    (("set",), 4),
    (("zset",), 5),
    (("stream",), 4),
    (("geo",), 3),
    (("lex",), 2),
    (MIXED, 4),
    (("geo", "string"), 1),
    (("counter",), 2),
    (("large",), 1),
)
"""What the keys of a database may hold, and how many there are of each."""

READERS = ((2, 0), (3, 0), (3, 1), (2, 1))
WRITERS = ((2, 0), (3, 1), (2, 1))
"""Protocol and database of each, at each Respite."""

WRITERS_OF = ("both", "own", "foreign")
END_S = 20.0
FLUSH_EVERY_S = 4.0


@attrs.frozen
class Plan:
    """What is to be checked, and for how long."""

    kind: Kind
    tracking: Literal["redirect", "broadcast"]
    seconds: float
    seed: int
    sabotage: str = ""
    harm: tuple[str, ...] = HARM
    troubles: tuple[str, ...] = KINDS
    stop_at: int = 1_000_000  # violations


@attrs.frozen
class Report:
    """What came of it."""

    plan: Plan
    counts: Counts
    faults: Counter[str]
    brought_back: int
    l1: list[dict[str, Any]]
    violations: list[str]

    @property
    def hits(self) -> int:
        """How many reads were answered from memory, in all."""
        return sum(l1["hits_total"] for l1 in self.l1)

    def __str__(self) -> str:
        """Say it in one line, and the first violations below."""
        plan, counts = self.plan, self.counts
        rates = " and ".join(f"{100 * l1['hit_rate']:.0f} %" for l1 in self.l1)
        head = (
            f"{plan.kind.name} {plan.tracking} seed {plan.seed}: {counts.reads} reads by {len(counts.commands)} "
            f"commands checked in {plan.seconds:g} s, {self.hits} hits ({rates}), {counts.writes} own writes, "
            f"{counts.foreign_writes} foreign, {counts.moved} moves, {counts.flushes} flushes, "
            f"{counts.unknown} outcomes unknown, {counts.refused_reads} reads refused, {self.brought_back} values "
            f"brought back, faults {dict(self.faults)}, {len(self.violations)} violations"
        )
        return "\n".join([head, *self.violations[:5]])


class SabotagedRespite(Respite):
    """Respite with a lease rule taken out."""

    def __init__(self, settings: Settings, rule: str) -> None:
        self.rule = rule
        super().__init__(settings)

    def _start(self) -> subprocess.Popen[bytes]:
        launcher = [sys.executable, "-m", f"{__package__}.sabotage", self.rule]
        with (self.directory / "stdout").open("wb") as out, (self.directory / "stderr").open("wb") as err:
            return subprocess.Popen(
                [*launcher, "run", "-c", str(self.config)], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )


def check(plan: Plan) -> Report:
    """Run the plan and return what was found; each Respite must end well, with no traceback in its log."""
    rng = random.Random(plan.seed)
    given: Counter[str] = Counter()
    with ExitStack() as stack:
        primary, replica = (stack.enter_context(Server(plan.kind, OPTIONS)) for _ in range(2))
        with replica.connect() as client:
            assert client.command("REPLICAOF", "127.0.0.1", primary.port) == b"+OK\r\n"
        relays = [Faults(primary, rng, given) for _ in range(RESPITES)]
        for faults in relays:
            stack.callback(faults.close)
        respites = [stack.enter_context(_running(plan, faults)) for faults in relays]
        return _drive(plan, rng, (primary, replica), relays, respites)


@contextmanager
def _running(plan: Plan, faults: Faults) -> Iterator[Respite]:
    settings: Settings = {
        "upstream": {"url": faults.url},
        "l1": {
            "tracking": plan.tracking,
            "max_staleness": MAX_STALENESS_S,
            "max_bytes": "1MiB",
            "max_value_bytes": TOO_LARGE - 20_000,
            "verify": 0.02,
            "early_refresh": 0.2,
        },
        "log": {"level": "error"},
    }
    respite = SabotagedRespite(settings, plan.sabotage) if plan.sabotage else Respite(settings)
    try:
        respite.wait_until_started()
        yield respite
    except BaseException as error:
        error.add_note(f"standard error of Respite ended:\n{respite.errors[-3000:]}")
        respite.discard()
        raise
    respite.stop()


def _drive(
    plan: Plan, rng: random.Random, servers: tuple[Server, Server], relays: list[Faults], respites: list[Respite]
) -> Report:
    registers = [_registers(db) for db in (0, 1)]
    address = servers[0].address
    world = World(rng, registers, MAX_STALENESS_S + MARGIN_S, [Port(address, db=db) for db in (0, 1)])
    loop = Loop()
    ours: list[Port] = []
    for who, respite in enumerate(respites):
        ours += (readers := [Port(respite.address, protocol, db, who) for protocol, db in READERS])
        ours += (writers := [Port(respite.address, protocol, db, who) for protocol, db in WRITERS])
        ours.append(Port(respite.address, 2, who, who))
        for port in readers:
            loop.spawn(reader(world, port, 0.001))
        for port in writers:
            loop.spawn(writer(world, port, 0.02))
        loop.spawn(flusher(world, ours[-1], FLUSH_EVERY_S * 2))
    theirs = [Port(address, protocol, db) for protocol, db in ((2, 0), (3, 1), (2, 0), (2, 1), (2, 0), (2, 1), (2, 0))]
    for port in theirs[:2]:
        loop.spawn(reader(world, port, 0.05))
    for port in theirs[2:-1]:
        loop.spawn(writer(world, port, 0.02))
    loop.spawn(flusher(world, theirs[-1], FLUSH_EVERY_S))
    trouble = Trouble(world, relays, *servers, theirs, MAX_STALENESS_S, plan.harm, plan.troubles)
    loop.spawn(trouble.actor())
    loop.spawn(watcher(world))
    end = time.monotonic() + plan.seconds
    while time.monotonic() < end and len(world.violations) < plan.stop_at:
        loop.run_until(min(time.monotonic() + 0.25, end))
    world.is_stopping = True
    deadline = time.monotonic() + END_S
    while loop.running and time.monotonic() < deadline:
        loop.run_until(time.monotonic() + 0.05)
    if loop.running:
        world.violations.append(f"{loop.running} clients are still waiting {END_S} s after the faults have ended")
    loop.close([*ours, *theirs, *world.direct, *trouble.opened])
    if not plan.sabotage:
        for respite in respites:
            world.violations += _compare(trouble.primary, respite, registers)
    l1 = [respite.stats()["l1"] for respite in respites]
    return Report(plan, world.counts, relays[0].given, trouble.brought_back, l1, world.violations)


def _registers(db: int) -> list[Register]:
    """Return the keys of a database, the most read first: every other one has the same name in both."""
    families = [kinds for kinds, count in FAMILIES for _ in range(count)]
    random.Random(7).shuffle(families)
    registers = []
    for at, kinds in enumerate(families):
        name = b"%b%d%b" % ("-".join(kinds)[:12].encode(), at, b".%d" % db * (at % 2))
        registers.append(Register(db, name, kinds, WRITERS_OF[at % 3]))
    return registers


def _compare(server: Server, respite: Respite, registers: list[list[Register]]) -> list[str]:
    """Read everything once more, when nothing changes any longer: nothing is stale for ever."""
    wait_for(lambda: bool(respite.stats()["l1"]["serving"]), what="L1 is served again after the faults")
    time.sleep(1.1 + MAX_STALENESS_S)  # whatever was to expire has, and a bound has passed
    found = []
    for protocol in (2, 3):
        with server.connect() as direct, respite.connect() as client:
            client.command("HELLO", protocol)
            direct.command("HELLO", protocol)
            for db, keys in enumerate(registers):
                assert direct.command("SELECT", db) == client.command("SELECT", db) == b"+OK\r\n"
                for register in keys:
                    found += _differences(direct, client, register)
    return found


def _differences(direct: RawClient, client: RawClient, register: Register) -> list[str]:
    """Ask every read of a key both ways, and through Respite twice; a set may be told in any order."""
    rng = random.Random(1)
    makers = [(maker, family) for family in register.families for maker in dict.fromkeys(READS[family])]
    reads = [maker(rng, register.key, EMPTY[family]) for maker, family in makers]
    data = b"".join(encode(*read.words) for read in reads)
    direct.send(data)
    client.send(data * 2)
    expected = direct.frames(len(reads))
    got = client.frames(2 * len(reads))
    return [
        f"db {register.db} {read.words!r} stays {frame[:60]!r}, Redis has {wanted[:60]!r}"
        for read, wanted, frame in zip(reads * 2, expected * 2, got, strict=True)
        if frame != wanted and not _is_same(read, frame, wanted)
    ]


def _is_same(read: Read, frame: bytes, wanted: bytes) -> bool:
    parser = hiredis.Reader()
    parser.feed(frame + wanted)
    return bool(read.see(parser.gets()) == read.see(parser.gets()))
