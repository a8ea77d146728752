"""Every key of a [[class]], declared once, as `keys.py` declares the others, and what they must agree on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from proxy.config import kinds
from proxy.config.key import Key, Tables
from proxy.config.kinds import Kind
from proxy.config.model import ClassSettings
from proxy.config.templates import captures_of, highest_capture, parse_dependency, parse_template
from proxy.config.units import format_seconds

_HOUR = 3600.0
_YEAR = 365 * 86400.0


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


def _kept_outside_l1(settings: ClassSettings) -> str:
    return "needs l1 = true: it is what L1 held" if settings.stale_if_error_s and not settings.l1 else ""


def _set_without_ttl(settings: ClassSettings) -> str:
    return "'set' needs a ttl to set" if settings.ttl_when_missing == "set" and settings.ttl_s is None else ""


def _bounds_crossed(settings: ClassSettings) -> str:
    low, high = settings.min_ttl_s, settings.max_ttl_s
    return f"at most max_ttl ({format_seconds(high)})" if low is not None and high is not None and low > high else ""


def _tag_without_capture(settings: ClassSettings) -> str:
    return _missing_capture(settings, settings.tags, parse_template)


def _dependency_without_capture(settings: ClassSettings) -> str:
    return _missing_capture(settings, settings.invalidates, lambda text: parse_dependency(text)[1])


def _missing_capture(settings: ClassSettings, texts: tuple[str, ...], parse: Callable[[str], Any]) -> str:
    """Name a capture that one of the globs does not have: there, nobody could say what it stands for."""
    for text in texts:
        highest = highest_capture(parse(text))
        for glob in settings.match:
            if highest > len(captures_of(glob.encode())):
                return f"{text!r}: {glob!r} has no {{{highest}}}; it stands for the wildcard of that number"
    return ""


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
        _key(
            "ttl",
            kinds.seconds(0.001, _YEAR),
            None,
            "Set to the TTL that a key read now and then shall have; left out, it is the one your app gives it.",
            field="ttl_s",
        ),
        _key(
            "adaptive_ttl",
            kinds.switch("report"),
            False,
            'Set to "report" to count what TTLs by access frequency would change, then to true to have them changed.',
        ),
        _key(
            "ttl_when_missing",
            kinds.choice("leave", "set"),
            "leave",
            'Set to "set" to give a TTL to writes that carry none, too; these live forever otherwise.',
        ),
        _key(
            "min_ttl",
            kinds.seconds(0.001, _YEAR),
            None,
            "Set to what hot data must live at least; it wins over all else. Left out, hot data lives for 1s or more.",
            field="min_ttl_s",
        ),
        _key(
            "max_ttl",
            kinds.seconds(0.001, _YEAR),
            None,
            "Set to what cold data may live at most; it wins over all else. Left out, that is twice the base.",
            field="max_ttl_s",
        ),
        _key(
            "compress",
            kinds.flag(),
            False,
            "Set to true to keep values of compression.min_bytes and more compressed in Redis.",
        ),
        _key(
            "dictionary",
            kinds.flag(),
            False,
            "Set to true for small values that are alike: with a dictionary learnt from them, these shrink, too.",
        ),
        _key(
            "version",
            kinds.flag(),
            False,
            "Set to true to have values carry a version: globs and tags are then dropped at once, however many keys.",
        ),
        _key(
            "tags",
            kinds.tags(),
            [],
            "Set to names under which keys can be dropped together; {1} is what the first wildcard of the glob took.",
        ),
        _key(
            "invalidates",
            kinds.dependencies(),
            [],
            'Set to what a write to a key makes wrong besides: keys, globs, "tag:NAME", with {1} as in tags.',
        ),
        _key(
            "stale_if_error",
            kinds.seconds(0.01, 7 * 86400.0, or_zero="off"),
            "0s",
            "Set to how long past its end a value of L1 may still be served while Redis is away; 0 is not at all.",
            field="stale_if_error_s",
        ),
        _key(
            "offline",
            kinds.choice("fail", "memory"),
            "fail",
            'Set to "memory" to have commands on one key taken here while Redis is away, and brought there afterwards.',
        ),
    ),
    agreements=(
        ("max_staleness", _staleness_outside_l1),
        ("stale_if_error", _kept_outside_l1),
        ("while_recomputed", _stale_outside_l1),
        ("while_recomputed", _stale_without_lease),
        ("ttl_when_missing", _set_without_ttl),
        ("min_ttl", _bounds_crossed),
        ("tags", _tag_without_capture),
        ("invalidates", _dependency_without_capture),
    ),
)
