"""Every key of a [[class]], declared once, as `keys.py` declares the others, and what they must agree on."""

from __future__ import annotations

from typing import Final

from proxy.config import kinds
from proxy.config.key import Key, Tables
from proxy.config.kinds import Kind
from proxy.config.model import ClassSettings

_HOUR = 3600.0


def _key(path: str, kind: Kind, default: object, when: str, *, field: str = "", needed: bool = False) -> Key:
    return Key(path, field or path, kind, default, live=True, help=when, needed=needed)


def _staleness_outside_l1(settings: ClassSettings) -> str:
    return "of no effect with l1 = false" if settings.max_staleness_s is not None and not settings.l1 else ""


def _stale_outside_l1(settings: ClassSettings) -> str:
    return "'stale' needs l1 = true: that is where the old value is" if _is_stale(settings) and not settings.l1 else ""


def _stale_without_lease(settings: ClassSettings) -> str:
    return "'stale' needs a recompute_lease" if _is_stale(settings) and not settings.recompute_lease_s else ""


def _is_stale(settings: ClassSettings) -> bool:
    return settings.while_recomputed == "stale"


CLASSES: Final = Tables(
    allowed="any number of tables, each headed [[class]]",
    build=ClassSettings,
    keys=(
        _key(
            "name",
            kinds.class_name(),
            None,
            "What the class is called in logs, figures and RESPITE EXPLAIN: letters, digits, - and _; no two the same.",
            needed=True,
        ),
        _key(
            "match",
            kinds.globs(),
            None,
            r"Its keys, as KEYS of Redis has them: * is any bytes, ? one byte, [a-c] [^a] one of a set, \? a ? itself.",
            needed=True,
        ),
        _key(
            "l1",
            kinds.flag(),
            True,
            "Set to false for keys that must never be kept in L1.",
        ),
        _key(
            "max_staleness",
            kinds.seconds(0.01, _HOUR),
            None,
            "Set for data that must be fresher than the rest; left out, l1.max_staleness holds.",
            field="max_staleness_s",
        ),
        _key(
            "recompute_lease",
            kinds.seconds(0.01, _HOUR, or_zero="off"),
            "0s",
            "Set to how long your app may take to make a missing value, if that is dear: of all readers, one makes it.",
            field="recompute_lease_s",
        ),
        _key(
            "while_recomputed",
            kinds.choice("wait", "stale"),
            "wait",
            'Set to "stale" if the other readers shall get the old value, where L1 still has it, instead of waiting.',
        ),
    ),
    agreements=(
        ("max_staleness", _staleness_outside_l1),
        ("while_recomputed", _stale_outside_l1),
        ("while_recomputed", _stale_without_lease),
    ),
    later=frozenset(
        {
            "ttl",
            "adaptive_ttl",
            "ttl_when_missing",
            "min_ttl",
            "max_ttl",
            "compress",
            "dictionary",
            "version",
            "stale_if_error",
            "offline",
            "tags",
            "invalidates",
        }
    ),
)
