"""What is heard on the invalidation link takes effect; what is not understood, or refused, does no harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import hiredis
import pytest

from proxy.cache.entry import Scope
from proxy.core.fencing import Fencing
from proxy.net.invalidation.announcements import DICTIONARIES_KEY, TIME, Announcements
from proxy.net.links.openers import Openers
from proxy.values.changes import CHANNEL, FENCES_KEY, announce_everything
from proxy.values.dictionary import id_of, stored
from proxy.values.envelope import Codec
from proxy.values.fences import Fence, field_of
from proxy.values.stream import Lookalikes
from proxy.wire.encode import bulk, command

from ..core.scripted_values import NOW_US, make_values

DATA = b"words that values have in common"
VERSION = (NOW_US // 1000) << 16
DENIED = hiredis.ReplyError("NOPERM not for you")
FENCES = command("HGETALL", FENCES_KEY)
DICTIONARIES = command("HGETALL", DICTIONARIES_KEY)


class Control:
    """An invalidation link that keeps what is asked on it."""

    def __init__(self, *, is_resp3: bool = True) -> None:
        self.is_resp3 = is_resp3
        self.user = self.own_user = b"own"
        self.asked: list[tuple[bytes, Callable[[Any], None]]] = []
        self.channels: list[bytes] = []
        self.refuse: Callable[[str], None] = lambda _: None

    def ask(self, raw: bytes, then: Callable[[Any], None]) -> None:
        """Keep a question."""
        self.asked.append((raw, then))

    def subscribe(self, channel: bytes, refused: Callable[[str], None]) -> None:
        """Keep a subscription."""
        self.channels.append(channel)
        self.refuse = refused

    def answer(self, raw: bytes, reply: Any) -> None:
        """Answer the first question of these bytes."""
        at = next(at for at, (asked, _) in enumerate(self.asked) if asked == raw)
        self.asked.pop(at)[1](reply)


class World:
    """What hears, and what it has an effect on."""

    def __init__(self, *, is_resp3: bool = True) -> None:
        self.now = 50.0
        self.values, _ = make_values()
        self.engine = self.values.engine
        self.fencing = Fencing(self.engine, self.values.fences)
        self.openers = Openers(self.values.dictionaries, self.values.opened, Lookalikes())
        self.announcements = Announcements(self.values, self.fencing, self.openers, lambda: self.now)
        self.openers.ask = self.announcements.fetch_dictionary
        self.control = Control(is_resp3=is_resp3)

    def begin(self) -> World:
        """Bring the link up."""
        self.announcements.begin(self.control)  # type: ignore[arg-type]
        return self

    def hear(self, **message: Any) -> None:
        """Hear a message."""
        self.announcements.hear(json.dumps(message).encode())

    def hold(self, name: bytes) -> None:
        """Have L1 hold a key."""
        self.engine.l1.put(self.space, bulk(name), b"$1\r\nv\r\n", 1e9, 0.0)

    @property
    def space(self) -> Any:
        """The namespace of the test."""
        return self.engine.l1.namespace(Scope(b"u", 0, 2))

    @property
    def held(self) -> set[bytes]:
        """The keys that are hit."""
        return {key.split(b"\r\n")[1] for key in self.space.entries}

    @property
    def fences(self) -> set[tuple[bytes, int]]:
        """What is in force."""
        return {(fence.text, fence.version) for fence in self.values.fences}


def field(text: bytes, version: int, db: int = 0) -> list[str]:
    """Write a fence as messages have it."""
    return [field_of(db, "glob", text).hex(), str(version)]


# -- the link comes up -------------------------------------------------------------------------------------------------


def test_begin_asks_for_time_fences_and_dictionaries_behind_the_subscription() -> None:
    """What is set from then on is heard; what was set before is read."""
    world = World().begin()

    assert world.control.channels == [CHANNEL]
    assert [raw for raw, _ in world.control.asked] == [TIME, FENCES, DICTIONARIES]
    assert world.announcements.state == "subscribed"


def test_begin_in_resp2_hears_nothing_and_reads_all() -> None:
    """No push can come on such a link."""
    world = World(is_resp3=False).begin()
    flat = [field_of(0, "glob", b"a:*"), b"%d" % VERSION, field_of(0, "tag", b"t"), b"%d" % VERSION]
    world.control.answer(FENCES, flat)

    assert (world.control.channels, world.announcements.state) == ([], "not subscribed")
    assert world.fences == {(b"a:*", VERSION), (b"t", VERSION)}


def test_begin_forgets_what_was_purged() -> None:
    """It may be another server."""
    world = World()
    world.values.purged([(b"v:1", VERSION)], 0, 1)
    world.fencing.put([Fence(0, "glob", b"v:*", VERSION)])
    world.begin()

    class Link:
        tracked = optin = False

        def submit(self, raw: object, slot: object) -> None:
            """Do nothing."""

    assert world.values.purge(Link(), [b"v:1"], 0)


@pytest.mark.parametrize("reply", [{b"0:glob:a:*": b"%d" % VERSION}, [b"0:glob:a:*", b"%d" % VERSION]])
def test_fences_at_connect_are_in_force_for_l1_and_for_versions(reply: Any) -> None:
    """What they cover goes, and what is written from now on is newer than they are."""
    world = World().begin()
    world.hold(b"a:1")
    world.hold(b"b:1")
    ahead = VERSION + (1000 << 16)
    world.control.answer(FENCES, {b"0:glob:c:*": b"%d" % ahead, **dict(zip(*[iter(_flat(reply))] * 2, strict=True))})

    assert world.held == {b"b:1"}
    assert world.fences == {(b"a:*", VERSION), (b"c:*", ahead)}
    assert world.values.sealer.clock.next() > ahead


def _flat(reply: Any) -> list[bytes]:
    return [word for pair in reply.items() for word in pair] if isinstance(reply, dict) else reply


def test_fences_at_connect_end_those_that_were_swept_meanwhile() -> None:
    """Nobody has told of it: the link was away."""
    world = World()
    world.fencing.put([Fence(0, "glob", b"old:*", 5), Fence(0, "glob", b"both:*", 6)])
    world.begin()
    world.control.answer(FENCES, {b"0:glob:both:*": b"6"})

    assert world.fences == {(b"both:*", 6)}


def test_fence_set_while_the_reply_was_under_way_stays_in_force() -> None:
    """Redis had answered before it was set: that it is not in the answer says nothing."""
    world = World()
    world.fencing.put([Fence(0, "glob", b"a:*", 5)])
    world.begin()
    world.fencing.put([Fence(0, "glob", b"a:*", 9), Fence(0, "glob", b"new:*", 9)])
    world.control.answer(FENCES, {})

    assert world.fences == {(b"a:*", 9), (b"new:*", 9)}


def test_junk_in_the_hash_of_fences_is_left_out() -> None:
    """The rest is taken."""
    world = World().begin()
    world.control.answer(FENCES, {b"junk": b"1", b"0:glob:a:*": b"x", b"0:glob:b:*": b"7", b"": b"", b"0:tag:t": b"-1"})

    assert world.fences == {(b"b:*", 7)}


def test_errors_at_connect_change_nothing() -> None:
    """A user who may not read our records has no fences, and keeps those it knows."""
    world = World()
    world.fencing.put([Fence(0, "glob", b"a:*", 5)])
    world.begin()
    for raw in (TIME, FENCES, DICTIONARIES):
        world.control.answer(raw, DENIED)

    assert world.fences == {(b"a:*", 5)}
    assert world.values.dictionaries.known == {}


def test_subscription_refused_is_told() -> None:
    """In the report."""
    world = World().begin()
    world.control.refuse("NOPERM no channel for you")

    assert world.announcements.state == "NOPERM no channel for you"


# -- time --------------------------------------------------------------------------------------------------------------


def test_time_is_a_lower_bound_from_when_the_reply_came() -> None:
    """The question may have been long under way."""
    world = World().begin()
    world.values.sealer.clock._monotonic = lambda: world.now
    world.now = 52.0
    world.control.answer(TIME, [b"1800000000", b"250000"])

    assert world.values.sealer.clock.now_ms() == 1_800_000_000_250


def test_time_is_not_asked_while_there_is_no_link() -> None:
    """Nor after the link has gone."""
    world = World()
    world.announcements.ask_time()
    world.begin()
    world.announcements.end()
    world.announcements.ask_time()

    assert [raw for raw, _ in world.control.asked].count(TIME) == 1


# -- messages ----------------------------------------------------------------------------------------------------------


def test_message_of_fences_puts_them_in_force() -> None:
    """Heard twice, they change nothing; what is written from now on is newer."""
    world = World().begin()
    ahead = VERSION + (1000 << 16)
    world.hold(b"a:1")
    world.hear(fences=[field(b"a:*", ahead)])
    assert (world.held, world.fences) == (set(), {(b"a:*", ahead)})
    world.hold(b"a:1")
    world.hear(fences=[field(b"a:*", ahead)])

    assert world.held == {b"a:1"}
    assert world.values.sealer.clock.next() > ahead


def test_message_of_swept_fences_ends_them_unless_set_anew() -> None:
    """The version says which is meant."""
    world = World().begin()
    world.hear(fences=[field(b"a:*", 5), field(b"b:*", 9)])
    world.hear(swept=[field(b"a:*", 5), field(b"b:*", 8), field(b"c:*", 1)])

    assert world.fences == {(b"b:*", 9)}


def test_message_of_everything_drops_all() -> None:
    """Another worker's SWAPDB is heard of in no other way."""
    world = World().begin()
    world.hold(b"a")
    world.hear(all=1)

    assert world.held == set()


def test_everything_is_told_at_once_or_when_the_link_is_back() -> None:
    """Once; a link that is lost before the answer has perhaps not told it."""
    world = World()
    told = announce_everything()
    world.announcements.tell_all()
    world.begin()
    world.announcements.end()
    world.control.asked.clear()
    world.begin()
    again = [raw for raw, _ in world.control.asked].count(told)
    world.control.answer(told, 1)
    world.announcements.end()
    world.control.asked.clear()
    world.begin()

    assert again == 1
    assert told not in [raw for raw, _ in world.control.asked]


def test_message_of_keys_drops_them() -> None:
    """Keys of any bytes."""
    world = World().begin()
    for name in (b"a", b"\xff\x00", b"b"):
        world.hold(name)
    world.hear(keys=[b"a".hex(), b"\xff\x00".hex()], db=0)

    assert world.held == {b"b"}


@pytest.mark.parametrize(
    "payload",
    [
        *(
            b"",
            b"junk",
            b"[]",
            b"{}",
            b"\xff",
            b"null",
            b'{"fences": 1}',
            b'{"fences": [["00", "1"]]}',
            b'{"keys": [1]}',
        ),
        *(b'{"keys": ["61"]}', b'{"keys": ["zz"], "db": 0}', b'{"dictionary": "x", "class": "c"}', b"[" * 100_000),
        json.dumps({"fences": [field(b"a:*", 5), field(b"b:*", 1 << 70)]}).encode(),
    ],
)
def test_message_that_is_not_understood_changes_nothing(payload: bytes) -> None:
    """Anybody may publish: not even the part of it that makes sense is taken."""
    world = World().begin()
    asked = len(world.control.asked)
    world.hold(b"a")
    world.announcements.hear(payload)

    assert (world.held, world.fences, len(world.control.asked)) == ({b"a"}, set(), asked)


# -- dictionaries ------------------------------------------------------------------------------------------------------


def hget(dictionary: int) -> bytes:
    """Ask for a dictionary."""
    return command("HGET", DICTIONARIES_KEY, b"%d" % dictionary)


def test_dictionaries_at_connect_are_learnt() -> None:
    """All that are ones; used a second later."""
    world = World().begin()
    name, value = stored("small", Codec.LZ4, DATA)
    world.control.answer(DICTIONARIES, {name: value, b"17": value, b"junk": b"junk"})
    world.engine.now = 1.0
    current = world.values.dictionaries.current("small", world.engine.now)

    assert world.values.dictionaries.known == {id_of(DATA): DATA}
    assert current is not None
    assert current.id == id_of(DATA)


def test_message_of_a_dictionary_fetches_it() -> None:
    """Before the first value that needs it is met."""
    world = World().begin()
    world.hear(dictionary=id_of(DATA), **{"class": "small"})
    world.control.answer(hget(id_of(DATA)), stored("small", Codec.LZ4, DATA)[1])

    assert world.values.dictionaries.known == {id_of(DATA): DATA}


@pytest.mark.parametrize(
    ("reply", "known"), [(None, {4711: b""}), (DENIED, {}), (b"junk", {}), (stored("small", Codec.LZ4, DATA)[1], {})]
)
def test_fetch_that_brings_nothing_lets_all_go_on(reply: Any, known: dict[int, bytes]) -> None:
    """Only what Redis has not is known to be lost; who waited is told whatever comes."""
    world = World().begin()
    heard: list[str] = []
    world.openers.fetch(4711, lambda: heard.append("one"))
    world.openers.fetch(4711, lambda: heard.append("two"))
    assert [raw for raw, _ in world.control.asked].count(hget(4711)) == 1
    assert heard == []
    world.control.answer(hget(4711), reply)

    assert heard == ["one", "two"]
    assert world.values.dictionaries.known == known


def test_fetch_without_a_link_lets_all_go_on_at_once() -> None:
    """Nobody can be asked."""
    world = World()
    heard: list[int] = []
    world.openers.fetch(4711, lambda: heard.append(1))

    assert heard == [1]
    assert world.values.dictionaries.known == {}


def test_end_of_the_link_lets_all_go_on_and_who_needs_more_too() -> None:
    """The answers will not come; also not to what is asked while they go on."""
    world = World().begin()
    heard: list[str] = []

    def again() -> None:
        heard.append("first")
        world.openers.fetch(4712, lambda: heard.append("second"))

    world.openers.fetch(4711, again)
    world.openers.fetch(4713, lambda: heard.append("other"))
    world.announcements.end()

    assert sorted(heard) == ["first", "other", "second"]
    assert world.announcements.state == "not subscribed"
