"""A miss is a read that L1 could have answered and did not: of keys that it may never hold there is none."""

from __future__ import annotations

import attrs
import pytest

from proxy.config.model import ClassSettings

from .world import World, make_settings, running_world

LOCKS = ClassSettings("locks", ("lock:*",), l1=False)
OTHERS = ClassSettings("others", ("o:*",))


def misses(world: World, *words: str) -> int:
    """Ask something twice; return how many misses were counted."""
    client = world.client()
    before = world.worker.stats.misses
    for _ in range(2):
        client.ask(*words)
    return world.worker.stats.misses - before


@pytest.mark.parametrize("mode", ["on", "shadow"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("GET", "lock:1"), 0),
        (("STRLEN", "lock:1"), 0),
        (("EXISTS", "lock:1", "lock:2"), 0),
        (("GET", "o:1"), 1),
        (("EXISTS", "lock:1", "o:1"), 1),
    ],
)
def test_reads_of_keys_that_are_never_held_are_no_misses(mode: str, words: tuple[str, ...], expected: int) -> None:
    """Of a class with `l1 = false` every read was one: hundreds of lock keys made "hit rate low" an alert for ever."""
    made = make_settings()
    rollout = attrs.evolve(made.rollout, mode=mode)
    with running_world(attrs.evolve(made, classes=(LOCKS, OTHERS), rollout=rollout)) as world:
        assert misses(world, *words) == expected


def test_mget_counts_the_keys_that_may_be_held() -> None:
    """The others are none, nor is one of them shown as a miss of its class."""
    with running_world(attrs.evolve(make_settings(), classes=(LOCKS, OTHERS))) as world:
        world.client().ask("MGET", "o:9")  # from here on it is known that its user may GET and MGET
        world.settle()

        assert misses(world, "MGET", "lock:1", "o:1", "lock:2") == 1
        assert world.worker.engine.tally.classes["locks"].misses == 0


def test_keys_of_no_class_are_no_misses_where_classes_alone_are_held() -> None:
    """With `l1.scope = "classes"` a roll-out that begins with some keys has their hit rate, and not that of all."""
    made = make_settings()
    scoped = attrs.evolve(made, classes=(OTHERS,), l1=attrs.evolve(made.l1, scope="classes"))
    with running_world(scoped) as world:
        assert misses(world, "GET", "k") == 0


def test_early_refresh_counts_once_in_a_class_with_a_fallback() -> None:
    """Another stands in for the client there: its entry was looked at twice, and counted twice."""
    made = make_settings(max_age_s=10.0)
    l1 = attrs.evolve(made.l1, early_refresh=0.5, touch_rate=0, verify=0.0)
    one = ClassSettings("k", ("k*",), stale_if_error_s=30.0)
    with running_world(attrs.evolve(made, classes=(one,), l1=l1)) as world:
        world.worker.engine._random = lambda: 0.9
        world.redis.foreign("SET", "k", "v")
        client = world.client()
        for _ in range(8):
            client.ask("GET", "k")
        for _ in range(8):
            world.now += 1.0
            world.worker.tracking.serve_until = world.worker.engine.proven_at = world.now + 2.0  # PONGs have come
            assert client.ask("GET", "k") == b"v"

        assert world.worker.stats.refreshed == 1
