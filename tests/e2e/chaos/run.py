"""One run: start the world and its clients, let things fall, end it all, and look what is wrong."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import attrs
import redis

from ..events.run import last_words, settle
from ..events.world import GARBAGE, Publisher, Truth
from ..servers import find_kind
from . import namespace
from .claims import Claims, Register
from .clients import PATIENCE_S, kinds, open_client
from .consumers import Feeder, Follower, Popper, Subscriber
from .fallbacks import Keeper, Reader, is_hash, keys_of, may_vanish, read
from .faults import FAULTS, UNHEARD, cut_off
from .ledger import Ledger
from .listeners import Page, Prober, Scale, Teller
from .schedule import Plan, names_for, orders_of
from .traffic import Actor, Ask, Stage
from .world import BOUND_S, STALE_IF_ERROR_S, STALENESS_S, World, running

END_S = 20.0  # a client ends within it
HOLD_S = 1.5  # before a fault, so that readers have seen the last change
QUIET_S = 3.0  # so long nothing falls at the end
SLACK_S = 0.3  # what a busy machine adds to the age of a value
STALE_KEYS = 8
EVENT_KEYS = 100
EVENTS_PER_S = 20.0
EVENTS = 5  # that may overtake each other
DOCUMENT_EVERY_S = 0.02


@attrs.define(eq=False)
class Cast:
    """Who takes part. `feeders` and the others are asked in the end what they have seen."""

    stage: Stage
    world: World
    plan: Plan
    feeder: Feeder
    followers: list[Follower]
    subscribers: list[Subscriber]
    page: Page
    scale: Scale
    stale: list[Register]
    keepers: list[Register]
    truth: Truth | None = None
    publisher: Publisher | None = None
    documents: int = 0  # how often what events name was read
    faults: list[str] = attrs.field(factory=list)
    threads: list[threading.Thread] = attrs.field(factory=list)


def play(plan: Plan, tell: Callable[[str], None] = lambda _: None) -> Cast:
    """Run it; all processes have ended on return. What is wrong says `checks.problems`."""
    with running(
        find_kind(plan.kind), random.Random(plan.seed), fallbacks=plan.fallbacks, has_broker=plan.has_broker
    ) as world:
        cast = cast_for(plan, world)
        with _working(cast):
            _let_fall(cast, tell)
            time.sleep(QUIET_S)
        tell("ending")
        try:
            look_back(cast)
        except (AssertionError, OSError, redis.RedisError) as error:
            cast.stage.ledger.blame(f"what is there in the end could not be read: {error!r}")
    return cast


def cast_for(plan: Plan, world: World) -> Cast:
    """Engage everybody; nobody works yet."""
    stage = Stage(Ledger(BOUND_S), Claims(), STALENESS_S + SLACK_S, STALE_IF_ERROR_S, plan.pause_s)

    def ask(kind: str, proxy: int, who: str) -> Ask:
        return Ask(stage, open_client(kind, world.proxies[proxy].port), who, proxy)

    def rng(name: str) -> random.Random:
        return random.Random(f"{plan.seed} {name}")

    stale = [Register(f"stale:{number}", -1) for number in range(STALE_KEYS)]
    keepers = [Register(key, proxy) for proxy in range(2) for key in keys_of(proxy)]
    feeder = Feeder(stage, ask("redis-py", 0, "feeder"), rng("feeder"))
    cast = Cast(
        stage,
        world,
        plan,
        feeder,
        [Follower(stage, ask("valkey-py", 1, "follower"))],
        [Subscriber(stage, ask("raw pipelines", proxy, f"subscriber {proxy}")) for proxy in range(2)],
        Page(stage, f"http://127.0.0.1:{world.proxies[1].admin_port}".replace("http", "ws")),
        Scale(stage, world.pids),
        stale if "stale" in plan.fallbacks else [],
        keepers if "memory" in plan.fallbacks else [],
    )
    works: list[Callable[[], None]] = [feeder.run, cast.page.run, cast.scale.run]
    works += [one.run for one in cast.followers] + [one.run for one in cast.subscribers]
    works += [Popper(stage, ask("redis-py", 1, "popper")).run, Teller(stage, ask("redis-py", 0, "teller")).run]
    works += [Prober(stage, number, proxy.port).run for number, proxy in enumerate(world.proxies)]
    kinds_here = kinds()
    for number in range(plan.actors):
        kind = kinds_here[number % len(kinds_here)]
        name = f"{kind.replace(' ', '-')}-{number}"
        works.append(Actor(stage, ask(kind, number % 2, name), rng(name)).run)
    for proxy in range(2):
        if cast.stale:
            works.append(Reader(stage, ask("raw pipelines", proxy, f"reader {proxy}"), rng("reader"), stale).run)
        if cast.keepers:
            own = [one for one in keepers if one.proxy == proxy]
            works.append(Keeper(stage, ask("raw pipelines", proxy, f"keeper {proxy}"), rng("keeper"), own).run)
    if cast.stale:
        works.append(lambda: _change_behind(cast))
    if world.broker:
        cast.truth = Truth(EVENT_KEYS)
        cast.publisher = Publisher(world.broker.url, "respite.events", plan.seed)
        works += [lambda: _announce(cast), lambda: _read_documents(cast)]
    cast.threads = [threading.Thread(target=_guarded(stage, work), daemon=True) for work in works]
    return cast


def _guarded(stage: Stage, work: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        try:
            work()
        except Exception as error:
            stage.ledger.blame(f"a client of the run itself failed: {error!r}")
            raise

    return run


def _change_behind(cast: Cast) -> None:
    """Raise the numbers of the keys that have old values for bad times, as another app would: not by the proxies."""
    with redis.Redis(unix_socket_path=cast.world.server.path, socket_timeout=1.0) as direct:
        number = 0
        while not cast.stage.stop.wait(0.1):
            register = cast.stale[number % len(cast.stale)]
            number += 1
            if cast.stage.hold.is_set():
                continue
            register.sent += 1
            try:
                direct.set(register.key, register.sent)
            except redis.RedisError:
                continue
            register.raised(register.sent)


def _announce(cast: Cast) -> None:
    """Change documents and announce it: some events overtake others, some come twice, some are garbage.

    They are not numbered: a hole in numbers, as one proxy without Redis makes it, has every class flushed, as it must,
    and a value that was lost would look the same.
    """
    truth, publisher = cast.truth, cast.publisher
    assert truth is not None
    assert publisher is not None
    chance = random.Random(cast.plan.seed)
    while not cast.stage.stop.wait(EVENTS / EVENTS_PER_S):
        bodies = []
        for key in chance.choices(list(truth.versions), k=EVENTS):
            publisher.published += 1
            event = {"keys": [key], "version": truth.change(key)}
            bodies.append((f"event-{publisher.published}", json.dumps(event).encode()))
        bodies += [chance.choice(bodies)] if chance.random() < 0.2 else []
        bodies += [("garbage", chance.choice(GARBAGE))] if chance.random() < 0.05 else []
        chance.shuffle(bodies)
        publisher.publish(bodies)


def _read_documents(cast: Cast) -> None:
    """Read what the events name, through both proxies, and cache what is missing, as the app behind them would."""
    truth = cast.truth
    assert truth is not None
    chance = random.Random(cast.plan.seed)
    clients = [redis.Redis(port=proxy.port, socket_timeout=PATIENCE_S) for proxy in cast.world.proxies]
    while not cast.stage.stop.wait(DOCUMENT_EVERY_S):
        key, client = chance.choice(list(truth.versions)), chance.choice(clients)
        with suppress(redis.RedisError):
            cast.documents += 1
            if client.get(key) is None:
                truth.cache(client, key)


@contextmanager
def _working(cast: Cast) -> Iterator[None]:
    cast.stage.ledger.began = time.monotonic()
    for thread in cast.threads:
        thread.start()
    try:
        yield
    finally:
        cast.stage.stop.set()
        deadline = time.monotonic() + END_S
        for thread in cast.threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
            if thread.is_alive():
                cast.stage.ledger.blame("a client waits for an answer that never comes")


def _let_fall(cast: Cast, tell: Callable[[str], None]) -> None:
    plan, ledger = cast.plan, cast.stage.ledger
    cast.faults = names_for(plan, is_in_namespace=namespace.is_inside())
    began = time.monotonic()
    calm_until = began
    for order in orders_of(plan, cast.faults):
        # Late, where a fault took long to undo: what comes after it must show before the next.
        at = max(began + order.at_s, calm_until)
        _wait_until(at - HOLD_S)
        cast.stage.hold.set()  # what changes now would be missing where old values are to help out
        _wait_until(at)
        about = f"proxy {order.proxy}, {order.seconds} s"
        tell(f"{at - ledger.began:7.1f} s  {order.name}, {about}")
        window = ledger.begin(order.name, about, cut_off(order))
        try:
            with FAULTS[order.name](cast.world, order):
                if order.name in UNHEARD:
                    cast.stage.hold.clear()
                time.sleep(order.seconds)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            ledger.blame(f"{order.name}, {about}, could not be made or undone: {error}")
            return
        finally:
            window.ended = time.monotonic()
            calm_until = window.ended + plan.every_s / 2
            cast.stage.hold.clear()
    _wait_until(began + plan.seconds)


def _wait_until(at: float) -> None:
    while (left := at - time.monotonic()) > 0:
        time.sleep(left)


def look_back(cast: Cast) -> None:
    """Compare what is in Redis, and in both proxies, with what was done."""
    ledger, claims = cast.stage.ledger, cast.stage.claims
    with redis.Redis(unix_socket_path=cast.world.server.path, decode_responses=True) as direct:
        wrong: list[str] = []
        for key, claim in claims.lists.items():
            wrong += claim.judge(_items(direct, key))
        for key, claim in claims.streams.items():
            wrong += claim.judge(fields["id"] for _, fields in _entries(direct, key))
        for key, claim in claims.counters.items():
            wrong += claim.judge_count(int(str(direct.get(key) or 0)))
        for name in ("multi", "script"):
            wrong += _halves(direct, claims, name)
        for key, claim in claims.hashes.items():
            counts: dict[str, str] = direct.hgetall(key)
            wrong += claim.judge(ident for ident, count in counts.items() for _ in range(int(count)))
        wrong += judge_jobs(claims, _items(direct, "jobs"))
        for follower in cast.followers:
            there = [fields["id"] for _, fields in _entries(direct, "feed")][: len(follower.seen)]
            if follower.seen != there:
                wrong.append(
                    f"the {len(follower.seen)} entries that were followed are not the first ones of the stream"
                )
    for subscriber in cast.subscribers:
        wrong += subscriber.judge(cast.feeder)
    wrong += cast.page.judge()
    wrong += _registers(cast)
    if cast.truth is not None:
        wrong += _events(cast)
    for text in wrong:
        ledger.blame(text)


def _items(direct: Any, key: str) -> list[str]:
    found: list[str] = direct.lrange(key, 0, -1)
    return found


def _entries(direct: Any, key: str) -> list[Any]:
    found: list[Any] = direct.xrange(key)
    return found


def _halves(direct: Any, claims: Claims, name: str) -> list[str]:
    """Return what was done by half: a list and its counter grow together or not at all."""
    wrong = []
    for key in [key for key in claims.lists if key.startswith(f"{name}:list:")]:
        length, count = direct.llen(key), int(direct.get(key.replace(":list:", ":count:")) or 0)
        wrong += [] if length == count else [f"{key} has {length} items, its counter says {count}"]
    return wrong


def judge_jobs(claims: Claims, left: list[str]) -> list[str]:
    """Judge the jobs: what was taken by a pop whose reply was lost is nowhere any more."""
    there = [*left, *claims.popped]
    gone = len(claims.jobs.acked - set(there))
    wrong = [text for text in claims.jobs.judge(there) if "acknowledged and lost" not in text]
    if gone > claims.lost_pops:
        wrong.append(f"{gone} jobs are gone, {claims.lost_pops} pops had no reply")
    return wrong


def _registers(cast: Cast) -> list[str]:
    """Read every register once more, through each proxy: now nothing may be old."""
    wrong = []
    every = [*cast.stage.claims.registers.values(), *cast.stale]
    time.sleep(cast.stage.staleness_s)
    for number, proxy in enumerate(cast.world.proxies):
        with redis.Redis(port=proxy.port, socket_timeout=PATIENCE_S) as client:
            for register in every:
                found, floor = int(client.get(register.key) or 0), register.floor(time.monotonic())
                if not floor <= found <= register.sent:
                    wrong.append(f"{register.key} is {found} at proxy {number}, must be {floor} to {register.sent}")
    with redis.Redis(port=cast.world.proxies[0].port, socket_timeout=PATIENCE_S) as client:
        for register in cast.keepers:
            value = client.hget(register.key, "f") if is_hash(register) else client.get(register.key)
            found, floor = read(value), register.floor(time.monotonic())
            if not (floor <= found <= register.sent or (found == 0 and may_vanish(register))):
                wrong.append(f"{register.key} is {found} in the end, must be {floor} to {register.sent}")
    return wrong


def _events(cast: Cast) -> list[str]:
    """Change every document once more, let all events be dealt with, and read what the proxies have."""
    assert cast.truth is not None
    assert cast.publisher is not None
    assert cast.world.broker is not None
    last_words(cast.truth, cast.publisher)
    settle(cast.world.broker)
    cast.publisher.close()
    wrong = []
    for number, proxy in enumerate(cast.world.proxies):
        with redis.Redis(port=proxy.port, socket_timeout=PATIENCE_S) as client:
            for key, version in cast.truth.versions.items():
                value = client.get(key)
                if value is not None and value.decode() != f"{key}={version}":
                    wrong.append(f"{key} is {value.decode()} at proxy {number}, true is {version}")
    return wrong
