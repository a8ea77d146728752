"""The lease rules hold for other reads than GET, and each scene goes wrong when its rule is switched off for them.

As test_lease_rules.py does for GET. What is switched off here is what is new with other reads: that replies hang on
their key, that their flights are pending under it, that they are found by request and kept apart.
"""

from __future__ import annotations

import pytest

from proxy.cache.flights import Flights
from proxy.cache.l1 import L1
from proxy.core.engine import Engine
from proxy.core.fill_slots import JoinSlot

from . import lease_switches as off
from . import lease_switches_reads as hide
from .lease_rule import Rule, do_nothing, replace, wrong
from .world import World, make_settings, running_world

ALL = ("LRANGE", "k", "0", "-1")

# -- scenes ----------------------------------------------------------------------------------------------------------


def push_comes_for_replies(world: World) -> list[str]:
    """Show that a push ends every reply about its key, and that each is held until then."""
    reader = world.client()
    world.redis.foreign("RPUSH", "k", "old")
    world.settle()
    for words in (ALL, ("EXISTS", "k"), ("LLEN", "k")):
        reader.ask(*words)
        reader.ask(*words)
    fetched = [world.redis.executed(name) for name in ("LRANGE", "EXISTS", "LLEN")]
    world.redis.foreign("DEL", "k")
    world.settle()
    after = [reader.ask(*words) for words in (ALL, ("EXISTS", "k"), ("LLEN", "k"))]

    return wrong("reads that reached Redis", [1, 1, 1], fetched) + wrong("read after the push", [[], 0, 0], after)


def push_comes_before_the_reply_lands(world: World) -> list[str]:
    """Show that a push between a read and its landing revokes the read's lease."""
    reader = world.client()
    world.redis.foreign("RPUSH", "k", "old")
    world.hold(world.data_link())
    reader.send(*ALL)
    world.settle()
    world.redis.foreign("RPUSH", "k", "new")
    world.settle()
    world.release(world.data_link())
    reader.replies()

    return wrong("read after the push", [b"new"], reader.ask(*ALL))


def null_push_comes(world: World) -> list[str]:
    """Show that a flush ends replies that are held."""
    reader = world.client()
    world.redis.foreign("RPUSH", "k", "old")
    reader.ask(*ALL)
    world.redis.foreign("FLUSHDB")
    world.settle()

    return wrong("read after FLUSHDB", [], reader.ask(*ALL))


def null_push_comes_before_the_reply_lands(world: World) -> list[str]:
    """Show that a flush revokes the leases of all reads."""
    reader = world.client()
    world.redis.foreign("RPUSH", "k", "old")
    world.hold(world.data_link())
    reader.send(*ALL)
    world.settle()
    world.redis.foreign("FLUSHDB")
    world.settle()
    world.release(world.data_link())
    reader.replies()

    return wrong("read after FLUSHDB", [], reader.ask(*ALL))


def own_write_ends_replies(world: World) -> list[str]:
    """Show that a write drops the replies about its key when submitted, for the read behind it in its pipeline."""
    client = world.client()
    world.redis.foreign("RPUSH", "k", "old")
    client.ask(*ALL)
    client.send("RPUSH", "k", "new")
    client.send(*ALL)
    world.settle()

    return wrong("a write and the read behind it", [1, [b"new"]], client.replies())


def own_write_lands_before_the_reply(world: World) -> list[str]:
    """Show that a reply that was asked for before an own write is not published after it."""
    reader, writer, later = world.client(), world.client(protocol=3), world.client()
    world.redis.foreign("RPUSH", "k", "old")
    world.hold(world.data_link())
    reader.send(*ALL)
    world.settle()
    writer.ask("RPUSH", "k", "new")
    world.hold(world.control)
    world.release(world.data_link())

    return wrong("read after the write was told OK", [b"new"], later.ask(*ALL))


def reply_is_published_while_a_write_is_in_flight(world: World) -> list[str]:
    """Show that a write drops the replies about its key again when it is answered."""
    reader, writer = world.client(), world.client(protocol=3)
    world.redis.foreign("RPUSH", "k", "old")
    writer.send("RPUSH", "k", "new")
    reader.send(*ALL)
    world.execute(world.data_link())
    world.deliver(world.data_link())
    reader.replies()
    world.hold(world.control)
    world.settle()

    found = wrong("the write", [1], writer.replies())
    return found + wrong("read after the write was told OK", [b"new"], reader.ask(*ALL))


def write_names_no_key(world: World) -> list[str]:
    """Show that a write of unknown keys drops every reply."""
    client = world.client()
    world.redis.foreign("SET", "k", "old")
    client.ask("STRLEN", "k")
    world.hold(world.control)
    client.ask("SCRAMBLE", "newer")

    return wrong("read after a write of unknown keys", 5, client.ask("STRLEN", "k"))


def key_expires_between_reply_and_pttl(world: World) -> list[str]:
    """Show that a reply whose PTTL finds no key is not published, and that those who joined ask again."""
    opener, joiner = world.client(), world.client()
    world.redis.foreign("SET", "k", "old", "PX", 100)
    opener.send("STRLEN", "k")
    world.execute(world.data_link(), 1)
    world.now += 0.15
    joiner.send("STRLEN", "k")
    world.hold(world.control)
    world.settle()

    found = wrong("who asked before the expiry", [3], opener.replies())
    found += wrong("who asked after the expiry", [0], joiner.replies())
    return found + wrong("read after the expiry", 0, world.client().ask("STRLEN", "k"))


def key_comes_between_reply_and_pttl(world: World) -> list[str]:
    """Show that a reply only a missing key gets is not published when PTTL finds the key."""
    opener, joiner = world.client(), world.client()
    opener.send("EXISTS", "k")
    world.execute(world.data_link(), 1)
    world.hold(world.control)
    world.redis.foreign("SET", "k", "now")
    joiner.send("EXISTS", "k")
    world.settle()

    found = wrong("who asked before it came", [0], opener.replies())
    return found + wrong("who asked after it came", [1], joiner.replies())


def key_expires_unannounced(world: World) -> list[str]:
    """Show that a reply ends with its key, not with the push that Redis sends later."""
    client = world.client()
    world.redis.foreign("SET", "k", "old", "PX", 100)
    client.ask("STRLEN", "k")
    world.now += 0.15

    return wrong("read after the expiry", 0, client.ask("STRLEN", "k"))


def reader_joins_after_the_expiry(world: World) -> list[str]:
    """Show that who joins a flight after its key has ended asks again."""
    opener, joiner = world.client(), world.client()
    world.redis.foreign("SET", "k", "old", "PX", 100)
    world.hold(world.data_link())
    opener.send("STRLEN", "k")
    world.settle()
    world.now += 0.15
    joiner.send("STRLEN", "k")
    world.release(world.data_link())

    found = wrong("who asked before the expiry", [3], opener.replies())
    return found + wrong("who asked after the expiry", [0], joiner.replies())


def own_write_waits_behind_a_joiner(world: World) -> list[str]:
    """Show that a write behind a read that has joined waits: the read may have to ask again, and must not see it."""
    opener, joiner = world.client(), world.client()
    world.redis.foreign("RPUSH", "k", "old")
    opener.send(*ALL)
    joiner.send(*ALL)
    joiner.send("RPUSH", "k", "own")
    joiner.send(*ALL)
    link = world.data_link()
    world.kill(link)
    world.notice(link)  # the flight is lost: who joined asks again
    world.settle()

    return wrong("a read, a write and the read behind it", [[b"old"], 1, [b"own"]], joiner.replies())


def databases_hold_different_lists(world: World) -> list[str]:
    """Show that after SELECT a client is answered from its database, by the same bytes of a request."""
    client, elsewhere = world.client(), world.client(db=1)
    world.redis.foreign("RPUSH", "k", "zero")
    world.redis.foreign("RPUSH", "k", "one", db=1)
    replies = [client.ask(*ALL), elsewhere.ask(*ALL), client.ask(*ALL), client.ask("SELECT", 1), client.ask(*ALL)]

    return wrong("reads in two databases", [[b"zero"], [b"one"], [b"zero"], b"OK", [b"one"]], replies)


def key_is_written_in_another_database(world: World) -> list[str]:
    """Show that a push, which names no database, drops the replies about its key in all of them."""
    zero, one = world.client(), world.client(db=1)
    world.redis.foreign("RPUSH", "k", "old", db=1)
    zero.ask(*ALL)
    one.ask(*ALL)
    world.redis.foreign("RPUSH", "k", "new", db=1)
    world.settle()

    return wrong("read after the push", [b"new"], one.ask(*ALL))


def protocols_have_different_shapes(world: World) -> list[str]:
    """Show that RESP2 and RESP3 clients each get the shape of theirs: an array, a map."""
    flat, shaped = world.client(), world.client(protocol=3)
    world.redis.foreign("HSET", "k", "f", "v")
    replies = [client.ask("HGETALL", "k") for client in (flat, shaped, flat, shaped)]

    return wrong("HGETALL in two protocols", [[b"f", b"v"], {b"f": b"v"}] * 2, replies)


def requests_differ_in_an_argument(world: World) -> list[str]:
    """Show that a reply is that of all bytes of its request, not of the command and the key."""
    client = world.client()
    world.redis.foreign("RPUSH", "k", "v")
    replies = [client.ask(*ALL), client.ask("LLEN", "k"), client.ask("EXISTS", "k"), client.ask(*ALL)]

    return wrong("three reads of a key", [[b"v"], 1, 1, [b"v"]], replies)


def data_link_is_lost(world: World) -> list[str]:
    """Show that the replies that a lost link fed go with it: the pushes for them went to nobody."""
    client = world.client()
    world.redis.foreign("RPUSH", "k", "old")
    client.ask(*ALL)
    link = world.data_link()
    world.kill(link)
    world.redis.foreign("RPUSH", "k", "new")
    world.notice(link)
    world.settle()

    return wrong("read after the link was lost", [b"new"], client.ask(*ALL))


def invalidation_link_falls_silent(world: World) -> list[str]:
    """Show that no reply is served while nothing proves that pushes come."""
    client = world.client()
    world.redis.foreign("RPUSH", "k", "old")
    client.ask(*ALL)
    world.hold(world.control)
    world.redis.foreign("RPUSH", "k", "new")
    world.pass_time(2.0)

    return wrong("read in the silence", [b"new"], client.ask(*ALL))


RULES = (
    Rule("1", own_write_lands_before_the_reply, replace(Flights, "revoke_key", hide.revoke_gets_only)),
    Rule("1", reader_joins_after_the_expiry, replace(JoinSlot, "answer", off.answer_joiners_anyway)),
    Rule("1", key_expires_between_reply_and_pttl, replace(Engine, "finish", hide.believe_contradictions)),
    Rule("1", key_comes_between_reply_and_pttl, replace(Engine, "finish", hide.believe_contradictions)),
    Rule("1", own_write_waits_behind_a_joiner, hide.let_writes_pass),
    Rule("2", push_comes_for_replies, hide.drop_values_only),
    Rule("2", push_comes_before_the_reply_lands, replace(Flights, "revoke_key", hide.revoke_gets_only)),
    Rule("2", null_push_comes, hide.keep_replies_on_clear),
    Rule("2", null_push_comes_before_the_reply_lands, replace(Flights, "revoke_all", hide.revoke_all_but_reads)),
    Rule("3", own_write_ends_replies, replace(Engine, "begin_write", off.begin_without_drop)),
    Rule(
        "3",
        reply_is_published_while_a_write_is_in_flight,
        replace(Engine, "end_write", off.end_without_drop),
        given=off.lease_always,
    ),
    Rule(
        "3",
        reply_is_published_while_a_write_is_in_flight,
        off.lease_always,
        given=replace(Engine, "end_write", off.end_without_drop),
    ),
    Rule("3", write_names_no_key, off.know_no_unknown_writes),
    Rule("4", key_expires_unannounced, off.finish_with(off.find_no_expiry)),
    Rule("5", key_is_written_in_another_database, replace(Engine, "drop", hide.drop_in_one_database)),
    Rule("7", data_link_is_lost, do_nothing(Engine, "flush_namespace")),
    Rule("7", invalidation_link_falls_silent, hide.serve_in_silence),
    Rule("8", requests_differ_in_an_argument, hide.find_by_the_key),
    Rule("9", databases_hold_different_lists, replace(L1, "namespace", hide.answers_of_all)),
    Rule("9", protocols_have_different_shapes, replace(L1, "namespace", hide.answers_of_all)),
)
IDS = [rule.id for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_lease_rule_holds_for_other_reads_and_is_missed_when_switched_off(rule: Rule) -> None:
    """With the rule nothing is wrong in the scene; with what makes it for other reads replaced, something is."""
    found = []
    for switches in ([rule.given], [rule.given, rule.off]):
        with pytest.MonkeyPatch.context() as monkeypatch:
            for switch in switches:
                switch(monkeypatch)
            with running_world(rule.settings) as world:
                found.append(rule.scenario(world))

    assert not found[0], f"rule {rule.number} is broken: {found[0]}"
    assert found[1], f"rule {rule.number} was switched off, and nothing went wrong"


@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_lease_rule_holds_for_other_reads_in_broadcast_mode_too(rule: Rule) -> None:
    """However the server is asked to track, nothing is wrong in the scene."""
    with running_world(make_settings(tracking="broadcast")) as world:
        found = rule.scenario(world)

    assert not found, f"rule {rule.number} is broken: {found}"


@pytest.mark.parametrize("read", [ALL, ("EXISTS", "k"), ("HGETALL", "k")])
def test_readers_of_one_request_reach_redis_once(read: tuple[str, ...]) -> None:
    """Ten readers that ask the same at once are one read in Redis; a reader that asks otherwise is another."""
    with running_world() as world:
        readers = [world.client() for _ in range(10)]
        world.redis.foreign("RPUSH", "k", "f")
        before = world.redis.executed(read[0])  # the proxy's own, of what is in force
        for reader in readers:
            reader.send(*read)
        readers[0].send("LLEN", "k")
        world.settle()
        replies = [reader.replies() for reader in readers]

        assert replies[0][1:] == [1]
        assert [reply[0] for reply in replies] == [replies[1][0]] * 10
        assert (world.redis.executed(read[0]) - before, world.redis.executed("LLEN")) == (1, 1)
        assert world.worker.stats.joined == 9
