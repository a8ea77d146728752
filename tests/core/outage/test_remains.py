"""What is left of L1: kept by class and bytes, dropped by key, by fence, by time."""

from __future__ import annotations

import attrs
import pytest

from proxy.cache.entry import Namespace, Scope
from proxy.cache.l1 import L1
from proxy.config.load import default_settings
from proxy.config.model import ClassSettings
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.outage.remains import SIFTED_AT_ONCE
from proxy.core.policy import Policy
from proxy.values.fences import Fence
from proxy.wire.encode import bulk, command

NEWS = ClassSettings("news", ("n:*",), stale_if_error_s=30.0, tags=("t",))


class Lost:
    """An engine whose L1 holds what it is given, and then loses the link that kept it true."""

    def __init__(self, *keys: str, stale_bytes: int = 1 << 20, db: int = 0, ends_at: float = 500.0) -> None:
        self.engine = Engine(L1(1 << 24), Stats(), enabled=True, max_age_s=300.0, max_value_bytes=1 << 20)
        self.engine.now = 100.0
        settings = default_settings()
        settings = attrs.evolve(settings, outage=attrs.evolve(settings.outage, stale_bytes=stale_bytes))
        policy = Policy((NEWS, ClassSettings("rest", ("r:*",))))
        self.engine.policy = policy
        self.outage = self.engine.outage
        self.outage.take(policy, settings)
        self.engine.proven_at = 100.0
        self.engine.serve()
        self.scope = Scope(b"", db, 2)
        self.space: Namespace = self.engine.l1.namespace(self.scope)
        for key in keys:
            self.engine.l1.put(self.space, bulk(key.encode()), bulk(b"v"), ends_at, 100.0)
        self.remains = self.outage.remains

    def lose(self) -> None:
        """Lose the invalidation link."""
        self.engine.suspend()
        self.engine.lose()

    def left(self, *keys: str) -> list[bool]:
        """Say of which keys something is left."""
        return [self.remains.find(self.scope, bulk(key.encode())) is not None for key in keys]

    def served(self, key: str) -> bool:
        """Say whether a key may be served now."""
        return self.outage.fallbacks.last(self.scope, bulk(key.encode()), None) is not None


def test_what_l1_held_is_left_and_sifted_by_class() -> None:
    """L1 itself is empty; keys of classes that do not ask go in the next tick."""
    lost = Lost("n:1", "r:1", "other")
    lost.lose()

    assert len(lost.engine.l1) == 0
    assert lost.served("n:1")
    assert not lost.served("r:1")
    lost.remains.tick(100.0)
    assert lost.left("n:1", "r:1", "other") == [True, False, False]
    assert lost.remains.bytes > 0


def test_flush_that_redis_asks_for_leaves_nothing() -> None:
    """FLUSHALL, changed ACLs: what goes by them is never served again."""
    lost = Lost("n:1")
    lost.engine.flush()
    lost.lose()

    assert lost.remains.is_empty


def test_flush_while_something_is_left_takes_it_too() -> None:
    """One link is lost, and FLUSHALL or changed ACLs are heard of on another."""
    lost = Lost("n:1")
    lost.lose()

    lost.engine.flush()

    assert lost.remains.is_empty
    assert not lost.served("n:1")


@pytest.mark.parametrize("when", ["before", "after it was sifted"])
def test_key_that_is_written_is_left_no_more(when: str) -> None:
    """With all replies about it; its bytes are given back."""
    lost = Lost("n:1", "n:2")
    request = command("STRLEN", "n:1")
    lost.engine.l1.put_reply(lost.space, bulk(b"n:1"), b":1\r\n", 500.0, 100.0, request=request)
    lost.lose()
    if when != "before":
        lost.remains.tick(100.0)

    lost.engine.begin_write([bulk(b"n:1")])
    lost.remains.tick(100.0)

    assert lost.left("n:1", "n:2") == [False, True]
    assert lost.remains.find(lost.scope, bulk(b"n:1"), request) is None
    lost.engine.drop_pushed([b"n:2"])
    assert lost.remains.bytes == 0


def test_bound_leaves_what_came_first_out() -> None:
    """The last that L1 took in are the first to be kept."""
    lost = Lost(*(f"n:{number}" for number in range(10)), stale_bytes=800)
    lost.lose()
    lost.remains.tick(100.0)

    assert lost.remains.bytes <= 800
    assert lost.left("n:9", "n:0") == [True, False]


def test_many_entries_are_sifted_in_several_ticks() -> None:
    """Nobody else is served while entries are looked at: a bounded number in one go."""
    lost = Lost(*(f"r:{number}" for number in range(SIFTED_AT_ONCE + 1)))
    lost.lose()

    lost.remains.tick(100.0)
    assert len(lost.remains) == 1
    lost.remains.tick(100.0)
    assert lost.remains.is_empty


def test_end_is_that_of_the_entry_or_of_the_link_whichever_came_first() -> None:
    """30 s past the moment at which it stopped being true, and no longer."""
    lost = Lost("n:1", ends_at=500.0)
    lost.lose()
    lost.engine.now = 129.9
    assert lost.served("n:1")
    lost.engine.now = 130.1
    assert not lost.served("n:1")

    ended = Lost("n:1", ends_at=90.0)
    ended.lose()
    ended.engine.now = 119.9
    assert ended.served("n:1")
    ended.engine.now = 120.1
    assert not ended.served("n:1")
    ended.remains.tick(131.0)
    assert ended.remains.is_empty


def test_link_that_was_silent_before_it_was_lost_proves_nothing_of_the_silence() -> None:
    """What it kept true it kept true until its last word, and the staleness that is allowed."""
    lost = Lost("n:1")
    lost.engine.now = 110.0  # its last PONG was for a PING of 100
    lost.lose()
    lost.engine.now = 131.9
    assert lost.served("n:1")
    lost.engine.now = 132.1

    assert not lost.served("n:1")


def test_entry_that_l1_holds_and_does_not_serve_may_be_served_stale() -> None:
    """Redis is slow: the link is silent, and nothing was dropped yet."""
    lost = Lost("n:1")
    lost.engine.suspend()
    lost.engine.now = 131.9

    assert lost.served("n:1")
    lost.engine.now = 132.1
    assert not lost.served("n:1")


@pytest.mark.parametrize(
    ("fence", "stays"),
    [
        (Fence(0, "glob", b"n:*", 7), False),
        (Fence(0, "tag", b"t", 7), False),
        (Fence(0, "glob", b"m:*", 7), True),
        (Fence(1, "glob", b"n:*", 7), True),
    ],
)
def test_fence_takes_away_what_it_covers(fence: Fence, *, stays: bool) -> None:
    """Glob or tag, of its database."""
    lost = Lost("n:1")
    lost.lose()

    lost.remains.drop_covered([fence])

    assert lost.left("n:1") == [stays]


def test_fence_over_more_than_can_be_looked_at_takes_all() -> None:
    """Rather nothing than something that is gone."""
    lost = Lost(*(f"n:{number}" for number in range(SIFTED_AT_ONCE + 1)))
    lost.lose()

    lost.remains.drop_covered([Fence(0, "glob", b"m:*", 7)])

    assert lost.remains.is_empty


def test_second_loss_does_not_replace_what_is_left_of_the_first() -> None:
    """The control link goes, then the data link: L1 is empty by then."""
    lost = Lost("n:1")
    lost.lose()
    lost.engine.flush_namespace(lost.space)

    assert lost.left("n:1") == [True]


def test_redis_that_is_back_ends_it_for_all() -> None:
    """Before anything is sent on the link that was let in."""
    lost = Lost("n:1")
    lost.lose()
    told: list[str] = []
    lost.outage.failed("refused")
    lost.outage.on_back.append(lambda: told.append("back" if lost.remains.is_empty else "too early"))

    lost.outage.answered()
    lost.outage.answered()

    assert told == ["back"]
    assert lost.outage.state == "up"
