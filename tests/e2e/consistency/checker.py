"""The randomised checker: real servers, a real Respite, many clients, faults, and an oracle that judges every read.

readers, own writers --> Respite --> relay with faults --> Redis <-- strangers who write and flush
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import urllib.request
from typing import Any, Literal

import attrs

from ..raw import RawClient
from ..servers import Kind, Server, wait_for
from ..targets import ROOT, Respite, Settings
from .actors import Counts, World, flusher, reader, writer
from .faults import Faults
from .loop import Loop, Port
from .oracle import Register

MAX_STALENESS_S = 0.3
MARGIN_S = 0.25
"""How long processes that share two cores may keep each other from running."""

TOO_LARGE = 120_000
PLAIN_KEYS, COUNTERS, LARGE_KEYS = 36, 2, 1
READERS = ((2, 0), (3, 0), (3, 1), (2, 0), (3, 1), (3, 1))
WRITERS = ((2, 0), (3, 1), (2, 1))
"""Protocol and database of each. What only one link reads shows what becomes of its pushes when it is lost."""

WRITERS_OF = ("both", "own", "foreign")
END_S = 10.0
FLUSH_EVERY_S = 3.0


@attrs.frozen
class Plan:
    """What is to be checked, and for how long."""

    kind: Kind
    tracking: Literal["redirect", "broadcast"]
    seconds: float
    seed: int
    sabotage: str = ""
    stop_at: int = 1_000_000  # violations


@attrs.frozen
class Report:
    """What came of it."""

    plan: Plan
    counts: Counts
    faults: dict[str, int]
    l1: dict[str, Any]
    violations: list[str]

    def __str__(self) -> str:
        """Say it in one line, and the first violations below."""
        plan, counts = self.plan, self.counts
        head = (
            f"{plan.kind.name} {plan.tracking} seed {plan.seed}: {counts.reads} reads checked in {plan.seconds:g} s, "
            f"{self.l1['hits_total']} hits ({100 * self.l1['hit_rate']:.0f} %), {counts.writes} own writes, "
            f"{counts.foreign_writes} foreign, {counts.flushes} flushes, {counts.unknown} outcomes unknown, "
            f"{counts.refused_reads} reads refused, faults {self.faults}, {len(self.violations)} violations"
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
    """Run the plan and return what was found; Respite must end well, with no traceback in its log."""
    rng = random.Random(plan.seed)
    with Server(plan.kind) as server:
        faults = Faults(server, rng)
        settings: Settings = {
            "upstream": {"url": faults.url},
            "l1": {
                "tracking": plan.tracking,
                "max_staleness": MAX_STALENESS_S,
                "max_bytes": "1MiB",
                "max_value_bytes": TOO_LARGE - 20_000,
            },
            "log": {"level": "error"},
        }
        respite = SabotagedRespite(settings, plan.sabotage) if plan.sabotage else Respite(settings)
        try:
            respite.wait_until_started()
            report = _drive(plan, rng, server, respite, faults)
        except BaseException:
            respite.discard()
            raise
        finally:
            faults.close()
        respite.stop()
        return report


def _drive(plan: Plan, rng: random.Random, server: Server, respite: Respite, faults: Faults) -> Report:
    registers = [[*_registers(db)] for db in (0, 1)]
    world = World(rng, registers, MAX_STALENESS_S + MARGIN_S, [Port(server.address, db=db) for db in (0, 1)])
    loop = Loop()
    ours = [Port(respite.address, protocol=protocol, db=db) for protocol, db in (*READERS, *WRITERS)]
    theirs = [Port(server.address, db=db) for db in (0, 1, 0, 1)]
    flushers = [Port(respite.address, db=0), Port(server.address, db=1)]
    for port in ours[: len(READERS)]:
        loop.spawn(reader(world, port, 0.001))
    for port in ours[len(READERS) :]:
        loop.spawn(writer(world, port, 0.01, own=True))
    for port in theirs:
        loop.spawn(writer(world, port, 0.02, own=False))
    loop.spawn(flusher(world, flushers[0], FLUSH_EVERY_S, own=True))
    loop.spawn(flusher(world, flushers[1], FLUSH_EVERY_S, own=False))
    loop.spawn(faults.actor(world, MAX_STALENESS_S))
    end = time.monotonic() + plan.seconds
    while time.monotonic() < end and len(world.violations) < plan.stop_at:
        loop.run_until(min(time.monotonic() + 0.25, end))
    world.is_stopping = True
    deadline = time.monotonic() + END_S
    while loop.running and time.monotonic() < deadline:
        loop.run_until(time.monotonic() + 0.05)
    if loop.running:
        world.violations.append(f"{loop.running} clients are still waiting {END_S} s after the faults have ended")
    loop.close([*ours, *theirs, *flushers, *world.direct])
    world.violations += _compare(server, respite, registers)
    l1 = _stats(respite)["l1"]
    return Report(plan, world.counts, faults.given, l1, world.violations)


def _registers(db: int) -> list[Register]:
    """Return the keys of a database, the most read first: every other one has the same name in both."""
    own_name = b".%d" % db
    names: list[tuple[bytes, bool, tuple[int, ...]]]
    names = [(b"k%d%b" % (number, own_name * (number % 2)), False, (0, 60)) for number in range(PLAIN_KEYS)]
    names += [(b"n%d" % number, True, (0,)) for number in range(COUNTERS)]
    # One change is small enough for L1, the next is streamed, the next is too large for L1.
    names += [(b"large%d" % number, False, (5_000, TOO_LARGE - 40_000, TOO_LARGE)) for number in range(LARGE_KEYS)]
    return [
        Register(db, key, 100 * db + at + 1, is_counter, pad, WRITERS_OF[at % 3])
        for at, (key, is_counter, pad) in enumerate(names)
    ]


def _stats(respite: Respite) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{respite.admin_port}/stats.json", timeout=5) as answer:
        return json.load(answer)


def _compare(server: Server, respite: Respite, registers: list[list[Register]]) -> list[str]:
    """Read everything once more, when nothing changes any longer: nothing is stale for ever."""
    wait_for(lambda: bool(_stats(respite)["l1"]["serving"]), what="L1 is served again after the faults")
    time.sleep(1.1 + MAX_STALENESS_S)  # whatever was to expire has, and a bound has passed
    found = []
    for protocol in (2, 3):
        with server.connect() as direct, respite.connect() as client:
            client.command("HELLO", protocol)
            direct.command("HELLO", protocol)
            for db, keys in enumerate(registers):
                assert direct.command("SELECT", db) == client.command("SELECT", db) == b"+OK\r\n"
                found += [wrong for register in keys if (wrong := _differs(direct, client, register))]
    return found


def _differs(direct: RawClient, client: RawClient, register: Register) -> str:
    expected = direct.command("GET", register.key)
    for _ in range(2):
        if (got := client.command("GET", register.key)) != expected:
            return f"db {register.db} {register.key!r} stays {got[:60]!r}, Redis has {expected[:60]!r}"
    return ""
