"""Values for every key that a reload applies: two for each, found by asking the configuration itself what it takes.

A key that is added is found here without a word; one whose values cannot be guessed, or would bother the clients of a
test, is named in `CHOSEN`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from proxy.config.key import Key, Tables
from proxy.config.keys import KEYS
from proxy.config.load import load_settings
from proxy.config.model import Settings
from proxy.errors import ConfigError

from .targets import to_toml

GUESSES: Final[Sequence[object]] = (
    *(
        True,
        False,
        3,
        7,
        1000,
        2000,
        0.2,
        0.3,
        "3s",
        "7s",
        "20m",
        "40m",
        "2MiB",
        "3MiB",
        "300MiB",
        "400MiB",
        "2GiB",
        "3GiB",
    ),
    *(["log"], [], ["FT.SEARCH"], ["FT.SEARCH", "JSON.GET"], ["https://one.example"], ["https://two.example"]),
)
CHOSEN: Final[dict[str, Sequence[object]]] = {
    "listen.max_clients": (500, 600),
    "listen.idle_timeout": ("1h", "2h"),
    "listen.drain_delay": ("1ms", "2ms"),
    "listen.max_pinned_per_address": (100, 200),
    "upstream.max_waiting": (50_000, 60_000),
    "listen.max_clients_per_address": (500, 600),
    "listen.users": ([{"name": "ann", "password": "x"}], [{"name": "ben", "password": "y"}]),
    "listen.allow_commands": (["@all"], ["@all", "get"]),
    "listen.deny_commands": (["flushall"], ["flushall", "debug"]),
    "listen.rate_limit": (100_000, 200_000),
    "listen.rate_burst": (100_000, 200_000),
    "push.tokens": (
        [{"token": "a" * 32, "channels": ["one:*"]}],
        [{"token": "b" * 32, "channels": ["two:*"]}],
    ),
    "event": ([{"routing_key": "a.*", "keys": ["a"]}], [{"routing_key": "b.*", "keys": ["b"]}]),
    "alert": (
        [{"name": "one", "when": "hit_rate < 0.5", "for": "60s", "notify": ["log"]}],
        [{"name": "two", "when": "hit_rate < 0.6", "for": "60s", "notify": ["log"]}],
    ),
    "class.name": ("one", "two"),
    "class.match": (["load*"], ["load*", "other:*"]),
    "class.tags": (["t"], ["t", "u"]),
    "class.invalidates": (["other:1"], ["other:2"]),
}
CLASS: Final[dict[str, object]] = {  # what a class says besides: some keys need others
    "name": "all",
    "match": ["load*"],
    "ttl": "10m",
    "l1": True,
    "version": True,
    "compress": True,
    "recompute_lease": "1s",
}


@attrs.frozen
class Change:
    """What one reload changes: the key, and the sections of the file with it."""

    key: str
    sections: dict[str, Any]


def changes(base: dict[str, Any], scratch: Path, every: int = 1) -> Iterator[Change]:
    """Yield two changes for every live key, or for every so many-th, each on top of `base`.

    AssertionError names a key that has no values.
    """
    for key in _live_keys()[::every]:
        if key.path.startswith("class."):
            yield from _of_class(key, base, scratch)
        else:
            section, _, name = key.path.rpartition(".")
            yield from _two(key, base, scratch, lambda value, s=section, n=name: _with(base, s, n, value))  # type: ignore[misc]


def _live_keys() -> list[Key]:
    """Return every key that is live, those of a class each by itself."""
    found = [key for key in KEYS if key.live and key.path != "class"]
    (classes,) = (key.kind for key in KEYS if key.path == "class")
    assert isinstance(classes, Tables)
    return [*found, *(attrs.evolve(key, path=f"class.{key.path}") for key in classes.keys)]


def _of_class(key: Key, base: dict[str, Any], scratch: Path) -> Iterator[Change]:
    def made(value: object) -> dict[str, Any]:
        return {**base, "class": [{**CLASS, key.path.removeprefix("class."): value}]}

    yield from _two(key, {**base, "class": [CLASS]}, scratch, made)


def _with(base: dict[str, Any], section: str, name: str, value: object) -> dict[str, Any]:
    if not section:
        return {**base, name: value}
    head, _, table = section.partition(".")
    inner = {table: {name: value}} if table else {name: value}
    return {**base, head: {**base.get(head, {}), **inner}}


def _two(key: Key, origin: dict[str, Any], scratch: Path, made: Callable[[object], dict[str, Any]]) -> Iterator[Change]:
    """Yield two changes that differ from `origin` and from each other; a flag has one, and the way back."""
    seen = [_read(origin, scratch)]
    for value in CHOSEN.get(key.path) or (*_words(key), *GUESSES):
        sections = made(value)
        settings = _read(sections, scratch)
        if settings is not None and settings not in seen:
            seen.append(settings)
            yield Change(key.path, sections)
        if len(seen) == 3:
            return
    assert len(seen) == 2, f"tests/e2e/live_keys.py: no two values for {key.path}"
    yield Change(key.path, origin)


def _words(key: Key) -> list[str]:
    """Return the words of a choice, as it says them itself."""
    return re.findall(r"[a-z0-9_]+", key.kind.allowed)


def _read(sections: dict[str, Any], scratch: Path) -> Settings | None:
    scratch.write_text(to_toml(sections))
    try:
        return load_settings(scratch, env={}, overrides={})
    except ConfigError:
        return None
