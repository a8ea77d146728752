"""Keys that writes of others fence: no walk through L1 for them, and nothing covered is ever served."""

from __future__ import annotations

import pytest

from proxy.cache.entry import Entry, Namespace, Scope
from proxy.config.model import ClassSettings
from proxy.core import fencing as fencing_module
from proxy.core.fencing import Fencing
from proxy.values.fences import Fence, Fences
from proxy.values.rules import Rules
from proxy.wire.encode import bulk

from .scripted_values import make_engine

CLASSES = (
    ClassSettings("tickets", ("ticket:*",), invalidates=("list:{1}:*", "tag:t-{1}")),
    ClassSettings("pages", ("page:*",), tags=("t-{1}",)),
)
OTHERS = 5_000


class World:
    """An engine whose L1 is larger than what is walked in one go."""

    def __init__(self) -> None:
        self.engine = make_engine()
        self.engine.now = 10.0
        self.fencing = Fencing(self.engine, Fences())
        self.fencing.take(Rules(CLASSES))
        self.walks = 0
        self.fencing.on_walk = self._walk
        self.version = 0
        for number in range(OTHERS):
            self.publish(b"other:%d" % number)

    def _walk(self) -> None:
        self.walks += 1

    def space(self, db: int = 0) -> Namespace:
        """Return a namespace."""
        return self.engine.l1.namespace(Scope(b"u", db, 2))

    def publish(self, name: bytes, db: int = 0) -> Entry:
        """Have a read of a key fill L1."""
        flight = self.engine.open(self.space(db), bulk(name), None)
        flight.reply = b"$1\r\nv\r\n"
        self.engine.finish(flight, -1)
        return self.space(db).resident[bulk(name)]

    def fence(self, kind: str, text: bytes, db: int = 0, version: int = 0) -> None:
        """Put a fence in force."""
        self.version += 1
        self.fencing.put([Fence(db, kind, text, version or self.version)])  # type: ignore[arg-type]

    def served(self, name: bytes, db: int = 0) -> bool:
        """Return whether a read is answered from L1, at once or after a closer look."""
        entry = self.engine.held(self.space(db), bulk(name))
        return entry is not None and (entry.deadline > self.engine.now or self.engine.revive(entry))


@pytest.fixture
def world() -> World:
    """Make one."""
    assert OTHERS > fencing_module.AT_ONCE
    return World()


def test_watched_entry_is_served_after_a_look_and_others_at_once(world: World) -> None:
    """An entry that a write of another class may fence never passes for a hit at one look."""
    watched, other = world.publish(b"list:7:a"), world.publish(b"ticket:7")

    assert watched.deadline < 0 < other.deadline
    assert world.served(b"list:7:a")
    assert watched.deadline < 0
    assert world.served(b"list:7:a")


@pytest.mark.parametrize(("kind", "text", "name"), [("glob", b"list:7:*", b"list:7:a"), ("tag", b"t-7", b"page:7")])
def test_fence_of_a_dependency_drops_without_a_walk(world: World, kind: str, text: bytes, name: bytes) -> None:
    """What it covers is not served any more; what it does not cover is; L1 is never hidden."""
    spared = name.replace(b"7", b"8")
    for key in (name, spared):
        world.publish(key)
    world.publish(name, db=1)
    world.fence(kind, text)

    assert not world.engine.l1.hidden
    assert world.walks == 0
    assert not world.served(name)
    assert bulk(name) not in world.space().resident
    assert world.served(spared)
    assert world.served(b"other:1")
    assert not world.served(name, db=1)  # a key that has gone is dropped in all databases


def test_fence_of_another_database_spares_what_is_watched(world: World) -> None:
    """Fences are of one database."""
    world.publish(b"list:7:a", db=1)
    world.fence("glob", b"list:7:*")

    assert world.served(b"list:7:a", db=1)


def test_what_is_published_behind_a_fence_is_served_until_the_next(world: World) -> None:
    """A fence that is still in force does not take what was read after it; one that comes later does."""
    world.fence("glob", b"list:7:*")
    world.publish(b"list:7:a")
    assert world.served(b"list:7:a")
    world.fence("glob", b"list:8:*")
    assert world.served(b"list:7:a")
    world.fence("glob", b"list:7:*")
    assert not world.served(b"list:7:a")


def test_fence_that_comes_late_with_an_older_version_covers_what_only_it_covers(world: World) -> None:
    """Fences of two proxies may arrive in another order than they were set in."""
    world.fence("glob", b"list:8:*", version=50)
    world.publish(b"list:7:a")
    world.fence("glob", b"list:7:*", version=40)

    assert not world.served(b"list:7:a")


def test_read_under_way_when_the_fence_comes_does_not_fill_l1(world: World) -> None:
    """Its lease is revoked, though nothing is walked."""
    flight = world.engine.open(world.space(), bulk(b"list:7:a"), None)
    world.fence("glob", b"list:7:*")
    flight.reply = b"$1\r\nv\r\n"
    world.engine.finish(flight, -1)

    assert bulk(b"list:7:a") not in world.space().resident


def test_fence_that_covers_others_too_walks(world: World) -> None:
    """A glob that takes keys which are not watched needs the walk, and L1 is hidden meanwhile."""
    world.publish(b"list:7:a")
    world.fence("glob", b"*:7*")

    assert world.walks == 1
    assert world.engine.l1.hidden
    assert not world.served(b"list:7:a")
    assert not world.served(b"other:7")
    assert world.served(b"other:8")


def test_fence_walks_where_redis_tells_of_no_changes(world: World) -> None:
    """With tracking off no push takes away what nobody reads before the fence is lifted."""
    world.fencing.has_pushes = False
    world.publish(b"list:7:a")
    world.fence("glob", b"list:7:*")
    while world.fencing.turn():
        pass

    assert bulk(b"list:7:a") not in world.space().resident


def test_numbers_of_fences_that_are_lifted_are_forgotten(world: World) -> None:
    """What is remembered is bounded by what is in force."""
    assert world.fencing.fenced is not None
    for number in range(1, 5_000):
        text = b"list:%d:*" % number
        world.fence("glob", text)
        world.fencing.fences.remove(0, "glob", text, number)

    assert len(world.fencing.fenced._numbers) < 2_000
