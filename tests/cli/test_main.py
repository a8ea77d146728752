"""`respite run` and `respite check`: which settings they arrive at, what is printed where, and the exit code."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.config.model import Settings
from proxy.errors import ConfigError, ListenError

from .typing_in import type_in


def _file(directory: Path, text: str) -> str:
    path = directory / "respite.toml"
    path.write_text(text)
    return str(path)


class _App(types.ModuleType):
    """Stands for `proxy.app`: notes what it was asked to run, and leaves with a code or an error."""

    def __init__(self) -> None:
        super().__init__("proxy.app")
        self.asked: list[tuple[Settings, Callable[[], Settings]]] = []
        self.replaces: list[bool] = []
        self.outcome: int | Exception = 0

    def run(self, settings: Settings, reload: Callable[[], Settings], *, replaces: bool) -> int:
        """Note it."""
        self.asked.append((settings, reload))
        self.replaces.append(replaces)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> _App:
    """Put a proxy that starts nothing in the place of the real one."""
    module = _App()
    monkeypatch.setitem(sys.modules, "proxy.app", module)
    return module


def test_run_hands_flags_over_above_environment_and_file(
    app: _App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags stand above the environment, that above the file."""
    path = _file(tmp_path, '[listen]\nurl = "redis://127.0.0.1:1"\nmax_clients = 7\n[upstream]\nurl = "redis://file"\n')
    monkeypatch.setenv("RESPITE_UPSTREAM", "redis://env")
    monkeypatch.setenv("RESPITE_LISTEN", "redis://127.0.0.1:2")

    result = type_in(
        "run", "-c", path, "--listen", "redis://127.0.0.1:3", "--listen", "unix:///tmp/r.sock", "--admin", ""
    )

    assert (result.exit_code, result.output) == (0, "")
    [(settings, _)] = app.asked
    assert [one.display for one in settings.listen.urls] == ["redis://127.0.0.1:3", "unix:///tmp/r.sock"]
    assert settings.listen.admin == ""
    assert settings.listen.max_clients == 7
    assert settings.upstream.endpoint is not None
    assert settings.upstream.endpoint.host == "env"


def test_run_without_flags_takes_the_file_of_the_environment(
    app: _App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RESPITE_CONFIG names the file when no flag does."""
    path = _file(tmp_path, '[log]\nlevel = "debug"\n')
    monkeypatch.setenv("RESPITE_CONFIG", path)

    type_in("run")

    [(settings, _)] = app.asked
    assert settings.log.level == "debug"


def test_run_gives_the_proxy_a_way_to_read_the_same_again(app: _App, tmp_path: Path) -> None:
    """A reload reads the file as it is then, below the flags of this run; one with problems raises."""
    path = _file(tmp_path, "[listen]\nmax_clients = 7\n")
    type_in("run", "-c", path, "--log-level", "error")
    [(_, reload)] = app.asked
    _file(tmp_path, '[listen]\nmax_clients = 8\n[log]\nlevel = "debug"\n')

    settings = reload()

    assert (settings.listen.max_clients, settings.log.level) == (8, "error")
    _file(tmp_path, "[listen]\nmax_clients = 0\n")
    with pytest.raises(ConfigError):
        reload()


def test_run_embedded_stands_above_a_configured_upstream(app: _App, monkeypatch: pytest.MonkeyPatch) -> None:
    """--embedded takes a Redis of our own though the environment names one."""
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")

    type_in("run", "--embedded", "--log-level", "error", "--log-format", "json", "--workers", "1")

    [(settings, _)] = app.asked
    assert settings.upstream.endpoint is None
    assert (settings.log.level, settings.log.format) == ("error", "json")


def test_run_several_workers_is_the_parent_s(app: _App, monkeypatch: pytest.MonkeyPatch) -> None:
    """From two workers on it is their parent that runs, with the same settings and the same way to read them again."""
    parent = _App()
    parent.outcome = 1
    monkeypatch.setitem(sys.modules, "proxy.supervisor.parent", parent)

    result = type_in("run", "--workers", "2")

    [(settings, reload)] = parent.asked
    assert (result.exit_code, app.asked) == (1, [])
    assert settings.listen.workers == reload().listen.workers == 2


def test_run_with_replace_takes_over_and_needs_an_upstream(app: _App, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an embedded Redis holds ends with the proxy that runs it: there is nothing to take over."""
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    type_in("run")
    type_in("run", "--replace")
    refused = type_in("run", "--replace", "--embedded")

    assert app.replaces == [False, True]
    assert refused.exit_code == 2
    assert "an embedded Redis ends with the proxy that runs it" in refused.stderr


def test_help_shows_no_command_that_is_not_for_people() -> None:
    """What the parent starts its workers with is not offered."""
    commands = type_in("--help").stdout.partition("Commands:")[2]

    assert "run" in commands
    assert "worker" not in commands


def test_run_leaves_with_the_code_of_the_proxy(app: _App) -> None:
    """What the proxy returns is the exit code."""
    app.outcome = 1

    assert type_in("run").exit_code == 1


def test_run_that_fails_to_start_says_why_in_one_line(app: _App) -> None:
    """A port that is taken is a line and exit code 1, not a traceback."""
    app.outcome = ListenError("redis://127.0.0.1:6380 cannot be bound: Address already in use")

    result = type_in("run")

    assert result.exit_code == 1
    assert result.stderr == "respite: redis://127.0.0.1:6380 cannot be bound: Address already in use\n"


def test_run_with_a_wrong_configuration_lists_every_problem_and_starts_nothing(app: _App, tmp_path: Path) -> None:
    """All problems are shown at once, those of the file and those of flags; exit code 2."""
    path = _file(tmp_path, '[listen]\nmax_client = 3\nmax_pipeline = "many"\n')

    result = type_in("run", "-c", path, "--workers", "99", "--listen", "foo")

    assert (result.exit_code, result.stdout, app.asked) == (2, "", [])
    assert result.stderr.startswith("respite: the configuration has 4 problems\n")
    for words in (
        'listen.url = ["foo"]',
        "listen.workers = 99",
        'listen.max_pipeline = "many"',
        "listen.max_client = 3",
        "did you mean listen.max_clients?",
    ):
        assert words in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--embedded", "--upstream", "redis://h"),
        ("run", "--workers", "many"),
        ("run", "--log-level", "loud"),
        ("run", "--log-format", "xml"),
        ("run", "extra"),
        ("explain",),
        ("explain", "a", "b"),
        ("stats", "--admin", "redis://127.0.0.1:6390"),
        ("stats", "--token", "a\nb"),
        ("invalidate",),
        ("invalidate", "k", "--db", "-1"),
        ("invalidate", "k", "--match", ""),
        ("invalidate", "k", "--tag", ""),
        ("unwrap",),
        ("unwrap", "--match", "*"),
        ("unwrap", "--match", "*", "--rate", "0"),
        ("bogus",),
        ("--bogus",),
        (),
    ],
)
def test_wrong_usage_is_exit_code_2(app: _App, words: tuple[str, ...]) -> None:
    """Whatever is typed wrongly is said on stderr, and nothing is started."""
    result = type_in(*words)

    assert (result.exit_code, app.asked) == (2, [])
    assert "Usage: respite" in result.stderr


def test_check_good_file_is_fine(tmp_path: Path) -> None:
    """A file without problems is named and exit code 0."""
    path = _file(tmp_path, '[l1]\nmax_bytes = "1MiB"\n')

    result = type_in("check", "-c", path)

    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{path} is fine\n", "")


def test_check_without_a_file_judges_defaults_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file there is still the environment to be wrong."""
    assert type_in("check").exit_code == 0
    monkeypatch.setenv("RESPITE_UPSTREAM", "http://redis")

    result = type_in("check")

    assert result.exit_code == 2
    assert "RESPITE_UPSTREAM" in result.stderr


def test_check_bad_file_lists_every_problem(tmp_path: Path) -> None:
    """Each problem is its path and value on one line, and below it what is allowed."""
    path = _file(tmp_path, '[listen]\nmax_clients = 0\nmax_pipelin = 1\n[rollout]\nmode = "half"\n')

    result = type_in("check", "-c", path)

    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert lines[0] == "respite: the configuration has 3 problems"
    assert "  listen.max_clients = 0" in lines
    assert "    no such key; did you mean listen.max_pipeline?" in lines
    assert '  rollout.mode = "half"' in lines


def test_check_json_is_for_scripts(tmp_path: Path) -> None:
    """With --json the problems are data on stdout, and the exit code is the same."""
    path = _file(tmp_path, "[listen]\nmax_client = 3\n")

    result = type_in("check", "-c", path, "--json")

    assert (result.exit_code, result.stderr) == (2, "")
    problem = {"path": "listen.max_client", "value": "3", "allowed": "no such key", "nearest": "listen.max_clients"}
    assert json.loads(result.stdout) == {"ok": False, "problems": [problem]}


def test_check_json_of_a_good_file(tmp_path: Path) -> None:
    """A script sees that all is well in the same shape."""
    shown = json.loads(type_in("check", "-c", _file(tmp_path, ""), "--json").stdout)

    assert shown == {"ok": True, "problems": [], "warnings": []}


def test_check_warns_of_a_class_that_can_never_match(tmp_path: Path) -> None:
    """A class that an earlier one leaves no key is allowed, and told."""
    path = _file(tmp_path, '[[class]]\nname = "all"\nmatch = ["*"]\n[[class]]\nname = "none"\nmatch = ["a:*"]\n')

    result = type_in("check", "-c", path)

    assert result.exit_code == 0
    assert "respite: warning: class.none can never match" in result.stderr
    (told,) = json.loads(type_in("check", "-c", path, "--json").stdout)["warnings"]
    assert "can never match" in told


def test_check_file_that_does_not_exist_is_exit_code_2() -> None:
    """A missing file is a problem of the configuration, by name."""
    result = type_in("check", "-c", "/nonexistent/respite.toml")

    assert result.exit_code == 2
    assert "/nonexistent/respite.toml" in result.stderr
