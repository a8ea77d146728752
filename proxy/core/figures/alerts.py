"""Alerts: when each rule begins to hold, when it ends, and what is said then, once each.

    off --condition holds--> pending --for as long as `for`--> on --beyond `clear` for a while--> off
              ^                 |                               |
              '-- not any more -'                               '-- not measured any more for as long --> off

Owns the state of every rule, and the words of a notice. What is not measured neither begins an alert nor ends one at
once. Sends nothing; times are seconds of the monotonic clock, handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, Protocol

import attrs

from proxy.config.alert_conditions import Notify, format_figure
from proxy.config.alerts import Alert
from proxy.config.units import format_seconds

CALM_S: Final = 60.0  # an alert ends once all is well for as long as its `for`, but nobody waits longer than this
UNKNOWN_S: Final = 60.0  # nothing measured for so long, and for as long as `for`: it ends
_SYMBOLS: Final = {"<": "below", "<=": "at most", ">": "above", ">=": "at least"}

State = Literal["off", "pending", "on"]


@attrs.frozen
class Notice:
    """An alert that began or ended. `value` is the figure then, None: not known. `lasted_s` is how long it was so."""

    name: str
    state: Literal["on", "off"]
    figure: str
    when: str
    value: float | None
    lasted_s: float
    text: str
    notify: tuple[Notify, ...]

    def body(self) -> dict[str, Any]:
        """Return what is sent of it."""
        return {
            "state": self.state,
            "name": self.name,
            "figure": self.figure,
            "when": self.when,
            "value": self.value,
            "lasted_s": round(self.lasted_s, 1),
            "text": self.text,
        }


class Notifier(Protocol):
    """Brings notices somewhere, in their order; never blocks, holds a bounded number, forgets the oldest."""

    def offer(self, body: Mapping[str, Any], target: str) -> None:
        """Take what is to be sent to a target."""
        ...

    async def run(self) -> None:
        """Send until cancelled. Raises nothing for what the other side does."""
        ...


@attrs.define
class _Watch:
    """One rule and where it stands. `since` is when it began to hold, `calm_since` when it seemed to end."""

    alert: Alert
    state: State = "off"
    since: float = 0.0
    calm_since: float | None = None
    known_at: float | None = None
    value: float | None = None


class Alerts:
    """Judges the figures by the rules."""

    def __init__(self, alerts: Iterable[Alert]) -> None:
        self._watches = {alert.name: _Watch(alert) for alert in alerts}

    def replace(self, alerts: Iterable[Alert], now: float) -> list[Notice]:
        """Watch other rules; those that say the same as before go on. Return the end of those that do not."""
        before = self._watches
        self._watches = {}
        for alert in alerts:
            old = before.get(alert.name)
            if old is not None and _same(old.alert, alert):
                del before[alert.name]
                old.alert = alert
                self._watches[alert.name] = old
            else:
                self._watches[alert.name] = _Watch(alert)
        return [_end(one, now, "it is no longer watched like this") for one in before.values() if one.state == "on"]

    def judge(self, figures: Mapping[str, float], now: float) -> list[Notice]:
        """Take the figures of a moment; return what began and what ended with them."""
        notices = (_step(watch, figures.get(watch.alert.condition.figure), now) for watch in self._watches.values())
        return [notice for notice in notices if notice is not None]

    def rows(self, now: float) -> list[dict[str, Any]]:
        """Return every rule as reports show it, those that are on first."""
        order = {"on": 0, "pending": 1, "off": 2}
        return [_row(one, now) for one in sorted(self._watches.values(), key=lambda one: order[one.state])]

    def bounds(self) -> dict[str, tuple[float, str]]:
        """Return by figure the bound that an alert is about, and its name: the first one of each figure."""
        found: dict[str, tuple[float, str]] = {}
        for one in self._watches.values():
            found.setdefault(one.alert.condition.figure, (one.alert.condition.bound, one.alert.name))
        return found


def _same(old: Alert, new: Alert) -> bool:
    return attrs.evolve(old, notify=()) == attrs.evolve(new, notify=())


def _step(watch: _Watch, value: float | None, now: float) -> Notice | None:
    watch.value = value
    if value is None:
        return _unknown(watch, now)
    watch.known_at = now
    alert = watch.alert
    if watch.state == "on":
        if alert.lasting.holds(value):
            watch.calm_since = None
            return None
        if watch.calm_since is None:
            watch.calm_since = now
        return _end(watch, now, "") if now - watch.calm_since >= min(alert.for_s, CALM_S) else None
    if not alert.condition.holds(value):
        watch.state = "off"
        return None
    if watch.state == "off":
        watch.state, watch.since = "pending", now
    return _begin(watch, now) if now - watch.since >= alert.for_s else None


def _unknown(watch: _Watch, now: float) -> Notice | None:
    if watch.state == "pending":
        watch.state = "off"
    if watch.state == "off" or watch.known_at is None:
        return None
    is_over = now - watch.known_at >= max(watch.alert.for_s, UNKNOWN_S)
    return _end(watch, now, f"{watch.alert.condition.figure} is not measured any more") if is_over else None


def _begin(watch: _Watch, now: float) -> Notice:
    watch.state, watch.calm_since = "on", None
    condition = watch.alert.condition
    text = f"{watch.alert.name}: {_said(watch)}, {_SYMBOLS[condition.comparison]} {_bound(watch)}"
    if watch.alert.for_s:
        text += f" for {format_seconds(watch.alert.for_s)}"
    return _notice(watch, "on", text, now)


def _end(watch: _Watch, now: float, why: str) -> Notice:
    text = f"{watch.alert.name} is over after {format_seconds(round(now - watch.since))}: {why or _said(watch)}"
    watch.state, watch.calm_since = "off", None
    return _notice(watch, "off", text, now)


def _said(watch: _Watch) -> str:
    figure = watch.alert.condition.figure
    return f"{figure} is {'not known' if watch.value is None else format_figure(figure, watch.value)}"


def _bound(watch: _Watch) -> str:
    return format_figure(watch.alert.condition.figure, watch.alert.condition.bound)


def _notice(watch: _Watch, state: Literal["on", "off"], text: str, now: float) -> Notice:
    condition = watch.alert.condition
    return Notice(
        watch.alert.name,
        state,
        condition.figure,
        condition.text,
        watch.value,
        now - watch.since,
        text,
        watch.alert.notify,
    )


def _row(watch: _Watch, now: float) -> dict[str, Any]:
    alert = watch.alert
    figure = alert.condition.figure
    is_off = watch.state == "off"
    has_been = watch.value is not None and not alert.condition.holds(watch.value)  # on until that has lasted
    side = f"{'was ' if has_been else ''}{_SYMBOLS[alert.condition.comparison]}"
    text = f"{alert.name}: {_said(watch)}, {side} {_bound(watch)}"
    return {
        "name": alert.name,
        "state": watch.state,
        "figure": figure,
        "when": alert.condition.text,
        "for_s": alert.for_s,
        "value": watch.value,
        "shown": "" if watch.value is None else format_figure(figure, watch.value),
        "lasts_s": None if is_off else round(now - watch.since, 1),
        "text": "" if is_off else text,
    }
