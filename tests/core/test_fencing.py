"""A fence and L1: nothing that it covers is served from the moment it is known, however large L1 is."""

from __future__ import annotations

import random
from itertools import count

import pytest

from proxy.cache.entry import BLOCK_SIZE, Namespace, Scope
from proxy.config.model import ClassSettings
from proxy.core import fencing as fencing_module
from proxy.core.engine import Engine
from proxy.core.fencing import Fencing
from proxy.values.fences import Fence, Fences
from proxy.values.rules import Rules
from proxy.wire.encode import bulk, command
from proxy.wire.reads import GET_READ

from .scripted_values import make_engine

UNTIL = 1e9
TAGGED = (ClassSettings("tagged", ("t:*",), tags=("tag-{1}",)),)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a walk begin with few entries, and a turn look at a block."""
    monkeypatch.setattr(fencing_module, "AT_ONCE", BLOCK_SIZE)


class World:
    """An engine with what fences do to it."""

    def __init__(self) -> None:
        self.engine: Engine = make_engine()
        self.fencing = Fencing(self.engine, Fences())
        self.walks = 0
        self.fencing.on_walk = self._walk
        self._versions = count(1)

    def _walk(self) -> None:
        self.walks += 1

    def space(self, db: int = 0, protocol: int = 2) -> Namespace:
        """Return a namespace."""
        return self.engine.l1.namespace(Scope(b"u", db, protocol))

    def hold(self, name: bytes, db: int = 0, protocol: int = 2) -> None:
        """Have L1 hold a GET of a key."""
        self.engine.l1.put(self.space(db, protocol), bulk(name), b"$1\r\nv\r\n", UNTIL, 0.0)

    def hold_reply(self, name: bytes, db: int = 0) -> None:
        """Have L1 hold another read of a key."""
        request = command("HGETALL", name)
        self.engine.l1.put_reply(self.space(db), bulk(name), b"*0\r\n", UNTIL, 0.0, request=request)

    def fill(self, prefix: bytes, number: int, db: int = 0) -> None:
        """Have L1 hold many keys."""
        for at in range(number):
            self.hold(b"%b%d" % (prefix, at), db)

    def fence(self, *globs: bytes, db: int = 0, tags: tuple[bytes, ...] = ()) -> None:
        """Put fences in force."""
        version = next(self._versions)
        made = [Fence(db, "glob", glob, version) for glob in globs]
        self.fencing.put([*made, *(Fence(db, "tag", tag, version) for tag in tags)])

    def served(self, name: bytes, db: int = 0, protocol: int = 2) -> bool:
        """Return whether a GET is answered from L1, as a hit or after a closer look."""
        space = self.space(db, protocol)
        is_hit = bulk(name) in space.entries
        is_held = self.engine.held(space, bulk(name)) is not None
        assert is_held or not is_hit
        return is_held

    def resident(self, db: int = 0) -> set[bytes]:
        """Return the keys that are there, seen or not."""
        return {key.split(b"\r\n")[1] for key in self.space(db).resident}

    def finish(self) -> int:
        """Walk to the end; return how many turns it took."""
        turns = 0
        while self.fencing.is_walking:
            self.fencing.turn()
            turns += 1
            assert turns < 10_000
        return turns


# -- small L1 ----------------------------------------------------------------------------------------------------------


def test_put_in_a_small_l1_drops_what_is_covered_at_once() -> None:
    """In its database, in every namespace, GETs and all other reads; the rest stays, and is hit."""
    world = World()
    for db in (0, 1):
        for name in (b"a:1", b"a:2", b"b:1"):
            world.hold(name, db)
            world.hold_reply(name, db)
    world.hold(b"a:1", protocol=3)
    world.fence(b"a:*")

    assert [world.served(name) for name in (b"a:1", b"a:2", b"b:1")] == [False, False, True]
    assert world.space().answers.keys() == {command("HGETALL", "b:1")}
    assert not world.served(b"a:1", protocol=3)
    assert world.served(b"a:1", db=1) is False  # a key is dropped in all databases: one entry too many is no harm
    assert world.served(b"b:1", db=1)
    assert (world.walks, world.fencing.is_walking, world.engine.l1.hidden) == (0, False, False)


def test_put_by_tag_asks_the_class_of_each_key() -> None:
    """A tag covers the keys of classes that carry it."""
    world = World()
    world.fencing.find = Rules(TAGGED).find
    for name in (b"t:1", b"t:2", b"x:1"):
        world.hold(name)
    world.fence(tags=(b"tag-1",))

    assert world.resident() == {b"t:2", b"x:1"}


def test_put_known_fence_changes_nothing() -> None:
    """What came back since was written behind it: the same message, heard twice, must not drop it again."""
    world = World()
    fence = Fence(0, "glob", b"a:*", 7)
    world.fencing.put([fence])
    world.hold(b"a:1")
    world.fencing.put([fence, Fence(0, "glob", b"a:*", 6)])

    assert world.served(b"a:1")
    world.fencing.put([Fence(0, "glob", b"a:*", 8)])
    assert not world.served(b"a:1")
    assert [one.version for one in world.fencing.fences] == [8]


def test_put_with_an_empty_l1_serves_what_comes() -> None:
    """No namespace is there to be looked at."""
    world = World()
    world.fence(b"a:*")
    world.hold(b"a:1")

    assert world.served(b"a:1")
    assert not world.engine.l1.hidden


@pytest.mark.parametrize("number", [0, 3 * BLOCK_SIZE])
def test_put_revokes_the_reads_under_way(number: int) -> None:
    """What was read before the fence must not fill L1 after it, of GET and of other reads; other reads still do."""
    world = World()
    world.fill(b"b:", number)
    engine, space, link = world.engine, world.space(), object()
    flights = [
        engine.open(space, bulk(b"a:1"), link),
        engine.open(space, bulk(b"a:2"), link, command("HGETALL", "a:2")),
        engine.open(space, bulk(b"b:x"), link),
    ]
    world.fence(b"a:*")
    for flight in flights:
        flight.reply = b"$1\r\nv\r\n"
        engine.finish(flight, -1)
    world.finish()

    assert [world.served(name) for name in (b"a:1", b"a:2", b"b:x")] == [False, False, True]
    assert not space.replies


def test_put_while_walking_revokes_reads_too() -> None:
    """The second fence is about reads that the first one let go on."""
    world = World()
    world.fill(b"b:", 3 * BLOCK_SIZE)
    world.fence(b"a:*")
    flight = world.engine.open(world.space(), bulk(b"c:1"), object())
    world.fence(b"c:*")
    flight.reply = b"$1\r\nv\r\n"
    world.engine.finish(flight, -1)
    world.finish()

    assert not world.served(b"c:1")


# -- the walk through a large one --------------------------------------------------------------------------------------


def test_put_in_a_large_l1_hides_it_until_all_is_looked_at() -> None:
    """Hits look into nothing, the closer look finds what is not covered, and in the end only that is left."""
    world = World()
    for at in range(2 * BLOCK_SIZE):
        world.hold(b"a:%d" % at)
        world.hold(b"b:%d" % at)
    world.fence(b"a:*")
    assert (world.walks, world.engine.l1.hidden, dict(world.space().entries)) == (1, True, {})
    assert not world.served(b"a:7")
    assert world.served(b"b:7")
    assert b"a:7" not in world.resident()
    turns = world.finish()

    assert turns > 1
    assert (world.engine.l1.hidden, world.resident()) == (False, {b"b:%d" % at for at in range(2 * BLOCK_SIZE)})
    assert world.space().entries is world.space().resident
    assert world.engine.is_fenced(next(iter(world.space().resident.values()))) is False


def test_held_of_another_read_is_looked_at_while_hidden() -> None:
    """Replies are found by their requests, and covered by their keys."""
    world = World()
    world.fill(b"b:", 2 * BLOCK_SIZE)
    world.hold_reply(b"a:1")
    world.hold_reply(b"b:x")
    world.fence(b"a:*")
    space = world.space()

    assert world.engine.held(space, bulk(b"a:1"), command("HGETALL", "a:1")) is None
    assert world.engine.held(space, bulk(b"b:x"), command("HGETALL", "b:x")) is not None


def test_held_while_l1_is_suspended_and_hidden_is_nothing() -> None:
    """Pushes may be late: the closer look is no way around that."""
    world = World()
    world.fill(b"b:", 2 * BLOCK_SIZE)
    world.fence(b"a:*")
    world.engine.suspend()
    assert not world.served(b"b:1")
    world.engine.serve()
    assert world.served(b"b:1")
    assert not world.space().entries
    world.finish()

    assert bulk(b"b:1") in world.space().entries


def test_walk_ends_while_l1_is_suspended_without_serving_it() -> None:
    """To have looked at all is no proof that pushes arrive."""
    world = World()
    world.fill(b"b:", 2 * BLOCK_SIZE)
    world.fence(b"a:*")
    world.engine.suspend()
    world.finish()

    assert not world.space().entries
    assert not world.served(b"b:1")


def test_fence_that_comes_during_a_walk_is_in_force_at_once_and_walked_after_it() -> None:
    """Also for what the first walk has passed already."""
    world = World()
    world.fill(b"a:", 2 * BLOCK_SIZE)
    world.fill(b"b:", 2 * BLOCK_SIZE)
    world.fill(b"c:", 10)
    world.fence(b"a:*")
    world.fencing.turn()
    world.fence(b"b:*")

    assert world.walks == 1
    assert [world.served(name) for name in (b"a:3", b"b:3", b"c:3")] == [False, False, True]
    world.finish()
    assert world.resident() == {b"c:%d" % at for at in range(10)}
    assert not world.engine.l1.hidden


def test_entries_that_swap_places_during_a_walk_are_not_missed() -> None:
    """Whatever goes, the last entry takes its place: one that was looked at, or one that still will be."""
    world = World()
    names = [b"%b:%d" % (b"ab"[at % 2 : at % 2 + 1], at) for at in range(5 * BLOCK_SIZE)]
    for name in names:
        world.hold(name)
    world.fence(b"a:*")
    rng = random.Random(1)
    while world.fencing.is_walking:
        world.fencing.turn()
        for name in rng.sample(names, 100):
            world.engine.drop(bulk(name))
        for at in range(40):
            world.hold(b"b:new%d" % at)

    assert not {name for name in world.resident() if name.startswith(b"a")}


def test_namespace_that_appears_during_a_walk_is_hidden_with_the_rest() -> None:
    """What it holds is newer than the fence; it is shown with all others."""
    world = World()
    world.fill(b"b:", 3 * BLOCK_SIZE)
    world.fence(b"a:*")
    world.hold(b"b:1", db=4)
    assert not world.space(4).entries
    assert world.served(b"b:1", db=4)
    world.finish()

    assert bulk(b"b:1") in world.space(4).entries


def test_namespaces_that_vanish_during_a_walk_end_it() -> None:
    """L1 is shown again, and the next fence begins anew."""
    world = World()
    world.fill(b"b:", 3 * BLOCK_SIZE)
    world.fill(b"b:", 3 * BLOCK_SIZE, db=1)
    world.fence(b"a:*")
    world.fencing.turn()
    for db in (0, 1):
        world.engine.l1.forget_namespace(world.space(db))
    world.finish()
    world.hold(b"b:1")

    assert not world.engine.l1.hidden
    assert bulk(b"b:1") in world.space().entries


def test_namespaces_that_vanish_before_the_walk_of_a_second_fence_leave_nothing_hidden() -> None:
    """There is nothing to be looked at for it: it is over at once."""
    world = World()
    world.fill(b"b:", 3 * BLOCK_SIZE)
    world.fence(b"a:*")
    world.fencing.turn()
    world.fence(b"c:*")
    world.engine.l1.forget_namespace(world.space())
    world.finish()
    world.hold(b"a:1")
    world.hold(b"c:1")

    assert not world.engine.l1.hidden
    assert world.served(b"a:1")
    assert world.served(b"c:1")


def test_flush_during_a_walk_ends_it_soon() -> None:
    """All entries are gone."""
    world = World()
    world.fill(b"b:", 4 * BLOCK_SIZE)
    world.fence(b"a:*")
    world.engine.flush()

    assert world.finish() == 1
    assert not world.engine.l1.hidden


def test_turn_without_a_walk_does_nothing() -> None:
    """It says that there is no more to do."""
    world = World()
    world.hold(b"a:1")

    assert not world.fencing.turn()
    assert world.served(b"a:1")


@pytest.mark.parametrize("seed", range(12))
def test_nothing_older_than_a_fence_is_ever_served(seed: int) -> None:
    """Whatever happens between the turns: writes, fills, evictions, flushes, fences, namespaces that come and go."""
    rng = random.Random(seed)
    world = World()
    moment = count()
    born: dict[tuple[int, bytes], int] = {}
    fenced: dict[tuple[int, bytes], int] = {}  # glob -> when
    names = [b"%b:%d" % (letter, at) for letter in (b"a", b"b", b"c", b"d") for at in range(400)]

    def hold() -> None:
        name, db = rng.choice(names), rng.choice((0, 0, 1))
        world.hold(name, db)
        born[db, name] = next(moment)

    def fence() -> None:
        glob, db = rng.choice([b"a:*", b"b:1*", b"c:*", b"d:2*3"]), rng.choice((0, 0, 1))
        world.fence(glob, db=db)
        fenced[db, glob] = next(moment)

    def check(number: int) -> None:
        for name in rng.sample(names, number):
            for db in (0, 1):
                if world.served(name, db):
                    since = [when for (at, glob), when in fenced.items() if at == db and takes(glob, name)]
                    assert born[db, name] > max(since, default=-1), (db, name)

    for _ in range(2_000):
        hold()
    for _ in range(60):
        fence() if rng.random() < 0.3 else None
        for _ in range(rng.randrange(60)):
            hold()
        for name in rng.sample(names, rng.randrange(80)):
            world.engine.drop(bulk(name))
        if rng.random() < 0.05:
            world.engine.l1.forget_namespace(world.space(rng.choice((0, 1))))
        if rng.random() < 0.05:
            world.engine.l1.resize(rng.randrange(100_000, 400_000), 0.0)
            world.engine.l1.resize(1 << 24, 0.0)
        check(60)
        world.fencing.turn()
    world.finish()
    check(len(names))

    assert not world.engine.l1.hidden
    assert GET_READ.sole


def takes(glob: bytes, name: bytes) -> bool:
    """Match a glob of this test."""
    head, _, tail = glob.partition(b"*")
    return name.startswith(head) and name.endswith(tail) and len(name) >= len(head) + len(tail)
