"""Scenes about filling L1: leases and joiners (rules 1, 2), writes of our own (3), deadlines (4), what fills (6, 8)."""

from __future__ import annotations

from .lease_rule import wrong
from .world import World


def write_lands_before_the_fill(world: World) -> list[str]:
    """Show that a fill that was asked for before an own write must not be published after it."""
    reader, writer, later = world.client(), world.client(protocol=3), world.client()
    world.redis.foreign("SET", "k", "old")
    world.hold(world.data_link())
    reader.send("GET", "k")
    world.settle()
    writer.ask("SET", "k", "new")
    world.hold(world.control)
    world.release(world.data_link())

    return wrong("read after the write was told OK", b"new", later.ask("GET", "k"))


def push_comes_before_the_fill(world: World) -> list[str]:
    """Show that a fill that was asked for before a foreign write must not be published after its push."""
    reader = world.client()
    world.redis.foreign("SET", "k", "old")
    world.hold(world.data_link())
    reader.send("GET", "k")
    world.settle()
    world.redis.foreign("SET", "k", "new")
    world.settle()
    world.release(world.data_link())
    reader.replies()

    return wrong("read after the push", b"new", reader.ask("GET", "k"))


def push_comes_for_what_is_held(world: World) -> list[str]:
    """Show that an entry ends with the push of its key."""
    reader = world.client()
    world.redis.foreign("SET", "k", "old")
    reader.ask("GET", "k")
    world.redis.foreign("SET", "k", "new")
    world.settle()

    return wrong("read after the push", b"new", reader.ask("GET", "k"))


def push_comes_for_a_missing_key(world: World) -> list[str]:
    """Show that that a key is missing is held too, and ends with the push of the key's first write."""
    reader = world.client()
    asked = [reader.ask("GET", "k"), reader.ask("GET", "k")]
    fetched = world.redis.executed("GET")
    world.redis.foreign("SET", "k", "new")
    world.settle()

    found = wrong("a missing key is read", [None, None], asked) + wrong("reads that reached Redis", 1, fetched)
    return found + wrong("read after the push", b"new", reader.ask("GET", "k"))


def null_push_ends_what_is_held(world: World) -> list[str]:
    """Show that a push that names no key, as FLUSHDB sends it, ends every entry."""
    reader = world.client()
    world.redis.foreign("SET", "k", "old")
    reader.ask("GET", "k")
    world.redis.foreign("FLUSHDB")
    world.settle()

    return wrong("read after FLUSHDB", None, reader.ask("GET", "k"))


def null_push_comes_before_the_fill(world: World) -> list[str]:
    """Show that a push that names no key revokes every lease."""
    reader = world.client()
    world.redis.foreign("SET", "k", "old")
    world.hold(world.data_link())
    reader.send("GET", "k")
    world.settle()
    world.redis.foreign("FLUSHDB")
    world.settle()
    world.release(world.data_link())
    reader.replies()

    return wrong("read after FLUSHDB", None, reader.ask("GET", "k"))


def reader_joins_after_the_expiry(world: World) -> list[str]:
    """Show that a reader that joins a flight after its key has expired is not given the value: it asks again."""
    opener, joiner = world.client(), world.client()
    world.redis.foreign("SET", "k", "old", "PX", 100)
    world.hold(world.data_link())
    opener.send("GET", "k")
    world.settle()
    world.now += 0.15
    joiner.send("GET", "k")
    world.release(world.data_link())

    found = wrong("who asked before the expiry", [b"old"], opener.replies())
    return found + wrong("who asked after the expiry", [None], joiner.replies())


def value_arrives_before_its_pttl(world: World) -> list[str]:
    """Show that joiners are answered when the PTTL has come: not before is the deadline known."""
    opener, joiner = world.client(), world.client()
    world.redis.foreign("SET", "k", "old", "PX", 100)
    opener.send("GET", "k")
    world.execute()
    world.now += 0.15
    joiner.send("GET", "k")
    world.deliver(world.data_link(), len(b"$3\r\nold\r\n"))
    early = joiner.replies()
    world.settle()

    found = wrong("answers before the PTTL", [], early)
    return found + wrong("who asked after the expiry", [None], early + joiner.replies())


def key_expires_between_value_and_pttl(world: World) -> list[str]:
    """Show that a value whose PTTL finds no key is not published, and no answer for those who have joined."""
    opener, joiner = world.client(), world.client()
    world.redis.foreign("SET", "k", "old", "PX", 100)
    opener.send("GET", "k")
    world.execute(world.data_link(), 1)
    world.now += 0.15
    joiner.send("GET", "k")
    world.hold(world.control)
    world.settle()

    found = wrong("who asked after the expiry", [None], joiner.replies())
    return found + wrong("read after the expiry", None, world.client().ask("GET", "k"))


def mget_finds_a_list(world: World) -> list[str]:
    """Show that the nil that MGET gives for a key that holds no string is no answer to a GET that has joined."""
    opener, joiner = world.client(), world.client()
    world.redis.foreign("RPUSH", "k", "x")
    opener.ask("MGET", "other")  # from now on it is known that this user may run both
    opener.send("MGET", "k")
    joiner.send("GET", "k")
    world.settle()
    (answer,) = joiner.replies()

    return wrong("GET of a list", True, str(answer).startswith("WRONGTYPE"))


def own_write_ends_what_is_held(world: World) -> list[str]:
    """Show that a write drops its key when submitted: the read behind it in its pipeline finds nothing older."""
    client = world.client()
    world.redis.foreign("SET", "k", "old")
    client.ask("GET", "k")
    client.send("SET", "k", "new")
    client.send("GET", "k")
    world.settle()

    return wrong("a write and the read behind it", [b"OK", b"new"], client.replies())


def fill_is_published_while_a_write_is_in_flight(world: World) -> list[str]:
    """Show that a write drops its key again when it is answered: what was published meanwhile is older."""
    reader, writer = world.client(), world.client(protocol=3)
    world.redis.foreign("SET", "k", "old")
    writer.send("SET", "k", "new")
    reader.send("GET", "k")
    world.execute(world.data_link())
    world.deliver(world.data_link())
    reader.replies()
    world.hold(world.control)
    world.settle()

    found = wrong("the write", [b"OK"], writer.replies())
    return found + wrong("read after the write was told OK", b"new", reader.ask("GET", "k"))


def other_link_reads_while_a_write_is_in_flight(world: World) -> list[str]:
    """Show that while a write is in flight a read of its key fills nothing: another link may overtake the write."""
    writer, reader = world.client(), world.client()
    world.redis.foreign("SET", "k", "old")
    first = world.data_link()
    writer.send("SET", "k", "new")
    assert writer.connection.link is not None
    writer.connection.link.paused = True  # as while a slow client is sent a large reply
    reader.send("STRLEN", "k")
    world.run_tasks()  # a second link of the same group is opened
    second = world.data_link()
    world.execute(second)
    world.deliver(second)
    reader.send("GET", "k")
    world.execute(second)
    world.deliver(second)
    world.hold(world.control)
    writer.send("GET", "k")
    world.settle()

    found = wrong("the links are two", True, first is not second)
    found += wrong("a reader that overtook the write", [3, b"old"], reader.replies())
    return found + wrong("a write and the read behind it", [b"OK", b"new"], writer.replies())


def write_names_no_key(world: World) -> list[str]:
    """Show that a write whose keys are unknown drops everything."""
    client = world.client()
    world.redis.foreign("SET", "k", "old")
    client.ask("GET", "k")
    world.hold(world.control)
    client.ask("SCRAMBLE", "new")

    return wrong("read after a write of unknown keys", b"new", client.ask("GET", "k"))


def databases_are_swapped(world: World) -> list[str]:
    """Show that SWAPDB is announced to nobody: through the proxy it counts as a flush."""
    client = world.client()
    world.redis.foreign("SET", "k", "zero")
    world.redis.foreign("SET", "k", "one", db=1)
    client.ask("GET", "k")
    client.ask("SWAPDB", 0, 1)
    world.pass_time(0.2)

    return wrong("read after SWAPDB", b"one", client.ask("GET", "k"))


def databases_are_swapped_by_a_stranger(world: World) -> list[str]:
    """Show that nobody hears of a foreign SWAPDB: `max_age` bounds what it leaves behind."""
    client = world.client()
    world.redis.foreign("SET", "k", "zero")
    world.redis.foreign("SET", "k", "one", db=1)
    client.ask("GET", "k")
    world.redis.foreign("SWAPDB", 0, 1)
    world.pass_time(2.0)

    return wrong("read `max_age` after a foreign SWAPDB", b"one", client.ask("GET", "k"))


def key_expires_unannounced(world: World) -> list[str]:
    """Show that an entry has a deadline of its own, from PTTL: Redis announces an expiry late."""
    client = world.client()
    world.redis.foreign("SET", "k", "old", "PX", 100)
    client.ask("GET", "k")
    world.now += 0.15

    return wrong("read after the expiry", None, client.ask("GET", "k"))


def pttl_takes_long_to_arrive(world: World) -> list[str]:
    """Show that the deadline counts from when the PTTL was sent, not from when it arrived."""
    client = world.client()
    world.redis.foreign("SET", "k", "old", "PX", 100)
    client.send("GET", "k")
    world.execute()
    world.now += 0.09
    world.settle()
    client.replies()
    world.now += 0.03

    return wrong("read after the expiry", None, client.ask("GET", "k"))


def own_command_writes_unseen(world: World) -> list[str]:
    """Show that Redis announces our own writes too (no NOLOOP): else what a command changes unseen stays for good."""
    client = world.client()
    world.redis.foreign("SET", "k", "old")
    client.ask("GET", "k")
    client.ask("SLY", "k", "new")

    return wrong("read after the push", b"new", client.ask("GET", "k"))


def own_write_is_overtaken_by_a_stranger(world: World) -> list[str]:
    """Show that L1 is never filled from a write: Redis tracks what is read, and would not announce the next change."""
    client = world.client()
    client.ask("SET", "k", "own")
    world.redis.foreign("SET", "k", "new")
    world.settle()

    return wrong("read after the push", b"new", client.ask("GET", "k"))


def reply_changes_with_time(world: World) -> list[str]:
    """Show that only what is on the list is answered from L1: a PTTL is not."""
    client = world.client()
    world.redis.foreign("SET", "k", "v", "PX", 10_000)
    first = client.ask("PTTL", "k")
    world.now += 4.0

    return wrong("PTTL, and 4 s later", [10_000, 6_000], [first, client.ask("PTTL", "k")])
