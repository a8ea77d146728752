"""Every key of [metrics] and of an [[alert]], declared once, as `keys.py` declares the others; and the alerts at hand.

A rule that has the name of a default takes from it what it leaves out; `enabled = false` turns one off. What comes of
the file and the defaults together is `alerts_of`.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from proxy.config import kinds
from proxy.config.alert_conditions import FIGURES, Condition, Notify, parse_bound, parse_condition, parse_notify
from proxy.config.key import Key, Tables
from proxy.config.kinds import Kind, is_text, read_texts
from proxy.config.model import AlertRule, Settings

MARGIN: Final = 0.05  # of the bound: how far beyond it a figure must be for its alert to end, if nothing else is said
DEFAULT_FOR_S: Final = 60.0
_DAY: Final = 86400.0
_NAME_MAX: Final = 64
_MINUTE: Final = 60.0


@attrs.frozen
class Alert:
    """A rule with nothing left open. It ends when `condition` no longer holds even with `clear` for its bound."""

    name: str
    condition: Condition
    for_s: float
    clear: float
    notify: tuple[Notify, ...]

    @property
    def lasting(self) -> Condition:
        """What is still so while the alert lasts: the condition, with the bound beyond which it ends."""
        return attrs.evolve(self.condition, bound=self.clear)


def _default(name: str, when: str, for_s: float) -> AlertRule:
    return AlertRule(name, when=parse_condition(when), for_s=for_s)


COMPRESSED: Final = "memory not saved"  # says something only where a class asks for values to be compressed
DEFAULTS: Final = (
    _default("hit rate low", "hit_rate < 85%", 5 * _MINUTE),
    _default("latency high", "latency_p99 > 20ms", 5 * _MINUTE),
    _default("errors", "error_rate > 0.5%", _MINUTE),
    _default("staleness high", "staleness > 50ms", _MINUTE),
    _default("stale data", "staleness > 5s", 0.0),
    _default("sync errors", "sync_error_rate > 0.1%", _MINUTE),
    _default(COMPRESSED, "memory_ratio > 70%", 10 * _MINUTE),
    _default("queue growing", "queue_growth > 1", 5 * _MINUTE),
    _default("events late", "queue_lag > 1m", _MINUTE),
    _default("redis down", "upstream_up < 1", 5.0),
    _default("offline memory filling", "offline_fill > 80%", 0.0),
    _default("writes lost", "offline_lost > 0", 0.0),
    _default("broker down", "amqp_up < 1", 30.0),
)
"""The alerts that are there without a word in the file."""


def alerts_of(settings: Settings) -> tuple[Alert, ...]:
    """Return the alerts in effect: the defaults, changed or turned off by the file, then those of the file alone."""
    own = {rule.name: rule for rule in settings.alerts}
    compresses = any(one.compress or one.dictionary for one in settings.classes)
    found = []
    for default in DEFAULTS:
        rule = own.pop(default.name, None)
        if rule is None and default.name == COMPRESSED and not compresses:
            continue
        found.append(_complete(rule or default, default, settings.metrics.notify))
    found += [_complete(rule, None, settings.metrics.notify) for rule in own.values()]
    return tuple(alert for alert in found if alert is not None)


def _complete(rule: AlertRule, default: AlertRule | None, notify: tuple[Notify, ...]) -> Alert | None:
    condition = rule.when or (default.when if default is not None else None)
    if not rule.enabled or condition is None:
        return None
    for_s = rule.for_s if rule.for_s is not None else default.for_s if default is not None else None
    return Alert(
        rule.name,
        condition,
        DEFAULT_FOR_S if for_s is None else for_s,
        parse_bound(condition.figure, rule.clear) if rule.clear else _with_margin(condition),
        rule.notify or notify,
    )


def _with_margin(condition: Condition) -> float:
    bound = condition.bound
    if condition.figure.endswith("_up"):
        return bound  # there is nothing between up and down
    if not condition.is_below:
        return bound * (1 - MARGIN)
    # Of a share near 1, half the way that is left: no hit rate ever gets beyond 1.
    return min(bound * (1 + MARGIN), (bound + 1) / 2) if FIGURES[condition.figure] == "ratio" else bound * (1 + MARGIN)


def _name() -> Kind:
    def read(value: object) -> str:
        if not is_text(value) or not 1 <= len(value) <= _NAME_MAX or not value.isprintable() or value != value.strip():
            raise ValueError
        return value

    return Kind(f"1 to {_NAME_MAX} printable characters", read)


def _condition() -> Kind:
    def read(value: object) -> Condition:
        if not is_text(value):
            raise ValueError
        return parse_condition(value)

    return Kind('a condition, such as "hit_rate < 85%"', read)


def _clear() -> Kind:
    def read(value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            raise ValueError
        return str(value)

    return Kind('a value of the figure, such as "90%"', read)


def _notify(*, or_none: bool) -> Kind:
    def read(value: object) -> tuple[Notify, ...]:
        found = tuple(map(parse_notify, read_texts(value)))
        if not found and not or_none:
            raise ValueError("without one nobody hears of it")
        if len(set(found)) != len(found):
            raise ValueError("one stands twice")
        return found

    return Kind('a list of "log", http(s):// URLs and AMQP routing keys', read)


def _when_missing(rule: AlertRule) -> str:
    is_known = any(rule.name == default.name for default in DEFAULTS)
    return "" if rule.when or is_known or not rule.enabled else "needed: what must be so for this alert"


def _clear_on_the_wrong_side(rule: AlertRule) -> str:
    default = next((one for one in DEFAULTS if one.name == rule.name), None)
    condition = rule.when or (default.when if default is not None else None)
    if condition is None or not rule.clear:
        return ""
    try:
        clear = parse_bound(condition.figure, rule.clear)
    except ValueError as exc:
        return str(exc)
    if clear != condition.bound and condition.holds(clear):
        return f"beyond the bound, where {condition.text} is not so"
    return ""


def _key(path: str, kind: Kind, default: object, when: str, **more: Any) -> Key:
    return Key(path, more.pop("field", path), kind, default, live=True, help=when, **more)


METRICS: Final[tuple[Key, ...]] = (
    _key(
        "metrics.history",
        kinds.seconds(_MINUTE, _DAY),
        "1h",
        "Raise to look further back: figures are kept in memory for so long, every 10 seconds, 4 MB a day.",
        field="metrics.history_s",
    ),
    _key(
        "metrics.queue_full_at",
        kinds.count(0, 1_000_000_000),
        0,
        "Set to the max-length that a policy of your broker gives amqp.queue: trends then say when it will be full.",
    ),
    _key(
        "metrics.notify",
        _notify(or_none=True),
        ["log"],
        'Add a URL, or an AMQP routing key, that hears of alerts besides "log"; holds for those that name none.',
        secret=True,
    ),
)

ALERTS: Final = Tables(
    allowed="any number of tables, each headed [[alert]]",
    build=AlertRule,
    keys=(
        _key(
            "name",
            _name(),
            None,
            "What it is called; by the name of a default it changes that one, in what it does not leave out.",
            needed=True,
        ),
        _key(
            "when",
            _condition(),
            None,
            "What must be so: a figure, one of < <= > >=, and a bound with its unit: 85%, 20ms, 64MiB.",
        ),
        _key(
            "for",
            kinds.seconds(0, _DAY),
            None,
            "Raise when it comes and goes: it must be so for so long; left out, 60s.",
            field="for_s",
        ),
        _key(
            "clear",
            _clear(),
            None,
            "Set to where it ends; left out, 5 % beyond the bound, so that it does not come and go.",
        ),
        _key(
            "notify",
            _notify(or_none=False),
            None,
            'Set to who hears of it: "log", URLs that get a POST, AMQP routing keys; left out, metrics.notify.',
            secret=True,
        ),
        _key(
            "enabled",
            kinds.flag(),
            True,
            "Set to false to do without it, with the name of a default: without that.",
        ),
    ),
    agreements=(("when", _when_missing), ("clear", _clear_on_the_wrong_side)),
)
