"""The hottest keys are found by looking at L1 in turns; hits keep no list."""

from __future__ import annotations

import pytest

from proxy.cache.entry import Namespace, Scope
from proxy.cache.l1 import L1
from proxy.core.engine import Engine
from proxy.core.figures.hottest import ROUND_S, SHOWN, SLICE, Hottest
from proxy.core.figures.stats import Stats
from proxy.wire.encode import bulk, command

ENTRIES = 3 * SLICE


@pytest.fixture
def engine() -> Engine:
    """Make an engine whose L1 holds some entries."""
    made = Engine(L1(16 << 20), Stats(), enabled=True, max_age_s=60.0, max_value_bytes=1 << 20)
    made.now = 100.0
    for number in range(ENTRIES):
        made.l1.put(space(made), bulk(b"key:%d" % number), b"+x\r\n", 1e9, made.now)
    return made


def space(engine: Engine) -> Namespace:
    """Return the namespace of database 0."""
    return engine.l1.namespace(Scope(b"", 0, 2))


def use(engine: Engine, key: bytes, times: int) -> None:
    """Hit an entry."""
    entry = space(engine).resident[bulk(key)]
    entry.uses += times
    entry.used_at = engine.now


def look_round(hottest: Hottest, engine: Engine) -> None:
    """Let a whole round go by."""
    engine.now += ROUND_S
    for _ in range(ENTRIES // SLICE + 2):
        hottest.turn()


def test_hottest_names_what_is_read_most(engine: Engine) -> None:
    """The first by hits a second, wherever in L1 it is; what was never hit is not shown."""
    hottest = Hottest(engine)
    for number in range(30):
        use(engine, b"key:%d" % (number * 20), 10 + number)
    look_round(hottest, engine)

    rows = hottest.rows()

    assert len(rows) == SHOWN
    assert [row["uses"] for row in rows] == [1 + 10 + number for number in range(29, 9, -1)]
    assert rows[0] == {
        "name": "key:580",
        "db": 0,
        "command": "GET",
        "uses": 40,
        "per_second": 0.0,
        "reply_bytes": 4,
        "idle_s": 1.0,
    }


def test_hottest_prefers_what_is_read_now_to_what_was_read_once(engine: Engine) -> None:
    """A key with many hits long ago is behind one with few now."""
    hottest = Hottest(engine)
    use(engine, b"key:1", 10_000)
    look_round(hottest, engine)
    look_round(hottest, engine)
    use(engine, b"key:700", 5)
    look_round(hottest, engine)
    use(engine, b"key:700", 5)
    look_round(hottest, engine)

    rows = hottest.rows()

    assert [row["name"] for row in rows] == ["key:700", "key:1"]
    assert rows[0]["per_second"] == pytest.approx(5 / ROUND_S, rel=0.01)


def test_hottest_shows_no_key_that_is_gone(engine: Engine) -> None:
    """It keeps no entry alive."""
    hottest = Hottest(engine)
    use(engine, b"key:1", 10)
    look_round(hottest, engine)

    engine.drop(bulk(b"key:1"))

    assert hottest.rows() == []


def test_hottest_other_reads_are_shown_with_their_command(engine: Engine) -> None:
    """Of one key there may be several replies."""
    request = command("HGETALL", "hash")
    entry = engine.l1.put_reply(space(engine), bulk(b"hash"), b"*0\r\n", 1e9, engine.now, request=request)
    entry.uses += 3
    hottest = Hottest(engine)
    look_round(hottest, engine)

    assert [(row["name"], row["command"]) for row in hottest.rows()] == [("hash", "HGETALL")]


def test_hottest_of_a_small_l1_rests_between_rounds(engine: Engine) -> None:
    """A round takes a second at least: hits a second of a shorter time would be a matter of chance."""
    hottest = Hottest(engine)
    look_round(hottest, engine)
    use(engine, b"key:1", 10)

    for _ in range(50):
        hottest.turn()

    assert hottest.rows() == []
