"""The sweep: which keys it takes, how fast, and what becomes of it when somebody else sweeps or Redis goes away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from proxy.core.fencing import Fencing
from proxy.core.session import Identity
from proxy.errors import RemoteError
from proxy.net.values import sweeper as sweeper_module
from proxy.net.values.invalidator import Invalidator, ask
from proxy.net.values.sweeper import KEYS_A_CALL, KEYS_A_SECOND, LEASE_KEY, LEASE_MS, LOOK_EVERY_S, Sweeper
from proxy.values.changes import FENCES_KEY
from proxy.values.fences import Fence
from proxy.wire.encode import array, bulk

from ..core.scripted_values import ScriptedLink, make_values
from .test_invalidator import Links

Clock = trio.testing.MockClock
OTHER = (b"another", float("inf"))


class Redis:
    """Databases of keys; it is the reactor, too: what was submitted is executed when that flushes."""

    def __init__(self) -> None:
        self.links = Links()
        self.dbs: dict[int, list[bytes]] = {}
        self.lease: tuple[bytes, float] | None = None  # whose, until when
        self.log: list[tuple[float, int, list[bytes]]] = []
        self.before: Callable[[int, list[bytes]], bytes | None] = lambda db, words: None  # another answer
        self.is_away = False

    def clock(self) -> float:
        """Read the clock."""
        return trio.current_time()

    def enter(self) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Execute."""
        for db, link in list(self.links.links.items()):
            if link is None:
                continue
            for words in link.asked():
                self.log.append((trio.current_time(), db, words))
                reply = self.before(db, words) or self.execute(db, words)
                if link.open:
                    link.answer(reply)

    def execute(self, db: int, words: list[bytes]) -> bytes:
        """Answer one command."""
        keys = self.dbs.setdefault(db, [])
        match words[0]:
            case b"SET":
                return self._set(words)
            case b"GET":
                is_held = self.lease is not None and self.lease[1] > trio.current_time()
                return bulk(self.lease[0]) if self.lease is not None and is_held else b"$-1\r\n"
            case b"DEL":
                self.lease = None
                return b":1\r\n"
            case b"DBSIZE":
                return b":%d\r\n" % len(keys)
            case b"SCAN":
                at, count = int(words[1]), int(words[3])
                following = at + count if at + count < len(keys) else 0
                return array([bulk(b"%d" % following), array(map(bulk, keys[at : at + count]))])
            case b"EVAL" if FENCES_KEY in words:
                return b":1\r\n"
            case b"EVAL":
                gone = words[3 : 3 + int(words[2])]
                return b":%d\r\n" % len(gone)
        raise AssertionError(words)

    def _set(self, words: list[bytes]) -> bytes:
        assert words[1] == LEASE_KEY
        now = trio.current_time()
        is_held = self.lease is not None and self.lease[1] > now
        if is_held == (words[3] == b"NX"):
            return b"$-1\r\n"
        self.lease = words[2], now + int(words[5]) / 1000
        return b"+OK\r\n"

    def swept(self, db: int = 0) -> list[bytes]:
        """Return the keys it was told to unlink where they are old."""
        return [
            key
            for _, at, words in self.log
            if at == db and words[0] == b"EVAL" and FENCES_KEY not in words
            for key in words[3 : 3 + int(words[2])]
        ]

    def count(self, name: bytes) -> int:
        """Count the commands of a name."""
        return sum(words[0] == name for _, _, words in self.log)


class World:
    """A sweeper and its Redis."""

    def __init__(self) -> None:
        self.values, _ = make_values()
        self.fencing = Fencing(self.values.engine, self.values.fences)
        self.fencing.find = self.values.rules.find
        self.redis = Redis()
        clock = self.values.sealer.clock
        links: Any = self.redis.links
        self.invalidator = Invalidator(links, self.fencing, clock, Identity(b"own", b"secret"))
        self.sweeper = Sweeper(self.invalidator, self.fencing, self.redis)  # type: ignore[arg-type]

    def fence(self, text: bytes, version: int = 7, db: int = 0) -> None:
        """Put a fence in force."""
        self.fencing.fences.put(db, "glob", text, version)

    @property
    def left(self) -> list[Fence]:
        """The fences that are in force."""
        return list(self.fencing.fences)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the sweeper."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.sweeper.run)
            yield
            nursery.cancel_scope.cancel()

    async def run(self, seconds: float) -> None:
        """Run it for so long."""
        async with self.running():
            await trio.sleep(seconds)


async def test_sweeper_without_fences_asks_nothing(autojump_clock: Clock) -> None:
    """It costs nothing while nothing is to be done."""
    world = World()
    world.redis.dbs[0] = [b"a:1"]
    await world.run(10)

    assert world.redis.log == []


async def test_sweeper_unlinks_what_is_covered_and_lifts_the_fence(autojump_clock: Clock) -> None:
    """Each covered key with the version of its fence; in the end the lease is given back."""
    world = World()
    world.redis.dbs[0] = [b"a:1", b"b:1", b"a:2", b"v:1"]
    world.fence(b"a:*", 5)
    world.fencing.fences.put(0, "tag", b"all-1", 9)
    await world.run(2 * LOOK_EVERY_S)

    assert world.redis.swept() == [b"a:1", b"a:2", b"v:1"]
    assert (world.left, world.redis.lease) == ([], None)
    figures = world.sweeper.figures
    assert (figures.scanned, figures.unlinked, figures.passes, figures.running) == (4, 3, 1, False)
    assert figures.share == 1.0


async def test_sweeper_leaves_our_own_records(autojump_clock: Clock) -> None:
    """A fence over everything is no reason to forget it."""
    world = World()
    world.redis.dbs[0] = [FENCES_KEY, b"respite:dictionaries", b"a", LEASE_KEY, b"respite"]
    world.fence(b"*")
    await world.run(2 * LOOK_EVERY_S)

    assert world.redis.swept() == [b"a", b"respite"]


async def test_sweeper_goes_through_the_databases_of_its_fences(autojump_clock: Clock) -> None:
    """Each key by the fences of its own; an empty one is soon done."""
    world = World()
    world.redis.dbs = {0: [b"a:1"], 1: [b"a:1", b"b:1"], 4: []}
    world.fence(b"a:*", db=1)
    world.fence(b"b:*", db=4)
    await world.run(2 * LOOK_EVERY_S)

    assert (world.redis.swept(0), world.redis.swept(1), world.redis.swept(4)) == ([], [b"a:1"], [])
    assert world.left == []


async def test_sweeper_unlinks_few_keys_a_command(autojump_clock: Clock) -> None:
    """Redis serves others in between."""
    world = World()
    world.redis.dbs[0] = [b"a:%d" % number for number in range(1_250)]
    world.fence(b"a:*")
    await world.run(5)
    sizes = [int(words[2]) for _, _, words in world.redis.log if words[0] == b"EVAL" and FENCES_KEY not in words]

    assert (sum(sizes), max(sizes)) == (1_250, KEYS_A_CALL)


async def test_sweeper_waits_while_another_holds_the_lease(autojump_clock: Clock) -> None:
    """Its fences stay in force; when the other has gone it sweeps."""
    world = World()
    world.redis.dbs[0] = [b"a:1"]
    world.redis.lease = OTHER
    world.fence(b"a:*")
    async with world.running():
        await trio.sleep(20)
        assert (world.redis.count(b"SCAN"), len(world.left), world.sweeper.figures.running) == (0, 1, False)
        assert world.redis.lease == OTHER
        world.redis.lease = None
        await trio.sleep(2 * LOOK_EVERY_S)

    assert (world.redis.swept(), world.left) == ([b"a:1"], [])


async def test_sweeper_keeps_its_pace_and_its_lease(autojump_clock: Clock) -> None:
    """So many keys a second and no more; the lease never runs out on the way, and says how far it is."""
    world = World()
    seconds = 2 * LEASE_MS / 1000
    number = int(KEYS_A_SECOND * seconds) // 100
    world.redis.dbs[0] = [b"b:%d" % at for at in range(number)]
    world.fence(b"a:*")
    world.sweeper.figures.running = False
    async with world.running():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sweeper_module, "KEYS_A_SECOND", KEYS_A_SECOND // 100)
            await trio.sleep(seconds / 2)
            assert world.sweeper.figures.running
            assert 0.4 < world.sweeper.figures.share < 0.6
            for _ in range(10):
                await trio.sleep(1)
                assert world.redis.lease is not None
                assert world.redis.lease[1] > trio.current_time() + LEASE_MS / 2000
            await trio.sleep(seconds)
    scans = [at for at, _, words in world.redis.log if words[0] == b"SCAN"]

    assert seconds - 2 < scans[-1] - scans[0] < seconds + 2
    assert world.left == []


@pytest.mark.parametrize("name", [b"SET", b"DBSIZE", b"SCAN", b"EVAL", b"DEL"])
async def test_sweeper_refused_a_command_keeps_its_fences_and_tries_again(name: bytes, autojump_clock: Clock) -> None:
    """Whichever it is: what was not swept to the end is not lifted."""
    world = World()
    world.redis.dbs[0] = [b"a:1"]
    world.fence(b"a:*")
    world.redis.before = lambda _, words: b"-LOADING not now\r\n" if words[0] == name else None
    async with world.running():
        await trio.sleep(3)
        assert world.left == ([] if name == b"DEL" else [Fence(0, "glob", b"a:*", 7)])
        assert not world.sweeper.figures.running
        world.redis.before = lambda *_: None
        await trio.sleep(2 * LOOK_EVERY_S)

    assert world.left == []
    assert b"a:1" in world.redis.swept()


async def test_sweeper_whose_link_is_lost_half_way_begins_again(autojump_clock: Clock) -> None:
    """From the beginning: nobody knows what the cursor was worth."""
    world = World()
    world.redis.dbs[0] = [b"a:%d" % number for number in range(1_000)]
    world.fence(b"a:*")

    def before(db: int, words: list[bytes]) -> bytes | None:
        if words[:2] == [b"SCAN", b"500"]:
            link = world.redis.links.links[db]
            assert isinstance(link, ScriptedLink)
            link.lose()
            world.redis.before = lambda *_: None
            world.redis.links.links[db] = None
        return None

    world.redis.before = before
    async with world.running():
        await trio.sleep(5)
        assert (len(world.left), world.sweeper.figures.passes, world.sweeper.figures.running) == (1, 0, False)
        world.redis.links.links[0] = ScriptedLink()
        await trio.sleep(3 * LOOK_EVERY_S)  # its own lease does not keep it waiting

    assert world.left == []
    assert len(world.redis.swept()) == 500 + 1_000


async def test_sweeper_does_not_lift_a_fence_that_was_set_anew(autojump_clock: Clock) -> None:
    """Keys that it has passed may be older than the new one: there is another sweep."""
    world = World()
    world.redis.dbs[0] = [b"a:1"]
    world.fence(b"a:*", 7)
    passes: list[int] = []

    def before(_: int, words: list[bytes]) -> bytes | None:
        if words[0] == b"SCAN":
            passes.append(1)
            if len(passes) == 1:
                world.fence(b"a:*", 8)
                world.fence(b"b:*", 8)
        return None

    world.redis.before = before
    async with world.running():
        await trio.sleep(1.5 * LOOK_EVERY_S)
        assert {(fence.text, fence.version) for fence in world.left} == {(b"a:*", 8), (b"b:*", 8)}
        await trio.sleep(LOOK_EVERY_S)

    assert (world.left, len(passes)) == ([], 2)


async def test_ask_raises_what_redis_says_and_that_it_is_away(autojump_clock: Clock) -> None:
    """Errors of both kinds, and no link at all."""
    world = World()
    reactor: Any = world.redis
    for reply, text in ((b"-ERR no\r\n", "ERR no"), (b"!6\r\nERR no\r\n", "ERR no")):
        world.redis.before = lambda *_, reply=reply: reply
        with pytest.raises(RemoteError, match=text):
            await ask(reactor, world.invalidator, 0, b"*1\r\n$6\r\nDBSIZE\r\n")
    world.redis.links.links[0] = None

    with pytest.raises(RemoteError, match="unavailable"):
        await ask(reactor, world.invalidator, 0, b"*1\r\n$6\r\nDBSIZE\r\n")


@pytest.mark.parametrize(("refusal", "left"), [(b"-ERR DB index is out of range\r\n", 0), (b"-NOPERM no\r\n", 1)])
async def test_sweeper_lifts_fences_of_others_where_one_database_cannot_be_swept(
    refusal: bytes, left: int, autojump_clock: Clock
) -> None:
    """Nothing lies behind a fence of a database that is not there; one that is refused keeps its own fences only."""
    world = World()
    world.redis.dbs[0] = [b"a:1"]
    world.fence(b"a:*")
    world.fence(b"a:*", db=99)
    world.redis.before = lambda db, _: refusal if db == 99 else None
    await world.run(2 * LOOK_EVERY_S)

    assert world.redis.swept() == [b"a:1"]
    assert [fence.db for fence in world.left] == [99] * left
