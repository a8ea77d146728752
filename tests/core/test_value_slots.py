"""What a reply waits for, and what is not handed out."""

from __future__ import annotations

import pytest

from proxy.core.slots import STREAM_BYTES, Failure, Slot
from proxy.core.value_slots import DependentSlot, PurgeSlot, WholeSlot, WholeWriteSlot
from proxy.core.values import Values
from proxy.errors import DEPENDENTS_LEFT, UPSTREAM_LOST, UPSTREAM_TIMED_OUT, UPSTREAM_UNAVAILABLE, damaged_value
from proxy.values.dependencies import Dependents
from proxy.values.envelope import MAGIC
from proxy.wire.encode import array, bulk

from .scripted_slots import ScriptedClient
from .scripted_values import DAMAGED, Asked, make_values

WHAT = Dependents((b"v:1",))
KEYS = [bulk(b"d:1")]
LARGE = STREAM_BYTES + 1


def write(
    kind: type[DependentSlot] = DependentSlot, what: Dependents | None = WHAT, key: bytes = b"d:1"
) -> tuple[ScriptedClient, DependentSlot, Values, Asked]:
    """Owe a client the reply of a write."""
    values, asked = make_values()
    client = ScriptedClient()
    keys = [bulk(key)]
    values.engine.begin_write(keys)
    slot = kind(client, values.engine, keys, values, {} if what is None else {3: what})
    client.owe(slot)
    return client, slot, values, asked


def whole(*keys: bytes) -> tuple[ScriptedClient, WholeSlot, Values]:
    """Owe a client the reply of a read."""
    values, _ = make_values()
    client = ScriptedClient()
    slot = WholeSlot(client, [(b"get", *keys) if len(keys) == 1 else (b"mget", *keys)], values)
    client.owe(slot)
    return client, slot, values


# -- reads -------------------------------------------------------------------------------------------------------------


def test_whole_slot_says_which_values_are_damaged() -> None:
    """A GET is answered with the error, an MGET with one in the place of each."""
    client, slot, values = whole(b"v:1")
    slot.land(bulk(DAMAGED))
    assert client.received == damaged_value(b"v:1")

    client, slot, values = whole(b"v:1", b"x", b"v:2", b"v:3")
    slot.land(array([bulk(b"fine"), bulk(DAMAGED), bulk(DAMAGED), b"$-1\r\n"]))
    assert client.received == array([bulk(b"fine"), bulk(DAMAGED), damaged_value(b"v:2"), b"$-1\r\n"])
    assert values.figures.damaged == 1


@pytest.mark.parametrize(
    "reply", [b"-NOPERM no\r\n", b"_\r\n", b"$-1\r\n", bulk(b"in the middle " + MAGIC), bulk(MAGIC[:3])]
)
def test_whole_slot_hands_out_the_rest(reply: bytes) -> None:
    """Errors, nils, and values that only hold the magic."""
    client, slot, values = whole(b"v:1")
    slot.land(reply)

    assert client.received == reply
    assert values.figures.damaged == 0


def test_whole_slot_one_large_value_streams_and_its_end_is_not_judged() -> None:
    """What has begun to be forwarded is no envelope; its last part may look like a frame of anything."""
    client, slot, _ = whole(b"v:1")
    ends = [b"*2\r\n" + DAMAGED + b"\r\n", b"$9\r\n" + DAMAGED + b"\r\n"]
    for end in ends:
        client, slot, _ = whole(b"v:1")
        head = b"$%d\r\n" % (LARGE + len(end) - 2) + b"x" * LARGE
        slot.partial(head)
        slot.land(end)
        assert client.received == head + end
        assert client.streamed == [head]


def test_whole_slot_damaged_value_does_not_stream() -> None:
    """A damaged value is an error, however large it is."""
    client, slot, _ = whole(b"v:1")
    value = DAMAGED + b"x" * LARGE
    frame = bulk(value)
    slot.partial(frame[:-10])
    slot.land(frame[-10:])

    assert client.received == damaged_value(b"v:1")


def test_whole_slot_several_values_never_stream() -> None:
    """Any of the values still to come may be a damaged one."""
    client, slot, _ = whole(b"v:1", b"v:2")
    frame = array([bulk(b"x" * LARGE), bulk(DAMAGED)])
    slot.partial(frame[: LARGE + 10])
    slot.land(frame[LARGE + 10 :])

    assert client.received == array([bulk(b"x" * LARGE), damaged_value(b"v:2")])


def test_whole_slot_of_several_commands_judges_each_reply_by_its_own() -> None:
    """Of a pipeline: what is no GET or MGET is handed out, whatever it looks like."""
    values, _ = make_values()
    client = ScriptedClient()
    asked = [(b"GET", b"v:1"), (b"EXISTS", b"v:1"), (b"MGET", b"x", b"v:2"), (b"HGET", b"h", b"f"), (b"GET", b"v:3")]
    slot = WholeSlot(client, asked, values)
    client.owe(slot)
    last = b"-NOPERM no\r\n"
    slot.keep(bulk(DAMAGED) + b":1\r\n" + array([bulk(DAMAGED), bulk(DAMAGED)]), 3)
    slot.keep(bulk(DAMAGED), 1)
    slot.land(last)

    judged = damaged_value(b"v:1") + b":1\r\n" + array([bulk(DAMAGED), damaged_value(b"v:2")]) + bulk(DAMAGED) + last
    assert client.received == judged
    assert values.figures.damaged == 2


def test_whole_slot_whose_client_has_gone_takes_any_end_of_a_reply() -> None:
    """Its parts are not kept: the last one is no frame, and breaks nothing."""
    client, slot, values = whole(b"v:1", b"v:2")
    client.queue.clear()
    slot.orphan()
    slot.partial(b"*2\r\n$900\r\n" + b"x" * 500)
    slot.land(b"*7\r\n" + DAMAGED)

    assert slot.reply == b""
    assert client.received == b""
    assert values.figures.damaged == 0


# -- writes ------------------------------------------------------------------------------------------------------------


def test_dependent_slot_answers_when_all_is_dropped() -> None:
    """The write has ended, and its client waits: who has read the reply finds nothing old."""
    client, slot, values, asked = write()
    slot.land(b"+OK\r\n")

    assert (asked.calls[0][:2], client.received) == ((WHAT, 3), b"")
    assert values.engine.writing == {}
    asked.end()
    assert client.received == b"+OK\r\n"
    assert values.figures.dependents == 1


def test_dependent_slot_keeps_the_order_of_its_clients_replies() -> None:
    """What came after the write is answered after it."""
    client, slot, _, asked = write()
    later = Slot(client)
    client.owe(later)
    slot.land(b"+OK\r\n")
    later.land(b":1\r\n")

    assert client.received == b""
    asked.end()
    assert client.received == b"+OK\r\n:1\r\n"


def test_dependent_slot_says_what_could_not_be_dropped() -> None:
    """The write stands, and its reply must not look as if all were done."""
    client, slot, _, asked = write()
    slot.land(b"+OK\r\n")
    asked.end("ERR upstream away")

    assert client.received == DEPENDENTS_LEFT


@pytest.mark.parametrize("reply", [b"-WRONGTYPE no\r\n", b"!9\r\nERR wrong\r\n"])
def test_dependent_slot_of_a_refused_write_drops_nothing(reply: bytes) -> None:
    """Redis has changed nothing."""
    client, slot, values, asked = write()
    slot.land(reply)

    assert (client.received, asked.calls, values.engine.writing) == (reply, [], {})


@pytest.mark.parametrize(
    ("failure", "line", "drops"),
    [
        (Failure.UNAVAILABLE, UPSTREAM_UNAVAILABLE, 0),
        (Failure.LOST, UPSTREAM_LOST, 1),
        (Failure.TIMED_OUT, UPSTREAM_TIMED_OUT, 1),
    ],
)
def test_dependent_slot_of_a_lost_write_drops_if_it_may_have_been_applied(
    failure: Failure, line: bytes, drops: int
) -> None:
    """The client is answered at once; what depends on the write goes all the same, once."""
    client, slot, values, asked = write()
    slot.fail(failure)

    assert (client.received, len(asked.calls), values.engine.writing) == (line, drops, {})


def test_dependent_slot_that_was_refused_drops_nothing() -> None:
    """The link was not let in: nothing was sent."""
    client, slot, values, asked = write()
    slot.refuse(b"-WRONGPASS no\r\n")

    assert (client.received, asked.calls, values.engine.writing) == (b"-WRONGPASS no\r\n", [], {})


@pytest.mark.parametrize("end", [b"-and so on\r\n", b"!and so on\r\n"])
def test_dependent_slot_whose_client_has_gone_drops_all_the_same(end: bytes) -> None:
    """Also when the last part of a long reply begins as an error would."""
    client, slot, values, asked = write(WholeWriteSlot)
    client.queue.clear()
    slot.orphan()
    slot.partial(b"$%d\r\n" % (500 + len(end) - 2) + b"x" * 500)
    slot.land(end)

    assert len(asked.calls) == 1
    asked.end()
    assert (client.received, slot.reply, values.engine.writing) == (b"", b"", {})


def test_dependent_slot_without_dependents_streams_one_with_them_does_not() -> None:
    """A large old value is forwarded as it comes, unless the end of the write has to be waited for."""
    frame = bulk(b"x" * LARGE)
    for what, streamed in ((None, 1), (WHAT, 0)):
        client, slot, _, asked = write(WholeWriteSlot, what)
        slot.partial(frame[:-1])
        assert len(client.streamed) == streamed
        slot.land(frame[-1:])
        if what is not None:
            asked.end()
        assert client.received == frame


def test_dependent_slot_cut_off_inside_a_stream_ends_the_write() -> None:
    """The client is closed, the key is not left marked."""
    client, slot, values, _ = write(WholeWriteSlot, None)
    slot.partial(b"$%d\r\n" % (2 * LARGE) + b"x" * LARGE)
    slot.fail(Failure.LOST)

    assert client.aborted
    assert values.engine.writing == {}


def test_whole_write_slot_says_that_the_old_value_is_damaged() -> None:
    """GETSET, GETDEL, SET GET hand out no envelope; what they wrote stands, and its dependents go."""
    client, slot, values, asked = write(WholeWriteSlot)
    slot.land(bulk(DAMAGED))
    assert client.received == b""
    asked.end()
    assert client.received == damaged_value(b"d:1")
    assert (values.figures.damaged, values.engine.writing) == (1, {})

    client, slot, _, _ = write(WholeWriteSlot, None, b"x")
    slot.land(bulk(DAMAGED))
    assert client.received == bulk(DAMAGED)


def test_whole_write_slot_end_of_a_streamed_value_is_not_judged() -> None:
    """The last part of a large old value may look like a damaged one; an error there would break the stream."""
    client, slot, _, _ = write(WholeWriteSlot, None)
    end = b"$9\r\n" + DAMAGED + b"\r\n"
    head = b"$%d\r\n" % (LARGE + len(end) - 2) + b"x" * LARGE
    slot.partial(head)
    slot.land(end)

    assert client.received == head + end


# -- purges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "counted", "again"), [(b":2\r\n", 2, False), (b":0\r\n", 0, False), (b"-NOPERM no\r\n", 0, True)]
)
def test_purge_slot_remembers_what_was_done(reply: bytes, counted: int, again: bool) -> None:
    """Also when nothing was there to be dropped; not when Redis refused."""
    values, _ = make_values()
    values.fences.put(0, "glob", b"v:*", 7)
    link_fifo: list[Slot] = []

    class Link:
        tracked = optin = False

        def submit(self, raw: object, slot: Slot) -> None:
            link_fifo.append(slot)

    PurgeSlot(values, [(b"v:1", 7)], 0).land(reply)

    assert values.figures.purged == counted
    assert values.purge(Link(), [b"v:1"], 0) is again
    assert len(link_fifo) == again
