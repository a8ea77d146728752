"""What changed between two configurations, and what of it a running proxy can take at once.

Compares and merges values; applies nothing. Which keys are live is said in `keys.py`.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import attrs

from proxy.config.keys import KEYS
from proxy.config.model import Settings


@attrs.frozen
class Changes:
    """Dotted paths of the keys that differ: those that apply at once, and those that need a restart."""

    live: tuple[str, ...]
    restart: tuple[str, ...]


def compare(old: Settings, new: Settings) -> Changes:
    """Say which keys differ, in the order of the file."""
    changed = [key for key in KEYS if attrgetter(key.field)(old) != attrgetter(key.field)(new)]
    return Changes(
        live=tuple(key.path for key in changed if key.live),
        restart=tuple(key.path for key in changed if not key.live),
    )


def merge_live(old: Settings, new: Settings) -> Settings:
    """Return `old` with the live keys of `new`: what a proxy runs with after a reload, until it is restarted.

    Comparing the result with `new` again names exactly the keys that still wait for the restart.
    """
    merged: Any = old
    for key in KEYS:
        if key.live:
            merged = _replace(merged, key.field.split("."), attrgetter(key.field)(new))
    assert isinstance(merged, Settings)
    return merged


def _replace(node: Any, names: list[str], value: object) -> Any:
    if len(names) > 1:
        value = _replace(getattr(node, names[0]), names[1:], value)
    return attrs.evolve(node, **{names[0]: value})
