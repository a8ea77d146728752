"""Replies of other reads than GET hang on their key: whatever goes, takes what belongs to it and nothing else."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable, Iterator

import pytest

from proxy.cache import l1 as l1_module
from proxy.cache.entry import ENTRY_OVERHEAD_BYTES, REPLY_OVERHEAD_BYTES, Namespace, ReplyEntry, Scope, held_bytes
from proxy.cache.l1 import BATCH, L1
from proxy.wire.encode import bulk, command

ZERO = Scope(b"", 0, 2)
ONE = Scope(b"", 1, 3)
LATER = 1e9
KEY, OTHER = bulk(b"k"), bulk(b"o")
WALKS = 40
STEPS = 300
Held = dict[tuple[Scope, bytes], bytes]
"""(namespace, key or request) -> reply: what a plain dict would hold."""


def make(max_bytes: int = 1 << 20) -> L1:
    """Return an L1 that is served."""
    made = L1(max_bytes)
    made.group_by(lambda key: ("even", None)[key[-3] % 2])
    made.serve()
    return made


def put(l1: L1, request: bytes, *, key: bytes = KEY, scope: Scope = ZERO, reply: bytes = b":1\r\n") -> None:
    """Hold a reply."""
    l1.put_reply(l1.namespace(scope), key, reply, LATER, 0.0, request=request)


def chain(namespace: Namespace, key: bytes) -> Iterator[ReplyEntry]:
    """Walk the replies of a key, and check each one's neighbours."""
    before: ReplyEntry | None = None
    entry = namespace.heads.get(key)
    while entry is not None:
        assert entry.before is before
        assert entry.key == key
        yield entry
        before, entry = entry, entry.after


def requests(l1: L1, key: bytes = KEY, scope: Scope = ZERO) -> list[bytes]:
    """Return the requests whose replies hang on a key."""
    return sorted(entry.request for entry in chain(l1.namespace(scope), key))


def check(l1: L1) -> Held:
    """Check every link, count, place and byte; return what is held."""
    held: Held = {}
    standing = []
    for scope, namespace in l1.namespaces.items():
        hanging = [entry for key in namespace.heads for entry in chain(namespace, key)]
        assert {id(entry) for entry in hanging} == {id(entry) for entry in namespace.replies.values()}
        assert len(hanging) == len(namespace.replies)
        for key, head in namespace.heads.items():
            assert head.count == sum(1 for _ in chain(namespace, key))
        assert all(entry.request == request for request, entry in namespace.replies.items())
        assert namespace.answers == (namespace.replies if l1.serving else {})
        assert namespace.entries == (namespace.resident if l1.serving else {})
        held.update({(scope, entry.request): entry.reply for entry in hanging})
        held.update({(scope, key): entry.reply for key, entry in namespace.resident.items()})
        standing += [*hanging, *namespace.resident.values()]
        assert all(entry.namespace is namespace for entry in standing if entry.namespace.scope == scope)
    places = [entry for namespace in l1.namespaces.values() for block in namespace.blocks for entry in block.entries]
    assert {id(entry) for entry in places} == {id(entry) for entry in standing}
    assert len(places) == len(standing) == len(l1)
    assert all(entry.block.entries[entry.place] is entry for entry in standing)
    assert all(entry.block.groups[entry.place] == l1.groups.of(entry.key).number for entry in standing)
    assert sum(group.count for group in l1.groups.all) == len(l1)
    assert l1.bytes == sum(entry.size_bytes for entry in standing) <= l1.max_bytes
    return held


class Walk:
    """Random changes of an L1, and of a dict beside it that knows nothing of links and rings."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.l1 = make(self.dice.choice((6_000, 20_000, 1 << 20)))
        self.held: Held = {}
        self.keys: dict[tuple[Scope, bytes], bytes] = {}  # what belongs to which key
        self.now = 0.0

    def step(self) -> None:
        """Do one thing to both."""
        dice, l1 = self.dice, self.l1
        self.now += 1.0
        scope = dice.choice((ZERO, ONE))
        key = bulk(b"k%d" % dice.randrange(4))
        what = dice.choices(
            ("reply", "get", "drop", "clear", "namespace", "forget", "serve", "suspend", "resize"),
            (60, 15, 12, 1, 2, 1, 3, 3, 3),
        )[0]
        if what in ("reply", "get"):
            reply = b":%d\r\n" % dice.randrange(10**6) + b"x" * dice.randrange(200)
            name = key
            if what == "get":
                l1.put(l1.namespace(scope), key, reply, self.now + dice.randrange(20), self.now)
            else:
                name = b"*3\r\n$6\r\nLINDEX\r\n" + key + bulk(b"%d" % dice.randrange(8))
                until = self.now + dice.randrange(20)
                l1.put_reply(l1.namespace(scope), key, reply, until, self.now, request=name)
            self.held[(scope, name)] = reply
            self.keys[(scope, name)] = key
        elif what == "drop":
            gone = {place for place in self.held if self.keys[place] == key}
            assert l1.drop(key) == len(gone)
            self._lose(gone)
        elif what == "clear":
            assert l1.clear() == len(self.held)
            self.held.clear()
        elif what in ("namespace", "forget"):
            gone = {place for place in self.held if place[0] == scope}
            if what == "namespace":
                assert l1.clear_namespace(l1.namespace(scope)) == len(gone)
            else:
                l1.forget_namespace(l1.namespace(scope))
            self._lose(gone)
        elif what == "resize":
            l1.resize(dice.choice((3_000, 6_000, 20_000)), self.now)
        elif what == "serve":
            l1.serve()
        else:
            l1.suspend()

    def settle(self) -> None:
        """Compare. What was evicted is missing, and counted; nothing else is, and nothing is what it should not be."""
        before = self.l1.evictions
        held = check(self.l1)
        gone = set(self.held) - set(held)
        assert set(held) <= set(self.held)
        self._lose(gone)
        assert held == self.held
        self.evicted = getattr(self, "evicted", 0) + len(gone)
        assert self.evicted == before

    def _lose(self, gone: set[tuple[Scope, bytes]]) -> None:
        for place in gone:
            del self.held[place]


@pytest.mark.parametrize("seed", range(WALKS))
def test_any_changes_keep_replies_heads_links_and_ring_in_step(seed: int) -> None:
    """After each of many random changes L1 holds what a plain dict would, but for what it has evicted."""
    walk = Walk(seed)
    for _ in range(STEPS):
        walk.step()
        walk.settle()


def test_put_reply_counts_its_request_besides() -> None:
    """A reply costs its request and its place among the others, on top of what an entry costs."""
    l1 = make()
    request = command("LLEN", "k")
    put(l1, request)

    overhead = ENTRY_OVERHEAD_BYTES + REPLY_OVERHEAD_BYTES
    assert l1.bytes == held_bytes(KEY) + held_bytes(request) + held_bytes(b":1\r\n") + overhead


def test_put_reply_of_a_held_request_replaces_it() -> None:
    """A request has one reply; the others of its key stay."""
    l1 = make()
    for request in (b"a", b"b", b"c"):
        put(l1, request)
    for request in (b"b", b"a", b"c"):
        put(l1, request, reply=b":2\r\n")

    assert requests(l1) == [b"a", b"b", b"c"]
    assert set(check(l1).values()) == {b":2\r\n"}


def test_drop_takes_the_value_and_every_reply_of_a_key() -> None:
    """One change of a key ends all that was read of it, in every namespace, and no other key's."""
    l1 = make()
    for scope in (ZERO, ONE):
        l1.put(l1.namespace(scope), KEY, b"$1\r\nv\r\n", LATER, 0.0)
        for request in (b"a", b"b", b"c"):
            put(l1, request, scope=scope)
        put(l1, b"other", key=OTHER, scope=scope)

    assert l1.drop(KEY) == 8
    assert set(check(l1)) == {(ZERO, b"other"), (ONE, b"other")}
    assert l1.drop(KEY) == 0


@pytest.mark.parametrize("gone", [b"a", b"b", b"c"])
def test_replaced_or_evicted_reply_leaves_its_neighbours_linked(gone: bytes) -> None:
    """The first, the last or one in the middle of a key's replies goes: the others still go with the key."""
    l1 = make()
    for request in (b"a", b"b", b"c"):
        put(l1, request)
    l1._forget(l1.namespace(ZERO).replies[gone])
    check(l1)

    assert requests(l1) == sorted({b"a", b"b", b"c"} - {gone})
    assert l1.drop(KEY) == 2
    assert check(l1) == {}


def test_put_reply_at_the_most_holds_no_more_of_that_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """One key has so many replies and no more, that a change of it does not take long; others are held."""
    monkeypatch.setattr(l1_module, "REPLIES_MAX", 5)
    l1 = make()
    for number in range(8):
        put(l1, b"r%d" % number)
    put(l1, b"r3", reply=b":2\r\n")
    put(l1, b"other", key=OTHER)
    check(l1)

    assert requests(l1) == [b"r%d" % number for number in range(5)]
    assert l1.namespace(ZERO).replies[b"r3"].reply == b":2\r\n"
    assert requests(l1, OTHER) == [b"other"]
    assert l1.drop(KEY) == 5


def test_put_reply_after_one_went_has_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count follows what is there, whichever of them goes: the first, or one behind it."""
    monkeypatch.setattr(l1_module, "REPLIES_MAX", 3)
    for gone in (b"a", b"b", b"c"):
        l1 = make()
        for request in (b"a", b"b", b"c", b"d"):
            put(l1, request)
        l1._forget(l1.namespace(ZERO).replies[gone])
        put(l1, b"d")
        put(l1, b"e")
        check(l1)

        assert requests(l1) == sorted({b"a", b"b", b"c", b"d"} - {gone})


def test_put_reply_of_more_than_the_bound_holds_nothing_and_drops_nothing() -> None:
    """A reply larger than all of L1 evicts nobody."""
    l1 = make(4_000)
    put(l1, b"a")
    put(l1, b"b", reply=b"x" * 4_000)
    put(l1, b"a", reply=b"x" * 4_000)

    assert check(l1) == {(ZERO, b"a"): b":1\r\n"}
    assert l1.evictions == 0


def test_put_reply_that_evicts_its_own_head_is_the_head() -> None:
    """The room for a reply may be made from the replies of its own key."""
    l1 = make(1_600)
    for request in (b"a", b"b", b"c", b"d", b"e"):
        put(l1, request)
        check(l1)

    assert b"e" in requests(l1)
    assert l1.evictions >= BATCH - 1


def test_suspended_l1_answers_nothing_and_still_follows_changes() -> None:
    """While L1 is not proven no reply is found; what goes meanwhile is gone when it is served again."""
    l1 = make()
    for request in (b"a", b"b"):
        put(l1, request)
    put(l1, b"other", key=OTHER)
    l1.suspend()
    hidden = dict(l1.namespace(ZERO).answers)
    l1.drop(KEY)
    put(l1, b"new", key=OTHER)
    made_meanwhile = l1.namespace(ONE)
    put(l1, b"x", scope=ONE)
    hidden.update(l1.namespace(ZERO).answers)
    hidden.update(made_meanwhile.answers)
    l1.serve()

    assert hidden == {}
    assert set(l1.namespace(ZERO).answers) == {b"other", b"new"}
    assert set(made_meanwhile.answers) == {b"x"}


def test_clear_forgets_what_hung_on_keys() -> None:
    """After a flush a key starts with no reply."""
    l1 = make()
    for request in (b"a", b"b"):
        put(l1, request)

    assert l1.clear() == 2
    put(l1, b"c")
    check(l1)
    assert requests(l1) == [b"c"]
    assert l1.namespace(ZERO).heads[KEY].count == 1


@pytest.mark.parametrize(
    "let_go",
    [
        lambda l1: l1.drop(KEY),
        lambda l1: l1.clear(),
        lambda l1: l1.clear_namespace(l1.namespace(ZERO)),
        lambda l1: l1.resize(1_000, 1.0),
    ],
    ids=["drop", "clear", "clear_namespace", "resize"],
)
def test_replies_that_go_are_free_at_once(let_go: Callable[[L1], object]) -> None:
    """Neighbours hold each other: what L1 no longer counts would stay until a collection, perhaps for ever."""
    l1 = make()
    reply = b"$1000\r\n" + b"x" * 1_000
    before = sys.getrefcount(reply)
    gc.disable()
    try:
        for request in (b"a", b"b", b"c"):
            put(l1, request, reply=reply)
        let_go(l1)
        left = sys.getrefcount(reply) - before
    finally:
        gc.enable()

    assert (len(l1), left) == (0, 0)
