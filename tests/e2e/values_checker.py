"""A checker of fences: clients write, read, fence and write anew at full speed, through two proxies on one Redis.

    a read that began after a fence was acknowledged     gives no value whose write was acknowledged before the fence
    a read that began after a write was acknowledged     gives no older value; nil is always allowed

At once on the proxy that acknowledged it; the other one has `OTHER_S` to hear of it. Owns what is done, what is
remembered of it and the judgement, which is made afterwards from the history alone. As a program it is Respite with a
rule taken out, to see that the judgement notices: `python -m tests.e2e.values_checker RULE run -c FILE`.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import attrs

from .raw import RawClient, encode_all, tree
from .servers import Kind, Server
from .targets import ROOT, Respite, Settings

OTHER_S = 0.010
"""How long the proxy that did not acknowledge a fence or a write may not know of it."""

SLOW_SWEEP, SLOW_KEYS_A_SECOND = "slow-sweep", 4_000
"""The rule that has a sweep look at so few keys, that no machine is busy enough to be slower."""

GROUPS, MEMBERS = 6, 6
NUMBER = b"%b=%d"
CLASSES: Sequence[Mapping[str, Any]] = (
    {"name": "items", "match": ["item:*:*"], "version": True, "tags": ["group-{1}"]},
    {"name": "globs", "match": ["source:*"], "invalidates": ["item:{1}:*"]},
    {"name": "tags", "match": ["mark:*"], "invalidates": ["tag:group-{1}"]},
)
PLAIN: Mapping[str, Any] = {"name": "items", "match": ["item:*:*"], "version": True}
KEYS = [(group, b"item:%d:%d" % (group, member)) for group in range(GROUPS) for member in range(MEMBERS)]


@attrs.frozen
class Event:
    """Something that a proxy acknowledged: a write of a key, or a fence over a group. Times are monotonic seconds."""

    proxy: int
    began: float
    acked: float
    number: int = 0  # of a write: rises with each write of its key


@attrs.frozen
class Read:
    """What a proxy gave for a key; `number` is None for nil."""

    proxy: int
    group: int
    key: bytes
    began: float
    ended: float
    number: int | None


@attrs.define
class History:
    """All that was done. Each key has one writer at a time: its writes are in order."""

    writes: dict[bytes, list[Event]] = attrs.Factory(lambda: defaultdict(list))
    fences: dict[int, list[Event]] = attrs.Factory(lambda: defaultdict(list))
    reads: list[Read] = attrs.Factory(list)

    @property
    def found(self) -> int:
        """How many reads gave a value."""
        return sum(read.number is not None for read in self.reads)


@attrs.define
class Verdict:
    """`broken`: reads that gave what they must not. `excused`: so did these, of a proxy that did not get to run.

    On a busy machine a proxy may be left without a core for longer than OTHER_S. That it was shows in the history: it
    has answered nobody since. Once it has answered anybody who asked after the acknowledgement, nothing is excused.
    """

    broken: list[str] = attrs.Factory(list)
    excused: list[str] = attrs.Factory(list)


Act = Callable[[Sequence[RawClient], int, random.Random, int], None]


class _Latest:
    """Events by the proxy that acknowledged them: which of those that a reader must know of is the greatest."""

    def __init__(self, events: Sequence[Event], rank: Callable[[Event], float]) -> None:
        self._by_proxy: dict[int, tuple[list[float], list[Event]]] = {}
        for proxy in {event.proxy for event in events}:
            own = sorted((event for event in events if event.proxy == proxy), key=lambda event: event.acked)
            greatest = own[:1]
            for event in own[1:]:
                greatest.append(max(greatest[-1], event, key=rank))
            self._by_proxy[proxy] = [event.acked for event in own], greatest

    def known(self, read: Read) -> Iterator[Event]:
        for proxy, (acked, greatest) in self._by_proxy.items():
            at = bisect_left(acked, read.began - (0 if proxy == read.proxy else OTHER_S))
            if at:
                yield greatest[at - 1]


class _Alive:
    """When each proxy is known to have run: whole round trips."""

    def __init__(self, trips: Sequence[tuple[int, float, float]]) -> None:
        self._began: dict[int, list[float]] = {}
        self._ended: dict[int, list[float]] = {}
        for proxy in {trip[0] for trip in trips}:
            own = sorted(trip[1:] for trip in trips if trip[0] == proxy)
            self._began[proxy] = [began for began, _ in own]
            self._ended[proxy] = list(accumulate((ended for _, ended in reversed(own)), min))[::-1]

    def has_run(self, proxy: int, after: float, before: float) -> bool:
        at = bisect_left(self._began[proxy], after)
        return at < len(self._began[proxy]) and self._ended[proxy][at] <= before


def judge(history: History) -> Verdict:
    """Hold every read against all that was acknowledged before it."""
    verdict = Verdict()
    acknowledged = [*history.writes.values(), *history.fences.values()]
    trips = [(event.proxy, event.began, event.acked) for events in acknowledged for event in events]
    alive = _Alive(trips + [(read.proxy, read.began, read.ended) for read in history.reads])
    writes = {key: _Latest(history.writes[key], lambda event: event.number) for _, key in KEYS}
    fences = {group: _Latest(history.fences[group], lambda event: event.began) for group in range(GROUPS)}
    by_number = {key: {event.number: event for event in history.writes[key]} for _, key in KEYS}
    for read in history.reads:
        if read.number is None:
            continue
        # A write that was not acknowledged by the end of the run is not in the history, and may be read.
        written = by_number[read.key].get(read.number)
        acked = written.acked if written else float("inf")
        missed = [("write", event) for event in writes[read.key].known(read) if event.number > read.number]
        missed += [("fence", event) for event in fences[read.group].known(read) if acked <= event.began]
        for what, event in missed:
            is_due = event.proxy == read.proxy or alive.has_run(read.proxy, event.acked, read.began)
            late_ms = 1000 * (read.began - event.acked)
            text = (
                f"{read.key.decode()} through {read.proxy}: {read.number}, {late_ms:.1f} ms after a {what} through "
                f"{event.proxy} was acknowledged"
            )
            (verdict.broken if is_due else verdict.excused).append(text)
    return verdict


class Actors:
    """The threads that make a history: writers with keys of their own, readers, and those who fence."""

    def __init__(self, proxies: Sequence[Respite], seed: int, *, dependencies: bool) -> None:
        self.history = History()
        self._ways = 5 if dependencies else 1
        self._proxies = proxies
        self._seed = seed
        self._end = 0.0
        self._failed: list[BaseException] = []

    def run(self, seconds: float, *, writers: int = 2, readers: int = 4, fencers: int = 1) -> History:
        """Let all of them go, and return what was done. Raises what the first that failed has raised."""
        self._end = time.monotonic() + seconds
        roles: list[tuple[Act, int]] = [(self._write, part) for part in range(writers)]
        roles += [(self._read, part % len(self._proxies)) for part in range(readers)]
        roles += [(self._fence, part) for part in range(fencers)]
        threads = [
            threading.Thread(target=self._guarded, args=(act, part, f"{self._seed}.{number}", writers))
            for number, (act, part) in enumerate(roles)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failed:
            raise self._failed[0]
        return self.history

    def _guarded(self, act: Act, part: int, seed: str, writers: int) -> None:
        try:
            with ExitStack() as stack:
                clients = [stack.enter_context(proxy.connect()) for proxy in self._proxies]
                act(clients, part, random.Random(seed), writers)
        except BaseException as failed:
            self._failed.append(failed)
            self._end = 0.0

    @property
    def _goes_on(self) -> bool:
        return time.monotonic() < self._end

    def _write(self, clients: Sequence[RawClient], part: int, rng: random.Random, writers: int) -> None:
        keys = [key for _, key in KEYS[part::writers]]
        numbers = dict.fromkeys(keys, 0)
        while self._goes_on:
            proxy = rng.randrange(len(clients))
            chosen = rng.sample(keys, rng.choice((1, 1, 1, 3)))
            words: list[bytes | str | int] = []
            for key in chosen:
                numbers[key] += 1
                words += [key, NUMBER % (key, numbers[key])]
            began = time.monotonic()
            if len(chosen) > 1:
                assert clients[proxy].command("MSET", *words) == b"+OK\r\n"
            elif rng.random() < 0.2:
                clients[proxy].send(encode_all([("MULTI",), ("SET", *words), ("EXEC",)]))
                assert clients[proxy].frames(3)[2] == b"*1\r\n+OK\r\n"
            else:
                assert clients[proxy].command("SET", *words, *rng.choice(((), ("PX", 60_000)))) == b"+OK\r\n"
            acked = time.monotonic()
            for key in chosen:
                self.history.writes[key].append(Event(proxy, began, acked, numbers[key]))

    def _read(self, clients: Sequence[RawClient], proxy: int, rng: random.Random, _writers: int) -> None:
        client = clients[proxy]
        while self._goes_on:
            chosen = rng.sample(KEYS, rng.choice((1, 4)))
            way = rng.random() if len(chosen) > 1 else 0.0
            began = time.monotonic()
            if way < 0.6:
                client.send(encode_all([("GET", key) for _, key in chosen]))
                frames = client.frames(len(chosen))
            elif way < 0.9:
                frames = [node.own for node in tree(client.command("MGET", *(key for _, key in chosen))).children]
            else:
                client.send(encode_all([("MULTI",), *(("GET", key) for _, key in chosen), ("EXEC",)]))
                frames = [node.own for node in tree(client.frames(len(chosen) + 2)[-1]).children]
            ended = time.monotonic()
            self.history.reads += [
                Read(proxy, group, key, began, ended, number_in(key, frame))
                for (group, key), frame in zip(chosen, frames, strict=True)
            ]

    def _fence(self, clients: Sequence[RawClient], _part: int, rng: random.Random, _writers: int) -> None:
        while self._goes_on:
            proxy, group = rng.randrange(len(clients)), rng.randrange(GROUPS)
            began = time.monotonic()
            match rng.randrange(self._ways):
                case 0:
                    reply = clients[proxy].command("RESPITE", "INVALIDATE", "MATCH", f"item:{group}:*")
                case 1:
                    reply = clients[proxy].command("RESPITE", "INVALIDATE", "TAG", f"group-{group}")
                case 2:
                    reply = clients[proxy].command("SET", f"source:{group}", "x")
                case 3:
                    reply = clients[proxy].command("SET", f"mark:{group}", "x")
                case _:
                    clients[proxy].send(encode_all([("MULTI",), ("SET", f"source:{group}", "x"), ("EXEC",)]))
                    reply = clients[proxy].frames(3)[2]
            assert reply[:1] in (b"+", b":") or reply == b"*1\r\n+OK\r\n", reply
            self.history.fences[group].append(Event(proxy, began, time.monotonic()))
            time.sleep(rng.random() * 0.01)


def number_in(key: bytes, frame: bytes) -> int | None:
    """Return the number that a value bears; None for nil. A value of another key, or none of ours, is a failure."""
    if frame in (b"$-1\r\n", b"_\r\n"):
        return None
    name, sign, number = frame.split(b"\r\n")[1].partition(b"=")
    assert (name, sign) == (key, b"="), f"{key!r} gave {frame!r}"
    return int(number)


class LaunchedRespite(Respite):
    """A Respite process started in another way than `python -m proxy`."""

    def __init__(self, settings: Settings, *, module: Sequence[str] = ("proxy",), path: Path | None = None) -> None:
        self._module = module
        self._environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
        super().__init__(settings)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", *self._module, "run", "-c", str(self.config)]
        with (self.directory / "stdout").open("wb") as out, (self.directory / "stderr").open("wb") as err:
            return subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )


@contextmanager
def running(respite: Respite) -> Iterator[Respite]:
    """Run a Respite that was started for the length of a `with` block; on the way out it must end well."""
    try:
        respite.wait_until_started()
        yield respite
    except BaseException as error:
        error.add_note(f"standard error of Respite ended:\n{respite.errors[-3000:]}")
        respite.discard()
        raise
    respite.stop()


@attrs.frozen
class Outcome:
    """What a run came to: the history, the verdict on it, and the report of each proxy."""

    history: History
    verdict: Verdict
    stats: Sequence[Any]


def check(
    kind: Kind, *, seconds: float, seed: int, dependencies: bool = True, ballast: int = 0, sabotage: str = ""
) -> Outcome:
    """Run two proxies on a server of a kind, let the actors go, and judge.

    Without `dependencies` no class names what it invalidates, or tags: fences are globs that are asked for, and L1 is
    walked through for them instead of each hit being looked at.
    `ballast` so many other keys are in L1: above some hundred a fence takes L1 out of use until it has walked through.
    """
    settings: Settings = {"log": {"level": "error"}, "class": list(CLASSES) if dependencies else [PLAIN]}
    module = (__name__, sabotage) if sabotage else ("proxy",)
    with ExitStack() as stack:
        server = stack.enter_context(Server(kind))
        settings = {"upstream": {"url": server.url}, **settings}
        started = [LaunchedRespite(settings, module=module) for _ in range(2)]
        proxies = [stack.enter_context(running(respite)) for respite in started]
        for proxy in proxies:
            with server.connect() as direct, proxy.connect() as client:
                for at in range(0, ballast, 500):
                    direct.send(encode_all([("SET", f"ballast:{number}", "x") for number in range(at, at + 500)]))
                    direct.frames(500)
                    client.send(encode_all([("GET", f"ballast:{number}") for number in range(at, at + 500)]))
                    client.frames(500)
        history = Actors(proxies, seed, dependencies=dependencies).run(seconds)
        stats = [proxy.stats() for proxy in proxies]
    return Outcome(history, judge(history), stats)


def take_out(rule: str) -> None:
    """Replace the method that makes a rule."""
    from proxy.core.fenced import FencedKeys  # noqa: PLC0415  only where it is run as a program
    from proxy.core.fencing import Fencing  # noqa: PLC0415
    from proxy.core.values import Values  # noqa: PLC0415
    from proxy.net.invalidation.announcements import Announcements  # noqa: PLC0415
    from proxy.net.values import sweeper  # noqa: PLC0415

    if rule == "purge":
        Values.purge = lambda self, link, keys, db: False  # type: ignore[method-assign]
    elif rule == "watch":
        FencedKeys.has_gone = lambda self, entry: False  # type: ignore[method-assign]
    elif rule == "walk":
        Fencing.put = lambda self, fences: [  # type: ignore[method-assign,assignment]
            self.fences.put(one.db, one.kind, one.text, one.version) for one in fences
        ]
    elif rule == "dependents":
        Values.dependents = lambda self, spec, args: None  # type: ignore[method-assign]
    elif rule == SLOW_SWEEP:
        sweeper.KEYS_A_SECOND = SLOW_KEYS_A_SECOND  # type: ignore[misc]
    else:
        assert rule == "announcements"
        Announcements.hear = lambda self, payload: None  # type: ignore[method-assign]


if __name__ == "__main__":
    from proxy.cli.main import main

    take_out(sys.argv.pop(1))
    main()
