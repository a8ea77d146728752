"""L1 is switched on while commands are under way: what was sent before is waited for, then anything is kept."""

from __future__ import annotations

from typing import Literal

import attrs
import pytest

from proxy.config.model import Settings

from .model_redis import Connection
from .world import World, make_settings, running_world


def settings_of(mode: Literal["on", "off", "shadow"]) -> Settings:
    """Return settings for a mode."""
    settings = make_settings()
    return attrs.evolve(settings, rollout=attrs.evolve(settings.rollout, mode=mode))


def switch_on(world: World, mode: Literal["on", "shadow"], *, slow: Connection) -> None:
    """Reload; let the links be tracked and L1 be served, while one link gets no answers."""
    world.worker.reactor.enter()
    world.worker.apply(settings_of(mode))
    world.worker.reactor.flush()
    world.connect_control()
    world.run_tasks()
    moved = True
    while moved:
        moved = False
        for connection in list(world.redis.connections.values()):
            if connection is not slow and connection.id in world.streams:
                moved = world.execute(connection) or moved
                moved = world.deliver(connection) or moved
    assert world.worker.engine.l1.serving


@pytest.mark.parametrize("mode", ["on", "shadow"])
@pytest.mark.parametrize(("write", "fresh"), [(("SET", "k", "new"), b"new"), (("SCRAMBLE", "all"), b"all")])
def test_write_sent_while_l1_was_off_is_waited_for(
    mode: Literal["on", "shadow"], write: tuple[str, ...], fresh: bytes
) -> None:
    """It is marked nowhere: until it is answered no lease is granted, then L1 fills as ever."""
    with running_world(settings_of("off")) as world:
        reader, writer = world.client(), world.client(protocol=3)
        world.redis.foreign("SET", "k", "old")
        writer.send(*write)
        switch_on(world, mode, slow=world.data_link(protocol=3))
        reader.send("GET", "k")
        namespace = reader.connection.namespace or reader.connection.shadow
        assert namespace is not None
        assert not namespace.flights
        world.settle()
        assert writer.replies() == [b"OK"]
        assert len(reader.replies()) == 1
        world.tick()
        replies = [reader.ask("GET", "k"), reader.ask("GET", "k")]

        assert replies == [fresh] * 2
        assert world.worker.stats.hits == 1
        assert world.worker.engine.writing_all == 0


MODES: tuple[Literal["on", "off", "shadow"], ...] = ("on", "off", "shadow")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("start", MODES)
def test_switch_keeps_a_pipeline_on_its_link(
    start: Literal["on", "off", "shadow"], mode: Literal["on", "off", "shadow"]
) -> None:
    """A client that is owed a reply by one link is not sent to another: its GET would overtake its SET."""
    with running_world(settings_of(start)) as world:
        writer, reader = world.client(), world.client()
        world.redis.foreign("SET", "k", "old")
        first = world.data_link()
        writer.send("SET", "k", "new")
        assert writer.connection.link is not None
        writer.connection.link.paused = True  # as by a large reply that somebody does not read
        reader.send("STRLEN", "k")
        world.run_tasks()
        second = world.data_link()
        assert second is not first
        world.execute(second)
        world.deliver(second)
        world.worker.reactor.enter()
        world.worker.apply(settings_of(mode))
        world.worker.reactor.flush()
        writer.send("GET", "k")
        world.execute(second)
        world.deliver(second)
        world.settle()

        assert writer.replies() == [b"OK", b"new"]
