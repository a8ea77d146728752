"""What is said about one key, and about an array of tables, which is one key with keys of its own.

Only the forms; the keys themselves are in `keys.py`, those of [[class]] in `classes.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from proxy.config.kinds import Kind


@attrs.frozen
class Tables:
    """An array of tables, each headed [[name]].

    `keys` are those of one table, their paths and fields without the table's. `build` makes its settings of them, by
    field. `agreements` are (key to report, what is wrong or ""), asked once all keys of a table are right by
    themselves. A key "name" is the table's own: no two have the same.
    """

    allowed: str
    keys: tuple[Key, ...]
    build: Callable[..., Any]
    agreements: tuple[tuple[str, Callable[[Any], str]], ...] = ()


@attrs.frozen
class Key:
    """One key.

    `path` is dotted as in the file, `field` dotted as in `Settings`, `default` the value as a file would write it,
    `live` whether a running proxy takes a changed value at once, `help` one line on when to change it. The value of
    a `secret` key is never shown. In a table of an array, `default` None is no value at all, and a key that is
    `needed` must be there.
    """

    path: str
    field: str
    kind: Kind | Tables
    default: object
    live: bool
    help: str
    secret: bool = False
    needed: bool = False
