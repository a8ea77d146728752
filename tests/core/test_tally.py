"""Who asks for what: a whole worker before a model Redis, with a hand clock. What was asked is known."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest

from proxy.config.model import ClassSettings
from proxy.core.figures.tally import NAMES_MAX, NO_CLASS, OTHER, Tally
from proxy.core.figures.tally_report import counted_rows
from proxy.wire.encode import command

from .world import ScriptedClient, World, make_settings, running_world

CLASSES = (ClassSettings("tickets", ("ticket:*",)), ClassSettings("users", ("user:*",)))
GET_T = command("GET", "ticket:1")


@pytest.fixture
def world() -> Iterator[World]:
    """Run a worker with two classes."""
    with running_world(attrs.evolve(make_settings(), classes=CLASSES)) as made:
        made.redis.foreign("SET", "ticket:1", "t")
        made.redis.foreign("SET", "user:1", "u")
        made.redis.foreign("RPUSH", "list", "x")
        yield made


@pytest.fixture
def client(world: World) -> ScriptedClient:
    """Connect a client."""
    return world.client()


def tally_of(world: World) -> Tally:
    """Return what the worker counts."""
    return world.worker.engine.tally


def of_class(world: World, name: str) -> tuple[int, int, int, int]:
    """Return commands, hits, misses and errors of a class."""
    one = tally_of(world).classes[name]
    return one.commands, one.hits, one.misses, one.errors


def of_command(world: World, name: str) -> tuple[int, int, int, int]:
    """Return the same of a command."""
    one = tally_of(world).commands[name]
    return one.commands, one.hits, one.misses, one.errors


def test_tally_counts_hits_and_misses_of_a_class_and_a_command(world: World, client: ScriptedClient) -> None:
    """One miss fills L1, the rest are hits of the fast path."""
    for _ in range(5):
        assert client.ask("GET", "ticket:1") == b"t"

    assert of_class(world, "tickets") == (5, 4, 1, 0)
    assert of_command(world, "GET") == (5, 4, 1, 0)
    assert "users" not in tally_of(world).classes


def test_tally_of_pipelines_counts_each_command(world: World, client: ScriptedClient) -> None:
    """Hits of the fast path, misses and writes that come in one piece are told apart."""
    client.ask("GET", "ticket:1")
    before = of_class(world, "tickets")

    client.send_raw(GET_T * 4)
    client.send_raw(command("SET", "user:1", "v") + command("GET", "user:1") + command("INCR", "n"))
    world.settle()
    client.send_raw(command("LRANGE", "list", 0, -1) * 3)
    world.settle()

    assert tuple(now - then for now, then in zip(of_class(world, "tickets"), before, strict=True)) == (4, 4, 0, 0)
    assert of_class(world, "users")[0] == 2
    assert of_command(world, "SET") == (1, 0, 0, 0)
    assert of_command(world, "INCR") == (1, 0, 0, 0)
    assert of_command(world, "LRANGE")[0] == 3
    assert of_class(world, NO_CLASS)[0] >= 4
    stats = world.worker.stats
    assert sum(one.commands for one in tally_of(world).commands.values()) == stats.commands == stats.waited.count


def test_tally_counts_error_replies_of_redis_and_of_ours(world: World, client: ScriptedClient) -> None:
    """A WRONGTYPE is an error of its command and class; so is what is answered while Redis is away."""
    client.ask("GET", "list")
    client.ask("LLEN", "ticket:1")
    assert of_command(world, "LLEN")[3] == 1
    assert of_class(world, "tickets")[3] == 1
    client.send_raw(command("SET", "user:1", "x") + command("LLEN", "user:1") + command("SET", "user:1", "y"))
    world.settle()
    assert of_command(world, "LLEN")[3] == 2
    assert of_command(world, "SET") == (2, 0, 0, 0)

    world.unreachable = True
    link = world.data_link()
    world.kill(link)
    world.notice(link)
    assert client.connection.group is not None
    client.connection.group.failures = 1  # as after an attempt that failed
    client.send("SET", "user:1", "x")

    assert of_command(world, "SET")[3] == 1


def test_tally_measures_what_a_client_waits(world: World, client: ScriptedClient) -> None:
    """From the request to the reply of the last command of a pipeline, whatever lies between."""
    link = world.data_link()
    waited = world.worker.stats.waited
    before = waited.copy()
    world.hold(link)
    client.send_raw(command("SET", "ticket:1", "v") + command("GET", "nothing"))
    world.execute()
    world.now += 0.5
    world.release(link)

    grown = waited.since(before)
    assert grown.count == 2
    assert grown.sum_s == pytest.approx(1.0)
    assert tally_of(world).commands["SET"].waited.quantile_us(0.5) == pytest.approx(500_000, rel=0.13)
    assert tally_of(world).classes["tickets"].waited.count == 1


def test_tally_of_a_streamed_reply_and_of_a_client_that_goes_raises_nothing(world: World) -> None:
    """A watched batch whose client has gone is forgotten with it."""
    client = world.client()
    link = world.data_link()
    world.hold(link)
    client.send("GET", "ticket:1")
    client.send("SET", "user:1", "x")
    client.close()
    world.release(link)

    other = world.client()
    world.redis.foreign("SET", "big", b"-" * 3_000_000)
    other.send("GET", "big")
    world.settle()
    assert other.received == b"$3000000\r\n" + b"-" * 3_000_000 + b"\r\n"
    assert of_command(world, "GET")[3] == 0


def test_tally_of_a_muted_client_sends_nothing_more(world: World, client: ScriptedClient) -> None:
    """The place of a watch in the queue is no reply."""
    client.send_raw(command("CLIENT", "REPLY", "OFF") + command("SET", "ticket:1", "1") + command("GET", "ticket:1"))
    world.settle()
    client.send_raw(command("CLIENT", "REPLY", "ON") + command("GET", "ticket:1"))
    world.settle()

    assert client.replies() == [b"OK", b"1"]


def test_tally_switched_off_counts_nothing(world: World, client: ScriptedClient) -> None:
    """And what went by meanwhile is not counted afterwards."""
    tally = tally_of(world)
    client.ask("GET", "ticket:1")
    before = of_class(world, "tickets")
    tally.is_on = False
    for _ in range(50):
        client.ask("GET", "ticket:1")
        client.ask("SET", "user:1", "x")
    world.pass_time(1.0)
    assert of_class(world, "tickets") == before

    tally.is_on = True
    client.ask("GET", "ticket:1")

    assert of_class(world, "tickets")[:2] == (before[0] + 1, before[1] + 1)


def test_tally_at_a_high_rate_estimates_and_adds_up(world: World, client: ScriptedClient) -> None:
    """Two of three hits are of one class: a sample of them says so, and all samples stand for all hits."""
    client.ask("GET", "ticket:1")
    client.ask("GET", "user:1")
    stats = world.worker.stats
    pair = (command("GET", "user:1") + GET_T * 2) * 10
    for _ in range(60):
        for _ in range(16):
            client.send_raw(pair)
        world.pass_time(0.05)
    client.received.clear()

    hits = {name: one.hits for name, one in tally_of(world).classes.items()}
    assert stats.hits == 60 * 16 * 30
    assert sum(hits.values()) == pytest.approx(stats.hits, rel=0.05)
    assert hits["tickets"] / stats.hits == pytest.approx(2 / 3, abs=0.1)


def test_tally_counts_no_command_twice_that_hits_off_the_fast_path(world: World, client: ScriptedClient) -> None:
    """An MGET of what L1 holds is a batch; a GET that follows stands for itself alone."""
    client.ask("GET", "ticket:1")
    client.ask("MGET", "ticket:1")  # the first goes to Redis: may its client run both?
    for _ in range(4):
        client.ask("MGET", "ticket:1", "ticket:1")
        client.ask("GET", "ticket:1")

    assert of_command(world, "GET") == (5, 4, 1, 0)
    assert of_command(world, "MGET") == (5, 8, 1, 0)


def test_tally_of_mixed_pipelines_names_no_command_too_often(world: World, client: ScriptedClient) -> None:
    """A pipeline that always ends with the same read: it is not what all of it is taken for."""
    both = command("LRANGE", "list", 0, -1) + GET_T
    client.send_raw(both)
    world.settle()
    for _ in range(60):
        for _ in range(16):
            client.send_raw(both * 5)
        world.pass_time(0.05)
    client.received.clear()

    commands = tally_of(world).commands
    assert world.worker.stats.hits == 60 * 16 * 10
    assert commands["LRANGE"].hits / (commands["LRANGE"].hits + commands["GET"].hits) == pytest.approx(0.5, abs=0.1)


def test_tally_names_are_bounded(world: World) -> None:
    """Whatever clients send, and however classes change: there are so many names, and what comes after is one."""
    tally = tally_of(world)
    for number in range(1_000):
        tally.of_command(f"MODULE.{number}").commands += 1

    assert len(tally.commands) <= NAMES_MAX + 1
    assert tally.commands[OTHER].commands > 800


def test_tally_unknown_commands_are_one(world: World, client: ScriptedClient) -> None:
    """A command that nobody knows has no name: it is the client's text."""
    client.send("NOSUCH", "x")

    assert "NOSUCH" not in tally_of(world).commands
    assert of_command(world, OTHER)[0] == 1


def test_counted_rows_begin_with_what_is_asked_for_most(world: World, client: ScriptedClient) -> None:
    """One row a name, with its hit rate and its latency."""
    for _ in range(3):
        client.ask("GET", "ticket:1")
    client.ask("SET", "user:1", "x")

    rows = counted_rows(tally_of(world).commands)

    assert rows[0]["name"] == "GET"
    assert rows[0] | {"p50_us": 0, "p90_us": 0, "p99_us": 0, "mean_us": 0} == {
        "name": "GET",
        "commands_total": 3,
        "hits_total": 2,
        "misses_total": 1,
        "hit_rate": 0.666667,
        "errors_total": 0,
        "mean_us": 0,
        "p50_us": 0,
        "p90_us": 0,
        "p99_us": 0,
    }


def test_tally_in_shadow_mode_counts_what_would_have_been(world: World) -> None:
    """Hits and misses by class as if L1 had been served."""
    settings = world.worker.settings
    world.worker.apply(attrs.evolve(settings, rollout=attrs.evolve(settings.rollout, mode="shadow")))
    client = world.client()
    for _ in range(4):
        client.ask("GET", "ticket:1")
        client.ask("MGET", "user:1", "user:2")

    assert of_class(world, "tickets")[1:3] == (3, 1)
    assert of_command(world, "MGET")[1] + of_command(world, "MGET")[2] == 8
