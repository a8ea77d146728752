"""What is said about a configuration that cannot be used: all of it, and no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.load import load_settings
from proxy.errors import ConfigError

from .conftest import Fail


def test_load_many_mistakes_are_all_reported_at_once(fail: Fail) -> None:
    """An operator mends a file in one go."""
    problems = fail(
        """
        [listen]
        max_client = 5
        workers = 65
        max_bulk = "2GiB"
        [l1]
        max_age = "soon"
        [[class]]
        name = "x"
        [[event]]
        routing_key = "#"
        """,
        {"RESPITE_UPSTREAM": "http://h"},
    )

    listen = {"listen.max_client", "listen.workers", "listen.max_request"}
    assert listen | {"l1.max_age", "class.x.match", "event[1].keys", "upstream.url"} == set(problems)
    assert problems["listen.workers"].allowed == "a whole number from 1 to 64"
    assert problems["l1.max_age"].value == '"soon"'
    assert "RESPITE_UPSTREAM" in problems["upstream.url"].allowed


@pytest.mark.parametrize(
    ("text", "path", "nearest"),
    [
        ("listen.max_client = 5", "listen.max_client", "listen.max_clients"),
        ("listen.max_bytes = 5", "listen.max_bytes", "l1.max_bytes"),
        ("listen.tls.certificate = ''", "listen.tls.certificate", "listen.tls.cert"),
        ("listen.max_age = 5", "listen.max_age", "l1.max_age"),
        ("upstream.cert = ''", "upstream.cert", "upstream.tls.cert"),
        ("[listn]\nurl = ''", "listn", "listen"),
        ("[[listens]]\nurl = ''", "listens", "listen"),
        ("max_clients = 5", "max_clients", "listen.max_clients"),
        ("[[clas]]\nname = ''", "clas", "class"),
        ("l1.recompute_lease = 1", "l1.recompute_lease", "class.recompute_lease"),
        ("compression.min_ttl = 1", "compression.min_ttl", "class.min_ttl"),
        ("[compresion]\ncodec = ''", "compresion", "compression"),
        ("ttl.hot_abov = 1", "ttl.hot_abov", "ttl.hot_above"),
        ("rollout.percentage = 1", "rollout.percentage", "rollout.percent"),
        ("amqp.urls = ''", "amqp.urls", "amqp.url"),
        ("amqp.attempts = 1", "amqp.attempts", "amqp.retry.attempts"),
        ("amqp.routing_key = 'a'", "amqp.routing_key", "event.routing_key"),
        ("[[events]]\nkeys = []", "events", "event"),
        ("'' = 5", '""', ""),
        ("zzz = 5", "zzz", ""),
    ],
)
def test_load_unknown_key_names_the_nearest_known_one(fail: Fail, text: str, path: str, nearest: str) -> None:
    """A slip in a name, and a right name in a wrong table, both find their way home."""
    problems = fail(text)

    assert [path] == list(problems)
    assert problems[path].allowed == "no such key"
    assert nearest == problems[path].nearest


def test_load_unknown_flag_is_a_problem(fail: Fail) -> None:
    """A flag for a key that does not exist is not dropped."""
    assert list(fail("", {}, {"listen.nope": 1})) == ["listen.nope"]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (f"[metrics]\nqueue_full_at = {'9' * 5000}", ""),
        (f"a = {'[' * 5000}", ""),
        (f"[ttl]\nwindow = {'9' * 400}", "ttl.window"),
        (f"[l1]\nmax_bytes = {'9' * 400}", "l1.max_bytes"),
        (f"[[class]]\nname = 'a'\nmatch = ['a']\nttl = {'9' * 400}", "class.a.ttl"),
    ],
    ids=["digits", "depth", "time", "size", "class"],
)
def test_load_number_beyond_all_bounds_is_a_problem(fail: Fail, text: str, path: str) -> None:
    """Python itself refuses some of them, in its own ways."""
    (problem,) = fail(text).values()

    assert problem.path == path or (not path and problem.value == "TOML")


@pytest.mark.parametrize(
    "text", ["listen = 3", "listen = []", "[[listen]]\nmax_clients = 1", "ttl = '5m'", "listen.tls = ''"]
)
def test_load_table_that_is_none_is_one_problem(fail: Fail, text: str) -> None:
    """A section that is no table is reported as such, not key by key."""
    (problem,) = fail(text).values()

    assert f"a table: [{problem.path}]" == problem.allowed


@pytest.mark.parametrize(
    "text",
    [
        "upstream.url = 'redis://app:hunter2@h:x'",
        "upstream.url = 'redis://app:hunter2#@h'",
        "upstream.url = ['redis://app:hunter2@h']",
        "upstream.url = { url = 'hunter2' }",
        "amqp.url = 'amqp://app:hunter2@h:x'",
        "amqp.url = 'amqp://app:hun/hunter2@h'",
        "amqp.url = ['amqp://app:hunter2@h', 'amqp://app:hunter2@h']",
        "amqp.url = 'amqp://app:hunter2@h'\namqp.tls.verify = false",
        "amqp.password = 'hunter2'",
        "upstream.password = 'hunter2'",
        "upstream.credentials = 'hunter2'",
        "upstream = ['hunter2', {}]",
        "upstrem.password = 'hunter2'",
        "listen.admin_tokn = 'hunter2'",
        "listen.usrs = ['hunter2']",
        "push.tokns = ['hunter2']",
        "metrics.notfy = ['http://h/hunter2']",
        "upstream.pw = 'hunter2'",
        "listen.admin_token = 'hunter2 hunter2'",
        "listen.admin_token = ['hunter2']",
        "listen.users = [{ name = 'a', password = 'hunter2', x = 1 }]",
        "listen.users = 'hunter2'",
        "[[users]]\npassword = 'hunter2'",
        "listen.admin_token = 'hunter2",
        "listen.url = ['redis://a:hunter2@h', 'redis://b:hunter2@h']",
        "'redis://a:hunter2@h' = 5",
        "[[event]]\nrouting_key = 'redis://u:hunter2@h '",
        "['redis://a:hunter2@h']\n['redis://a:hunter2@h']",
        "[[alert]]\nname = 'amqp://a:hunter2@h'\nwehn = 'hit_rate < 5%'",
        "[[alert]]\nname = 'amqp://a:hunter2@h'\nwhen = 'never'",
        "[[alert]]\nname = 'amqp://a:hunter2@h'",
    ],
)
def test_load_secret_in_a_wrong_value_is_not_shown(fail: Fail, text: str) -> None:
    """A problem is printed and logged; it holds no password and no token."""
    shown = "\n".join(str(problem) for problem in fail(text).values())

    assert shown
    assert "hunter2" not in shown


def test_load_syntax_error_names_file_and_line(fail: Fail, tmp_path: Path) -> None:
    """A file that is no TOML is one problem, with the line to go to."""
    (problem,) = fail('[listen]\nurl = "redis://h"\nadmin = = 1\n', {"RESPITE_LISTEN": "nonsense"}).values()

    assert str(tmp_path / "respite.toml") == problem.path
    assert "line 3" in problem.allowed


def test_load_file_that_is_not_utf8_is_a_problem(tmp_path: Path) -> None:
    """A file in another encoding is refused with the place."""
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# caf\xe9\n")

    with pytest.raises(ConfigError, match="byte 5: a configuration is UTF-8 text"):
        load_settings(path, env={}, overrides={})


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_load_file_that_cannot_be_read_is_a_problem(tmp_path: Path, name: str) -> None:
    """A file that was named and is not there is never taken for an empty one."""
    with pytest.raises(ConfigError, match="it cannot be read"):
        load_settings(tmp_path / name, env={}, overrides={})


def test_load_huge_wrong_value_is_cut_short(fail: Fail) -> None:
    """A problem stays readable."""
    problem = fail(f"log.level = '{'x' * 10_000}'")["log.level"]

    assert len(problem.value) < 200
