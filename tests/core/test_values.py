"""What a class means for a command: what is sent instead, which keys are unwrapped or purged first, what else goes."""

from __future__ import annotations

import pytest

from proxy.core import values as values_module
from proxy.core.values import Concern, Values, union
from proxy.errors import damaged_value
from proxy.values.dependencies import Dependents
from proxy.values.envelope import MAGIC, Codec, Header, open_value, read_header, wrap
from proxy.values.rules import REMEMBERED_KEY_BYTES
from proxy.wire.encode import bulk, command

from .scripted_values import DAMAGED, NOW_US, ScriptedLink, commands_in, make_values, spec_of, words

LONG = b"the same again and again, " * 20
VERSION = (NOW_US // 1000) << 16
MAGICAL = MAGIC + b" is how it begins"


def concern(values: Values, args: list[bytes]) -> Concern:
    """Ask about a command."""
    return values.concern(spec_of(args), args)


def rewritten(values: Values, args: list[bytes], *, in_effect: bool = True) -> list[bytes]:
    """Return the words that are sent; the raw command must be the very same object when they are the client's."""
    raw = command(*args)
    sent = values.rewrite(spec_of(args), args, raw, 0.0, in_effect=in_effect)
    (found,) = commands_in(bytes(sent))
    assert (sent is raw) == (found == args)
    return found


def opened(stored: bytes) -> tuple[bytes, int]:
    """Return the value of an envelope, and its version."""
    value, header = open_value(stored, {})
    return value, header.version


# -- concern -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        *(([b"SET", b"x", b"1"], Concern.NONE), ([b"GET", b"x"], Concern.NONE), ([b"PING"], Concern.NONE)),
        ([b"SET", b"x", MAGICAL], Concern.ALL),
        ([b"SET", b"v:1", b"one"], Concern.ALL),
        ([b"SET", b"c:1", b"short"], Concern.ALL),
        ([b"SET", b"c:1", LONG], Concern.ALL),
        ([b"SET", b"b:1", LONG], Concern.ALL),
        ([b"SET", b"t:1", b"one"], Concern.ALL),
        ([b"SET", b"d:1", b"one"], Concern.ALL),
        ([b"SET", b"v:1", b"one", b"NX"], Concern.ALL),
        *(([b"GET", b"v:1"], Concern.READ), ([b"MGET", b"x", b"v:1"], Concern.READ), ([b"GET", b"t:1"], Concern.ALL)),
        *(([b"DEL", b"x", b"v:1"], Concern.NONE), ([b"DEL", b"d:1"], Concern.ALL), ([b"EXISTS", b"v:1"], Concern.NONE)),
        *(([b"STRLEN", b"v:1"], Concern.ALL), ([b"GETDEL", b"v:1"], Concern.ALL), ([b"HGETALL", b"v:1"], Concern.NONE)),
        ([b"MSET", b"x", b"1", b"y", MAGICAL], Concern.ALL),
        ([b"SETEX", b"x", b"10", MAGICAL], Concern.ALL),
        ([b"APPEND", b"x", MAGICAL], Concern.NONE),
        ([b"LPUSH", b"x", MAGICAL], Concern.NONE),
        *(([b"SET", b"respite:clock", b"1"], Concern.NONE), ([b"GET", b"respite:clock"], Concern.NONE)),
        *(([b"SET"], Concern.NONE), ([b"SET", b"v:1"], Concern.ALL), ([b"MGET"], Concern.NONE)),
    ],
)
def test_concern_is_about_keys_of_a_class_and_what_looks_like_an_envelope(args: list[bytes], expected: Concern) -> None:
    """A command of no class passes untouched, and so do our own keys, whatever a glob says."""
    assert expected is concern(make_values()[0], args)


def test_concern_set_behind_a_fence_is_more_than_sealing() -> None:
    """While a fence is in force the older value must go first, also where nothing is sealed."""
    values, _ = make_values()
    values.fences.put(0, "glob", b"v:*", VERSION)

    assert concern(values, [b"SET", b"v:1", b"one"]) is Concern.ALL
    assert concern(values, [b"SET", b"c:1", b"short"]) is Concern.ALL
    assert concern(values, [b"SET", b"x", b"one"]) is Concern.NONE
    assert concern(values, [b"GET", b"v:1"]) is Concern.ALL
    assert concern(values, [b"DEL", b"v:1"]) is Concern.ALL
    assert concern(values, [b"EXISTS", b"v:1"]) is Concern.ALL


# -- what must be plain ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        *(("STRLEN v:1", [b"v:1"]), ("APPEND c:1 x", [b"c:1"]), ("STRLEN x", []), ("STRLEN b:1", [])),
        *(("GET v:1", []), ("TTL v:1", []), ("DEL v:1", []), ("EXPIRE v:1 3", []), ("STRLEN respite:x", [])),
        ("BITOP AND v:0 v:1 v:1 b:1 c:2", [b"v:1", b"c:2"]),
        *(("SET v:1 x", []), ("SET v:1 x NX", []), ("SET v:1 x IFEQ y", [b"v:1"]), ("SET v:1 x px 5 ifeq y", [b"v:1"])),
        *(("RENAME v:1 v:2", []), ("RENAME v:1 x", [b"v:1"]), ("RENAME v:1 b:1", [b"v:1"]), ("RENAME x v:1", [])),
        *(("RENAME v:1", []), ("STRLEN", []), ("EVAL return 0", [])),
        ("EVAL s 2 v:1 x", [b"v:1"]),
    ],
)
def test_bare_keys_are_those_whose_bytes_are_looked_at(line: str, expected: list[bytes]) -> None:
    """Of a class that wraps, named once; a move needs it only where the new key's values are not opened as damaged."""
    args = words(line)

    assert expected == make_values()[0].bare_keys(spec_of(args), args)


def test_bare_keys_in_a_queue_hold_what_is_moved() -> None:
    """What follows in the same transaction may look at the bytes under the new name."""
    args = words("RENAME v:1 v:2")

    assert [b"v:1"] == make_values()[0].bare_keys(spec_of(args), args, moved=True)


# -- rewrite -----------------------------------------------------------------------------------------------------------


def test_rewrite_wraps_with_rising_versions() -> None:
    """Each write of a versioned class has a version above the one before it."""
    values, _ = make_values()
    first, second = (rewritten(values, [b"SET", b"v:1", b"text", b"NX"]) for _ in range(2))

    assert (first[:2], first[3:]) == ([b"SET", b"v:1"], [b"NX"])
    assert opened(first[2]) == (b"text", VERSION)
    assert opened(second[2]) == (b"text", VERSION + 1)
    assert values.figures.sealed == 2


def test_rewrite_compresses_what_shrinks() -> None:
    """A compress-only class has no version, and its envelope is shorter than its value."""
    stored = rewritten(make_values()[0], [b"SETEX", b"c:1", b"10", LONG])[3]

    assert opened(stored) == (LONG, 0)
    assert read_header(stored).codec is Codec.LZ4
    assert len(stored) < len(LONG) / 2


@pytest.mark.parametrize(
    "args",
    [
        [b"SET", b"x", LONG],
        [b"SET", b"b:1", LONG],
        [b"SET", b"c:1", b"short"],
        [b"SET", b"v:1", b"12"],
        [b"SET", b"respite:clock", b"text"],
        [b"SET", b"v:1"],
        [b"SET", b"v:1", b"text", b"NONSENSE"],
        [b"MSET", b"v:1", b"text", b"v:2"],
        [b"APPEND", b"v:1", b"text"],
        [b"LPUSH", b"v:1", b"text"],
        [b"EXPIRE", b"v:1", b"10"],
    ],
)
def test_rewrite_leaves_the_rest_as_it_came(args: list[bytes]) -> None:
    """Numbers, other commands, what Redis will refuse, and keys of no class are sent as they are."""
    assert args == rewritten(make_values()[0], args)


def test_rewrite_mset_wraps_the_values_of_its_class_only() -> None:
    """Each key by its own class."""
    found = rewritten(make_values()[0], [b"MSET", b"x", b"text", b"v:1", b"one", b"v:2", b"7"])

    assert found[:4] == [b"MSET", b"x", b"text", b"v:1"]
    assert opened(found[4]) == (b"one", VERSION)
    assert found[5:] == [b"v:2", b"7"]


@pytest.mark.parametrize(("in_effect", "writes"), [(False, True), (True, False)])
def test_rewrite_out_of_effect_wraps_only_what_would_be_taken_for_an_envelope(in_effect: bool, writes: bool) -> None:
    """For a client that classes have no effect on, and after roll-back: plain values, but never an ambiguous one."""
    values, _ = make_values()
    values.writes_envelopes = writes

    assert rewritten(values, [b"SET", b"v:1", b"text"], in_effect=in_effect)[2] == b"text"
    assert rewritten(values, [b"SET", b"c:1", LONG], in_effect=in_effect)[2] == LONG
    for key in (b"v:1", b"x"):
        stored = rewritten(values, [b"SET", key, MAGICAL], in_effect=in_effect)[2]
        assert opened(stored) == (MAGICAL, 0)


def test_rewrite_notes_what_was_sealed() -> None:
    """Who queues a write in MULTI must know what will be stored under the key."""
    values, _ = make_values()
    args = [b"MSET", b"v:1", b"text", b"x", b"y"]
    sealed: dict[bytes, tuple[bytes, bytes]] = {}
    raw = values.rewrite(spec_of(args), args, command(*args), 0.0, in_effect=True, sealed=sealed)

    (found,) = commands_in(bytes(raw))
    assert sealed == {b"v:1": (found[2], b"text")}


def test_rewrite_folds_the_ttl_into_the_apps_own_words() -> None:
    """A cold key of a class of 100 s lives twice as long; who keeps the TTL, or has no say in it, keeps it."""
    values, _ = make_values()

    assert rewritten(values, words("SET t:1 x EX 50"))[3:] == [b"EX", b"3600"]
    assert rewritten(values, words("SET t:1 x KEEPTTL"))[3:] == [b"KEEPTTL"]
    assert rewritten(values, words("SET t:1 x EX 50"), in_effect=False)[3:] == [b"EX", b"50"]
    assert rewritten(values, words("SET v:1 12 EX 50"))[3:] == [b"EX", b"50"]
    decided = values.lifetimes.figures()
    assert rewritten(values, words("SET t:1 x KEEPTTL"))[3:] == [b"KEEPTTL"]
    assert values.lifetimes.figures() == decided
    assert rewritten(values, words("MSET t:1 x"))[1:] == [b"t:1", b"x"]


# -- dependents --------------------------------------------------------------------------------------------------------


def test_dependents_are_those_of_every_key_written() -> None:
    """Named once, in the order of the keys; a key of another class adds nothing."""
    values, _ = make_values()
    args = words("DEL d:1 x d:2 d:1")
    found = values.dependents(spec_of(args), args)

    assert found == Dependents((b"v:1", b"v:2"), (b"list:1:*", b"list:2:*"), (b"all-1", b"all-2"))


@pytest.mark.parametrize(
    ("line", "dbs"),
    [
        *(("SET d:1 x", [7]), ("MOVE d:1 3", [7, 3]), ("MOVE d:1 x", [7]), ("COPY a d:1", [7]), ("RENAME a d:1", [7])),
        *(("COPY a d:1 DB 3", [3]), ("COPY a d:1 replace db 3", [3]), ("COPY a d:1 DB", [7])),
    ],
)
def test_dropped_is_in_the_databases_that_are_written_in(line: str, dbs: list[int]) -> None:
    """COPY may write in another one, MOVE takes a key from one and gives it to another."""
    args = words(line)

    found = make_values()[0].dropped(spec_of(args), args, 7)

    assert list(found) == dbs
    assert set(found.values()) == {Dependents((b"v:1",), (b"list:1:*",), (b"all-1",))}


@pytest.mark.parametrize("line", ["EXPIRE d:1 5", "GETEX d:1", "GET d:1", "SET x 1", "PING", "EXISTS d:1"])
def test_dependents_of_what_changes_no_value_are_none(line: str) -> None:
    """A new TTL, a read, and a key without dependents drop nothing."""
    args = words(line)

    assert make_values()[0].dependents(spec_of(args), args) is None


def test_union_with_nothing_is_the_other() -> None:
    """None on one side changes nothing."""
    some = Dependents((b"a",))

    assert union(None, None) is None
    assert union(some, None) is some
    assert union(None, some) is some


# -- purge -------------------------------------------------------------------------------------------------------------


def purged(values: Values, *keys: bytes, db: int = 0, reply: bytes = b":1\r\n") -> list[bytes]:
    """Purge keys on a link of their own, which answers so; return the keys Redis was asked about."""
    link = ScriptedLink()
    is_any = values.purge(link, keys, db)
    asked = link.asked()
    assert is_any == bool(asked)
    if not asked:
        return []
    link.answer(reply)
    return asked[0][3 : 3 + int(asked[0][2])]


def test_purge_asks_once_about_what_a_fence_covers() -> None:
    """Only covered keys are asked about, and not again: what is written from then on is newer."""
    values, _ = make_values()
    assert purged(values, b"v:1") == []
    values.fences.put(0, "glob", b"v:*", VERSION)

    assert purged(values, b"v:1", b"x", b"v:2", reply=b":1\r\n") == [b"v:1", b"v:2"]
    assert purged(values, b"v:1", b"v:2", b"v:3") == [b"v:3"]
    assert values.figures.purged == 2


def test_purge_asks_again_behind_a_newer_fence() -> None:
    """What was written between the two fences has to go, too."""
    values, _ = make_values()
    values.fences.put(0, "tag", b"all-1", VERSION)
    assert purged(values, b"v:1") == [b"v:1"]
    values.fences.put(0, "tag", b"all-1", VERSION + 1)

    assert purged(values, b"v:1") == [b"v:1"]
    assert purged(values, b"v:1") == []


@pytest.mark.parametrize("reply", [b"-NOPERM no scripts for you\r\n", b"!5\r\nERR x\r\n"])
def test_purge_that_was_refused_counts_as_none(reply: bytes) -> None:
    """A user who may not run scripts is asked for again, perhaps by another link's user."""
    values, _ = make_values()
    values.fences.put(0, "glob", b"v:*", VERSION)

    assert purged(values, b"v:1", reply=reply) == [b"v:1"]
    assert purged(values, b"v:1") == [b"v:1"]
    assert values.figures.purged == 1


def test_purge_that_was_lost_counts_as_none() -> None:
    """A link that went before the answer may have gone before the command."""
    values, _ = make_values()
    values.fences.put(0, "glob", b"v:*", VERSION)
    link = ScriptedLink()
    values.purge(link, [b"v:1"], 0)
    link.lose()

    assert purged(values, b"v:1") == [b"v:1"]


def test_purge_is_remembered_by_database_and_until_it_is_forgotten() -> None:
    """The same key of another database, or of another server, is another key."""
    values, _ = make_values()
    for db in (0, 3):
        values.fences.put(db, "glob", b"v:*", VERSION)

    assert purged(values, b"v:1") == [b"v:1"]
    assert purged(values, b"v:1", db=3) == [b"v:1"]
    assert purged(values, b"v:1", db=3) == []
    values.forget_purged()
    assert purged(values, b"v:1", db=3) == [b"v:1"]


def test_purge_remembers_a_bounded_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the memory is full it begins anew: a purge too many does no harm."""
    monkeypatch.setattr(values_module, "PURGED_MAX", 3)
    values, _ = make_values()
    values.fences.put(0, "glob", b"v:*", VERSION)
    for number in range(4):
        assert purged(values, b"v:%d" % number)

    assert purged(values, b"v:3") == []
    assert purged(values, b"v:0") == [b"v:0"]


def test_purge_remembers_no_long_keys() -> None:
    """How much memory they take is not for clients to choose; they are purged each time."""
    values, _ = make_values()
    values.fences.put(0, "glob", b"v:*", VERSION)
    key = b"v:" + b"x" * REMEMBERED_KEY_BYTES

    assert purged(values, key) == [key]
    assert purged(values, key) == [key]


# -- reads -------------------------------------------------------------------------------------------------------------


def test_before_read_purges_then_counts_for_the_ttl() -> None:
    """A read that L1 does not answer is one that makes its key warm; a key without TTL rules is not counted."""
    values, _ = make_values()
    values.fences.put(0, "glob", b"t:*", VERSION)
    link = ScriptedLink()
    for _ in range(6):
        values.before_read(link, [b"t:1", b"v:1"], 0)

    assert [one[3:4] for one in link.asked()] == [[b"t:1"]] * 6
    assert rewritten(values, words("SET t:1 x EX 50"))[3:] == [b"EX", b"100"]


def test_opened_counts_and_moves_the_clock_past_the_version() -> None:
    """Whatever version was seen, the next write is above it."""
    values, _ = make_values()
    values.opened(Header(VERSION + 70_000, Codec.LZ4, 0, 500, 20, 0), 120)
    values.opened(Header(0, Codec.PLAIN, 0, 10, 20, 0), 30)

    figures = values.figures
    assert (figures.opened, figures.raw_bytes, figures.stored_bytes) == (2, 510, 150)
    assert opened(rewritten(values, [b"SET", b"v:1", b"text"])[2])[1] == VERSION + 70_001


def test_judge_says_that_a_sealed_value_is_damaged_in_its_class_only() -> None:
    """Behind the openers an envelope is a broken one; elsewhere such bytes are anybody's."""
    values, _ = make_values()

    assert values.judge(bulk(b"v:1"), bulk(DAMAGED)) == damaged_value(b"v:1")
    assert values.judge(bulk(b"x"), bulk(DAMAGED)) == bulk(DAMAGED)
    assert values.judge(bulk(b"v:1"), bulk(b"fine")) == bulk(b"fine")
    assert values.figures.damaged == 1


def test_judge_lets_pass_what_came_out_of_an_envelope() -> None:
    """A value may begin as an envelope does, if it was in one."""
    values, _ = make_values()
    assert open_value(wrap(MAGICAL, 1), {})[0] == MAGICAL
    values.lookalikes.add(MAGICAL)

    assert values.judge(bulk(b"v:1"), bulk(MAGICAL)) == bulk(MAGICAL)
    assert values.figures.damaged == 0
