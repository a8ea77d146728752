"""The panels about outages and doors: all of it while it lasts, little afterwards, nothing where nothing was."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from proxy.cli.overview import View
from proxy.cli.render import draw_stats

from ..admin.fakes import STATS, FakeSource
from .conftest import Serve
from .typing_in import type_in
from .views import TROUBLE, full_view

_URL = "http://127.0.0.1:6390"


def _nothing(of: Any) -> Any:
    """Return it as it is before anything has happened: every count 0, no words, no rows."""
    if isinstance(of, dict):
        return {name: _nothing(value) for name, value in of.items()}
    return type(of)()


_QUIET = _nothing(TROUBLE)
_QUIET["outage"]["state"] = _QUIET["upstream"]["state"] = "up"
_QUIET["upstream"]["breaker"] = "closed"
_QUIET["doors"]["state"] = "open"


def _stats(*changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a quiet proxy, with sections changed."""
    stats = dict(STATS)
    for one in (_QUIET, *changes):
        for name, section in one.items():
            stats[name] = stats.get(name, {}) | dict(section)
    return stats


def _drawn(stats: Mapping[str, Any] | View, width: int = 80, height: int | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    view = stats if isinstance(stats, View) else View(stats)
    console.print(draw_stats(view, _URL, console, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def _panel(lines: list[str], title: str) -> dict[str, str]:
    """Return what stands in a panel, by the words on the left; what stands on several lines is one."""
    begin = next(at for at, line in enumerate(lines) if line.startswith(f"╭─ {title}"))
    found: dict[str, str] = {}
    name = ""
    for line in lines[begin + 1 : lines.index(next(one for one in lines[begin:] if one.startswith("╰")), begin)]:
        text = line.strip("│ ")
        if line[2] != " ":
            name, _, text = (part.strip() for part in text.partition("  "))
            found[name] = text
        else:
            found[name] += f" / {text}"
    return found


def test_outage_that_lasts_is_told_whole_above_the_figures() -> None:
    """Since when and why, what is held and served meanwhile, what became of it, what the links went through."""
    lines = _drawn(_stats(TROUBLE))

    assert _panel(lines, "Outages · Redis is away for 1m 15s") == {
        "why": "connection refused",
        "held writes": "keys 71 · 13.4 MiB of 16.0 MiB ━━━━━━━━━━━━ · clients wait 2",
        "served stale": "12,345 · news 12,000 · carts 345",
        "fallbacks": "news stale 30s · carts stale 5s and in memory",
        "in memory": "reads 120 · writes 300 · no room for 3",
        "Redis told": "written 12 · newer there 4 · deleted 1 · lost 2",
        "left of L1": "entries 1,200 · 1.2 MiB of 32.0 MiB",
        "breaker": "open · opened 3",
        "asked again": "reads 4",
        "Redis said": "OOM 3 · LOADING 12",
    }
    text = "\n".join(lines)
    assert text.index("Outages") < text.index("─ Now")


def test_doors_tell_who_was_turned_away_and_why() -> None:
    """Each limit by the name of its key, who was denied by user; above the figures only while the doors close."""
    lines = _drawn(_stats(TROUBLE, {"doors": {"state": "open"}}))

    assert _panel(lines, "Doors ─") == {
        "refused": "by max_clients 3 · by max_clients_per_address 2 / by max_pinned_per_address 1",
        "logins": "failed 5 · too many at once 1 · not in time 2",
        "TLS": "handshakes failed 7",
        "closed": "for unread replies 8 · for what is no RESP 9",
        "held back": "by rate_limit 44",
        "denied": "10 · web 6 · jobs 4",
    }
    text = "\n".join(lines)
    assert text.index("─ Now") < text.index("Doors")
    closing = _drawn(_stats({"doors": {"state": "handing over"}}))
    assert _panel(closing, "Doors · handing over") == {"now": "no client is left"}
    text = "\n".join(closing)
    assert text.index("Doors · handing over") < text.index("─ Now")


def test_nothing_happened_is_nothing_shown() -> None:
    """A proxy that is well has no panel full of zeros; nor has one of another version, that says nothing of it."""
    for stats in (_stats(), STATS, {}):
        text = "\n".join(_drawn(stats))

        assert "Outages" not in text
        assert "Doors" not in text


def test_outage_that_is_over_is_remembered_below_the_figures() -> None:
    """When it was and why it had been; what is 0 by now has no line."""
    over = {
        "outage": {"state": "up", "since_s": 185.0, "last_why": "connection refused", "last_lasted_s": 12.4},
        "upstream": {"breaker": "closed", "breaker_opened_total": 1},
    }
    lines = _drawn(_stats(over))

    assert _panel(lines, "Outages · Redis is back for 3m 5s") == {
        "the last one": "lasted 12s: connection refused",
        "breaker": "closed · opened 1",
    }
    text = "\n".join(lines)
    assert text.index("─ Now") < text.index("Outages") < text.index("L1 · serving")


def test_class_with_a_fallback_is_told_before_anything_happens() -> None:
    """Whoever configured it sees that it is there: one line, and no count."""
    ready = {"outage": {"fallbacks": [{"name": "news", "stale_if_error_s": 90.0, "offline": "fail"}]}}

    assert _panel(_drawn(_stats(ready)), "Outages · none so far") == {"fallbacks": "news stale 1m 30s"}


def test_many_names_are_cut_to_those_that_matter() -> None:
    """The most of it is named, the rest counted."""
    served = {f"class-{number}": number for number in range(1, 10)}
    fallbacks = [{"name": name, "stale_if_error_s": 1.0} for name in served]
    stats = _stats({"outage": {"stale_served_total": 45, "stale_served": served, "fallbacks": fallbacks}})

    panel = _panel(_drawn(stats, 120), "Outages")

    assert panel["served stale"] == "45 · class-9 9 · class-8 8 · class-7 7 · class-6 6 · and 5 more"
    assert panel["fallbacks"].endswith("class-4 stale 1s · and 5 more")


def test_redis_that_is_slow_is_told_as_that() -> None:
    """It is there, and late: the state and the reason say so."""
    slow = {"outage": {"state": "slow", "since_s": 2.0, "why": "it says LOADING"}}

    assert _panel(_drawn(_stats(slow)), "Outages · Redis is slow for 2s") == {"why": "it says LOADING"}


def _troubled() -> View:
    view = full_view()
    return View(dict(view.stats) | _stats(TROUBLE), view.report, view.series)


def test_smallest_terminal_has_the_trouble_and_the_figures() -> None:
    """80 by 24 while Redis is away and the proxy drains: what is served meanwhile, who is left, and the figures."""
    lines = _drawn(_troubled(), 80, 24)

    text = "\n".join(lines)
    assert len(lines) <= 24
    for words in ("Redis is away for 1m 15s", "keys 71", "12,345", "Doors · draining", "still here 42", "hit rate"):
        assert words in text, words
    assert "Redis said" not in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 30), (40, None), (24, None), (120, 50), (200, 100)])
def test_trouble_fits_every_terminal(width: int, height: int | None) -> None:
    """No line is wider and no frame is taller, and no part is broken that fits on a line."""
    lines = _drawn(_troubled(), width, height)

    assert max(map(len, lines)) <= width
    assert height is None or len(lines) <= height
    if height is None and width >= 40:
        for part in ("clients wait 2", "newer there 4", "no room for 3", "13.4 MiB of 16.0 MiB"):
            assert any(part in line for line in lines), part


@pytest.mark.parametrize(
    "odd",
    [
        {"outage": 7, "offline": [], "doors": "x", "clients": None, "commands": 3},
        {"outage": {"state": "away", "fallbacks": [{}, 7], "stale_served_total": 3, "stale_served": 4}},
        {"outage": {"state": "slow", "why": 5}, "offline": {"keys": 3, "bytes": "?", "max_bytes": 0}},
        {"doors": {"state": "draining"}, "commands": {"denied_total": 2, "denied_by_user_total": {"web": "x"}}},
    ],
)
def test_odd_answers_are_drawn_as_far_as_they_go(odd: dict[str, Any]) -> None:
    """A proxy of another version is no reason to show nothing."""
    assert any("Respite" in line for line in _drawn(STATS | odd))


def test_words_of_others_are_text() -> None:
    """A reason is Redis' word, a user or a class anybody's: brackets and control bytes are shown, never obeyed."""
    evil = "[red]x\x1b[2J"
    stats = _stats({"outage": {"state": "away", "why": evil}, "commands": {"denied_total": 1}})
    stats["commands"]["denied_by_user_total"] = {evil: 1}

    text = "\n".join(_drawn(stats))

    assert text.count("[red]x\\x1b[2J") == 2
    assert "\x1b" not in text


def test_stats_command_has_it_in_plain_output_and_in_json(serve: Serve) -> None:
    """Without a terminal all of it is printed; --json has the sections as they are."""
    url = serve(FakeSource(answers=_stats(TROUBLE)))

    drawn, told = type_in("stats", "--admin", url), type_in("stats", "--admin", url, "--json")

    assert "Outages · Redis is away for 1m 15s" in drawn.stdout
    assert "Doors · draining" in drawn.stdout
    stats = json.loads(told.stdout)
    assert {name: stats[name] for name in ("outage", "offline", "doors")} == {
        name: TROUBLE[name] for name in ("outage", "offline", "doors")
    }
