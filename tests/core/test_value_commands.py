"""Commands of classes on a shared link or a pinned one: everybody is answered, and no key stays marked."""

from __future__ import annotations

import pytest

from proxy.core.value_commands import Way
from proxy.errors import UPSTREAM_LOST, UPSTREAM_UNAVAILABLE, damaged_value
from proxy.values.dependencies import Dependents
from proxy.values.envelope import open_value
from proxy.values.opening import run_plain
from proxy.wire.encode import array, bulk

from .scripted_values import DAMAGED, Pinned, Shared, commands_in, peeked, words

OK, QUEUED, NIL = b"+OK\r\n", b"+QUEUED\r\n", b"*-1\r\n"
NOPERM = b"-NOPERM not for you\r\n"
BARE = peeked(None)


# -- shared ------------------------------------------------------------------------------------------------------------


def test_take_sends_a_write_sealed_and_marks_its_key_until_the_reply() -> None:
    """What Redis is sent is an envelope; what the client reads is Redis' reply."""
    world = Shared()
    assert world.take([b"SET", b"v:1", b"text"]) is Way.SENT
    (sent,) = world.link.asked()
    assert open_value(sent[2], {})[0] == b"text"
    assert bulk(b"v:1") in world.engine.writing
    world.link.answer(OK)

    assert (world.client.received, world.engine.writing) == (OK, {})


@pytest.mark.parametrize(
    ("line", "way"),
    [
        *(
            ("STRLEN v:1", Way.PINNED),
            ("APPEND v:1 x", Way.PINNED),
            ("RENAME v:1 x", Way.PINNED),
            ("SET v:1 x IFEQ y", Way.PINNED),
        ),
        *(("EVAL s 1 v:1", None), ("WATCH v:1", None)),
    ],
)
def test_take_leaves_to_others_what_needs_a_link_of_its_own(line: str, way: Way | None) -> None:
    """Nothing is sent, nothing is marked."""
    world = Shared()

    assert world.take(line) is way
    assert (world.link.raws, world.engine.writing, list(world.client.queue)) == ([], {}, [])


@pytest.mark.parametrize("where", ["namespace", "shadow"])
def test_take_leaves_reads_to_l1_where_there_is_one(where: str) -> None:
    """Reads purge and count by themselves there."""
    world = Shared()
    setattr(world.client, where, object())

    assert world.take("GET v:1") is None
    assert world.link.raws == []


def test_take_without_l1_judges_what_is_read() -> None:
    """GET and MGET name the damaged values; what gives no value whole is handed on."""
    world = Shared()
    assert [world.take(line) for line in ("GET v:1", "MGET v:1 x", "EXISTS v:1")] == [Way.SENT] * 3
    world.link.answer(bulk(DAMAGED), array([bulk(DAMAGED), bulk(DAMAGED)]), bulk(DAMAGED))

    assert world.client.received == (
        damaged_value(b"v:1") + array([damaged_value(b"v:1"), bulk(DAMAGED)]) + bulk(DAMAGED)
    )


@pytest.mark.parametrize("line", ["SET v:1 text", "GET v:1", "DEL d:1"])
def test_take_without_a_link_says_so(line: str) -> None:
    """No key is left marked, nothing depends on what was not done."""
    world = Shared()
    world.client.link = None

    assert world.take(line) is Way.SENT
    assert (world.client.received, world.engine.writing) == (UPSTREAM_UNAVAILABLE, {})
    assert world.invalidations.calls == []


@pytest.mark.parametrize("line", ["SET v:1 text", "DEL d:1", "GETDEL d:1", "MSET v:1 a x b"])
def test_take_write_that_is_lost_leaves_nothing_marked(line: str) -> None:
    """Whatever slot it has."""
    world = Shared()
    world.take(line)
    world.link.lose()

    assert (world.client.received, world.engine.writing) == (UPSTREAM_LOST, {})


def test_take_drops_what_depends_on_a_write_before_its_reply() -> None:
    """In the database of the session; not for a client on which classes have no effect."""
    world = Shared()
    world.client.session.db = 5
    world.take("DEL d:1")
    world.link.answer(b":1\r\n")

    assert world.client.received == b""
    assert world.invalidations.calls[0][:2] == (Dependents((b"v:1",), (b"list:1:*",), (b"all-1",)), 5)
    world.invalidations.end()
    assert world.client.received == b":1\r\n"
    world.client.classed = False
    world.take([b"SET", b"d:1", b"text"])
    assert world.link.asked()[-1] == [b"SET", b"d:1", b"text"]
    world.link.answer(OK)
    assert world.client.received == b":1\r\n" + OK


@pytest.mark.parametrize("line", ["SET v:1 text", "GET v:1", "DEL v:1", "EXISTS v:1"])
def test_take_purges_ahead_of_the_command(line: str) -> None:
    """On the same link, so that Redis comes to the command after it."""
    world = Shared()
    world.values.fences.put(0, "glob", b"v:*", 7)
    world.take(line)
    purge, sent = world.link.asked()

    assert b"UNLINK" in purge[1]
    assert sent[0] == words(line)[0]


def test_take_field_that_may_expire_stops_keeping_hashes() -> None:
    """As for a key of no class."""
    world = Shared()
    assert world.take("HPEXPIRE v:1 100 FIELDS 1 f") is Way.SENT

    assert world.engine.fields_expire


# -- on a pinned link --------------------------------------------------------------------------------------------------


def test_pinned_command_on_bytes_runs_on_plain_values() -> None:
    """WATCH, look, MULTI .. EXEC; what follows waits."""
    world = Pinned()
    assert world.send("APPEND v:1 x")
    assert not world.send("GET v:1")
    assert world.pin.names() == [b"WATCH", b"EVAL", b"MULTI"]
    world.pin.answer(OK, BARE, OK, QUEUED, array([b":5\r\n"]))

    assert (world.client.received, world.engine.writing) == (b":5\r\n", {})


def watching() -> Pinned:
    """Make a session that watches a key."""
    world = Pinned()
    world.send("WATCH v:9")
    world.pin.answer(OK)
    world.pin.asked()
    world.client.received = b""
    assert world.send("APPEND v:1 x")
    return world


def test_pinned_session_that_watches_keeps_its_watch() -> None:
    """No WATCH, MULTI or UNWATCH of ours: its own EXEC notices who came between."""
    world = watching()
    world.pin.answer(peeked(b"plain"), b":1\r\n", BARE)
    *before, script = world.pin.asked()
    assert [one[0] for one in before] == [b"EVAL"] * 3
    assert [script] == commands_in(run_plain([b"v:1"], [b"APPEND", b"v:1", b"x"], 2))
    world.pin.answer(b":6\r\n")

    assert (world.client.received, world.engine.writing) == (b":6\r\n", {})


@pytest.mark.parametrize("answers", [[NOPERM], [peeked(b"plain"), NOPERM]])
def test_pinned_session_that_watches_is_told_why_it_cannot(answers: list[bytes]) -> None:
    """The command is not sent."""
    world = watching()
    world.pin.answer(*answers)

    assert (world.client.received, world.engine.writing) == (NOPERM, {})
    assert b"APPEND" not in world.pin.names()


@pytest.mark.parametrize("answers", [[], [peeked(b"plain")], [peeked(b"plain"), b":1\r\n"], [BARE]])
def test_pinned_session_that_watches_and_loses_its_link_is_told(answers: list[bytes]) -> None:
    """At any step."""
    world = watching()
    world.pin.answer(*answers)
    world.pin.lose()

    assert (world.client.received, world.engine.writing) == (UPSTREAM_LOST, {})
