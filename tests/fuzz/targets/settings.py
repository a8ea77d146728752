"""Configuration files: whatever is in one, it is settings or problems.

What must hold: ConfigError with at least one problem, each of which can be shown in a line, or settings that can be
compared, merged and compiled to rules; never anything else, and no password in a problem.
"""

from __future__ import annotations

import random
import tempfile
import tomllib
from pathlib import Path
from typing import Final

from proxy.config import (
    alerts,
    classes,
    endpoint,
    event_kinds,
    event_rules,
    keys,
    kinds,
    load,
    problems,
    push,
    reload,
    rules,
    tables,
    units,
)
from proxy.config.key import Tables
from proxy.config.keys import KEYS
from proxy.config.load import default_settings, load_settings
from proxy.config.reload import compare, merge_live
from proxy.errors import ConfigError
from proxy.events.mapping import Mapper
from proxy.values.rules import Rules

from ..target import Target, expect

_CONF: Final = Path(__file__).parents[3] / "conf"
_DEFAULTS: Final = default_settings()
SECRET: Final = "hunter2"
"""Stands where seeds have a password."""

_VALUES: Final = (
    *(
        '""',
        '"x"',
        "0",
        "1",
        "-1",
        "true",
        "false",
        "1.5",
        "nan",
        "inf",
        "[]",
        '["*"]',
        "{}",
        "[[]]",
        '"1s"',
        '"64MiB"',
    ),
    *(f'"redis://u:{SECRET}@h:1/2"', f'"amqp://u:{SECRET}@h/v"', '"unix:///s"', '"http://h:1"', '"rediss://[::1"'),
    *('"0ms"', '"1e9d"', '"9999999999999999999TiB"', '"ticket:*"', '"{1}"', '"tag:{1}"', '"{body.id}"', '"a.*.#"'),
    *("2024-11-22T10:40:00Z", "0x7fffffffffffffff", "9" * 40, '"hit_rate < 85%"', '["log"]', '"\\u0000"', "'''\n'''"),
)


def _names() -> list[str]:
    """Return the paths of all keys, those of tables in an array behind a header of their own."""
    found = []
    for key in KEYS:
        if isinstance(key.kind, Tables):
            found += [f"[[{key.path}]]\n{one.path}" for one in key.kind.keys]
        else:
            found.append(key.path)
    return found


_NAMES: Final = _names()


def _run(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(prefix="respite-fuzz-", suffix=".toml") as file:
        file.write(data)
        file.flush()
        try:
            found = load_settings(Path(file.name), env={}, overrides={})
        except ConfigError as exc:
            expect(exc.problems, "no settings, and no problem")
            for problem in exc.problems:
                expect(problem.path and problem.allowed, "a problem without words", problem)
                if _holds_secret_rightly(data):
                    expect(SECRET not in str(problem), "a password in a problem", problem)
            return
    expect(found == merge_live(found, found), "merged with itself it is another", found)
    merged = merge_live(_DEFAULTS, found)
    changes = compare(merged, found)
    expect(not changes.live, "what was merged is not merged", changes)
    compiled = Rules(found.classes)
    for key in (b"", b"ticket:7", b"a\n\xff"):
        compiled.find(key)
    Mapper(found.events)


def _holds_secret_rightly(data: bytes) -> bool:
    """Say whether a password stands in the file only where one is written: as a value between : and @ of a URL."""
    text = data.decode("utf-8", "replace")
    return text.count(SECRET) == text.count(f"://u:{SECRET}@h") and _is_toml(text)


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _make(rng: random.Random) -> bytes:
    lines = [f"{rng.choice(_NAMES)} = {rng.choice(_VALUES)}" for _ in range(rng.randrange(1, 6))]
    lines.sort(key=lambda line: line.startswith("[["))  # what follows a header belongs to it
    return "\n".join(lines).encode()


def _paragraphs(path: Path) -> list[bytes]:
    """Return the tables of a file, each by itself; comments are left out."""
    kept = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return ["\n".join(kept).encode()[:1000], *(f"[{one}"[:600].encode() for one in "\n".join(kept).split("\n[")[1:])]


TOML: Final = Target(
    "toml",
    _run,
    [
        *(load, tables, problems, kinds, keys, rules, classes, event_kinds, event_rules, alerts, endpoint, units, push),
        reload,
    ],
    [b"", *_paragraphs(_CONF / "respite.toml"), b'[[class]]\nname = "c"\nmatch = ["t:*"]\nversion = true\n'],
    [
        *(name.encode() for name in _NAMES),
        *(value.encode() for value in _VALUES),
        *(b"\n", b" = ", b"=", b"[", b"]", b"[[class]]", b"[[event]]", b"[listen]", b'"""', b"'", b"#", b"\xff", b"\0"),
        *(b"\xef\xbb\xbf", b"\r", b"{ a = ", b"[[[[", b'"\\ud800"', b"1_0", b"+1", b"0o7", b".", b"''"),
    ],
    _make,
    max_bytes=1000,
    short_inputs=40,
)
