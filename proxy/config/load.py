r"""From a file, the environment and the command line to `Settings`, or to every problem at once.

    flags > RESPITE_LISTEN, RESPITE_UPSTREAM (else REDIS_URL) > file > defaults
      \________________ _written: dotted path -> value as written ________________/
                              |  Key.read, one key at a time
                              v
                          Settings -- RULES, what keys must agree on --> Settings or ConfigError

Reads one file and changes nothing. What a key is called and may be stands in `keys.py`, not here.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from proxy.config.endpoint import hide_credentials
from proxy.config.keys import KEYS, LATER, Key
from proxy.config.model import L1, Listen, Log, Rollout, Settings, TlsClient, TlsServer, Upstream
from proxy.config.rules import RULES
from proxy.errors import ConfigError, Problem

_NOT_YET = "this version does not have it yet; take it out"
_MASK = '"***"'
_SHOWN_CHARACTERS = 120
# A key that nobody knows may still hold what nobody shall read.
_SECRET_NAMES = ("pass", "token", "secret", "auth", "user", "credential")


@attrs.frozen
class _Written:
    """A value as somebody wrote it; `source` names who, "" for the file."""

    value: object
    source: str = ""


def find_config(path: Path | None, env: Mapping[str, str]) -> Path | None:
    """Say which file is read: the one given, else that of RESPITE_CONFIG, else none (then defaults hold)."""
    if path is not None:
        return path
    return Path(env["RESPITE_CONFIG"]) if env.get("RESPITE_CONFIG") else None


def default_settings() -> Settings:
    """Return the settings of an empty file."""
    return load_settings(None, env={}, overrides={})


def load_settings(path: Path | None, *, env: Mapping[str, str], overrides: Mapping[str, object]) -> Settings:
    """Read the configuration.

    `path` None means the file of RESPITE_CONFIG, or no file. `overrides` are the flags by dotted path of the key they
    set ({"listen.url": ...}); None or () stands for a flag that was not given. An environment variable that is empty
    counts as not set. Raises ConfigError with every problem found; a file that is no TOML is a problem alone.
    """
    found = find_config(path, env)
    problems: list[Problem] = []
    written = dict(_flatten(_read_file(found) if found is not None else {}, problems))
    written |= _from_environment(env)
    written |= {
        name: _Written(value, "the command line") for name, value in overrides.items() if value not in (None, ())
    }
    known = {key.path for key in KEYS}
    problems += [_stranger(name, one.value) for name, one in written.items() if name not in known]
    settings, wrong = _read_keys(written, problems)
    problems += _disagreements(settings, written, wrong)
    if problems:
        raise ConfigError(tuple(problems))
    return settings


def _read_keys(written: Mapping[str, _Written], problems: list[Problem]) -> tuple[Settings, set[str]]:
    """Read each key by itself; one that cannot be read is reported, named in the set, and stands at its default."""
    values: dict[str, Any] = {}
    wrong: set[str] = set()
    for key in KEYS:
        one = written.get(key.path, _Written(key.default))
        try:
            values[key.field] = key.kind.read(one.value)
        except ValueError as exc:
            problems.append(_problem(key, one, key.kind.allowed, str(exc)))
            values[key.field] = key.kind.read(key.default)
            wrong.add(key.path)
    return _build(values), wrong


def _disagreements(settings: Settings, written: Mapping[str, _Written], wrong: set[str]) -> Iterator[Problem]:
    """Yield what keys do not agree on, but nothing about a key that is wrong by itself."""
    by_path = {key.path: key for key in KEYS}
    for rule in RULES:
        if wrong.isdisjoint(rule.paths) and (fault := rule.fault(settings)):
            key = by_path[rule.paths[0]]
            yield _problem(key, written.get(key.path, _Written(key.default)), fault)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigError((Problem(str(path), f"byte {exc.start}", "a configuration is UTF-8 text"),)) from exc
    except OSError as exc:
        raise ConfigError((Problem(str(path), "a file", f"it cannot be read: {exc.strerror}"),)) from exc
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        # Its text ends in "(at line 3, column 7)". The line itself is not repeated: it may hold a password.
        raise ConfigError((Problem(str(path), "TOML", f"it cannot be read: {exc}"),)) from exc


def _from_environment(env: Mapping[str, str]) -> dict[str, _Written]:
    written: dict[str, _Written] = {}
    for path, names in (("listen.url", ("RESPITE_LISTEN",)), ("upstream.url", ("RESPITE_UPSTREAM", "REDIS_URL"))):
        for name in names:
            if env.get(name):
                written[path] = _Written(env[name], name)
                break
    return written


def _flatten(document: Mapping[str, Any], problems: list[Problem], prefix: str = "") -> Iterator[tuple[str, _Written]]:
    """Yield (dotted path, value) for every value; a table is descended into only where keys live below it."""
    tables = {key.path.rpartition(".")[0] for key in KEYS}
    for name, value in document.items():
        path = prefix + name
        if path not in tables:
            yield path, _Written(value)
        elif isinstance(value, dict):
            yield from _flatten(value, problems, f"{path}.")
        else:
            problems.append(Problem(path, _shorten(value), f"a table: [{path}]"))


def _stranger(path: str, value: object) -> Problem:
    """Describe a key that no table of ours knows: one that comes later, or one that nobody ever heard of."""
    if path in LATER:
        return Problem(path, _shorten(value), _NOT_YET)
    leaf = path.rpartition(".")[2]
    shown = _MASK if any(name in leaf.lower() for name in _SECRET_NAMES) else _shorten(value)
    known = [key.path for key in KEYS]
    tables = sorted({name.partition(".")[0] for name in known})
    if isinstance(value, dict | list) and "." not in path:
        nearest = difflib.get_close_matches(path, tables, n=1)
    else:
        # A right name in the wrong table is the likelier slip than a wrong name in the right one.
        same_leaf = [name for name in known if name.rpartition(".")[2] == leaf]
        nearest = difflib.get_close_matches(path, same_leaf or known, n=1, cutoff=0.0 if same_leaf else 0.6)
    return Problem(path, shown, "no such key", nearest[0] if nearest else "")


def _build(values: Mapping[str, Any]) -> Settings:
    def below(table: str) -> dict[str, Any]:
        prefix = f"{table}."
        names = ((name.removeprefix(prefix), value) for name, value in values.items() if name.startswith(prefix))
        return {name: value for name, value in names if "." not in name}

    return Settings(
        listen=Listen(tls=TlsServer(**below("listen.tls")), **below("listen")),
        upstream=Upstream(tls=TlsClient(**below("upstream.tls")), **below("upstream")),
        l1=L1(**below("l1")),
        rollout=Rollout(**below("rollout")),
        log=Log(**below("log")),
    )


def _problem(key: Key, one: _Written, allowed: str, reason: str = "") -> Problem:
    because = f" ({reason})" if reason else ""
    origin = f"; it comes from {one.source}" if one.source else ""
    shown = _MASK if key.secret and one.value else _shorten(one.value)
    return Problem(key.path, shown, f"{allowed}{because}{origin}")


def _shorten(value: object) -> str:
    if isinstance(value, dict):
        return "{...}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[...]"
    text = hide_credentials(json.dumps(value, default=str, ensure_ascii=False))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
