r"""From a file, the environment and the command line to `Settings`, or to every problem at once.

    flags > RESPITE_LISTEN, RESPITE_UPSTREAM (else REDIS_URL), RESPITE_AMQP > file > defaults
      \_______________________ _written: dotted path -> value as written ____________________/
                              |  Key.read, one key at a time
                              v
                          Settings -- RULES, what keys must agree on --> Settings or ConfigError

Reads one file and changes nothing. What a key is called and may be stands in `keys.py`, the words for what is wrong in
`problems.py`, how an array of tables is read in `tables.py`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from proxy.config.endpoint import hide_credentials
from proxy.config.key import Tables
from proxy.config.keys import KEYS
from proxy.config.model import (
    L1,
    Amqp,
    Compression,
    Listen,
    Log,
    Metrics,
    Otel,
    Outage,
    Push,
    Retry,
    Rollout,
    Settings,
    TlsClient,
    TlsServer,
    Ttl,
    Tuning,
    Upstream,
)
from proxy.config.problems import Written, no_such_key, shorten, wrong_value
from proxy.config.rules import RULES
from proxy.config.tables import read_tables
from proxy.errors import ConfigError, Problem

_VARIABLES: Final = (
    ("listen.url", ("RESPITE_LISTEN",)),
    ("upstream.url", ("RESPITE_UPSTREAM", "REDIS_URL")),
    ("amqp.url", ("RESPITE_AMQP",)),
)


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
        name: Written(value, "the command line") for name, value in overrides.items() if value not in (None, ())
    }
    known = {key.path for key in KEYS}
    problems += [_stranger(name, one.value) for name, one in written.items() if name not in known]
    settings, wrong = _read_keys(written, problems)
    problems += _disagreements(settings, written, wrong)
    if problems:
        raise ConfigError(tuple(problems))
    return settings


def _read_keys(written: Mapping[str, Written], problems: list[Problem]) -> tuple[Settings, set[str]]:
    """Read each key by itself; one that cannot be read is reported, named in the set, and stands at its default."""
    values: dict[str, Any] = {}
    wrong: set[str] = set()
    for key in KEYS:
        one = written.get(key.path, Written(key.default))
        if isinstance(key.kind, Tables):
            values[key.field] = read_tables(key, key.kind, one, _known_paths(), problems)
            continue
        try:
            values[key.field] = key.kind.read(one.value)
        except (ValueError, OverflowError) as exc:
            problems.append(wrong_value(key, key.path, one, key.kind.allowed, str(exc)))
            values[key.field] = key.kind.read(key.default)
            wrong.add(key.path)
    return _build(values), wrong


def _disagreements(settings: Settings, written: Mapping[str, Written], wrong: set[str]) -> Iterator[Problem]:
    """Yield what keys do not agree on, but nothing about a key that is wrong by itself."""
    by_path = {key.path: key for key in KEYS}
    for rule in RULES:
        if wrong.isdisjoint(rule.paths) and (fault := rule.fault(settings)):
            key = by_path[rule.paths[0]]
            yield wrong_value(key, key.path, written.get(key.path, Written(key.default)), fault)


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
        why = hide_credentials(str(exc))  # it names keys that stand there twice
        raise ConfigError((Problem(str(path), "TOML", f"it cannot be read: {why}"),)) from exc
    except (ValueError, RecursionError) as exc:  # a number of thousands of digits, lists in lists in lists
        why = "something in it is larger, or deeper, than anything can be"
        raise ConfigError((Problem(str(path), "TOML", f"it cannot be read: {why}"),)) from exc


def _from_environment(env: Mapping[str, str]) -> dict[str, Written]:
    written: dict[str, Written] = {}
    for path, names in _VARIABLES:
        for name in names:
            if env.get(name):
                written[path] = Written(env[name], name)
                break
    return written


def _flatten(document: Mapping[str, Any], problems: list[Problem], prefix: str = "") -> Iterator[tuple[str, Written]]:
    """Yield (dotted path, value) for every value; a table is descended into only where keys live below it."""
    tables = {key.path.rpartition(".")[0] for key in KEYS if "." in key.path}
    for name, value in document.items():
        path = prefix + name
        if path not in tables:
            yield path, Written(value)
        elif isinstance(value, dict):
            yield from _flatten(value, problems, f"{path}.")
        else:
            problems.append(Problem(path, shorten(value), f"a table: [{path}]"))


def _stranger(path: str, value: object) -> Problem:
    """Describe a key that no table of ours knows."""
    return no_such_key(path, value, _known_paths())


def _known_paths() -> list[str]:
    """List the paths of all keys, those of one table of an array as class.match."""
    known = []
    for key in KEYS:
        inner = key.kind.keys if isinstance(key.kind, Tables) else ()
        known += [f"{key.path}.{one.path}" for one in inner] or [key.path]
    return known


def _build(values: Mapping[str, Any]) -> Settings:
    def below(table: str) -> dict[str, Any]:
        prefix = f"{table}."
        names = ((name.removeprefix(prefix), value) for name, value in values.items() if name.startswith(prefix))
        return {name: value for name, value in names if "." not in name}

    return Settings(
        listen=Listen(tls=TlsServer(**below("listen.tls")), **below("listen")),
        upstream=Upstream(tls=TlsClient(**below("upstream.tls")), **below("upstream")),
        amqp=Amqp(retry=Retry(**below("amqp.retry")), tls=TlsClient(**below("amqp.tls")), **below("amqp")),
        l1=L1(**below("l1")),
        rollout=Rollout(**below("rollout")),
        ttl=Ttl(**below("ttl")),
        compression=Compression(**below("compression")),
        outage=Outage(**below("outage")),
        push=Push(**below("push")),
        log=Log(**below("log")),
        classes=values["classes"],
        events=values["events"],
        metrics=Metrics(**below("metrics")),
        alerts=values["alerts"],
        tuning=Tuning(**below("tuning")),
        otel=Otel(**below("otel")),
    )
