"""Reads of a key as they are decided by: what L1 has answered among them, each once, and none of an earlier life."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import attrs
import pytest

from proxy.cache.entry import Scope
from proxy.cache.l1 import L1
from proxy.config.model import ClassSettings
from proxy.core.lifetimes import Lifetimes
from proxy.values.rules import ClassRules, Rules
from proxy.values.ttl import Decision, Thresholds
from proxy.values.writes import asked_ms, parse, rewrite
from proxy.wire.encode import bulk

RESP2, RESP3 = Scope(b"", 0, 2), Scope(b"", 0, 3)
MAX_AGE_S = 300.0
WINDOW_S = 60.0


def class_rules(**settings: Any) -> ClassRules:
    """Compile a class that takes every key; base 10 min, adaptive, if nothing else is said."""
    said = {"ttl_s": 600.0, "adaptive_ttl": "on", **settings}
    found = Rules([ClassSettings("all", ("*",), **said)]).find(b"k")
    assert found is not None
    return found


class World:
    """L1, what counts its reads, and clients of both: reads, writes and pushes as `core` and `net` have them."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self.l1 = L1(1 << 24)
        self.l1.serve()
        self.lifetimes = Lifetimes(thresholds or Thresholds(jitter=0.0), self.l1, lambda: 0.5)
        self.now = 1000.0
        self.read_at: dict[bytes, list[float]] = defaultdict(list)

    def get(self, key: bytes, times: int = 1, scope: Scope = RESP2) -> None:
        """GET a key, from L1 if it is there."""
        namespace, raw = self.l1.namespace(scope), bulk(key)
        for _ in range(times):
            self.read_at[key].append(self.now)
            entry = namespace.entries.get(raw)
            if entry is not None and entry.deadline > self.now:
                entry.uses += 1
                entry.used_at = self.now
            else:
                self.lifetimes.count(key, self.now)
                self.l1.put(namespace, raw, b"$1\r\nv\r\n", self.now + MAX_AGE_S, self.now)

    def read(self, key: bytes, request: bytes, times: int = 1) -> None:
        """Read a key with another command."""
        namespace = self.l1.namespace(RESP2)
        for _ in range(times):
            self.read_at[key].append(self.now)
            entry = namespace.answers.get(request)
            if entry is not None and entry.deadline > self.now:
                entry.uses += 1
                entry.used_at = self.now
            else:
                self.lifetimes.count(key, self.now)
                self.l1.put_reply(namespace, bulk(key), b"*0\r\n", self.now + MAX_AGE_S, self.now, request=request)

    def write(self, key: bytes, asked: int | None = 60_000, rules: ClassRules | None = None) -> Decision:
        """Write a key: decide, then L1 drops it."""
        found = self.lifetimes.decide_for(rules or class_rules(), key, asked, self.now)
        self.l1.drop(bulk(key))
        return found

    def exact(self, key: bytes, window_s: float = WINDOW_S) -> int:
        """Count the reads one by one."""
        return sum(at > self.now - window_s for at in self.read_at[key])


@pytest.mark.parametrize(("times", "tier"), [(1, "cold"), (5, "cold"), (6, "warm"), (10, "warm"), (11, "hot")])
def test_hits_count_as_much_as_misses(times: int, tier: str) -> None:
    """All but one are answered by L1; together they decide."""
    world = World()
    world.get(b"k", times)

    assert (tier, times) == world.write(b"k")[1:3]


def test_key_that_nobody_reads_is_cold() -> None:
    """And so is one that other keys' reads surround."""
    world = World()
    world.get(b"other", 50)

    assert world.write(b"k")[:3] == (1_200_000, "cold", 0.0)


@pytest.mark.parametrize("how", ["write", "push", "evict"])
def test_reads_of_an_earlier_life_are_not_counted_again(how: str) -> None:
    """L1 has an entry begin with the uses of the one before it: they are older than the window."""
    world = World()
    world.get(b"k", 100)
    if how == "write":
        world.write(b"k")
    elif how == "push":
        world.l1.drop(bulk(b"k"))
    else:
        world.l1.resize(0, world.now)
        world.l1.resize(1 << 24, world.now)
    world.now += 2 * WINDOW_S
    world.get(b"k", 2)

    entry = world.l1.namespace(RESP2).resident[bulk(b"k")]
    assert entry.uses == 8 + 2
    assert world.write(b"k").reads == 2


def test_reads_between_writes_add_up() -> None:
    """A write ends the entry, and not what it has counted: 20 reads in each ten seconds are 120 in the window."""
    world = World()
    found = []
    for _ in range(12):
        for _ in range(20):
            world.now += 0.5
            world.get(b"k")
        found.append(world.write(b"k").reads)

    assert [20, 40, 60] == pytest.approx(found[:3], abs=0.5)
    assert found[6:] == pytest.approx([120] * 6, abs=12)


def test_two_writes_at_once_count_the_same_reads_once() -> None:
    """The second finds the entry gone, or, when it is queued in a MULTI, still there."""
    world = World()
    world.get(b"k", 12)

    queued = [world.lifetimes.decide_for(class_rules(), b"k", 1000, world.now).reads for _ in range(3)]
    after = world.write(b"k").reads

    assert [12, 12, 12, 12] == [*queued, after]


def test_hits_of_a_long_life_are_taken_to_have_come_evenly() -> None:
    """Four minutes of one read a second: a window's worth of them counts."""
    world = World()
    for _ in range(240):
        world.get(b"k")
        world.now += 1.0

    assert world.write(b"k").reads == pytest.approx(WINDOW_S, abs=2)


def test_hits_before_the_window_are_not_counted() -> None:
    """The entry is still there, and nobody has used it of late."""
    world = World()
    world.get(b"k", 100)
    world.now += WINDOW_S + 11

    assert world.write(b"k")[1:3] == ("cold", 0.0)


def test_refreshed_entry_keeps_its_uses_and_none_counts_twice() -> None:
    """An entry whose deadline has passed is replaced by one that begins with its uses."""
    world = World()
    world.get(b"k", 30)
    world.now += MAX_AGE_S + 1
    world.get(b"k", 4)

    assert world.l1.namespace(RESP2).resident[bulk(b"k")].uses == 33  # of the four the first was a miss
    assert world.write(b"k").reads == 4


def test_reads_in_all_namespaces_count() -> None:
    """RESP2 and RESP3 clients have entries of their own."""
    world = World()
    world.get(b"k", 4, RESP2)
    world.get(b"k", 4, RESP3)
    world.get(b"k", 4, RESP2)

    assert world.write(b"k").reads == 12


def test_reads_by_other_commands_count() -> None:
    """A hash is never read by GET, and EXPIRE decides about it; entries of several requests are one key's."""
    world = World()
    world.read(b"k", b"HGETALL k", 7)
    world.read(b"k", b"HLEN k", 4)
    assert world.write(b"k").reads == 11

    world.now += 2 * WINDOW_S
    world.read(b"k", b"HGETALL k", 3)
    assert world.write(b"k").reads <= 3  # L1 has it begin with 7 more


def test_counting_changes_nothing_in_l1() -> None:
    """What L1 remembers of a key that went is still there, and gives the next entry what it did."""
    world, other = World(), World()
    for one in (world, other):
        one.get(b"k", 6)
        one.l1.drop(bulk(b"k"))
    for _ in range(5):
        world.lifetimes.count(b"k", world.now)

    assert world.l1.groups.all[0].memory.recall(bulk(b"k")) == other.l1.groups.all[0].memory.recall(bulk(b"k"))


def test_entry_older_than_the_counting_counts_what_is_sure() -> None:
    """The class is new, L1 is not: up to 9 uses may be inherited, the others are hits."""
    world = World()
    namespace = world.l1.namespace(RESP2)
    for key, uses in ((b"few", 9), (b"many", 60)):
        world.l1.put(namespace, bulk(key), b"$1\r\nv\r\n", world.now + MAX_AGE_S, world.now).uses = uses

    assert [0, 51] == [world.write(key).reads for key in (b"few", b"many")]


def test_estimate_is_close_and_errs_low() -> None:
    """Against reads counted one by one, over keys of all rates, writes, pushes and evictions among them."""
    rng = random.Random(11)
    world = World()
    keys = [b"key:%d" % number for number in range(40)]
    rates = [0.02 * 1.2**number for number in range(40)]  # one in 50 s .. 24 a second
    estimated: dict[bytes, list[float]] = defaultdict(list)
    exact: dict[bytes, list[float]] = defaultdict(list)
    for step in range(10_000):
        world.now += 0.05
        for key in rng.choices(keys, rates, k=6):
            world.get(key)
        key = rng.choice(keys)
        if step % 7 == 0:
            reads = world.write(key).reads
            if step > 2000:
                estimated[key].append(reads)
                exact[key].append(world.exact(key))
        elif step % 301 == 0:
            world.l1.drop(bulk(key))

    for key, rate in zip(keys, rates, strict=True):
        mean, truth = (sum(found[key]) / len(found[key]) for found in (estimated, exact))
        assert 0.75 * truth - 0.5 <= mean <= 1.1 * truth + 0.5, (key, rate, mean, truth)


def test_explain_tells_what_a_decision_would_be_and_changes_nothing() -> None:
    """Its inputs, too. Asked as often as you like, the next decision is the same."""
    world = World()
    world.get(b"k", 8)
    rules = class_rules(min_ttl_s=5.0, max_ttl_s=500.0)

    found = [world.lifetimes.explain(rules, b"k", world.now) for _ in range(3)]

    assert (
        found[0]
        == found[2]
        == {
            "adaptive": "on",
            "when_missing": "leave",
            "window_s": 60.0,
            "warm_above": 5,
            "hot_above": 10,
            "jitter": 0.0,
            "reads": 8.0,
            "tier": "warm",
            "base_s": 600.0,
            "min_s": 5.0,
            "max_s": 500.0,
            "bounded": "max",
            "would_be_ms": 500_000,
        }
    )
    assert world.lifetimes.figures()["decided_total"] == {"hot": 0, "warm": 0, "cold": 0}
    assert world.write(b"k", rules=rules)[:3] == (500_000, "warm", 8.0)


@pytest.mark.parametrize("idle_s", [0.0, 20.0, 45.0, 59.0, 61.0, 100.0])
def test_explain_counts_as_a_decision_does(idle_s: float) -> None:
    """Hits that nobody has looked at yet among them."""
    world = World()
    for _ in range(50):
        world.get(b"k")
        world.now += 0.5
    world.now += idle_s

    told = world.lifetimes.explain(class_rules(), b"k", world.now)["reads"]

    assert told == pytest.approx(world.write(b"k").reads, abs=3)


def test_explain_of_a_class_without_a_base_tells_the_tier_only() -> None:
    """What its base is, the app says with each write."""
    world = World()
    world.get(b"k", 20)

    found = world.lifetimes.explain(class_rules(ttl_s=None), b"k", world.now)

    assert ("hot", None, "", None) == (found["tier"], found["base_s"], found["bounded"], found["would_be_ms"])
    assert world.lifetimes.explain(class_rules(adaptive_ttl="off"), b"k", world.now)["tier"] == ""


def test_figures_tell_what_was_decided() -> None:
    """By tier, and how often another TTL came out of it than the app's; for classes that only report, what would."""
    world = World()
    world.get(b"hot", 20)
    world.get(b"warm", 7)
    reporting = class_rules(adaptive_ttl="report")
    for rules in (class_rules(max_ttl_s=900.0), reporting):
        for key in (b"hot", b"warm", b"cold"):
            world.lifetimes.decide_for(rules, key, 600_000, world.now)
            world.lifetimes.decide_for(rules, key, None, world.now)

    found = world.lifetimes.figures()

    assert found == {
        "decided_total": {"hot": 2, "warm": 2, "cold": 2},
        "changed_total": 2,  # 10 min are what a warm key gets
        "would_change_total": 2,
        "left_total": 6,
        "at_min_total": 0,
        "at_max_total": 2,  # of the one that reports by what stands for a max_ttl
        "keys_counted": 2,
    }


def test_report_changes_nothing() -> None:
    """Whatever is read and asked for; it counts what would have changed."""
    world = World(Thresholds())
    rules = class_rules(adaptive_ttl="report", ttl_when_missing="leave", min_ttl_s=5.0, max_ttl_s=7200.0)
    for times in (0, 3, 7, 20):
        key = b"k%d" % times
        world.get(key, times)
        for asked in (None, 5_000, 60_000, 600_000, 7_200_000):
            assert world.lifetimes.decide_for(rules, key, asked, world.now).ttl_ms is None

    found = world.lifetimes.figures()
    assert found["changed_total"] == 0
    assert found["would_change_total"] >= 12


def test_cold_data_of_a_30_s_class_does_not_live_an_hour() -> None:
    """From the app's words to Redis' words: at most twice the base, unless the owner names a max_ttl."""
    world = World(Thresholds())
    words = [b"SET", b"k", b"v", b"EX", b"30"]
    write = parse(b"SET", words)
    assert write is not None
    sent = {}
    for name, max_s in (("unsaid", None), ("said", 7200.0)):
        rules = class_rules(ttl_s=30.0, max_ttl_s=max_s)
        ttl_ms = world.lifetimes.decide_for(rules, b"k", asked_ms(write, words, 0), world.now).ttl_ms
        sent[name] = int(rewrite(write, words, {}, ttl_ms, 0)[4])

    assert sent == {"unsaid": 60, "said": 3600}


def test_bounds_alone_need_no_counting() -> None:
    """A class without adaptive TTLs is not looked up in L1: its decision says no reads."""
    world = World()
    world.get(b"k", 20)
    rules = class_rules(adaptive_ttl="off", max_ttl_s=10.0)

    assert world.write(b"k", rules=rules)[:3] == (10_000, "", 0.0)


def test_thresholds_may_be_set_anew() -> None:
    """At once, the window with them."""
    world = World()
    world.get(b"k", 7)
    world.now += 30
    assert world.lifetimes.explain(class_rules(), b"k", world.now)["tier"] == "warm"

    world.lifetimes.thresholds = attrs.evolve(world.lifetimes.thresholds, hot_above=6)
    assert world.lifetimes.explain(class_rules(), b"k", world.now)["tier"] == "hot"

    world.lifetimes.thresholds = attrs.evolve(world.lifetimes.thresholds, window_s=10.0)
    assert world.write(b"k")[1:3] == ("cold", 0.0)
