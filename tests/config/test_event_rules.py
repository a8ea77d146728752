"""How [[event]] is read, and what is said about one that is wrong."""

from __future__ import annotations

import attrs
import pytest

from proxy.config.event_rules import EVENTS
from proxy.config.event_templates import parse_key, parse_pattern, parse_text
from proxy.config.kinds import Kind
from proxy.config.model import EventRule

from .conftest import Fail, Load

GOOD = "[[event]]\nrouting_key = 'a.*'\nkeys = ['k']\n"


def test_load_event_rules_keep_the_order_of_the_file(load: Load) -> None:
    """The first that takes a routing key has it, so order is meaning; templates are read once, here."""
    settings = load(r"""
        [[event]]
        routing_key = "ticket.*"
        keys = ["ticket:{body.id}", '\*']
        patterns = ["list:{body.queue.id}:*"]
        tags = ["t-{headers.tenant}"]
        version = "{body.updatedAt}"
        then_publish = "{routing_key.2}"
        [[event]]
        routing_key = "#"
        tags = ["all"]
        """)

    assert settings.events == (
        EventRule(
            "ticket.*",
            keys=(parse_key("ticket:{body.id}"), parse_key(r"\*")),
            patterns=(parse_pattern("list:{body.queue.id}:*"),),
            tags=(parse_text("t-{headers.tenant}"),),
            version=parse_text("{body.updatedAt}"),
            then_publish=parse_text("{routing_key.2}"),
        ),
        EventRule("#", tags=(parse_text("all"),)),
    )


def test_load_without_event_rules_there_are_none(load: Load) -> None:
    """A file without a rule, and one with an empty array, are the same."""
    assert () == load("").events == load("event = []").events


def test_event_left_out_keys_have_the_defaults_of_model_and_table(load: Load) -> None:
    """Somebody who makes a rule by hand gets what the file gives: the two say the same."""
    assert load(GOOD).events == (EventRule("a.*", keys=(parse_key("k"),)),)
    assert [field.name for field in attrs.fields(EventRule)] == [key.field for key in EVENTS.keys]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("routing_key", "3"), ("routing_key", "''"), ("routing_key", "['a']"), ("routing_key", "'ticket*'")),
        *(("keys", "'k'"), ("keys", "['']"), ("keys", "['k', 'k']"), ("keys", "[1]"), ("keys", f"['{'x' * 513}']")),
        *(("keys", "['k:*']"), ("keys", "['{id}']"), ("patterns", "'k'"), ("patterns", "['[{body.id}]']")),
        *(("patterns", "['*', '*']"), ("patterns", "['']"), ("tags", "[['t']]"), ("tags", "['{body.}']")),
        *(("version", "3"), ("version", "'5'"), ("version", "'{body.at[]}'"), ("version", "['{body.at}']")),
        *(("version", f"'{{body.{'x' * 513}}}'"), ("then_publish", "true"), ("then_publish", "'{'")),
    ],
)
def test_load_wrong_value_in_an_event_rule_is_reported_with_what_is_allowed(fail: Fail, key: str, value: str) -> None:
    """One problem, at the path of the key, by the place of the rule in the file."""
    written = {"routing_key": "'b'", "keys": "['k']"} | {key: value}

    problems = fail(GOOD + "[[event]]\n" + "\n".join(f"{name} = {text}" for name, text in written.items()))

    (allowed,) = [one.kind.allowed for one in EVENTS.keys if one.path == key and isinstance(one.kind, Kind)]
    assert [f"event[2].{key}"] == list(problems)
    assert problems[f"event[2].{key}"].allowed.startswith(allowed)


def test_load_wrong_template_is_quoted_with_what_to_write(fail: Fail) -> None:
    """The reason names the template, so that it is found among many."""
    (problem,) = fail("[[event]]\nrouting_key = '#'\nkeys = ['ok', 'k:{id}']").values()

    assert "'k:{id}': {id} is no place of a message" in problem.allowed
    assert "{body.id}" in problem.allowed


def test_load_event_rule_without_routing_key_says_that_it_is_needed(fail: Fail) -> None:
    """A rule for every event is written as such."""
    problems = fail("[[event]]\nkeys = ['k']")

    assert ["event[1].routing_key"] == list(problems)
    assert problems["event[1].routing_key"].allowed.startswith("needed: ")


@pytest.mark.parametrize("text", ["", "version = '{body.at}'", "keys = []\ntags = []"])
def test_load_event_rule_that_drops_nothing_is_refused(fail: Fail, text: str) -> None:
    """It would swallow its events without any effect."""
    problems = fail(f"[[event]]\nrouting_key = '#'\n{text}")

    assert ["event[1].keys"] == list(problems)
    assert "else it drops nothing" in problems["event[1].keys"].allowed


@pytest.mark.parametrize("key", ["keys", "patterns", "tags", "version", "then_publish"])
def test_load_word_that_no_routing_key_of_the_rule_has_is_refused(fail: Fail, key: str) -> None:
    """Each of its events would end as a dead letter."""
    value = "'{routing_key.2}-{routing_key.3}'"
    text = f"{key} = {value}" if key in {"version", "then_publish"} else f"{key} = ['x', {value}]"
    keys = "" if key == "keys" else "keys = ['k']\n"

    problems = fail(f"[[event]]\nrouting_key = 'a.*'\n{keys}{text}")

    assert [f"event[1].{key}"] == list(problems)
    assert "a routing key of 'a.*' has no word 3" in problems[f"event[1].{key}"].allowed


def test_load_any_word_of_a_routing_key_of_many_lengths_passes(load: Load) -> None:
    """Where # stands, some routing keys have the word."""
    assert load("[[event]]\nrouting_key = 'a.#'\nkeys = ['{routing_key.9}']").events


@pytest.mark.parametrize(("above", "below"), [("#", "ticket.new"), ("ticket.*", "ticket.new"), ("a", "a")])
def test_load_event_rule_that_is_never_asked_is_refused(fail: Fail, above: str, below: str) -> None:
    """The order of two rules was hardly meant when the first leaves nothing to the second."""
    text = "".join(f"[[event]]\nrouting_key = '{one}'\nkeys = ['k']\n" for one in ("z", above, below))

    problems = fail(text)

    assert ["event"] == list(problems)
    assert f"the rule for {below!r} is never asked: the one above it for {above!r}" in problems["event"].allowed


def test_load_special_event_rule_above_a_general_one_passes(load: Load) -> None:
    """This is how rules are meant to stand."""
    text = "".join(f"[[event]]\nrouting_key = '{one}'\nkeys = ['k']\n" for one in ("a.b", "a.*", "*.b", "#"))

    assert len(load(text).events) == 4


@pytest.mark.parametrize(("key", "nearest"), [("keyss", "event.keys"), ("pattern", "event.patterns"), ("zzz", "")])
def test_load_unknown_key_of_an_event_rule_names_the_nearest_known_one(fail: Fail, key: str, nearest: str) -> None:
    """A slip finds its way home."""
    problems = fail(GOOD + f"{key} = 1")

    assert [f"event[1].{key}"] == list(problems)
    assert nearest == problems[f"event[1].{key}"].nearest


@pytest.mark.parametrize("text", ["[event]\nkeys = ['a']", "event = 'a'", "event = ['a', {}]"])
def test_load_event_that_is_no_array_of_tables_is_one_problem(fail: Fail, text: str) -> None:
    """One bracket too few is said as such, not key by key."""
    problems = fail(text)

    assert ["event"] == list(problems)
    assert "each headed [[event]]" in problems["event"].allowed
