"""What a lease rule is to the tests: a scenario in which it matters, and how to take it out."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from proxy.config.model import Settings

from .world import World, make_settings

Scenario = Callable[[World], list[str]]
"""Plays a scene and returns what was wrong with it: nothing, while the rule holds."""

Switch = Callable[[pytest.MonkeyPatch], None]
"""Takes a rule out, before the worker is made."""


def leave_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take nothing out."""


@attrs.frozen
class Rule:
    """A lease rule of the design, or one half of it.

    `given` takes out, in both runs, another rule that would catch the same thing later.
    """

    number: str
    scenario: Scenario
    off: Switch
    given: Switch = leave_alone
    settings: Settings = attrs.field(factory=make_settings)

    @property
    def id(self) -> str:
        """How pytest calls it."""
        return f"{self.number}-{self.scenario.__name__.replace('_', '-')}"


def replace(owner: type, name: str, function: Callable[..., object]) -> Switch:
    """Return the switch that puts a function in the place of a method."""
    return lambda monkeypatch: monkeypatch.setattr(owner, name, function)


def do_nothing(owner: type, name: str) -> Switch:
    """Return the switch that makes a method do nothing."""
    return replace(owner, name, lambda *_, **__: None)


def wrong(what: str, expected: object, actual: object) -> list[str]:
    """Return what is wrong when two things differ."""
    return [] if expected == actual else [f"{what}: expected {expected!r}, got {actual!r}"]
