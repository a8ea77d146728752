"""The words for what is wrong with a configuration, and what of it is shown: never a secret, never a page.

Words only; what is wrong is found in `load.py` and `tables.py`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Final

import attrs

from proxy.config.endpoint import hide_credentials
from proxy.config.key import Key
from proxy.errors import Problem

_MASK: Final = '"***"'
_SHOWN_CHARACTERS: Final = 120
# A key that nobody knows may still hold what nobody shall read; so may one that is a slip away from one of these.
_SECRET_NAMES: Final = ("pass", "pw", "token", "secret", "auth", "user", "credential", "key", "notify")


@attrs.frozen
class Written:
    """A value as somebody wrote it; `source` names who, "" for the file."""

    value: object
    source: str = ""


def wrong_value(key: Key, path: str, one: Written, allowed: str, reason: str = "") -> Problem:
    """Say what the key at `path` may be, and where its value comes from when it is not the file."""
    because = f" ({hide_credentials(reason)})" if reason else ""
    origin = f"; it comes from {one.source}" if one.source else ""
    shown = _MASK if key.secret and one.value else shorten(one.value)
    return _problem(path, shown, f"{allowed}{because}{origin}")


def missing_value(path: str, allowed: str) -> Problem:
    """Say that a key must be there."""
    return _problem(path, "nothing", f"needed: {allowed}")


def no_such_key(path: str, value: object, known: Sequence[str], *, array: str = "") -> Problem:
    """Refuse a key that nobody ever heard of, with the nearest of those that are known.

    `array` is the array of tables that the key stands in, "" for none: its path then holds the name of one of them.
    """
    leaf = path.rpartition(".")[2]
    nearest = _nearest(path, leaf, known, array, is_table=isinstance(value, dict | list))
    meant = nearest.rpartition(".")[2]
    shown = _MASK if any(name in one.lower() for name in _SECRET_NAMES for one in (leaf, meant)) else shorten(value)
    return _problem(path, shown, "no such key", nearest)


def _problem(path: str, shown: str, allowed: str, nearest: str = "") -> Problem:
    """Name the place without a password, too: keys and names of tables are what somebody wrote: URLs, or nothing."""
    return Problem(hide_credentials(path) or '""', shown, allowed, nearest)


def _nearest(path: str, leaf: str, known: Sequence[str], array: str, *, is_table: bool) -> str:
    if is_table and "." not in path:
        found = difflib.get_close_matches(path, sorted({name.partition(".")[0] for name in known}), n=1)
    elif same_leaf := [name for name in known if name.rpartition(".")[2] == leaf]:
        # A right name in the wrong table is the likelier slip than a wrong name in the right one.
        found = difflib.get_close_matches(path, same_leaf, n=1, cutoff=0.0)
    elif array:
        # Without the table's own part, which all of them share and which would make strangers look alike.
        names = [name.removeprefix(f"{array}.") for name in known if name.startswith(f"{array}.")]
        found = [f"{array}.{name}" for name in difflib.get_close_matches(leaf, names, n=1)]
    else:
        found = difflib.get_close_matches(path, known, n=1)
    return found[0] if found else ""


def shorten(value: object) -> str:
    """Show a value as TOML would, about; tables not at all, texts up to a length, URLs without their passwords."""
    if isinstance(value, dict):
        return "{...}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[...]"
    text = hide_credentials(json.dumps(value, default=str, ensure_ascii=False))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
