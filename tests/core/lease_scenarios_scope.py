"""Scenes about where L1 may be used: links and liveness (rule 7), databases (5), scopes (9), transactions (10)."""

from __future__ import annotations

from .lease_rule import wrong
from .world import STALENESS_S, World


def key_is_written_in_another_database(world: World) -> list[str]:
    """Show that a push names no database: it ends the key in all of them."""
    zero, one = world.client(), world.client(db=1)
    world.redis.foreign("SET", "k", "zero")
    world.redis.foreign("SET", "k", "old", db=1)
    zero.ask("GET", "k")
    one.ask("GET", "k")
    world.redis.foreign("SET", "k", "new", db=1)
    world.settle()

    return wrong("read after the push", b"new", one.ask("GET", "k"))


def invalidation_link_falls_silent(world: World) -> list[str]:
    """Show that L1 is not served once the invalidation link has been silent for `max_staleness`."""
    client = world.client()
    world.redis.foreign("SET", "k", "old")
    client.ask("GET", "k")
    world.hold(world.control)
    world.redis.foreign("SET", "k", "new")
    world.pass_time(STALENESS_S + 0.01)

    return wrong("read after the bound", b"new", client.ask("GET", "k"))


def pong_arrives_late(world: World) -> list[str]:
    """Show that a PONG proves the pushes up to when its PING was sent, not up to when it arrived."""
    client = world.client()
    world.redis.foreign("SET", "k", "old")
    client.ask("GET", "k")
    world.now += STALENESS_S / 4
    world.tick()
    world.execute(world.control)
    world.redis.foreign("SET", "k", "new")
    world.now += 0.9 * STALENESS_S
    world.deliver(world.control, len(b"+PONG\r\n"))
    world.now += 0.5 * STALENESS_S

    return wrong("read 1.4 bounds after the foreign write", b"new", client.ask("GET", "k"))


def invalidation_link_is_lost(world: World) -> list[str]:
    """Show that losing the invalidation link drops everything: the pushes of the gap are lost."""
    client = world.client()
    world.redis.foreign("SET", "k", "old")
    client.ask("GET", "k")
    lost = world.control
    world.kill(lost)
    world.redis.foreign("SET", "k", "new")
    world.notice(lost)
    world.connect_control()
    world.settle()

    return wrong("read after the reconnect", b"new", client.ask("GET", "k"))


def invalidation_link_is_lost_under_a_flight(world: World) -> list[str]:
    """Show that losing the invalidation link revokes every lease."""
    client = world.client()
    world.redis.foreign("SET", "k", "old")
    world.hold(world.data_link())
    client.send("GET", "k")
    world.settle()
    lost = world.control
    world.kill(lost)
    world.redis.foreign("SET", "k", "new")
    world.notice(lost)
    world.connect_control()
    world.release(world.data_link())
    client.replies()

    return wrong("read after the reconnect", b"new", client.ask("GET", "k"))


def data_link_is_lost(world: World) -> list[str]:
    """Show that in redirect mode a lost data link takes its tracking along: what it fed is dropped."""
    client = world.client()
    world.redis.foreign("SET", "k", "old")
    client.ask("GET", "k")
    lost = world.data_link()
    world.kill(lost)
    world.redis.foreign("SET", "k", "new")
    world.notice(lost)
    world.settle()

    return wrong("read after the reconnect", b"new", client.ask("GET", "k"))


def link_is_read_from_before_it_is_tracked(world: World) -> list[str]:
    """Show that a link whose tracking is not acknowledged fills nothing, as when the other comes up meanwhile."""
    client = world.client()
    world.redis.foreign("SET", "k", "old")
    for lost in (world.control, world.data_link()):
        world.kill(lost)
        world.notice(lost)

    def meanwhile() -> None:
        world.during_handshake = lambda: None
        world.connect_control()
        client.send("GET", "k")

    world.during_handshake = meanwhile
    world.settle()
    read = client.replies()
    world.redis.foreign("SET", "k", "new")
    world.settle()

    return wrong("read before", [b"old"], read) + wrong("read after the push", b"new", client.ask("GET", "k"))


def redirection_breaks(world: World) -> list[str]:
    """Show that the push about a broken redirection comes on a RESP3 data link, and is no client's reply."""
    client = world.client(protocol=3)
    world.redis.foreign("SET", "k", "old")
    client.ask("GET", "k")
    world.kill(world.control)
    world.redis.foreign("SET", "k", "newer")

    return wrong("the next reply", -1, client.ask("PTTL", "k"))


def databases_hold_different_values(world: World) -> list[str]:
    """Show that a value of one database is not served to a client of another."""
    zero, one = world.client(), world.client(db=1)
    world.redis.foreign("SET", "k", "zero")
    world.redis.foreign("SET", "k", "one", db=1)
    zero.ask("GET", "k")

    return wrong("read in database 1", b"one", one.ask("GET", "k"))


def protocols_have_different_nils(world: World) -> list[str]:
    """Show that a reply in one protocol is not served to a client that speaks the other."""
    two, three = world.client(), world.client(protocol=3)
    two.ask("GET", "missing")
    three.send("GET", "missing")
    world.settle()

    return wrong("nil in RESP3", b"_\r\n", bytes(three.received))


def user_may_not_read(world: World) -> list[str]:
    """Show that a value that one user has read is not served to a user whom Redis would refuse."""
    alice, bob = world.client(user="alice"), world.client(user="bob")
    world.redis.forbidden.add(b"bob")
    world.redis.foreign("SET", "k", "secret")
    alice.ask("GET", "k")

    return wrong("refused", True, str(bob.ask("GET", "k")).startswith("NOPERM"))


def user_may_read_no_longer(world: World) -> list[str]:
    """Show that a change of the ACLs drops what their users could read before."""
    alice = world.client(user="alice")
    world.redis.foreign("SET", "k", "secret")
    world.pass_time(STALENESS_S)
    alice.ask("GET", "k")
    world.redis.forbidden.add(b"alice")
    world.redis.acl_version += 1
    world.pass_time(1.5)

    return wrong("refused", True, str(alice.ask("GET", "k")).startswith("NOPERM"))


def read_between_watch_and_exec(world: World) -> list[str]:
    """Show that who watches reads from Redis: a value older than the WATCH would let EXEC overwrite a newer one."""
    client = world.client()
    world.redis.foreign("SET", "k", "1")
    client.ask("GET", "k")
    world.hold(world.control)
    world.redis.foreign("SET", "k", "2")
    client.ask("WATCH", "k")

    return wrong("read after WATCH", b"2", client.ask("GET", "k"))


def read_between_queued_and_exec(world: World) -> list[str]:
    """Show that what MULTI has queued is dropped around EXEC, which writes it, not only when it is queued."""
    writer, reader = world.client(), world.client()
    world.redis.foreign("SET", "k", "old")
    writer.ask("MULTI")
    writer.ask("SET", "k", "new")
    before = reader.ask("GET", "k")
    world.hold(world.control)

    found = wrong("read before EXEC", b"old", before) + wrong("EXEC", [b"OK"], writer.ask("EXEC"))
    return found + wrong("read after EXEC was told OK", b"new", reader.ask("GET", "k"))


def read_in_a_transaction_of_unknown_keys(world: World) -> list[str]:
    """Show that a queued write whose keys are unknown drops everything around EXEC."""
    writer, reader = world.client(), world.client()
    world.redis.foreign("SET", "k", "old")
    writer.ask("MULTI")
    writer.ask("SCRAMBLE", "new")
    reader.ask("GET", "k")
    world.hold(world.control)
    writer.ask("EXEC")

    return wrong("read after EXEC was told OK", b"new", reader.ask("GET", "k"))
