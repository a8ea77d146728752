"""A worker is tuned while it serves, and everything it says of itself tells so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import attrs
import pytest

from proxy.config.model import ClassSettings, Settings
from proxy.core.tuners.trial import SPANS
from proxy.core.tuning import SPAN_S

from ..core.world import ScriptedClient, World, make_settings, running_world

KIB = 1 << 10
MANY = 120
ROOM_FOR = 100  # of them


def small_l1(mode: Literal["off", "apply"] = "apply", **fields: Any) -> Settings:
    """Return settings with room for some of the keys that are read."""
    settings = make_settings(max_value_bytes=KIB)
    return attrs.evolve(
        settings,
        l1=attrs.evolve(settings.l1, max_bytes=ROOM_FOR * 400, touch_rate=0, verify=0.0),
        tuning=attrs.evolve(settings.tuning, mode=mode, max_l1_bytes=256 * KIB),
        **fields,
    )


def read_all(world: World, client: ScriptedClient, rounds: int = 1) -> None:
    """Read every key so many times, by turns: what is evicted is always read again."""
    for _ in range(rounds):
        client.send_raw(b"".join(b"*2\r\n$3\r\nGET\r\n$6\r\nk%05d\r\n" % number for number in range(MANY)))
        world.settle()
    client.received.clear()


def let_spans_end(world: World, client: ScriptedClient, count: int) -> None:
    """Let spans end, each with some reads in it."""
    for _ in range(count):
        read_all(world, client, 2)
        world.now += SPAN_S
        world.worker.tracking.serve_until = world.worker.engine.proven_at = world.now + SPAN_S  # PONGs have come
        world.worker.reactor.enter()
        world.worker.tuning.tick()
        world.worker.reactor.flush()


@pytest.fixture
def world() -> Iterator[World]:
    """Give a worker whose L1 is too small for what is read."""
    with running_world(small_l1()) as one:
        yield one


def served(world: World) -> ScriptedClient:
    """Connect a client, and write what it will read."""
    client = world.client()
    for number in range(MANY):
        client.send("SET", f"k{number:05}", "v" * 100)
    world.settle()
    client.received.clear()
    return client


def test_worker_gives_l1_more_room_where_keys_come_back(world: World) -> None:
    """What was evicted is read again soon: the bound of L1 is raised while clients are served."""
    client = served(world)
    let_spans_end(world, client, SPANS + 1)

    tuning = world.worker.report("")["tuning"]
    (room,) = [row for row in tuning["settings"] if row["name"] == "l1.max_bytes"]

    assert world.worker.engine.l1.max_bytes == 49 * KIB
    assert (room["configured"], room["value"], room["state"]) == ("40000B", "49KiB", "trying")
    assert tuning["ghosts"]["more_hits_total"]["1.25"] > 0
    assert json.loads(client.ask("RESPITE", "STATS"))["tuning"] == tuning
    assert world.worker.explain(b"k00001")["tuning"]["l1.max_bytes"].startswith("49KiB, conf")
    assert "respite_tuning_steps" in [family.name for family in world.worker.families()]


def test_worker_that_is_reloaded_keeps_the_room_without_losing_entries(world: World) -> None:
    """What is tuned outlives a reload of a file that says nothing else; L1 is not made small in between."""
    client = served(world)
    let_spans_end(world, client, SPANS + 1)
    read_all(world, client)
    entries = len(world.worker.engine.l1)

    world.worker.apply(small_l1())

    assert world.worker.engine.l1.max_bytes == 49 * KIB
    assert len(world.worker.engine.l1) == entries


def test_worker_that_is_told_to_stop_tuning_has_what_is_configured(world: World) -> None:
    """Off is as if it had never been on."""
    client = served(world)
    let_spans_end(world, client, SPANS + 1)

    world.worker.apply(small_l1("off"))

    assert world.worker.engine.l1.max_bytes == ROOM_FOR * 400
    assert world.worker.report("tuning") == {"mode": "off", "steps_total": 1, "kept_total": 0, "undone_total": 0}


def test_worker_goes_on_with_what_a_reload_has_left_of_a_large_l1() -> None:
    """Its timers do, until the bound is kept."""
    with running_world() as world:
        engine = world.worker.engine
        space = world.client().connection.namespace
        assert space is not None
        for number in range(5_000):
            engine.l1.put(space, b"$5\r\n%05d\r\n" % number, b"v" * KIB, world.now + 3600, world.now)
        engine.l1.resize(2 << 20, world.now)
        after_reload = engine.l1.bytes
        world.pass_time(0.5)

        assert after_reload > engine.l1.max_bytes >= engine.l1.bytes


def test_worker_ticks_its_tuning() -> None:
    """The clockwork of the worker is what looks, every ten seconds."""
    with running_world(small_l1()) as world:
        world.pass_time(SPAN_S + 1)

        assert world.worker.tuning._desks[0].spans


def test_worker_counts_reads_of_adaptive_classes_that_found_nothing() -> None:
    """A key that was read and is gone is told to the tuners, by the way a reply comes in."""
    classes = (ClassSettings("k", ("k*",), adaptive_ttl="on", ttl_s=60.0),)
    with running_world(small_l1(classes=classes)) as world:
        client = world.client()
        client.ask("SET", "k1", "v")
        client.ask("GET", "k1")
        client.ask("DEL", "k1")

        assert client.ask("GET", "k1") is None
        assert world.worker.tuning._missing.cold == 1


def test_change_of_an_evicted_key_reaches_its_ghost(world: World) -> None:
    """A key that changed after it was evicted would have been dropped by any L1: to read it again is no hit lost."""
    client = served(world)
    read_all(world, client)
    l1 = world.worker.engine.l1
    assert l1.ghosts is not None
    before = l1.ghosts.hits()
    other = world.client()
    for number in range(MANY):
        other.send("SET", f"k{number:05}", "w" * 100)
    world.settle()

    read_all(world, client)

    assert l1.ghosts.hits() == before
