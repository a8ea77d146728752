"""How [amqp] is read, and what is said about one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.endpoint import AmqpEndpoint
from proxy.config.keys import KEYS
from proxy.config.model import Settings

from .conftest import Fail, Load


def test_load_without_a_broker_there_are_no_urls(load: Load) -> None:
    """Events are off until somebody names a broker."""
    assert load("").amqp.urls == ()


def test_load_one_broker_is_a_cluster_of_one(load: Load) -> None:
    """A URL and a list of one say the same."""
    expected = (AmqpEndpoint("h", 5672, False, "u", "p", "/"),)

    assert expected == load("amqp.url = 'amqp://u:p@h'").amqp.urls == load("amqp.url = ['amqp://u:p@h']").amqp.urls


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("url", "3"), ("url", "[]"), ("url", "['']"), ("url", "['amqp://h', 3]"), ("url", "'http://h'")),
        *(("url", "['amqp://h', 'amqp://h']"), ("url", "['amqp://h/a', 'amqp://g/b']"), ("url", "'amqp://h:0'")),
        *(("url", "{ url = 'amqp://h' }"), ("exchange", "''"), ("exchange", "3"), ("exchange", "'amq.direct'")),
        *(("exchange", f"'{'x' * 201}'"), ("queue", "''"), ("queue", "'amq.topic'"), ("queue", "'a\tb'")),
        *(("queue", f"'{'é' * 101}'"), ("queue_type", "'stream'"), ("binding_keys", "[]"), ("binding_keys", "'#'")),
        *(("binding_keys", "['#', '#']"), ("binding_keys", "['a*']"), ("binding_keys", "[1]"), ("delivery", "'all'")),
        *(("prefetch", "0"), ("prefetch", "65536"), ("retry.attempts", "-1"), ("retry.attempts", "101")),
        *(("retry.first", "0"), ("retry.first", "'1ms'"), ("retry.max", "'2d'"), ("dead_letter_queue", "''")),
        *(("scopes", "[]"), ("scopes", "{ a = 'k' }"), ("scopes", "{ a = [] }"), ("scopes", "{ a = [1] }")),
        *(("scopes", "{ a = ['k', 'k'] }"), ("scopes", "{ a = ['[k'] }"), ("scopes", "{ '[a' = ['k'] }")),
        *(("scopes", "{ a = [''] }"), ("scopes", "{ '' = ['k'] }"), ("tls.verify", "0"), ("tls.ca", "'/none'")),
    ],
)
def test_load_wrong_value_of_a_broker_is_reported_with_what_is_allowed(fail: Fail, key: str, value: str) -> None:
    """A value of the wrong type, form or range is one problem, at its path, with the key's own words."""
    problems = fail(f"amqp.{key} = {value}")

    (allowed,) = [one.kind.allowed for one in KEYS if one.path == f"amqp.{key}"]
    assert [f"amqp.{key}"] == list(problems)
    assert problems[f"amqp.{key}"].allowed.startswith(allowed)


@pytest.mark.parametrize("text", ["retry = 3", "retry = []", "tls = ''"])
def test_load_inner_table_that_is_none_is_one_problem(fail: Fail, text: str) -> None:
    """What should be a table is reported as such, not key by key."""
    (problem,) = fail(f"[amqp]\n{text}").values()

    assert f"a table: [{problem.path}]" == problem.allowed


def test_load_scopes_keep_the_order_of_the_file(load: Load) -> None:
    """The first glob that takes a publisher has it; a table of its own says the same as one in a line."""
    expected = (("z-*", ("z:*", "y")), ("a", ("a:*",)))

    assert expected == load("amqp.scopes = { 'z-*' = ['z:*', 'y'], a = ['a:*'] }").amqp.scopes
    assert expected == load("[amqp.scopes]\n'z-*' = ['z:*', 'y']\na = ['a:*']").amqp.scopes


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("url = 'amqps://u:p@h'\ntls.cert = 'PEM'", "amqp.tls.cert", "tls.cert needs tls.key"),
        ("url = 'amqps://u:p@h'\ntls.key = 'PEM'", "amqp.tls.key", "tls.key needs tls.cert"),
        ("url = 'amqp://h'\ntls.ca = 'PEM'", "amqp.url", "no URL begins with amqps://"),
        ("url = 'amqp://h'\ntls.verify = false", "amqp.url", "no URL begins with amqps://"),
        ("url = 'amqps://h'", "amqp.url", "without a user needs amqp.tls.cert"),
        ("url = ['amqps://u:p@g', 'amqps://h']", "amqp.url", "without a user needs amqp.tls.cert"),
        ("queue = 'q'\ndead_letter_queue = 'q'", "amqp.dead_letter_queue", "another one than amqp.queue"),
        ("dead_letter_queue = 'respite.invalidation.retry.d'", "amqp.dead_letter_queue", "its retry queues"),
        ("exchange = 'respite.changes'", "amqp.exchange", "announces its own writes"),
        ("publish_changes = true", "amqp.publish_changes", "true needs amqp.url"),
        ("retry.first = '31s'", "amqp.retry.first", "at most amqp.retry.max (30s)"),
    ],
)
def test_load_keys_of_a_broker_that_disagree_are_reported(
    fail: Fail, pem: Path, text: str, path: str, words: str
) -> None:
    """What two keys must agree on is said at one of them, once."""
    problems = fail("[amqp]\n" + text.replace("PEM", str(pem)))

    assert [path] == list(problems)
    assert words in problems[path].allowed


@pytest.mark.parametrize(
    "text",
    [
        "url = 'amqps://h'\ntls = { cert = 'PEM', key = 'PEM' }",
        "url = 'amqps://u:p@h'\ntls.verify = false",
        "url = ['amqps://u:p@h', 'amqp://g']\ntls.ca = 'PEM'",
        "tls = { ca = 'PEM', cert = 'PEM', key = 'PEM' }",
        "exchange = 'amq.topic'",
        "retry = { attempts = 0, first = '5s', max = '5s' }",
        "scopes = {}",
    ],
)
def test_load_keys_of_a_broker_that_agree_pass(load: Load, pem: Path, text: str) -> None:
    """The rules stop what is wrong and no more; what belongs to a broker may stay while there is none."""
    assert isinstance(load("[amqp]\n" + text.replace("PEM", str(pem))), Settings)


def test_load_problem_of_a_broker_of_the_environment_names_the_variable(fail: Fail) -> None:
    """An operator looks for it in the right place, and the password stays one."""
    (problem,) = fail("", {"RESPITE_AMQP": "http://app:hunter2@h"}).values()

    assert problem.path == "amqp.url"
    assert "RESPITE_AMQP" in problem.allowed
    assert "hunter2" not in str(problem)


def test_repr_of_settings_leaves_the_password_of_the_broker_out(load: Load) -> None:
    """A traceback that prints the settings prints no password."""
    assert "hunter2" not in repr(load("amqp.url = 'amqp://app:hunter2@h'"))
