"""EXPLAIN: what L1 holds about a key besides its value, and what befell the key lately."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.cache.entry import Scope
from proxy.cache.l1 import L1
from proxy.core.engine import Engine
from proxy.core.figures.report import REPLIES_SHOWN, explain_key
from proxy.core.figures.stats import Stats
from proxy.wire.encode import bulk, command
from proxy.wire.reads import READS

from .world import running_world

ZERO, BOB = Scope(b"", 0, 2), Scope(b"bob", 1, 3)
KEY = bulk(b"k")


class Scene:
    """An engine on a hand clock, filled the way reads fill it."""

    def __init__(self) -> None:
        self.engine = Engine(L1(1 << 22), Stats(), enabled=True, max_age_s=60.0, max_value_bytes=1 << 20)
        self.engine.now = 100.0
        self.engine.serve()

    def read(self, *words: str, reply: bytes = b":1\r\n", scope: Scope = ZERO, pttl_ms: int = -1) -> None:
        """Read from Redis, and land."""
        namespace = self.engine.l1.namespace(scope)
        key = bulk(words[1].encode())
        if words[0] == "GET":
            flight = self.engine.open(namespace, key, self)
        else:
            flight = self.engine.open(namespace, key, self, command(*words), READS[words[0].upper().encode()])
        flight.reply = reply
        self.engine.finish(flight, pttl_ms)

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self.engine.now += seconds

    def explain(self, key: bytes = b"k") -> dict[str, Any]:
        """Ask."""
        found = explain_key(self.engine, key)
        assert json.loads(json.dumps(found)) == found
        return found

    def events(self, key: bytes = b"k") -> list[tuple[float, str]]:
        """Return how long ago what happened."""
        return [(event["ago_s"], event["event"]) for event in self.explain(key)["events"]]


@pytest.fixture
def scene() -> Scene:
    """Make a scene."""
    return Scene()


def test_explain_shows_each_reply_about_the_key(scene: Scene) -> None:
    """Its command in capitals, its size, its use and its end; without a value there is no row of one."""
    scene.read("hgetall", "k", reply=b"*0\r\n", pttl_ms=9000)
    scene.pass_time(1.0)
    scene.read("LLEN", "k")
    scene.read("LLEN", "other")
    scene.pass_time(1.5)

    assert scene.explain()["l1"] == [
        {
            "user": "",
            "db": 0,
            "protocol": 2,
            "in_flight": False,
            "replies": [
                {"command": "LLEN", "reply_bytes": 4, "uses": 1, "idle_s": 1.5, "ends_in_s": 58.5},
                {"command": "HGETALL", "reply_bytes": 4, "uses": 1, "idle_s": 2.5, "ends_in_s": 6.5},
            ],
            "replies_total": 2,
        }
    ]


def test_explain_shows_value_and_replies_of_each_namespace(scene: Scene) -> None:
    """One row for each user, database and protocol, with what that one holds."""
    scene.read("GET", "k", reply=b"$1\r\nv\r\n")
    scene.read("STRLEN", "k")
    scene.read("STRLEN", "k", scope=BOB)
    rows = scene.explain()["l1"]

    assert [(row["user"], row["db"], row["protocol"]) for row in rows] == [("", 0, 2), ("bob", 1, 3)]
    assert [row.get("reply_bytes") for row in rows] == [7, None]
    assert [row["replies_total"] for row in rows] == [1, 1]


def test_explain_shows_the_newest_of_many_replies_and_how_many_there_are(scene: Scene) -> None:
    """A key with thousands of replies does not make a reply of megabytes."""
    count = REPLIES_SHOWN + 15
    for number in range(count):
        scene.read("LINDEX", "k", str(number), reply=b"$%d\r\n%b\r\n" % (number + 1, b"x" * (number + 1)))
    (row,) = scene.explain()["l1"]

    assert (len(row["replies"]), row["replies_total"]) == (REPLIES_SHOWN, count)
    assert row["replies"][0]["reply_bytes"] > row["replies"][-1]["reply_bytes"]


def test_explain_tells_what_befell_the_key(scene: Scene) -> None:
    """Oldest first, with how long ago: filled, pushed, written, healed."""
    scene.read("GET", "k")
    scene.pass_time(1.0)
    scene.engine.drop_pushed([b"k"])
    scene.pass_time(1.0)
    scene.read("LLEN", "k")
    scene.pass_time(0.25)
    scene.engine.begin_write([KEY])
    scene.engine.end_write([KEY])

    assert scene.events() == [(2.25, "fill"), (1.25, "push"), (0.25, "fill"), (0.0, "own write")]


def test_explain_tells_that_a_fill_was_refused(scene: Scene) -> None:
    """A revoked lease and a contradiction say why a key stays a miss."""
    flight = scene.engine.open(scene.engine.l1.namespace(ZERO), KEY, None)
    flight.reply = b"$1\r\nv\r\n"
    scene.engine.drop_pushed([b"k"])
    scene.engine.finish(flight, -1)
    scene.read("GET", "k", reply=b"$1\r\nv\r\n", pttl_ms=-2)

    assert [what for _, what in scene.events()] == ["push", "refused publish", "refused publish"]


def test_explain_tells_of_evictions_and_flushes(scene: Scene) -> None:
    """What took a key away though nobody changed it; a flush is told of every key."""
    scene.read("GET", "k")
    scene.engine.l1.resize(0, scene.engine.now)
    scene.engine.l1.resize(1 << 22, scene.engine.now)
    scene.read("GET", "other")
    scene.engine.flush()

    assert [what for _, what in scene.events()] == ["fill", "evicted", "flush of everything"]
    assert [what for _, what in scene.events(b"never seen")] == ["flush of everything"]


def test_explain_tells_nothing_of_other_keys(scene: Scene) -> None:
    """Keys that look alike are others."""
    for name in ("k1", "", "kk", "$1"):
        scene.read("GET", name)

    assert scene.events() == []
    assert len(scene.events(b"")) == 1


def test_explain_shows_that_any_read_of_the_key_is_under_way() -> None:
    """Not only that of its value."""
    with running_world() as world:
        client = world.client()
        client.send("LLEN", "k")
        under_way = [row["in_flight"] for row in explain_key(world.worker.engine, b"k")["l1"]]
        world.settle()
        landed = [row["in_flight"] for row in explain_key(world.worker.engine, b"k")["l1"]]

        assert (under_way, landed) == ([True], [False])


def test_explain_tells_that_the_link_that_fed_l1_was_lost() -> None:
    """What went with it went because of it."""
    with running_world() as world:
        client = world.client()
        client.ask("GET", "k")
        link = world.data_link()
        world.kill(link)
        world.notice(link)
        events = [event["event"] for event in explain_key(world.worker.engine, b"k")["events"]]

        assert events == ["fill", "flush of what one link fed"]
