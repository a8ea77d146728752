"""Conditions of alerts, "hit_rate < 85%": a figure, a comparison, a bound; and where a notice of one may go.

Owns how both are written and read. The figures themselves are `core/figures.py`, which no layer below may ask: their
names and units stand here again, and a test holds the two together.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Final, Literal
from urllib.parse import urlsplit

import attrs

from proxy.config.units import format_bytes, format_seconds, parse_bytes, parse_seconds

Unit = Literal["ratio", "seconds", "bytes", "per_second", "count", "state"]
Comparison = Literal["<", "<=", ">", ">="]

FIGURES: Final[Mapping[str, Unit]] = {
    "hit_rate": "ratio",
    "latency_mean": "seconds",
    "latency_p50": "seconds",
    "latency_p90": "seconds",
    "latency_p99": "seconds",
    "upstream_p99": "seconds",
    "commands_per_second": "per_second",
    "error_rate": "ratio",
    "saved_rate": "ratio",
    "queue_depth": "count",
    "queue_lag": "seconds",
    "queue_growth": "per_second",
    "events_per_second": "per_second",
    "sync_error_rate": "ratio",
    "staleness": "seconds",
    "memory_ratio": "ratio",
    "l1_bytes": "bytes",
    "l1_fill": "ratio",
    "l1_entries": "count",
    "evictions_per_second": "per_second",
    "invalidations_per_second": "per_second",
    "clients": "count",
    "upstream_up": "state",
    "amqp_up": "state",
    "tracking_pressure": "ratio",
    "stale_per_second": "per_second",
    "offline_fill": "ratio",
    "offline_lost": "count",
    "outbox_depth": "count",
    "subscribers": "count",
    "changes_per_second": "per_second",
    "changes_lost": "count",
}
"""Every figure that a condition may name, with what it is measured in."""

_CONDITION: Final = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*(\S(?:.*\S)?)\s*")
_NUMBER: Final = re.compile(r"\d+(\.\d+)?([eE][-+]?\d+)?")
_ALLOWED_UNITS: Final[Mapping[Unit, str]] = {
    "ratio": "a share is written as 0.85 or 85%",
    "seconds": "a time is written as 20ms, 5s, or as seconds",
    "bytes": "a size is written as 64MiB, or as bytes",
    "per_second": "so many a second, written as a plain number",
    "count": "a number of things, written as a plain number",
    "state": "1 while it is up, else 0",
}
_BEYOND_ONE: Final = frozenset({"memory_ratio"})  # shares that may well be more than all: values that grew
_THREE_DIGITS: Final = 999.5  # from here on .3g rounds to 1e+03
_TOPIC_BYTES_MAX: Final = 255  # a short string of AMQP
_HOLDS: Final[Mapping[Comparison, Callable[[float, float], bool]]] = {
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
}


@attrs.frozen
class Condition:
    """What must be so for an alert; `bound` in the figure's own unit: seconds, bytes, a share of 1."""

    figure: str
    comparison: Comparison
    bound: float

    @property
    def is_below(self) -> bool:
        """Whether it is about a figure that is too low."""
        return self.comparison in {"<", "<="}

    def holds(self, value: float) -> bool:
        """Say whether it is so of a value of the figure."""
        return _HOLDS[self.comparison](value, self.bound)

    @property
    def text(self) -> str:
        """The condition as somebody would write it."""
        return f"{self.figure} {self.comparison} {format_figure(self.figure, self.bound)}"


@attrs.frozen
class Notify:
    """Where a notice goes. `target` is a URL, which may hold a secret, or a routing key; "" for the log."""

    kind: Literal["log", "webhook", "amqp"]
    target: str = attrs.field(default="", repr=False)

    @property
    def display(self) -> str:
        """Say where without a secret: of a URL only where its host is."""
        if self.kind == "webhook":
            parts = urlsplit(self.target)
            return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        return f"amqp {self.target}" if self.kind == "amqp" else "log"


def parse_condition(text: str) -> Condition:
    """Read a condition. Raises ValueError with the reason, which for an unknown figure names the nearest one."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise ValueError("a condition is a figure, one of < <= > >=, and a bound")
    name, comparison, written = found[1], found[2], found[3]
    if name not in FIGURES:
        near = difflib.get_close_matches(name, FIGURES, n=1)
        raise ValueError(f"{name!r} is no figure; " + (f"did you mean {near[0]!r}?" if near else _names()))
    return Condition(name, _comparison(comparison), parse_bound(name, written))


def parse_bound(figure: str, written: object) -> float:
    """Read a value of a figure as people write it. Raises ValueError with the reason."""
    unit = FIGURES[figure]
    text = str(written).strip() if not isinstance(written, bool) else ""
    try:
        bound = _read(unit, text)
    except ValueError:
        raise ValueError(f"{text!r} is no value of {figure}: {_ALLOWED_UNITS[unit]}") from None
    if not math.isfinite(bound):
        raise ValueError(f"{text!r} is no value of {figure}: {_ALLOWED_UNITS[unit]}")
    if unit == "ratio" and bound > 1 and figure not in _BEYOND_ONE and not text.endswith("%"):
        raise ValueError(f"{text!r} would be {bound:.0%} of {figure}, a share of 1; did you mean '{text}%'?")
    if unit == "state" and bound > 1:
        raise ValueError(f"{text!r} is no value of {figure}: {_ALLOWED_UNITS[unit]}")
    return bound


def format_figure(figure: str, value: float) -> str:
    """Write a value of a figure for people: "85%", "20ms", "64MiB", "1500"."""
    match FIGURES.get(figure):
        case "ratio":
            return f"{100 * value:.4g}%"
        case "seconds":
            return _short_time(value)
        case "bytes":
            return format_bytes(round(value))
        case _:
            return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


def parse_notify(text: str) -> Notify:
    """Read where a notice goes. Raises ValueError with the reason, which never repeats a URL."""
    if text == "log":
        return Notify("log")
    if "://" in text:
        _check_webhook(text)
        return Notify("webhook", text)
    if not text or len(text.encode()) > _TOPIC_BYTES_MAX or any(one.isspace() or not one.isprintable() for one in text):
        raise ValueError(f"{text!r} is neither log nor an http(s):// URL nor a routing key, which has no blanks")
    return Notify("amqp", text)


def _read(unit: Unit, text: str) -> float:
    if unit == "ratio" and text.endswith("%"):
        return _number(text.removesuffix("%").rstrip()) / 100
    if _NUMBER.fullmatch(text):
        return float(text)
    if unit == "seconds":
        return parse_seconds(text)
    if unit == "bytes":
        return float(parse_bytes(text))
    raise ValueError


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError
    return float(text)


def _comparison(text: str) -> Comparison:
    for known in _HOLDS:
        if known == text:
            return known
    raise ValueError("one of < <= > >=")


def _short_time(seconds: float) -> str:
    """Three digits are enough: 0.0412345 is 41.2ms. Never an exponent: what is written is read again."""
    if seconds == 0:
        return "0s"
    for unit, factor in (("us", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        if abs(seconds) < _THREE_DIGITS * factor:
            return f"{seconds / factor:.3g}{unit}"
    return format_seconds(round(seconds)) if round(seconds) % 60 == 0 else f"{seconds:.0f}s"


def _names() -> str:
    return "the figures are " + ", ".join(FIGURES)


def _check_webhook(text: str) -> None:
    if any(one.isspace() or not one.isprintable() or not one.isascii() for one in text):
        raise ValueError("a URL holds no blanks, no control characters, and nothing but ASCII")
    try:
        parts = urlsplit(text)
        port = parts.port
        (parts.hostname or "").encode("idna")  # as it is looked up: "a..b" would be a surprise then
    except ValueError:
        raise ValueError("the host or the port of the URL is none") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or parts.fragment:
        raise ValueError("a webhook is an http:// or https:// URL with a host")
