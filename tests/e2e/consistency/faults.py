"""What goes wrong on the way from a Respite to Redis: orders to the relay between them, one relay for each Respite."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter

import attrs

from ..servers import Server, free_port, wait_for
from ..targets import ROOT
from .world import Steps, World


@attrs.define(eq=False)
class Faults:
    """A relay and its orders, and connections killed by Redis itself."""

    server: Server
    rng: random.Random
    given: Counter[str]  # how many faults of each kind
    port: int = attrs.field(factory=free_port)
    _process: subprocess.Popen[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.relay", str(self.port), str(self.server.port)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    @property
    def url(self) -> str:
        """Where Respite finds Redis."""
        return f"redis://127.0.0.1:{self.port}"

    def order(self, *words: object) -> None:
        """Tell the relay what to do."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(str(word) for word in words) + "\n")
        self._process.stdin.flush()

    def fault(self, *words: object) -> None:
        """Tell the relay to do harm, and count it."""
        self.order(*words)
        self.given[" ".join(str(word) for word in words) if words[0] == "kill" else str(words[0])] += 1

    def lead_to(self, server: Server) -> None:
        """Lead to another server from now on, and cut all that leads to the old one: that is done on return."""
        self.server = server
        self.order("target", server.port)
        self.order("kill", "all")
        self.order("answer")
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "done\n"

    def kill_by_server(self) -> None:
        """Let Redis drop a link of a Respite, as CLIENT KILL or a timeout would."""
        with self.server.connect() as client:
            lines = client.command("CLIENT", "LIST").split(b"\n")
            ids = [line.split(b" ")[0].partition(b"=")[2] for line in lines if b" name=respite-" in line]
            if ids:
                client.command("CLIENT", "KILL", "ID", self.rng.choice(ids))
                self.given["kill by server"] += 1

    def close(self) -> None:
        """End the relay."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        wait_for(lambda: self._process.poll() is not None, what="the relay ends")


HARM = ("delay", "lag", "lag", "lag", "chop", "freeze", "kill", "kill", "kill by server", "pass")
"""What may happen to the links, as often as it is named."""


def harm_links(world: World, relays: list[Faults], max_staleness_s: float, harm: tuple[str, ...]) -> Steps:
    """Let one fault happen on the way of one Respite, and end it."""
    rng = world.rng
    faults = rng.choice(relays)
    yield 0.15 * rng.random()
    kind = rng.choice(harm)
    world.mark(f"{kind} at {relays.index(faults)}")
    if kind == "delay":
        faults.fault("delay", round(max_staleness_s * rng.choice((0.1, 0.5, 0.9, 1.5)), 3))
    elif kind == "lag":
        faults.fault("lag", rng.choice((0.01, 0.03, 0.06)))
        yield max_staleness_s
        faults.fault("kill", rng.choice(("data", "data", "pinned", "control")))
    elif kind in ("chop", "freeze"):
        faults.fault(kind, 1)
    elif kind == "kill":
        faults.fault("kill", rng.choice(("control", "data", "data", "pinned")))
    elif kind == "kill by server":
        faults.kill_by_server()
    yield 0.0 if kind.startswith("kill") else max_staleness_s * rng.choice((0.3, 1.0, 2.5))
    faults.order("calm")
    world.mark(f"calm at {relays.index(faults)}")
