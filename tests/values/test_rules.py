"""Which class a key has, and what is remembered of it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from proxy.config.model import ClassSettings
from proxy.values.dependencies import Dependency, Template
from proxy.values.rules import REMEMBERED_KEY_BYTES, REMEMBERED_KEYS, Rules
from proxy.values.ttl import TtlRules

TICKETS = ClassSettings("tickets", ("ticket:*", "*:ticket"), max_staleness_s=0.5, recompute_lease_s=3.0)
LOCKS = ClassSettings("locks", ("*lock", "é*"), l1=False)
REST = ClassSettings("rest", ("a*", "ticket:lock*"), while_recomputed="stale")


def name_of(rules: Rules, key: bytes) -> str:
    """Return the name of a key's class, "" for none."""
    found = rules.find(key)
    return found.name if found else ""


def memory_of(rules: Rules) -> dict[bytes, object]:
    """Return the dictionary behind find."""
    memory = rules.find.__self__  # type: ignore[attr-defined]
    assert isinstance(memory, dict)
    return memory


@pytest.mark.parametrize(
    ("key", "name"),
    [
        *((b"ticket:7", "tickets"), (b"a:ticket", "tickets"), (b"ticket:lock", "tickets"), (b"a:lock", "locks")),
        *((b"lock", "locks"), (b"\xc3\xa9", "locks"), (b"a", "rest"), (b"b", ""), (b"", ""), (b"ticket", "")),
        *((b"\xe9", ""), (b"\nticket:7", ""), (b"a\nlock", "locks"), (b"lock\n", "")),
    ],
)
def test_find_first_class_that_takes_the_key_has_it(key: bytes, name: str) -> None:
    """Order decides, any glob of a class is enough, and a key asked for again has the class it had."""
    rules = Rules((TICKETS, LOCKS, REST))

    assert name == name_of(rules, key)
    assert name == name_of(rules, key)


def test_find_gives_what_the_settings_of_the_class_say() -> None:
    """The rules of a class are its settings, each under its own name."""
    rules = Rules((TICKETS, LOCKS, REST))
    tickets, locks, rest = rules.classes

    assert (tickets.name, tickets.l1, tickets.max_staleness_s, tickets.recompute_lease_s) == ("tickets", True, 0.5, 3.0)
    assert (locks.l1, locks.max_staleness_s, locks.while_recomputed) == (False, None, "wait")
    assert rest.while_recomputed == "stale"
    assert rules.find(b"a") is rest


def test_find_gives_what_the_class_says_about_values() -> None:
    """TTLs, envelopes, tags and dependencies arrive compiled, each under its own name."""
    said = ClassSettings(
        *("a", ("a:*",), True, None, 0, "wait", 600.0, "report", "set", 5.0, 7200.0),
        compress=True,
        dictionary=False,
        version=True,
        tags=("t-{1}",),
        invalidates=("k{1}", "g{1}*", "tag:x"),
    )
    (rules,) = Rules((said,)).classes

    assert rules.ttl == TtlRules(600.0, "report", "set", 5.0, 7200.0)
    assert (rules.has_ttl, rules.has_envelope) == (True, True)
    assert (rules.compress, rules.dictionary, rules.version) == (True, False, True)
    assert rules.tags == (Template((b"t-", 1)),)
    assert rules.invalidates == (
        Dependency("key", Template((b"k", 1))),
        Dependency("glob", Template((b"g", 1, b"*"))),
        Dependency("tag", Template((b"x",))),
    )


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, set()),
        ({"l1": False, "recompute_lease_s": 1.0, "ttl_s": 60.0}, set()),
        ({"compress": True}, {"has_envelopes"}),
        ({"dictionary": True}, {"has_envelopes"}),
        ({"version": True}, {"has_envelopes"}),
        ({"adaptive_ttl": "on"}, {"has_ttl"}),
        ({"adaptive_ttl": "report"}, {"has_ttl"}),
        ({"min_ttl_s": 1.0}, {"has_ttl"}),
        ({"max_ttl_s": 1.0}, {"has_ttl"}),
        ({"ttl_s": 60.0, "ttl_when_missing": "set"}, {"has_ttl"}),
        ({"invalidates": ("k",)}, {"has_dependencies"}),
        ({"tags": ("t",)}, {"has_tags"}),
    ],
)
def test_rules_say_what_any_class_asks_for(said: dict[str, Any], expected: set[str]) -> None:
    """One class that asks is enough, and where none does the value layer need not be there at all."""
    rules = Rules((ClassSettings("none", ("n*",)), ClassSettings("x", ("x*",), **said)))
    names = ("has_envelopes", "has_ttl", "has_dependencies", "has_tags")

    assert expected == {name for name in names if getattr(rules, name)}
    assert rules.is_active is bool(expected)
    assert not Rules(()).is_active
    assert rules.classes[0].has_envelope is rules.classes[0].has_ttl is False
    assert rules.classes[1].has_envelope is ("has_envelopes" in expected)
    assert rules.classes[1].has_ttl is ("has_ttl" in expected)


@pytest.mark.parametrize("key", [b"respite:", b"respite:fences", b"respite:\n"])
def test_find_key_of_ours_has_no_class(key: bytes) -> None:
    """Our own records are never wrapped, fenced or given a TTL, even where a class has every key."""
    rules = Rules((ClassSettings("ours", ("respite:*", "respite:?*")), ClassSettings("rest", ("*",))))

    assert rules.find(key) is None
    assert [name_of(rules, other) for other in (b"respite", b"Respite:x", b"a:respite:x")] == ["rest"] * 3


def test_find_without_classes_is_none_and_remembers_nothing() -> None:
    """A proxy without classes pays nothing for them."""
    rules = Rules(())

    assert rules.find(b"ticket:7") is None
    assert rules.classes == ()
    assert rules.prefixes() == ()


def test_find_decides_as_the_globs_one_after_the_other_do() -> None:
    """One expression for all classes is the same as asking each glob in turn."""
    rng = random.Random(7)
    found = 0
    for _ in range(300):
        classes = tuple(
            ClassSettings(str(number), tuple({random_glob(rng) for _ in range(rng.randrange(1, 4))}))
            for number in range(5)
        )
        rules = Rules(classes)
        for key in (bytes(rng.choices(b"abc\n", k=rng.randrange(6))) for _ in range(60)):
            in_turn = [one.name for one in rules.classes if any(glob.matches(key) for glob in one.globs)]
            assert name_of(rules, key) == (in_turn[0] if in_turn else ""), classes
            found += bool(in_turn)
    assert found > 5000


def random_glob(rng: random.Random) -> str:
    """Make a glob of a few letters and wildcards."""
    return "".join(rng.choices(("*", "?", "[a-b]", "[^a]", "a", "b", "c", "(", "|"), k=rng.randrange(1, 5)))


def test_find_remembers_a_bounded_number_of_keys_and_forgets_no_class() -> None:
    """However many keys there are, the memory has its size, and each key still has its class."""
    rules = Rules((TICKETS,))
    for number in range(3 * REMEMBERED_KEYS):
        assert name_of(rules, b"ticket:%d" % number) == "tickets"
        assert name_of(rules, b"%d" % number) == ""

        assert len(memory_of(rules)) <= REMEMBERED_KEYS
    assert len(memory_of(rules)) > 0


def test_find_remembered_key_is_not_judged_again() -> None:
    """A key that is there is one look-up in the dictionary, and no more."""
    rules = Rules((TICKETS, LOCKS))
    rules.find(b"ticket:7")
    rules.find(b"other")
    memory = memory_of(rules)
    memory[b"ticket:7"] = locks = rules.classes[1]

    assert {b"ticket:7", b"other"} == memory.keys()
    assert rules.find(b"ticket:7") is locks


def test_find_long_key_is_judged_and_not_kept() -> None:
    """A client cannot fill the memory with keys of a megabyte."""
    rules = Rules((TICKETS,))

    assert name_of(rules, b"ticket:" + b"7" * REMEMBERED_KEY_BYTES) == "tickets"
    assert memory_of(rules) == {}


@pytest.mark.parametrize(
    ("globs", "prefixes"),
    [
        (("a:*",), (b"a:",)),
        (("b*", "a*"), (b"a", b"b")),
        (("ab*", "a*", "abc", "b"), (b"a", b"b")),
        (("a-*", "a*", "a:*", "a0"), (b"a",)),
        (("a:b*", "a:*", "a;*"), (b"a:", b"a;")),
        (("a*", "?b"), (b"",)),
        (("*",), (b"",)),
        (("lock", "é?"), (b"lock", b"\xc3\xa9")),
        ((r"\*a*", "[ab]", "c*"), (b"",)),
        ((r"\*a*", "c*"), (b"*a", b"c")),
    ],
)
def test_prefixes_cover_every_glob_and_none_begins_with_another(
    globs: tuple[str, ...], prefixes: tuple[bytes, ...]
) -> None:
    """What a server is told to announce is enough and does not overlap, which it would refuse."""
    assert prefixes == Rules((ClassSettings("x", globs),)).prefixes()


def test_prefixes_leave_out_classes_that_l1_does_not_hold() -> None:
    """Changes of keys that are never kept need no announcement."""
    classes = (ClassSettings("no", ("*",), l1=False), ClassSettings("b", ("b:*",)), ClassSettings("c", ("a:*", "b:1")))

    assert Rules(classes).prefixes() == (b"a:", b"b:")
    assert Rules(classes[:1]).prefixes() == ()


def test_captures_come_from_the_first_glob_that_takes_the_key() -> None:
    """{1} of a tag is what the first wildcard took; a key of another class has none."""
    rules = Rules((ClassSettings("x", ("a:*:b", "a:?*", "x")),))
    (one,) = rules.classes

    assert one.captures(b"a:1:b") == (b"1",)
    assert one.captures(b"a:12") == (b"1", b"2")
    assert one.captures(b"x") == ()
    assert one.captures(b"other") == ()
