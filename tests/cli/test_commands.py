"""The commands that ask a running proxy: what is printed, and the exit code."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from proxy.errors import RemoteError
from proxy.events.event import Event

from ..admin.fakes import STATS, FakeSource
from .conftest import Serve
from .typing_in import type_in

_NOWHERE = "http://127.0.0.1:1"
_DEADLINE_S = 20.0


def test_stats_draws_the_figures_of_the_running_proxy(serve: Serve) -> None:
    """Without flags the figures are drawn for people, 80 columns wide."""
    url = serve(FakeSource())

    result = type_in("stats", "--admin", url)

    assert (result.exit_code, result.stderr) == (0, "")
    for words in ("hit rate", "87.4 %", "41.2 MiB", url, "redirect", "invalidation"):
        assert words in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) == 80


def test_stats_json_is_what_the_proxy_says(serve: Serve) -> None:
    """--json changes nothing about the figures."""
    result = type_in("stats", "--json", "--admin", serve(FakeSource()))

    assert json.loads(result.stdout) == STATS


def test_commands_find_the_admin_port_and_token_in_the_environment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RESPITE_ADMIN and RESPITE_ADMIN_TOKEN stand for the flags."""
    monkeypatch.setenv("RESPITE_ADMIN", serve(FakeSource(), "t0k"))
    assert type_in("stats", "--json").exit_code == 1
    monkeypatch.setenv("RESPITE_ADMIN_TOKEN", "t0k")

    assert type_in("stats", "--json").exit_code == 0
    assert type_in("stats", "--json", "--token", "other").exit_code == 1


def test_explain_shows_what_is_known_about_the_key(serve: Serve) -> None:
    """The answer is readable, and the key reaches the proxy as it was typed."""
    source = FakeSource()

    result = type_in("explain", "a b%c", "--admin", serve(source))

    assert source.asked == [b"a b%c"]
    assert result.exit_code == 0
    for words in ("a b%c", "state", "absent", "never read"):
        assert words in result.stdout


def test_explain_json_is_the_answer_itself(serve: Serve) -> None:
    """--json prints the object."""
    result = type_in("explain", "k", "--json", "--admin", serve(FakeSource()))

    assert json.loads(result.stdout)["l1"] == {"state": "absent", "bytes": None}


@pytest.mark.parametrize(
    ("outcome", "stdout"),
    [
        ({"applied": [], "needs_restart": [], "problems": []}, "applied: nothing has changed\n"),
        (
            {"applied": ["l1.max_bytes", "log.level"], "needs_restart": ["listen.url"], "problems": []},
            "applied: l1.max_bytes, log.level\nneeds a restart: listen.url\n",
        ),
    ],
)
def test_reload_says_what_applies_and_what_waits(serve: Serve, outcome: dict[str, Any], stdout: str) -> None:
    """A reload that worked says what it did, exit code 0."""
    result = type_in("reload", "--admin", serve(FakeSource(reloaded=outcome)))

    assert (result.exit_code, result.stdout, result.stderr) == (0, stdout, "")


@pytest.mark.parametrize(
    "problem",
    [
        "listen.prt = 3: no such key",
        {"path": "listen.prt", "value": "3", "allowed": "no such key", "nearest": "listen.url"},
    ],
)
def test_reload_of_a_wrong_file_is_exit_code_2(serve: Serve, problem: object) -> None:
    """A file with problems changes nothing, and says so; in JSON as well."""
    url = serve(FakeSource(reloaded={"applied": [], "needs_restart": [], "problems": [problem]}))

    result = type_in("reload", "--admin", url)
    as_json = type_in("reload", "--json", "--admin", url)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "nothing was changed" in result.stderr
    assert "listen.prt = 3: no such key" in result.stderr
    assert as_json.exit_code == 2
    assert json.loads(as_json.stdout)["problems"] == [problem]


def test_reload_that_some_worker_did_not_hear_is_exit_code_1(serve: Serve) -> None:
    """The file is right, and applied by the others: nobody is told that nothing was changed."""
    outcome = {"applied": ["l1.max_age"], "needs_restart": [], "problems": ["worker 0 hangs"], "partly": True}
    url = serve(FakeSource(reloaded=outcome))

    result = type_in("reload", "--admin", url)
    as_json = type_in("reload", "--json", "--admin", url)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "respite: the file is applied, but not everywhere\n  worker 0 hangs\n"
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout) == outcome


def test_drain_begins_the_end(serve: Serve) -> None:
    """A drain is passed on, and answered before it is over."""
    drained = threading.Event()
    url = serve(FakeSource(on_drain=drained.set))

    result = type_in("drain", "--admin", url)

    assert result.exit_code == 0
    assert url in result.stdout
    assert drained.wait(_DEADLINE_S)
    assert json.loads(type_in("drain", "--json", "--admin", url).stdout) == {"draining": True}


def test_drain_when_idle_waits_no_longer_than_it_is_told(serve: Serve) -> None:
    """Clients that stay are drained when the time is over; a time that is none is wrong usage."""
    drained = threading.Event()
    url = serve(FakeSource(on_drain=drained.set))  # 42 clients, for ever

    result = type_in("drain", "--when-idle", "300ms", "--admin", url)

    assert result.exit_code == 0
    assert drained.wait(_DEADLINE_S)
    wrong = type_in("drain", "--when-idle", "soon", "--admin", url)
    assert (wrong.exit_code, "a time is a number and one of" in wrong.stderr) == (2, True)


def test_drain_when_idle_of_a_proxy_that_does_not_say_how_many_there_are(serve: Serve) -> None:
    """No worker answers the parent: it waits as long as it may, then drains all the same."""
    drained = threading.Event()
    url = serve(FakeSource(answers={"clients": {"accepted_total": 1}}, on_drain=drained.set))

    result = type_in("drain", "--when-idle", "300ms", "--admin", url)

    assert result.exit_code == 0
    assert "nobody says how many clients are connected" in result.stderr
    assert drained.wait(_DEADLINE_S)


@pytest.mark.parametrize(
    "words",
    [
        "stats",
        "stats --json",
        "stats --watch",
        "stats --watch --json",
        "explain k",
        "reload",
        "drain --json",
        "invalidate k",
    ],
)
def test_commands_without_a_proxy_say_so_in_one_line(words: str) -> None:
    """Where no proxy runs: one line with what was tried and what to do, exit code 1."""
    result = type_in(*words.split(), "--admin", _NOWHERE)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"respite: no proxy answers at {_NOWHERE}")


def test_invalidate_names_what_is_typed_and_says_what_was_dropped(serve: Serve) -> None:
    """Keys of any bytes, globs and tags reach the proxy; each tier has its line."""
    source = FakeSource()
    words = ("k\udcff", "k2", "--match", "l:*", "--tag", "t", "--db", "3")

    result = type_in("invalidate", *words, "--admin", serve(source))

    assert source.asked == [Event((b"k\xff", b"k2"), (b"l:*",), (b"t",), 3)]
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [
            "Redis:  2 of 2 keys unlinked",
            "Redis:  1 of 2 fences in force; the bodies behind are swept in the background",
            "memory: 3 entries dropped; other proxies hear of it through Redis",
        ],
    )


@pytest.mark.parametrize("db", ["-1", "2147483648", "9" * 20, "x"])
def test_invalidate_in_a_database_that_cannot_be_is_wrong_usage(serve: Serve, db: str) -> None:
    """It is said before anybody is asked."""
    assert type_in("invalidate", "k", "--db", db, "--admin", serve(FakeSource())).exit_code == 2


def test_invalidate_says_nothing_of_what_was_not_asked_for(serve: Serve) -> None:
    """No key, no line about keys; no database, and the proxy takes its own; JSON is the answer itself."""
    source = FakeSource()
    url = serve(source)

    result = type_in("invalidate", "--tag", "t", "--admin", url)
    as_json = type_in("invalidate", "k", "--json", "--admin", url)

    assert source.asked == [Event(tags=(b"t",)), Event((b"k",))]
    assert "unlinked" not in result.stdout
    assert json.loads(as_json.stdout) == {"keys": 2, "entries": 3, "fences": 1}


def test_invalidate_that_failed_is_exit_code_1(serve: Serve) -> None:
    """Who asked for it in a script must see that it has not been done."""
    result = type_in("invalidate", "k", "--admin", serve(FakeSource(dropped=RemoteError("upstream unavailable"))))

    assert (result.exit_code, result.stdout) == (1, "")
    assert "upstream unavailable" in result.stderr


def test_unwrap_of_no_characters_is_wrong_usage() -> None:
    """An empty variable in a script: nothing would be looked at, and all would seem plain."""
    result = type_in("unwrap", "--match", "", "--upstream", "redis://127.0.0.1:1")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "'*' is all keys" in result.stderr
