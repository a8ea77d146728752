"""What is hot here is named to Redis, at a bounded rate: what was used since the last round, and more than once."""

from __future__ import annotations

import pytest

from proxy.cache.entry import Namespace, Scope
from proxy.cache.l1 import L1
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.warming import SLICE, Warmer
from proxy.wire.encode import bulk

TICK_S = 0.05
ZERO, ONE = Scope(b"", 0, 2), Scope(b"", 1, 3)


class Scene:
    """An L1 whose entries are used by hand, and a Warmer that is asked at every tick."""

    def __init__(self, rate: int = 100) -> None:
        self.engine = Engine(L1(1 << 26), Stats(), enabled=True, max_age_s=600.0, max_value_bytes=1 << 20)
        self.engine.now = 1000.0
        self.engine.serve()
        self.warmer = Warmer(self.engine)
        self.warmer.rate = rate
        self.namespace: Namespace = self.engine.l1.namespace(ZERO)
        self.turned_at = self.engine.now

    def fill(self, count: int) -> None:
        """Hold so many keys, none of them used since."""
        for number in range(count):
            self.engine.l1.put(self.namespace, bulk(b"%d" % number), b"+v\r\n", 1e9, self.engine.now)

    def use(self, *numbers: int, times: int = 2) -> None:
        """Serve keys, between two ticks."""
        self.engine.now = self.turned_at + TICK_S / 2
        for number in numbers:
            entry = self.namespace.entries[bulk(b"%d" % number)]
            entry.uses += times
            entry.used_at = self.engine.now

    def turn(self) -> list[bytes]:
        """Tick once; return the keys that are to be touched."""
        self.turned_at = self.engine.now = self.turned_at + TICK_S
        return self.warmer.turn().get(self.namespace, [])

    def turns(self, count: int) -> list[bytes]:
        """Tick so often."""
        return [key for _ in range(count) for key in self.turn()]

    def settle(self) -> None:
        """Tick until nothing that was used before is news any more."""
        self.turns(2 * (len(self.engine.l1) // SLICE + 2))


def keys(*numbers: int) -> list[bytes]:
    """Return keys as L1 knows them."""
    return [bulk(b"%d" % number) for number in numbers]


def test_turn_names_what_was_used_since_the_last_round() -> None:
    """Each once a round, the most used first; not what has been idle since."""
    scene = Scene()
    scene.fill(20)
    scene.settle()
    scene.use(3, times=5)
    scene.use(7, times=50)
    scene.use(9, times=10)

    assert scene.turn() == keys(7, 9, 3)
    assert scene.turns(10) == []


def test_turn_leaves_out_what_was_read_once() -> None:
    """The read that filled L1 has reached Redis itself: no hit has been kept from it."""
    scene = Scene()
    scene.settle()
    scene.engine.now += TICK_S / 4
    scene.fill(20)
    scene.use(4, times=1)

    assert scene.turn() == keys(4)


def test_turns_reach_every_entry_in_time() -> None:
    """A slice a turn, the whole of L1 in a round: whoever is used is found, however many there are."""
    scene = Scene(rate=1_000_000)
    count = 5 * SLICE + 17
    scene.fill(count)
    scene.settle()
    scene.use(*range(count))
    touched = scene.turns(2 * (count // SLICE + 1))

    assert set(touched) == set(keys(*range(count)))


def test_turn_names_each_key_once() -> None:
    """A value and other replies about it are one key to Redis; another database's is another."""
    scene = Scene()
    scene.settle()
    scene.fill(1)
    other = scene.engine.l1.namespace(ONE)
    for namespace in (scene.namespace, other):
        for request in (b"a", b"b"):
            scene.engine.l1.put_reply(namespace, keys(0)[0], b":1\r\n", 1e9, scene.engine.now, request=request)
            namespace.replies[request].uses += 2
            namespace.replies[request].used_at = scene.engine.now + TICK_S / 2
    scene.use(0)

    assert scene.warmer.turn() == {scene.namespace: keys(0), other: keys(0)}


@pytest.mark.parametrize("rate", [1, 7, 40, 500])
def test_rate_bounds_the_keys_of_a_second(rate: int) -> None:
    """However much is hot: so many keys a second, one second's worth at once at most, and not much fewer."""
    scene = Scene(rate)
    scene.fill(1000)
    scene.settle()
    per_second: list[int] = []
    for _ in range(10):
        touched = 0
        for _ in range(20):
            scene.use(*range(1000))
            touched += len(scene.turn())
        per_second.append(touched)

    assert max(per_second[1:]) <= rate + 1
    assert sum(per_second) <= 11 * rate
    assert sum(per_second[1:]) >= 9 * rate * 0.9 - 1


def test_rate_that_was_not_used_is_not_saved_up() -> None:
    """After an idle hour no more than one second's worth goes out at once."""
    scene = Scene(rate=30)
    scene.fill(200)
    scene.settle()
    scene.turned_at += 3600
    scene.use(*range(200))

    assert len(scene.turn()) == 30


def test_rate_of_none_touches_nothing() -> None:
    """0 is off; set while running it holds at once, and raised again it goes on."""
    scene = Scene()
    scene.fill(50)
    scene.settle()
    scene.warmer.rate = 0
    scene.use(*range(50))
    assert scene.turns(5) == []

    scene.warmer.rate = 20
    touched = 0
    for _ in range(40):
        scene.use(*range(50))
        touched += len(scene.turn())
    assert 35 <= touched <= 41

    scene.warmer.rate = 1000
    scene.use(*range(50))
    assert len(scene.turn()) == 50


def test_turn_while_l1_is_not_served_touches_nothing() -> None:
    """What nobody is served from L1 reaches Redis by itself."""
    scene = Scene()
    scene.fill(20)
    scene.settle()
    scene.engine.suspend()
    scene.namespace.resident[bulk(b"3")].uses += 5
    scene.namespace.resident[bulk(b"3")].used_at = scene.turned_at + 10 * TICK_S
    assert scene.turns(10) == []

    scene.engine.serve()
    assert scene.turn() == keys(3)


def test_turn_of_an_l1_that_has_shrunk_begins_again() -> None:
    """The place it was at is gone: nothing is missed for good, and nothing breaks."""
    scene = Scene()
    scene.fill(3 * SLICE)
    scene.turns(2)
    scene.engine.flush()
    assert scene.turns(3) == []
    scene.fill(5)
    scene.use(2)

    assert scene.turns(2) == keys(2)


def test_turns_of_the_first_round_name_what_is_hot_once() -> None:
    """With nothing to compare with, a use is news only once."""
    scene = Scene()
    scene.fill(3)
    scene.use(1)

    assert scene.turns(6) == keys(1)
