"""A hit is compared with what Redis holds: what differs is stale, was overtaken, or is healed; nothing else counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
import pytest

from proxy.cache.entry import Entry, Namespace, Scope
from proxy.cache.journal import HEALED
from proxy.cache.l1 import L1
from proxy.core import verify as verify_module
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.slots import STREAM_BYTES, Failure, Slot
from proxy.core.verify import NEVER, Verifier, VerifySlot, is_resident
from proxy.wire.encode import array, bulk, command

from .scripted_slots import ScriptedClient
from .world import World, make_settings, running_world

KEY = bulk(b"k")
OLD, NEW = bulk(b"old"), bulk(b"new")
REQUEST = command("LLEN", "k")


class Logger:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def warning(self, event: str, **about: object) -> None:
        """Keep a line."""
        self.lines.append({"event": event, **about})


class Scene:
    """An entry in L1, and a Verifier whose probes and fences are the test's to answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stats = Stats()
        self.engine = Engine(L1(1 << 20), self.stats, enabled=True, max_age_s=60.0, max_value_bytes=1 << 20)
        self.engine.now = 100.0
        self.engine.serve()
        self.namespace: Namespace = self.engine.l1.namespace(Scope(b"", 0, 2))
        self.verifier: Verifier = self.engine.verifier
        self.probes: list[tuple[Namespace, bytes, Slot]] = []
        self.fences: list[Callable[[], None]] = []
        self.verifier.probe = lambda namespace, raw, slot: self.probes.append((namespace, raw, slot))
        self.verifier.fence = self.fences.append
        self.log = Logger()
        monkeypatch.setattr(verify_module, "log", self.log)

    def hold(self, reply: bytes = OLD, *, request: bytes | None = None, until: float = 160.0) -> Entry:
        """Hold a reply, of a GET or of another read."""
        l1, now = self.engine.l1, self.engine.now
        if request is None:
            l1.put(self.namespace, KEY, reply, until, now)
            return self.namespace.resident[KEY]
        l1.put_reply(self.namespace, KEY, reply, until, now, request=request)
        return self.namespace.replies[request]

    def pong(self) -> None:
        """Let the fences through."""
        waiting, self.fences[:] = list(self.fences), []
        for then in waiting:
            then()

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """What was verified, stale, healed, and measured."""
        return (self.stats.verified, self.stats.stale, self.stats.healed, self.stats.staleness.count)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Make a scene."""
    return Scene(monkeypatch)


# -- when ------------------------------------------------------------------------------------------------------------


def due(scene: Scene, hits: int) -> int:
    """Serve so many hits of one entry, looking when one is due; return how many were looked at."""
    entry = scene.hold()
    for _ in range(hits):
        scene.stats.hits += 1
        if scene.stats.hits >= scene.verifier.next_at:
            scene.verifier.look(entry)
    found, scene.probes[:] = len(scene.probes), []
    return found


@pytest.mark.parametrize(
    ("share", "at_least", "at_most"), [(1.0, 10_000, 10_000), (0.5, 4_000, 6_000), (0.01, 80, 130)]
)
def test_sample_takes_about_its_share(scene: Scene, share: float, at_least: int, at_most: int) -> None:
    """Of ten thousand hits so many are looked up again; all of them at 1."""
    scene.verifier.sample(share)

    assert at_least <= due(scene, 10_000) <= at_most


def test_sample_is_not_in_step_with_the_traffic(scene: Scene) -> None:
    """The distances between two differ: a pattern of the traffic does not always hide the same hits."""
    scene.verifier.sample(0.01)
    distances = set()
    for _ in range(50):
        scene.verifier.look(scene.hold())
        distances.add(scene.verifier.next_at - scene.stats.hits)

    assert len(distances) > 10
    assert all(50 <= distance <= 150 for distance in distances)


@pytest.mark.parametrize("share", [0.0, -1.0])
def test_sample_of_nothing_is_never_due(scene: Scene, share: float) -> None:
    """Switched off it costs the hit one comparison, and nothing is looked at; also when it was on before."""
    scene.verifier.sample(1.0)
    scene.verifier.sample(share)

    assert due(scene, 10_000) == 0
    assert scene.verifier.next_at == NEVER


def test_sample_counts_from_now(scene: Scene) -> None:
    """A share that is raised while running is in force from the next hit on, however many there were before."""
    due(scene, 5_000)
    scene.verifier.sample(1.0)

    assert due(scene, 100) == 100


def test_verifier_is_off_until_it_is_told_a_share(scene: Scene) -> None:
    """A fresh one looks at nothing."""
    assert due(scene, 1_000) == 0


# -- what is asked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [None, REQUEST])
def test_look_asks_the_same_read_without_a_lease(scene: Scene, request_: bytes | None) -> None:
    """In the namespace of the entry, for nobody; no flight is opened."""
    entry = scene.hold(request=request_)
    scene.verifier.look(entry)
    ((namespace, raw, slot),) = scene.probes

    assert namespace is scene.namespace
    assert raw == (request_ or command("GET", "k"))
    assert slot.client is None
    assert not scene.namespace.flights


# -- what it means ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [None, REQUEST])
def test_equal_reply_is_verified(scene: Scene, request_: bytes | None) -> None:
    """It counts once, nothing is asked of the invalidation link, and the entry stays."""
    entry = scene.hold(request=request_)
    VerifySlot(None, scene.verifier, entry).land(OLD)

    assert scene.counts == (1, 0, 0, 0)
    assert not scene.fences
    assert is_resident(entry)


@pytest.mark.parametrize("request_", [None, REQUEST])
def test_differing_reply_whose_push_comes_was_stale(scene: Scene, request_: bytes | None) -> None:
    """The push arrives before the fence: nothing is healed, and how long it took is measured."""
    entry = scene.hold(request=request_)
    VerifySlot(None, scene.verifier, entry).land(NEW)
    assert scene.counts == (1, 1, 0, 0)
    scene.engine.now += 0.003
    scene.engine.drop_pushed([b"k"])
    scene.pong()

    assert scene.counts == (1, 1, 0, 1)
    assert scene.stats.staleness.sum_s == pytest.approx(0.003)
    assert scene.log.lines == []


@pytest.mark.parametrize("request_", [None, REQUEST])
def test_differing_reply_whose_push_never_comes_is_healed(scene: Scene, request_: bytes | None) -> None:
    """The fence is through and the entry is still there: it goes, with what else was read of its key, and is told."""
    entry = scene.hold(request=request_)
    other = scene.hold(request=command("LRANGE", "k", 0, -1))
    VerifySlot(None, scene.verifier, entry).land(NEW)
    assert is_resident(entry), "healed before it was known that no push comes"
    scene.engine.now += 0.5
    scene.pong()

    assert scene.counts == (1, 1, 1, 1)
    assert scene.stats.staleness.sum_s == pytest.approx(0.5)
    assert (is_resident(entry), is_resident(other)) == (False, False)
    assert scene.engine.journal.of(KEY)[-1] == (100.5, HEALED)
    assert [line["key"] for line in scene.log.lines] == ["k"]


@pytest.mark.parametrize(
    ("words", "held", "found", "is_same"),
    [
        (("HGETALL", "k"), (b"a", b"1", b"b", b"2"), (b"b", b"2", b"a", b"1"), True),
        (("HGETALL", "k"), (b"a", b"1", b"b", b"2"), (b"b", b"1", b"a", b"2"), False),
        (("smembers", "k"), (b"a", b"b"), (b"b", b"a"), True),
        (("SMEMBERS", "k"), (b"a", b"b"), (b"b", b"b"), False),
        (("LRANGE", "k", "0", "-1"), (b"a", b"b"), (b"b", b"a"), False),
    ],
)
def test_order_that_means_nothing_is_no_difference(
    scene: Scene, words: tuple[str, ...], held: tuple[bytes, ...], found: tuple[bytes, ...], is_same: bool
) -> None:
    """A hash table that is being made larger moves its elements whenever it is read: nothing was stale."""
    entry = scene.hold(array(list(map(bulk, held))), request=command(*words))
    VerifySlot(None, scene.verifier, entry).land(array(list(map(bulk, found))))

    assert scene.counts == ((1, 0, 0, 0) if is_same else (1, 1, 0, 0))


def test_differing_reply_leaves_what_came_after_alone(scene: Scene) -> None:
    """The entry was pushed away and read anew while the fence was on its way: the new one is not healed."""
    old = scene.hold()
    VerifySlot(None, scene.verifier, old).land(NEW)
    scene.engine.drop_pushed([b"k"])
    new = scene.hold(NEW)
    scene.pong()

    assert scene.counts == (1, 1, 0, 1)
    assert is_resident(new)


def test_entry_seen_stale_twice_is_healed_once(scene: Scene) -> None:
    """Two readers notice before the fence is through."""
    entry = scene.hold()
    for _ in range(2):
        VerifySlot(None, scene.verifier, entry).land(NEW)
    scene.pong()

    assert scene.counts == (2, 2, 1, 2)
    assert len(scene.log.lines) == 1


@pytest.mark.parametrize("what", ["pushed", "evicted", "replaced", "flushed", "expired", "written"])
@pytest.mark.parametrize("request_", [None, REQUEST])
def test_reply_to_what_has_gone_meanwhile_says_nothing(scene: Scene, what: str, request_: bytes | None) -> None:
    """Between hit and reply the entry went: what Redis says is about another moment, and is not judged."""
    entry = scene.hold(request=request_)
    if what == "pushed":
        scene.engine.drop_pushed([b"k"])
    elif what == "evicted":
        scene.engine.l1.resize(0, scene.engine.now)
    elif what == "replaced":
        scene.hold(request=request_)
    elif what == "flushed":
        scene.engine.flush()
    elif what == "written":
        scene.engine.begin_write([KEY])
    else:
        scene.engine.now = 160.0
    VerifySlot(None, scene.verifier, entry).land(NEW)

    assert scene.counts == (0, 0, 0, 0)
    assert not scene.fences


@pytest.mark.parametrize("reply", [b"-NOPERM no\r\n", b"!5\r\nERR a\r\n", b""])
def test_error_is_no_comparison(scene: Scene, reply: bytes) -> None:
    """Redis has not said what it holds."""
    entry = scene.hold()
    VerifySlot(None, scene.verifier, entry).land(reply)

    assert scene.counts == (0, 0, 0, 0)
    assert is_resident(entry)


@pytest.mark.parametrize("failure", list(Failure))
def test_lost_comparison_says_nothing(scene: Scene, failure: Failure) -> None:
    """The link died: nobody is told, nothing is counted."""
    entry = scene.hold()
    VerifySlot(None, scene.verifier, entry).fail(failure)

    assert scene.counts == (0, 0, 0, 0)
    assert is_resident(entry)


# -- with a client, in shadow mode -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [OLD, NEW, b"-NOPERM no\r\n"])
def test_client_gets_what_redis_says_and_it_is_compared(scene: Scene, reply: bytes) -> None:
    """Whatever L1 holds, the reply is Redis' own."""
    client = ScriptedClient()
    slot = VerifySlot(client, scene.verifier, scene.hold())
    client.owe(slot)
    slot.partial(reply[:3])
    slot.land(reply[3:])

    assert client.received == reply
    assert scene.counts[:2] == {OLD: (1, 0), NEW: (1, 1)}.get(reply, (0, 0))


@pytest.mark.parametrize("how", ["orphaned", "whole"])
def test_reply_in_pieces_is_compared_whole(scene: Scene, how: str) -> None:
    """A value that might be streamed is kept when L1 holds one of its size, and compared though its client has gone."""
    client = ScriptedClient()
    value = bulk(b"v" * (2 * STREAM_BYTES))
    slot = VerifySlot(client, scene.verifier, scene.hold(value))
    client.owe(slot)
    slot.partial(value[:-500])
    assert client.streamed == []
    if how == "orphaned":
        slot.orphan()
    slot.partial(value[-500:-5])
    slot.land(value[-5:])

    assert client.received == (value if how == "whole" else b"")
    assert scene.counts == (1, 0, 0, 0)


def test_reply_much_larger_than_the_entry_streams(scene: Scene) -> None:
    """A client waits for no end of what cannot be equal."""
    client = ScriptedClient()
    slot = VerifySlot(client, scene.verifier, scene.hold())
    client.owe(slot)
    value = bulk(b"v" * (3 * STREAM_BYTES))
    slot.partial(value[: 2 * STREAM_BYTES])
    assert client.received == value[: 2 * STREAM_BYTES]
    slot.land(value[2 * STREAM_BYTES :])

    assert client.received == value


# -- every hit -------------------------------------------------------------------------------------------------------


@pytest.fixture
def world() -> Iterator[World]:
    """Make a worker that compares every hit, and a key `k` that L1 holds the value and the presence of."""
    settings = make_settings()
    with running_world(attrs.evolve(settings, l1=attrs.evolve(settings.l1, verify=1.0))) as made:
        made.redis.foreign("SET", "k", "v")
        client = made.client()
        client.ask("GET", "k")
        client.ask("EXISTS", "k")
        client.ask("MGET", "k")
        yield made


def test_verify_of_all_compares_every_hit_of_a_pipeline(world: World) -> None:
    """GETs that come in one chunk are no exception."""
    client, stats = world.client(), world.worker.stats
    hits, verified = stats.hits, stats.verified
    client.send_raw(command("GET", "k") * 10)
    world.settle()

    assert client.replies() == [b"v"] * 10
    assert (stats.hits - hits, stats.verified - verified) == (10, 10)


@pytest.mark.parametrize(
    ("words", "each"),
    [(("GeT", "k"), 1), (("EXISTS", "k"), 1), (("MGET", "k"), 1), (("MGET", "k", "k"), 2), (("EXISTS", "k", "k"), 2)],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_verify_of_all_compares_every_hit_of_other_reads(world: World, words: tuple[str, ...], each: int) -> None:
    """However a read is spelt and however many keys it has, each value served from L1 is compared."""
    client, stats = world.client(), world.worker.stats
    hits, verified = stats.hits, stats.verified
    for _ in range(5):
        client.ask(*words)

    assert (stats.hits - hits, stats.verified - verified) == (5 * each, 5 * each)
