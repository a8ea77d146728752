"""The monitor over a proxy that a test makes up, second by second, and as it runs by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import structlog
import trio
import trio.testing

from proxy.admin.monitor import ALERTS_CHANNEL, FIGURES_CHANNEL, STEADY_S, Monitor
from proxy.config.alert_conditions import Notify, parse_condition
from proxy.config.load import default_settings
from proxy.config.model import AlertRule, Settings
from proxy.core.figures.snapshot import Snapshot

NOW_S = 1_700_000_000.0


@attrs.define
class Made:
    """A proxy of two counters, and everything that was told of it."""

    at: float = 0.0
    hits: int = 0
    misses: int = 0
    broken: bool = False
    told: list[tuple[str, dict[str, Any]]] = attrs.field(factory=list)
    offered: list[tuple[Mapping[str, Any], str]] = attrs.field(factory=list)

    async def snapshot(self) -> Snapshot:
        """Return both counters, or break."""
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise ZeroDivisionError
        return Snapshot(
            self.at,
            {
                "uptime_s": self.at,
                "l1": {"hits_total": self.hits, "misses_total": self.misses},
                "upstream": {"state": "up"},
                "events": {"state": "up", "depth": 10 * int(self.at)},
            },
        )

    def tell(self, channel: str, payload: dict[str, Any]) -> None:
        """Note it."""
        self.told.append((channel, payload))

    def offer(self, body: Mapping[str, Any], target: str) -> None:
        """Note it, as a broker would."""
        self.offered.append((body, target))

    async def run(self) -> None:
        """Send nothing."""
        await trio.sleep_forever()

    def of(self, channel: str) -> list[dict[str, Any]]:
        """Return what was told in a channel."""
        return [payload for one, payload in self.told if one == channel]


def _settings(*rules: AlertRule) -> Settings:
    off = [AlertRule(name, enabled=False) for name in ("hit rate low", "queue growing")]
    return attrs.evolve(default_settings(), alerts=(*off, *rules))


def _monitor(made: Made, *rules: AlertRule) -> Monitor:
    return Monitor(made, made, _settings(*rules), broker=made, now_s=lambda: NOW_S + made.at)


async def _play(made: Made, monitor: Monitor, seconds: int, *, hits: int, misses: int) -> None:
    for _ in range(seconds):
        made.at += 1
        made.hits += hits
        made.misses += misses
        await monitor.look()


async def test_look_tells_the_figures_of_the_last_second_and_of_the_last_fifteen() -> None:
    """Who watches sees each second, and the steady picture beside it."""
    made = Made()
    monitor = _monitor(made)

    await _play(made, monitor, 20, hits=9, misses=1)
    await _play(made, monitor, 1, hits=0, misses=10)

    last = made.of(FIGURES_CHANNEL)[-1]
    assert len(made.of(FIGURES_CHANNEL)) == 21
    assert last["figures"]["hit_rate"] == 0.0
    assert last["steady"]["hit_rate"] == pytest.approx(0.9 * (STEADY_S - 1) / STEADY_S)
    assert (last["health"], last["reasons"], last["alerts"]) == ("healthy", [], [])


async def test_look_with_an_alert_tells_log_webhook_broker_and_channel_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One message on and one off, to everybody who is named."""
    made = Made()
    posted: list[tuple[Mapping[str, Any], str]] = []
    rule = AlertRule(
        "low",
        when=parse_condition("hit_rate < 50%"),
        for_s=3.0,
        notify=(Notify("log"), Notify("webhook", "http://h/x"), Notify("amqp", "respite.low")),
    )
    monitor = _monitor(made, rule)
    monkeypatch.setattr(monitor._webhooks, "offer", lambda body, target: posted.append((body, target)))

    with structlog.testing.capture_logs() as logs:
        await _play(made, monitor, 20, hits=1, misses=9)
        await _play(made, monitor, 40, hits=10, misses=0)

    assert ["on", "off"] == [one["state"] for one in made.of(ALERTS_CHANNEL)]
    on, off = made.of(ALERTS_CHANNEL)
    assert on["text"] == "low: hit_rate is 10%, below 50% for 3s"
    assert on["at"] == "2023-11-14T22:13:24.000Z"
    assert posted == [(on, "http://h/x"), (off, "http://h/x")]
    assert made.offered == [(on, "respite.low"), (off, "respite.low")]
    assert [(one["log_level"], one["event"]) for one in logs] == [("warning", on["text"]), ("info", off["text"])]


async def test_look_at_single_good_seconds_does_not_hide_an_alert() -> None:
    """One second of ten in which all is well is no end of what is wrong: fifteen seconds are judged, not one."""
    made = Made()
    monitor = _monitor(made, AlertRule("low", when=parse_condition("hit_rate < 50%"), for_s=12.0))

    for _ in range(3):
        await _play(made, monitor, 9, hits=1, misses=9)
        await _play(made, monitor, 1, hits=10, misses=0)

    assert [one["state"] for one in made.of(ALERTS_CHANNEL)] == ["on"]


async def test_look_while_an_alert_is_on_shows_it_with_since_and_degraded() -> None:
    """A report says what is wrong and since when."""
    made = Made()
    monitor = _monitor(made, AlertRule("low", when=parse_condition("hit_rate < 50%"), for_s=3.0))

    await _play(made, monitor, 10, hits=1, misses=9)

    (row,) = made.of(FIGURES_CHANNEL)[-1]["alerts"]
    assert (row["name"], row["state"], row["lasts_s"], row["since"]) == ("low", "on", 9.0, "2023-11-14T22:13:21.000Z")
    overall = monitor.report()["overall"]
    assert (overall["health"], overall["reasons"]) == ("degraded", ["low: hit_rate is 10%, below 50%"])
    assert monitor.report()["at"] == "2023-11-14T22:13:30.000Z"


async def test_reload_keeps_an_alert_that_says_the_same_and_ends_one_that_is_gone() -> None:
    """Live, without a word about what did not change."""
    made = Made()
    rules = [AlertRule(name, when=parse_condition("hit_rate < 50%"), for_s=3.0) for name in ("a", "b")]
    monitor = _monitor(made, *rules)
    await _play(made, monitor, 10, hits=1, misses=9)

    monitor.reload(_settings(rules[0]))
    await _play(made, monitor, 10, hits=1, misses=9)

    assert [(one["name"], one["state"]) for one in made.of(ALERTS_CHANNEL)] == [("a", "on"), ("b", "on"), ("b", "off")]


async def test_look_at_a_queue_that_grows_finds_it_and_its_trend() -> None:
    """Ten events a second more for five minutes: the figure, the trend, and the alert of the defaults."""
    made = Made()
    settings = attrs.evolve(_settings(), alerts=(AlertRule("hit rate low", enabled=False),))
    full = attrs.evolve(settings, metrics=attrs.evolve(settings.metrics, queue_full_at=10_000))
    monitor = Monitor(made, made, full, now_s=lambda: NOW_S + made.at)

    await _play(made, monitor, 480, hits=1, misses=0)

    report = monitor.report()
    assert report["queue"]["figures"]["queue_growth"] == pytest.approx(10.0)
    assert [one["name"] for one in report["queue"]["alerts"]] == ["queue growing"]
    (trend,) = report["queue"]["trends"]
    assert trend["text"].startswith("queue grows, full in ")
    assert trend in made.of(FIGURES_CHANNEL)[-1]["trends"]


async def test_history_is_in_time_of_people_and_takes_several_figures() -> None:
    """Points are [ms since 1970, value or null], oldest first."""
    made = Made()
    monitor = _monitor(made)
    await _play(made, monitor, 5, hits=9, misses=1)

    (series, other) = monitor.history("hit_rate,clients", 3, 1)["series"]

    ms = int(NOW_S * 1000)
    assert series == {
        "figure": "hit_rate",
        "unit": "ratio",
        "about": "reads answered from L1",
        "good": "up",
        "points": [[ms + 3000, 0.9], [ms + 4000, 0.9], [ms + 5000, 0.9]],
    }
    assert [value for _, value in other["points"]] == [None, None, None]


@pytest.mark.parametrize(
    ("name", "seconds", "step", "words"),
    [
        ("hitrate", 5, 1, "there is no figure 'hitrate'; did you mean hit_rate?"),
        ("", 5, 1, "there is no figure ''; the figures are hit_rate"),
        ("clients,colour", 5, 1, "there is no figure 'colour'"),
        ("clients", 0, 1, "seconds and step are numbers above 0"),
        ("clients", 5, -1, "seconds and step"),
        ("clients", float("nan"), 1, "seconds and step"),
        ("clients", 5, float("inf"), "seconds and step"),
        ("clients", 1e308, 1, "at most 31622400"),
        ("clients", 5, 1e308, "at most 31622400"),
    ],
)
async def test_history_of_what_there_is_not_is_refused_with_words(
    name: str, seconds: float, step: float, words: str
) -> None:
    """Whoever asks reads what to ask."""
    with pytest.raises(ValueError, match=r"figure|seconds") as caught:
        _monitor(Made()).history(name, seconds, step)

    assert words in str(caught.value)


async def test_run_goes_on_after_a_look_that_breaks_and_says_so_once(autojump_clock: trio.testing.MockClock) -> None:
    """A bug in what is watched is no end of the watching."""
    made = Made()
    monitor = _monitor(made)

    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(monitor.run)
            made.broken = True
            await trio.sleep(3.5)
            made.broken = False
            await trio.sleep(3.0)
            nursery.cancel_scope.cancel()

    assert ["the monitor broke, it goes on"] == [one["event"] for one in logs]
    assert len(made.of(FIGURES_CHANNEL)) == 4


async def test_run_looks_once_a_second_before_and_after_it_has_started(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first report has figures; the clock does not drift with what a look takes."""
    made = Made()
    ends: list[float] = []

    class Slow:
        async def snapshot(self) -> Snapshot:
            await trio.sleep(0.25)
            ends.append(trio.current_time())
            return await made.snapshot()

    monitor = Monitor(Slow(), None, _settings(), now_s=lambda: NOW_S)
    async with trio.open_nursery() as nursery:
        begin = trio.current_time()
        await nursery.start(monitor.run)
        assert monitor.report()["overall"]["figures"] != {}
        await trio.sleep(3.1)
        nursery.cancel_scope.cancel()

    assert [round(end - begin, 2) for end in ends] == [0.25, 1.5, 2.5]
