"""Invalidations: what they ask Redis, and that whoever asked for one is told, once, whatever fails."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.cache.entry import Scope
from proxy.core.fencing import Fencing
from proxy.core.invalidation import Invalidated
from proxy.core.session import Identity
from proxy.core.slots import Failure
from proxy.errors import UPSTREAM_UNAVAILABLE
from proxy.net.values.invalidator import KEYS_MAX, Invalidator, answer
from proxy.values.dependencies import Dependents
from proxy.wire.encode import bulk

from ..core.scripted_values import NOW_US, ScriptedLink, make_values

VERSION = ((NOW_US // 1000) << 16) + 99
SET = bulk(b"%d" % VERSION)
AWAY = "ERR respite: upstream unavailable"
LOST = "ERR respite: upstream lost, the command may have been applied"


class Links:
    """The data links: one a database, None where it is away."""

    def __init__(self) -> None:
        self.links: dict[int, ScriptedLink | None] = {}
        self.identities: set[Identity] = set()
        self._db = 0

    def group(self, scope: Scope, identity: Identity) -> Links:
        """Name the group of a scope."""
        assert (scope.user, scope.protocol) == (b"own", 2)
        self.identities.add(identity)
        self._db = scope.db
        return self

    def pick(self) -> ScriptedLink | None:
        """Return its link."""
        return self.links.setdefault(self._db, ScriptedLink())

    def why_not(self) -> bytes:
        """Return the error of one that is away."""
        return UPSTREAM_UNAVAILABLE


class World:
    """An invalidator, L1, and what it was told."""

    def __init__(self) -> None:
        values, _ = make_values()
        self.engine = values.engine
        self.clock = values.sealer.clock
        self.fencing = Fencing(self.engine, values.fences)
        self.links = Links()
        own: Any = Identity(b"own", b"secret")
        self.invalidator = Invalidator(self.links, self.fencing, self.clock, own)  # type: ignore[arg-type]
        self.told: list[Invalidated] = []

    def hold(self, *names: bytes, db: int = 0) -> None:
        """Have L1 hold keys."""
        space = self.engine.l1.namespace(Scope(b"u", db, 2))
        for name in names:
            self.engine.l1.put(space, bulk(name), b"$1\r\nv\r\n", 1e9, 0.0)

    def invalidate(self, db: int = 0, **what: tuple[bytes, ...]) -> None:
        """Invalidate."""
        self.invalidator.invalidate(Dependents(**what), db, self.told.append)

    def link(self, db: int = 0) -> ScriptedLink:
        """Return the link of a database."""
        self.links._db = db
        link = self.links.pick()
        assert link is not None
        return link

    def ended(self, *expected: Invalidated) -> bool:
        """Return whether this is what was told, and no key is left marked."""
        return self.told == list(expected) and not self.engine.writing


def test_nothing_to_invalidate_is_done_at_once() -> None:
    """Redis is not asked."""
    world = World()
    world.invalidate()

    assert world.ended(Invalidated())
    assert world.links.links == {}


def test_keys_are_unlinked_in_their_database_and_marked_meanwhile() -> None:
    """L1 drops them first, and takes no read of them until Redis has."""
    world = World()
    world.hold(b"a", b"b", b"c")
    world.invalidate(3, keys=(b"a", b"b", b"x"))
    assert world.link(3).asked() == [[b"UNLINK", b"a", b"b", b"x"]]
    assert set(world.engine.writing) == {bulk(b"a"), bulk(b"b"), bulk(b"x")}
    assert (len(world.engine.l1), world.told) == (1, [])
    world.link(3).answer(b":2\r\n")

    assert world.ended(Invalidated(keys=2, entries=2))
    assert world.links.identities == {Identity(b"own", b"secret")}


def test_globs_and_tags_are_one_fence_command_on_database_0() -> None:
    """In force here at once, whoever else hears of it when; the clock is past it."""
    world = World()
    world.hold(b"a:1", b"b:1", db=5)
    world.invalidate(5, globs=(b"a:*",), tags=(b"t",))
    (asked,) = world.link(0).asked()
    assert (asked[0], asked[9:]) == (b"EVAL", [b"5:glob:a:*", b"5:tag:t"])
    assert len(world.fencing.fences) == 0
    world.link(0).answer(SET)

    assert world.ended(Invalidated(entries=1, fences=2))
    assert {(fence.db, fence.text, fence.version) for fence in world.fencing.fences} == {
        (5, b"a:*", VERSION),
        (5, b"t", VERSION),
    }
    assert world.clock.next() > VERSION


def test_keys_and_fences_together_are_told_of_once() -> None:
    """When the last part is done, in whichever order."""
    for order in ((0, 7), (7, 0)):
        world = World()
        world.invalidate(7, keys=(b"a",), globs=(b"b:*",))
        for at, db in enumerate(order):
            assert len(world.told) == 0, at
            world.link(db).answer(SET if db == 0 else b":1\r\n")
        assert world.ended(Invalidated(keys=1, fences=1))


def test_many_keys_go_in_several_commands() -> None:
    """None so long that Redis serves nobody else meanwhile."""
    world = World()
    keys = tuple(b"k%d" % number for number in range(2 * KEYS_MAX + 1))
    world.invalidate(keys=keys)
    asked = world.link().asked()
    assert [len(one) - 1 for one in asked] == [KEYS_MAX, KEYS_MAX, 1]
    assert [key for one in asked for key in one[1:]] == list(keys)
    world.link().answer(b":10\r\n", b":20\r\n")
    assert world.told == []
    world.link().answer(b":1\r\n")

    assert world.ended(Invalidated(keys=31))


def test_part_that_fails_does_not_hide_what_was_done() -> None:
    """The first error is told, with what went before and after it."""
    world = World()
    world.invalidate(keys=tuple(b"k%d" % number for number in range(3 * KEYS_MAX)), globs=(b"a:*",))
    world.link().answer(b":10\r\n", b"-NOPERM not for you\r\n", b":5\r\n", b"!10\r\nERR second\r\n")

    assert world.ended(Invalidated(keys=15, error="NOPERM not for you"))
    assert len(world.fencing.fences) == 0


def test_blob_error_is_told_in_its_words() -> None:
    """RESP3 has two kinds of errors."""
    world = World()
    world.invalidate(globs=(b"a:*",))
    world.link().answer(b"!10\r\nERR second\r\n")

    assert world.ended(Invalidated(error="ERR second"))


@pytest.mark.parametrize("what", [{"keys": (b"a",)}, {"globs": (b"a:*",)}, {"keys": (b"a",), "tags": (b"t",)}])
def test_upstream_away_is_told(what: dict[str, tuple[bytes, ...]]) -> None:
    """At once; the entries that went from L1 are gone."""
    world = World()
    world.links.links[0] = None
    world.hold(b"a")
    world.invalidate(**what)

    assert world.ended(Invalidated(entries=len(what.get("keys", ())), error=AWAY))


@pytest.mark.parametrize(("failure", "error"), [(Failure.LOST, LOST), (Failure.UNAVAILABLE, AWAY)])
def test_link_that_is_lost_is_told(failure: Failure, error: str) -> None:
    """With what was done before."""
    world = World()
    world.invalidate(keys=tuple(b"k%d" % number for number in range(KEYS_MAX + 1)), globs=(b"a:*",))
    world.link().answer(b":7\r\n")
    world.link().lose(failure)

    assert world.ended(Invalidated(keys=7, error=error))
    assert len(world.fencing.fences) == 0


def test_link_that_was_not_let_in_is_told() -> None:
    """In Redis' words."""
    world = World()
    world.invalidate(keys=(b"a",))
    world.link().fifo.popleft().refuse(b"-WRONGPASS no\r\n")

    assert world.ended(Invalidated(error="WRONGPASS no"))


def test_database_away_leaves_the_fence_to_be_set() -> None:
    """One link is gone, the other is there."""
    world = World()
    world.links.links[4] = None
    world.invalidate(4, keys=(b"a",), globs=(b"b:*",))
    assert world.told == []
    world.link(0).answer(SET)

    assert world.ended(Invalidated(fences=1, error=AWAY))


def test_keys_are_announced_only_where_redis_tells_nobody() -> None:
    """Behind the UNLINK, with a reply that nobody waits for."""
    world = World()
    world.invalidator.announces_keys = True
    world.invalidate(2, keys=(b"a",))
    unlink, publish = world.link(2).asked()
    assert (unlink[0], publish[0]) == (b"UNLINK", b"PUBLISH")
    assert b"61" in publish[2]
    world.link(2).answer(b":1\r\n", b"-NOPERM no\r\n")
    assert world.ended(Invalidated(keys=1))

    world.links.links[2] = None
    world.invalidate(2, keys=(b"a",))
    assert world.told[-1].error == AWAY


def test_write_of_a_client_that_is_under_way_keeps_its_mark() -> None:
    """Two who write the same key: it is unmarked when both have ended."""
    world = World()
    world.engine.begin_write([bulk(b"a")])
    world.invalidate(keys=(b"a",))
    world.link().answer(b":1\r\n")

    assert world.engine.writing == {bulk(b"a"): 1}


def test_answer_that_times_out_is_what_a_client_would_read() -> None:
    """Of a write."""
    heard: list[bytes] = []
    answer(heard.append).fail(Failure.TIMED_OUT)

    assert heard == [b"-ERR respite: upstream timed out, the command may have been applied\r\n"]
