"""The outside of a proxy: what a reload changes there, and what it shows of itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from proxy.admin.metrics import render_metrics
from proxy.config.load import default_settings
from proxy.config.model import ClassSettings, Settings, parse_endpoint
from proxy.core.feed.feed import FeedError
from proxy.core.figures.snapshot import Snapshot
from proxy.core.figures.stats import MetricFamily
from proxy.events.event import Event
from proxy.outlook import Outlook

REDIS = parse_endpoint("redis://127.0.0.1:1")


class Nothing:
    """A proxy of which nothing is known."""

    async def ready(self) -> tuple[bool, str]:
        """Say no."""
        return False, "nothing"

    async def stats(self) -> dict[str, Any]:
        """Show nothing."""
        return {}

    async def families(self) -> Iterable[MetricFamily]:
        """Measure nothing."""
        return ()

    async def snapshot(self) -> Snapshot:
        """Hold nothing."""
        return Snapshot(trio.current_time(), {}, {})

    async def explain(self, key: bytes) -> dict[str, Any]:
        """Know nothing."""
        return {}

    async def reload(self) -> dict[str, Any]:
        """Change nothing."""
        return {}

    async def invalidate(self, event: Event) -> dict[str, int]:
        """Drop nothing."""
        return {}

    def drain(self) -> None:
        """Stop nothing."""


def settings_with(**push: Any) -> Settings:
    """Return settings without an admin port, with some keys of [push]."""
    settings = default_settings()
    listen = attrs.evolve(settings.listen, admin="")
    return attrs.evolve(settings, listen=listen, push=attrs.evolve(settings.push, **push))


async def test_reload_takes_limits_and_classes_at_once() -> None:
    """Who listens already goes on; what follows goes by the new settings."""
    outlook = Outlook(Nothing(), settings_with(), REDIS)
    outlook.feed.subscribe(["tag:queue-1"])
    before = outlook.feed.interest.prefixes
    classes = (ClassSettings("tickets", ("ticket:*",), tags=("queue-{1}",)),)

    outlook.take(attrs.evolve(settings_with(max_subscribers=1, heartbeat_s=3.0), classes=classes))

    assert ((), (b"ticket:",)) == (before, outlook.feed.interest.prefixes)
    assert 3.0 == outlook.push.settings.heartbeat_s
    with pytest.raises(FeedError, match="as many as may"):
        outlook.feed.subscribe(["a"])


async def test_without_an_admin_port_nothing_is_watched(nursery: trio.Nursery) -> None:
    """Nobody could listen; the figures are watched all the same, for alerts."""
    outlook = Outlook(Nothing(), settings_with(), REDIS)

    url = await nursery.start(outlook.run)
    outlook.feed.subscribe(["a"])
    await trio.testing.wait_all_tasks_blocked(0.01)

    assert ("none", "off") == (url, outlook.report()["push"]["watch"]["state"])


async def test_figures_of_the_feed_stand_in_stats_and_metrics() -> None:
    """Under one name each; a counter is told as such."""
    outlook = Outlook(Nothing(), settings_with(), REDIS)
    outlook.feed.subscribe(["a"])
    outlook.feed.watched([b""])
    outlook.feed.gap("because")

    text = render_metrics(outlook.families()).decode()

    assert (1, 1) == (outlook.report()["push"]["subscribers"], outlook.report()["push"]["gaps_total"])
    assert "\nrespite_push_subscribers 1" in text
    assert "# TYPE respite_push_gaps_total counter\nrespite_push_gaps_total 1" in text
