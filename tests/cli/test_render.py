"""What is drawn: numbers as people say them, panels that fit, and answers that lack something."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console, RenderableType

from proxy.cli.forms import bar, count, duration, micros, rate, share, size, spark, version
from proxy.cli.render import draw_facts, draw_stats

from ..admin.fakes import STATS

_URL = "http://127.0.0.1:6390"


def _text(drawing: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    console.print(drawing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _with(**changes: Mapping[str, Any]) -> dict[str, Any]:
    stats = copy.deepcopy(STATS)
    for name, values in changes.items():
        stats[name] = stats.get(name, {}) | dict(values)
    return stats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999_999, "999,999"),
        (1_234_567, "1.23 M"),
        (2.5e9, "2.50 G"),
        (3e12, "3.00 T"),
        (None, "-"),
        ("x", "-"),
    ],
)
def test_count_is_full_up_to_six_digits(value: object, text: str) -> None:
    """Counts are read in full while they can be."""
    assert count(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.5, "0.5"), (12.4, "12"), (12345.6, "12,346"), (None, "-")])
def test_rate_shows_a_trickle(value: object, text: str) -> None:
    """Half a command a second is not none."""
    assert rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (64 << 20, "64.0 MiB"),
        (3 << 30, "3.0 GiB"),
        (2 << 40, "2.0 TiB"),
    ],
)
def test_size_is_in_units_of_the_configuration(value: int, text: str) -> None:
    """Sizes look as they are configured."""
    assert size(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0 µs"), (999, "999 µs"), (1250, "1.2 ms"), (3.2e6, "3.2 s")])
def test_micros_is_in_the_unit_people_say(value: float, text: str) -> None:
    """Latencies have three digits at most."""
    assert micros(value) == text


@pytest.mark.parametrize(("value", "text"), [(59.9, "59s"), (61, "1m 1s"), (8040, "2h 14m"), (90000, "1d 1h")])
def test_duration_has_its_two_largest_units(value: float, text: str) -> None:
    """Uptimes are short."""
    assert duration(value) == text


@pytest.mark.parametrize("show", [count, rate, size, micros, duration, share])
def test_number_that_is_missing_is_a_dash(show: Any) -> None:
    """What a proxy does not send is shown as missing, not as zero."""
    assert show(None) == "-"


def test_bar_is_always_as_wide_as_asked() -> None:
    """A share out of range, or none, fills or empties the bar and never breaks the frame."""
    assert {len(bar(value, 12)) for value in (-1, 0, 0.5, 1, 7, None)} == {12}


def test_spark_is_drawn_against_the_largest() -> None:
    """The largest value is a full block, nothing is the lowest."""
    assert spark([0.0, 5.0, 10.0]).plain == "▁▅█"
    assert spark([0.0, 0.0]).plain == "▁▁"


def test_draw_stats_shows_every_figure_within_80_columns() -> None:
    """All that the issue asks for is on the screen, and no line is wider than it."""
    text = _text(draw_stats(STATS, _URL))

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

    assert "Clients · 1 of 2 workers serve, 3 restarts" in _text(draw_stats(STATS | {"workers": workers}, _URL))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"l1": {"enabled": False}}, "L1 · off"),
        ({"l1": {"serving": False}}, "L1 · not serving"),
        ({"upstream": {"state": "unreachable", "why": "connection refused"}}, "Upstream · unreachable"),
        ({"upstream": {"state": "unreachable", "why": "connection refused"}}, "reason    connection refused"),
        ({"consistency": {"verified_total": 12, "stale_total": 3}}, "of them stale  3"),
        ({"upstream": {"tracked_keys": 900, "tracked_max_keys": 1000}}, "its table  900 keys of 1,000"),
        ({"upstream": {"tracking": "off", "tracking_reason": "refused by the server"}}, "refused by the server"),
    ],
)
def test_draw_stats_says_what_is_not_well(changes: dict[str, Any], words: str) -> None:
    """A state that matters is written out, not only coloured."""
    assert words in _text(draw_stats(_with(**changes), _URL))


@pytest.mark.parametrize(
    "stats", [{}, {"l1": None, "links": None}, {"l1": {"bytes": 5, "max_bytes": 0}}, {"links": [{}]}]
)
def test_draw_stats_of_an_answer_that_lacks_things_is_drawn(stats: dict[str, Any]) -> None:
    """A proxy of another version is shown as far as it goes."""
    assert "Respite" in _text(draw_stats(stats, _URL))


def test_draw_stats_with_many_links_shows_the_fullest_and_counts_the_rest() -> None:
    """What is stuck is on the screen, whatever its number."""
    links = [STATS["links"][1] | {"id": n, "outstanding": n} for n in range(300)]

    text = _text(draw_stats(STATS | {"links": links}, _URL, max_links=5))

    assert "299" in text
    assert "295" in text
    assert " 294 " not in text
    assert "and 295 more" in text


@pytest.mark.parametrize("name", ["[red]x[/red]", "x\x1b[2Jy"])
def test_draw_stats_name_of_a_peer_is_text(name: str) -> None:
    """Brackets and control bytes in what a peer calls itself are shown, never obeyed."""
    stats = _with(
        upstream=dict.fromkeys(("server", "version", "state", "tracking", "tracking_reason", "url", "why"), name)
    )
    stats["version"] = name
    stats["links"] = [dict.fromkeys(("id", "kind", "db", "user", "protocol", "state"), name)]

    text = _text(draw_stats(stats, _URL), width=200)

    assert text.count(name.replace("\x1b", r"\x1b")) == 14
    assert "\x1b" not in text


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
    drawn = _text(draw_stats(_with(values=_VALUES), _URL))

    assert max(map(len, drawn.splitlines())) == 80
    for words in ("memory saved  50.0 %", "1.0 GiB", "512.0 MiB", "40.0 %", "10 of 1,000", "dictionaries  2"):
        assert words in drawn
    assert "memory saved" not in _text(draw_stats(_with(values=_VALUES | {"enabled": False}), _URL))
    assert "memory saved" not in _text(draw_stats(STATS, _URL))


@pytest.mark.parametrize(
    "lacking", [{}, {"sweep": None, "dictionaries": 7}, {"sweep": {"running": True}, "saved": "?"}]
)
def test_draw_stats_of_values_of_another_version_does_not_fail(lacking: dict[str, Any]) -> None:
    """What is not sent, or is something else, is a dash."""
    assert "memory saved" in _text(draw_stats(_with(values={"enabled": True} | lacking), _URL))


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
    drawn = _text(draw_stats(_with(events=_EVENTS), _URL))

    assert max(map(len, drawn.splitlines())) == 80
    for words in ("Events · up", "amqp://mq:5672//", "1,200", "0.1 %", "17 in the queue, 4 here", "1m 15s", "4.2 ms"):
        assert words in drawn
    assert "Events" not in _text(draw_stats(_with(events={"state": "off"}), _URL))
    assert "Events" not in _text(draw_stats(STATS, _URL))


def test_draw_stats_says_why_no_events_come() -> None:
    """A broker that refuses is news, with its words."""
    events = {"state": "misconfigured", "why": "queue 'q' is there with other arguments"}

    assert "queue 'q' is there with other arguments" in _text(draw_stats(_with(events=events), _URL))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (None, "-"),
        (1732272000000 << 16, "113526177792000000, of 2024-11-22 10:40:00.000 UTC"),
        (1 << 200, str(1 << 200)),
        (-1, "-1"),
    ],
)
def test_version_shows_the_moment_it_stands_for(value: object, text: str) -> None:
    """Nobody reads a moment from 48 of 64 bits."""
    assert version(value) == text


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
