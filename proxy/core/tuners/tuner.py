"""What a tuner is: a knob, when to turn it, and the figure that says whether that was right."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, Protocol

import attrs

from proxy.config.model import Settings
from proxy.core.tuners.spans import Span

FACTOR: Final = 1.25
"""A step makes a quarter more, or takes it back: small enough to be undone without harm."""


@attrs.frozen
class Knob:
    """One setting. `name` is as in the file, `field` as in `Settings`, "section.name"; `show` writes a value."""

    name: str
    field: str
    show: Callable[[Any], str]

    def of(self, settings: Settings) -> Any:
        """Return its value."""
        return attrgetter(self.field)(settings)

    def set(self, settings: Settings, value: object) -> Settings:
        """Return the settings with another value of it."""
        section, _, name = self.field.partition(".")
        changed: Any = attrs.evolve(getattr(settings, section), **{name: value})
        whole: Any = settings
        tuned: Settings = attrs.evolve(whole, **{section: changed})
        return tuned


@attrs.frozen
class Step:
    """One turn of a knob that is worth trying.

    `expected` is by how much the tuner's figure should rise, 0.0 that it should not fall: the step has another good.
    """

    value: Any
    why: str
    expected: float


class Tuner(Protocol):
    """Looks at spans, all of one length and the oldest first, and proposes steps."""

    knob: Knob
    figure: str
    """What it is judged by, in words; more of it is better."""
    group: str
    """Of a group, one tuner at a time has a step under way: the figure of each is changed by the steps of all."""

    def measure(self, span: Span) -> float | None:
        """Return the figure over a span, a share of 1; None where the span does not tell."""

    def propose(self, spans: list[Span], now: Settings, configured: Settings) -> Step | None:
        """Return a step that should pay, from the settings of now, within the bounds of the configured ones."""

    def has_settled(self, span: Span, waited_s: float, now: Settings) -> bool:
        """Return whether a step shows its whole effect by now."""
