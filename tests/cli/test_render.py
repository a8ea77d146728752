"""What is drawn: panels that fit, and answers that lack something."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console, RenderableType

from proxy.cli.overview import View
from proxy.cli.render import draw_facts, draw_stats

from ..admin.fakes import STATS
from .views import full_view

_URL = "http://127.0.0.1:6390"


def _text(drawing: RenderableType, width: int = 80) -> str:
    console = _console(width)
    console.print(drawing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _console(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None, highlight=False)


def _drawn(view: View | Mapping[str, Any], width: int = 80, height: int | None = None) -> str:
    """Return what `respite stats` draws, of a whole view or of /stats.json alone."""
    whole = view if isinstance(view, View) else View(view)
    return _text(draw_stats(whole, _URL, _console(width), height), width)


def _with(**changes: Mapping[str, Any]) -> dict[str, Any]:
    stats = copy.deepcopy(STATS)
    for name, values in changes.items():
        stats[name] = stats.get(name, {}) | dict(values)
    return stats


def test_draw_stats_shows_every_figure_within_80_columns() -> None:
    """All that the issue asks for is on the screen, and no line is wider than it."""
    text = _drawn(STATS)

    for words in (
        "87.4 %",  # hit rate
        "1.23 M",  # hits
        "41.2 MiB",  # L1 bytes
        "41 µs",  # latency
        "1.2 ms",
        "12,346 /s",
        "errors         7",
        "redis://127.0.0.1:6379",
        "redis 7.0.15",
        "tracking  redirect  the server",
        "CLIENT TRACKING",
        "· serving",
        "· up",
        "connected 42",
        "invalidation",
        "2.0 KiB",
        "70.0 MiB",
        _URL,
    ):
        assert words in text
    assert max(len(line) for line in text.splitlines()) == 80


def test_draw_stats_of_several_workers_says_how_many_serve() -> None:
    """A worker that is being replaced is seen at a glance."""
    workers = [{"state": "serving", "restarts": 2}, {"state": "starting", "restarts": 1}]

    assert "Clients · 1 of 2 workers serve, 3 restarts" in _drawn(STATS | {"workers": workers})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"l1": {"enabled": False}}, "L1 · off"),
        ({"l1": {"serving": False}}, "L1 · not serving"),
        ({"rollout": {"mode": "on", "percent": 100.0}}, "L1 · serving ─"),
        ({"rollout": {"mode": "on", "percent": 2.5}}, "for          2.5 % of the clients"),
        ({"rollout": {"mode": "shadow", "percent": 100.0}}, "L1 · compared, not served ─"),
        ({"rollout": {"mode": "shadow", "percent": 50.0}, "l1": {"serving": False}}, "L1 · not serving"),
        ({"upstream": {"state": "unreachable", "why": "connection refused"}}, "Upstream · unreachable"),
        ({"upstream": {"state": "unreachable", "why": "connection refused"}}, "reason    connection refused"),
        ({"consistency": {"verified_total": 12, "stale_total": 3}}, "of them stale  3"),
        ({"upstream": {"tracked_keys": 900, "tracked_max_keys": 1000}}, "its table  900 keys of 1,000"),
        ({"upstream": {"tracking": "off", "tracking_reason": "refused by the server"}}, "refused by the server"),
    ],
)
def test_draw_stats_says_what_is_not_well(changes: dict[str, Any], words: str) -> None:
    """A state that matters is written out, not only coloured."""
    assert words in _drawn(_with(**changes))


@pytest.mark.parametrize(
    "stats", [{}, {"l1": None, "links": None}, {"l1": {"bytes": 5, "max_bytes": 0}}, {"links": [{}]}]
)
def test_draw_stats_of_an_answer_that_lacks_things_is_drawn(stats: dict[str, Any]) -> None:
    """A proxy of another version is shown as far as it goes."""
    assert "Respite" in _drawn(stats)


def test_draw_stats_with_many_links_shows_the_fullest_and_counts_the_rest() -> None:
    """What is stuck is on the screen, whatever its number; the links fill what room is left."""
    links = [STATS["links"][1] | {"id": n, "outstanding": n} for n in range(300)]

    lines = _drawn(STATS | {"links": links}, height=48).splitlines()
    shown = [line for line in lines if " data " in line]

    assert len(lines) == 48
    assert [line.split()[0] for line in shown] == [str(299 - at) for at in range(len(shown))]
    assert f"and {300 - len(shown)} more" in lines[-1]


def test_draw_stats_fits_the_smallest_terminal_with_what_matters_most() -> None:
    """80 by 24: is it well and why not, the figures, where they are going, who is there, what is busy."""
    lines = _drawn(full_view(), 80, 24).splitlines()

    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for words in (
        "● degraded",
        "! broker down: connection refused",
        "! hit rate low: 81.2 %",
        "↘ falls 3 points an hour",
        "↗ grows, full in 12 minutes",
        "↗ number of clients rises 20 % an hour",
        "45,678",
        "3.1 ms",
        "0.12 %",
        "subscribers 7",
        "broker reconnecting",
        "tuning apply",
        "class-0",
        "HGETALL",
    ):
        assert words in text, words
    assert text.count("broker down") == 1  # the alert says what the reason says


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (120, 50), (200, 100), (80, 12), (80, 8)])
def test_draw_stats_is_never_taller_or_wider_than_the_terminal(width: int, height: int) -> None:
    """Whatever there is to show, the frame fits."""
    lines = _drawn(full_view(), width, height).splitlines()

    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_draw_stats_shows_more_where_there_is_more_room() -> None:
    """What does not fit into a small terminal comes with a larger one; nothing that was there goes."""
    small, large = (_drawn(full_view(), 80, height) for height in (24, 90))

    for words in ("Tuning · apply", "L1 · serving", "Values", "Events · reconnecting", "Upstream · up", "invalidation"):
        assert words not in small
        assert words in large
    assert "5 of 14" in small
    assert "10 of 14" in large


def test_draw_stats_draws_tuning_with_its_last_steps() -> None:
    """What is not as configured, what is suggested, what came of the last steps, what more room would bring."""
    text = _drawn(full_view(), 160)

    for words in (
        "Tuning · apply · 4 steps, 2 kept, 1 undone",
        "l1.max_bytes trying: 64MiB → 80MiB  with 80MiB, 1.2%",
        "ttl.hot suggested: 5m → 375s  as a test",
        "0s ago kept l1.max_bytes 63MiB → 64MiB  hit rate +3.00 points, expected hit rate +2.00 points",
        "1.25x +1.2%, 1.5x +2.1%, 2x +3.0%",
    ):
        assert words in text, words
    assert "l1.admit" not in text
    assert "60MiB" not in text  # the fourth step from the end
    assert "Tuning" not in _drawn(full_view(tuning={"mode": "off"}), 160)
    assert "nothing to change so far" in _drawn(full_view(tuning={"mode": "suggest"}))


def test_draw_stats_without_a_report_has_the_figures_since_the_start() -> None:
    """A proxy of another version has no report, and is shown as far as it goes."""
    text = _drawn(STATS, 80, 24)

    assert "─ Now ─" in text
    assert "87.4 %" in text
    assert "●" not in text


@pytest.mark.parametrize(
    "report",
    [
        {"overall": None},
        {"overall": {"health": "odd", "reasons": "x", "alerts": [7], "trends": {"a": 1}, "figures": {"hit_rate": "x"}}},
        {"overall": {"figures": {"hit_rate": None}, "trends": [{}], "alerts": [{"state": "on"}]}},
    ],
)
def test_draw_stats_of_an_odd_report_does_not_fail(report: dict[str, Any]) -> None:
    """What is not as expected is a dash, or left out."""
    assert "Respite" in _drawn(View(STATS, report, {"hit_rate": [None, None]}), 80, 24)


@pytest.mark.parametrize("name", ["[red]x[/red]", "x\x1b[2Jy"])
def test_draw_stats_name_of_a_peer_is_text(name: str) -> None:
    """Brackets and control bytes in what a peer calls itself are shown, never obeyed."""
    stats = _with(
        upstream=dict.fromkeys(("server", "version", "state", "tracking", "tracking_reason", "url", "why"), name)
    )
    stats["version"] = name
    stats["links"] = [dict.fromkeys(("id", "kind", "db", "user", "protocol", "state"), name)]

    text = _drawn(stats, width=200)

    assert text.count(name.replace("\x1b", r"\x1b")) == 18
    assert "\x1b" not in text


def test_draw_stats_of_a_narrow_terminal_keeps_names_and_figures() -> None:
    """In 40 columns there is no room for two panels side by side: they stand one below the other."""
    stats = _with()
    stats["classes"] = [{"name": "tickets", "commands_total": 7, "errors_total": 0, "p99_us": 288.0}]

    text = _drawn(stats, width=40)

    for words in ("tickets ", "hits         1.23 M", "upstream p99"):
        assert words in text, words
    assert not any("╭─ L1" in line and "Since the start" in line for line in text.splitlines())


def test_draw_facts_shows_nested_answers_and_hides_control_bytes() -> None:
    """Objects are indented, lists stand below each other, nothing is a dash, no byte of a key drives the terminal."""
    facts = {
        "key": "a\x1b[2Jb[bold]",
        "cacheable": True,
        "l1": {"state": "absent", "age_s": None, "deadline_s": 1.5},
        "reasons": ["never read", "no lease"],
        "links": [{"id": 1, "db": 0}, {"id": 2, "at": {"host": "h"}}],
        "nothing": {},
        "none": [],
    }

    lines = [line.rstrip() for line in _text(draw_facts(facts)).splitlines()]

    assert lines == [
        r"key           a\x1b[2Jb[bold]",
        "cacheable     yes",
        "l1",
        "  state       absent",
        "  age s       -",
        "  deadline s  1.5",
        "reasons       never read",
        "              no lease",
        "links",
        "- id          1",
        "  db          0",
        "- id          2",
        "  at",
        "    host      h",
        "nothing       -",
        "none          -",
    ]


_VALUES = {
    "enabled": True,
    "sealed_total": 1200,
    "damaged_total": 1,
    "raw_bytes_total": 1 << 30,
    "stored_bytes_total": 1 << 29,
    "saved": 0.5,
    "fences": 3,
    "sweep": {"running": True, "scanned_total": 1000, "unlinked_total": 10, "share": 0.4},
    "dictionaries": {"chat": {}, "html": {}},
}


def test_draw_stats_shows_values_where_classes_ask_for_them() -> None:
    """What the value layer saves and what it is busy with has a panel, but only if there is such a layer."""
    drawn = _drawn(_with(values=_VALUES))

    assert max(map(len, drawn.splitlines())) == 80
    for words in ("memory saved  50.0 %", "1.0 GiB", "512.0 MiB", "40.0 %", "10 of 1,000", "dictionaries  2"):
        assert words in drawn
    assert "memory saved" not in _drawn(_with(values=_VALUES | {"enabled": False}))
    assert "memory saved" not in _drawn(STATS)


@pytest.mark.parametrize(
    "lacking", [{}, {"sweep": None, "dictionaries": 7}, {"sweep": {"running": True}, "saved": "?"}]
)
def test_draw_stats_of_values_of_another_version_does_not_fail(lacking: dict[str, Any]) -> None:
    """What is not sent, or is something else, is a dash."""
    assert "memory saved" in _drawn(_with(values={"enabled": True} | lacking))


_EVENTS = {
    "state": "up",
    "url": "amqp://mq:5672//",
    "received_total": 1200,
    "dead_total": 3,
    "sync_errors": 0.0005,
    "depth": 17,
    "under_way": 4,
    "oldest_s": 75.0,
    "lag_p99_us": 4200.0,
}


def test_draw_stats_shows_events_where_there_is_a_broker() -> None:
    """What the broker brings, and what became of it, has a panel, but only if a broker is configured."""
    drawn = _drawn(_with(events=_EVENTS))

    assert max(map(len, drawn.splitlines())) == 80
    for words in ("Events · up", "amqp://mq:5672//", "1,200", "0.1 %", "17 in the queue, 4 here", "1m 15s", "4.2 ms"):
        assert words in drawn
    assert "Events" not in _drawn(_with(events={"state": "off"}))
    assert "Events" not in _drawn(STATS)


def test_draw_stats_says_why_no_events_come() -> None:
    """A broker that refuses is news, with its words."""
    events = {"state": "misconfigured", "why": "queue 'q' is there with other arguments"}

    assert "queue 'q' is there with other arguments" in _drawn(_with(events=events))


def test_draw_facts_says_units_of_large_numbers() -> None:
    """Bytes, milliseconds and versions are shown as people say them besides; small ones need no help."""
    value = {"stored_bytes": 2048, "raw_bytes": 100, "ttl_ms": 3_600_000, "version": 1732272000000 << 16, "hits": 5000}

    drawn = _text(draw_facts({"value": value, "fence": None}))

    for words in ("2048 (2.0 KiB)", "3600000 (1h 0m)", "10:40:00.000 UTC"):
        assert words in drawn
    lines = [line.split() for line in drawn.splitlines()]
    assert ["raw", "bytes", "100"] in lines
    assert ["hits", "5000"] in lines
    assert ["fence", "-"] in lines
