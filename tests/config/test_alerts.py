"""How [[alert]] and [metrics] are read, what comes of them with the defaults, and what is said of what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from proxy.config.alert_conditions import FIGURES, Condition, Notify, format_figure, parse_bound, parse_condition
from proxy.config.alerts import ALERTS, COMPRESSED, DEFAULTS, Alert, alerts_of
from proxy.config.kinds import Kind
from proxy.config.load import default_settings
from proxy.config.model import AlertRule, Settings
from proxy.config.units import format_seconds
from proxy.core.figures.history import WATCHED

from .conftest import Fail, Load

LOG = (Notify("log"),)


README = (Path(__file__).parents[2] / "conf" / "README.md").read_text(encoding="utf-8")


def _named(settings: Settings, name: str) -> Alert:
    (found,) = [one for one in alerts_of(settings) if one.name == name]
    return found


def test_figures_of_conditions_are_those_that_are_watched() -> None:
    """The names and units stand twice, because config knows no layer above it: they are the same."""
    assert {name: figure.unit for name, figure in WATCHED.items()} == FIGURES


def test_load_alert_is_read_with_its_units(load: Load) -> None:
    """Every key of an alert gets to the rule, in seconds and shares."""
    settings = load("""
        amqp.url = "amqp://h"
        [[alert]]
        name = "queue long"
        when = "queue_lag >= 2m"
        for = "90s"
        clear = "30s"
        notify = ["log", "https://u:p@h/s3cret?t=1", "alerts.respite"]
        """)

    rule = AlertRule(
        "queue long",
        when=Condition("queue_lag", ">=", 120.0),
        for_s=90.0,
        clear="30s",
        notify=(*LOG, Notify("webhook", "https://u:p@h/s3cret?t=1"), Notify("amqp", "alerts.respite")),
    )
    assert settings.alerts == (rule,)
    assert _named(settings, "queue long").clear == 30.0


def test_alert_left_out_keys_have_the_defaults_of_model_and_table(load: Load) -> None:
    """Somebody who makes a rule by hand gets what the file gives: the two say the same."""
    settings = load("[[alert]]\nname = 'a'\nwhen = 'clients > 5'")

    assert settings.alerts == (AlertRule("a", when=Condition("clients", ">", 5.0)),)
    assert [field.name for field in attrs.fields(AlertRule)] == [key.field for key in ALERTS.keys]
    assert _named(settings, "a") == Alert("a", Condition("clients", ">", 5.0), 60.0, 4.75, LOG)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("hit_rate<0.85", ("hit_rate", "<", 0.85)), ("hit_rate < 85%", ("hit_rate", "<", 0.85))),
        *((" hit_rate  <=  85.5 % ", ("hit_rate", "<=", 0.855)), ("staleness > 5s", ("staleness", ">", 5.0))),
        *(("latency_p99 > 20ms", ("latency_p99", ">", 0.02)), ("latency_p99 > 1e-3", ("latency_p99", ">", 0.001))),
        *(("l1_bytes >= 64MiB", ("l1_bytes", ">=", 67108864.0)), ("l1_bytes > 5", ("l1_bytes", ">", 5.0))),
        *(("queue_depth > 1000", ("queue_depth", ">", 1000.0)), ("upstream_up < 1", ("upstream_up", "<", 1.0))),
    ],
)
def test_parse_condition_reads_number_and_unit(text: str, expected: tuple[str, str, float]) -> None:
    """A bound is written in the unit of its figure, or as a plain number of the base unit."""
    found = parse_condition(text)

    assert (found.figure, found.comparison) == expected[:2]
    assert found.bound == pytest.approx(expected[2])
    assert parse_condition(found.text) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "hit_rate", "hit_rate <", "< 5", "hit_rate < < 5", "hit_rate == 1", "hit_rate < x", "hit_rate < -1"),
        *("hit_rate < 5s", "hit_rate < 5MiB", "latency_p99 > 5%", "latency_p99 > 5 parsecs", "queue_depth > 5s"),
        *("queue_depth > 10%", "l1_bytes > 5s", "clients > 1e999", "clients > nan", "hit_rate < 85%%", "clients>1>2"),
    ],
)
def test_load_condition_that_says_nothing_is_refused(fail: Fail, text: str) -> None:
    """One problem, at `when`, with the reason."""
    problems = fail(f"[[alert]]\nname = 'a'\nwhen = '{text}'")

    assert ["alert.a.when"] == list(problems)
    assert problems["alert.a.when"].allowed.startswith("a condition, such as")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hitrate", "did you mean 'hit_rate'?"),
        ("latencyp99", "did you mean 'latency_p99'?"),
        ("colour", "the figures are hit_rate, "),
    ],
)
def test_load_unknown_figure_names_the_nearest_known_one(fail: Fail, name: str, words: str) -> None:
    """A slip finds its way home; what is like nothing gets the list."""
    problems = fail(f"[[alert]]\nname = 'a'\nwhen = '{name} < 1'")

    assert f"'{name}' is no figure; " in problems["alert.a.when"].allowed
    assert words in problems["alert.a.when"].allowed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hit_rate < 85", "did you mean '85%'?"),
        ("l1_fill > 1.5", "did you mean '1.5%'?"),
        ("upstream_up < 5", "1 while it is up, else 0"),
    ],
)
def test_parse_condition_of_a_bound_out_of_reach_is_refused(text: str, words: str) -> None:
    """It would hold always or never; who wrote it meant something else."""
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_condition(text)


def test_parse_condition_takes_a_share_above_all_of_values_that_grew_or_in_percent() -> None:
    """Values wrapped in vain are larger than they were."""
    assert parse_condition("memory_ratio > 1.5").bound == parse_condition("hit_rate < 150%").bound == 1.5


@pytest.mark.parametrize("figure", FIGURES)
def test_format_figure_is_read_back(figure: str) -> None:
    """What is shown of a bound can be written again, however large it is."""
    values = (0.0, 0.5, 1.0, 3.0, 0.02, 0.99996, 999.96, 1500.0, 120.0, 9223.0, 9.223e15)
    for value in values[:3] if FIGURES[figure] == "state" else values:
        if FIGURES[figure] != "bytes" or value.is_integer():
            assert value == pytest.approx(parse_bound(figure, format_figure(figure, value)), rel=5e-3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("name", "''"), ("name", "' a'"), ("name", "5"), ("name", f"'{'x' * 65}'"), ("when", "5")),
        *(("for", "'2d'"), ("for", "'x'"), ("for", "-1"), ("clear", "true"), ("clear", "''"), ("enabled", "'no'")),
        *(("notify", "'log'"), ("notify", "[]"), ("notify", "['log', 'log']"), ("notify", "['two words']")),
        *(("notify", "['http://']"), ("notify", "['ftp://h/x']"), ("notify", "['http://h:0/x']"), ("notify", "['']")),
        *(("notify", "['http://h:x/']"), ("notify", "['https://h/#a']"), ("notify", f"['{'k' * 256}']")),
        *(
            ("notify", "['http://a..b/']"),
            ("notify", "['https://h/a b']"),
            ("notify", "[5]"),
            ("notify", "['https://h/ä']"),
        ),
    ],
)
def test_load_wrong_value_in_an_alert_is_reported_with_what_is_allowed(fail: Fail, key: str, value: str) -> None:
    """One problem, at the path of the key."""
    written = {"name": "'b'", "when": "'clients > 5'"} | {key: value}

    problems = fail(
        "amqp.url = 'amqp://h'\n[[alert]]\n" + "\n".join(f"{name} = {text}" for name, text in written.items())
    )

    (allowed,) = [one.kind.allowed for one in ALERTS.keys if one.path == key and isinstance(one.kind, Kind)]
    (path,) = problems
    assert path in {f"alert.b.{key}", "alert[1].name"}
    assert problems[path].allowed.startswith(allowed)


def test_load_wrong_webhook_shows_nothing_of_the_url(fail: Fail) -> None:
    """A URL of a webhook is a secret by itself."""
    problems = fail("[[alert]]\nname = 'a'\nwhen = 'clients > 5'\nnotify = ['https://h/s3cret#x']")

    assert "s3cret" not in str(problems["alert.a.notify"])


def test_notify_display_and_repr_show_nothing_but_the_host() -> None:
    """What is logged of a webhook is where it goes, not with which secret."""
    where = Notify("webhook", "https://user:pw@chat.internal:8443/hooks/s3cret?token=x")

    assert where.display == "https://chat.internal:8443"
    assert "s3cret" not in repr(where)
    assert Notify("amqp", "a.b").display == "amqp a.b"


@pytest.mark.parametrize(
    ("when", "clear", "words"),
    [
        ("hit_rate < 85%", "'80%'", "beyond the bound, where hit_rate < 85% is not so"),
        ("latency_p99 > 20ms", "'1s'", "beyond the bound, where latency_p99 > 20ms is not so"),
        ("latency_p99 > 20ms", "'5%'", "is no value of latency_p99"),
        ("queue_depth > 5", "'x'", "is no value of queue_depth"),
    ],
)
def test_load_clear_on_the_wrong_side_is_refused(fail: Fail, when: str, clear: str, words: str) -> None:
    """An alert whose end is further in than its beginning would begin and end with every look."""
    problems = fail(f"[[alert]]\nname = 'a'\nwhen = '{when}'\nclear = {clear}")

    assert ["alert.a.clear"] == list(problems)
    assert words in problems["alert.a.clear"].allowed


def test_load_alert_without_condition_is_refused_unless_a_default_has_its_name(fail: Fail, load: Load) -> None:
    """What must be so is needed, but for who only changes a default, or turns a rule off."""
    assert ["alert.a.when"] == list(fail("[[alert]]\nname = 'a'"))
    assert load("[[alert]]\nname = 'redis down'\nfor = '1m'")
    assert load("[[alert]]\nname = 'a'\nenabled = false")


@pytest.mark.parametrize("text", ["metrics.notify = ['a.b']", "[[alert]]\nname='a'\nwhen='clients>1'\nnotify=['lgo']"])
def test_load_routing_key_without_broker_is_refused(fail: Fail, load: Load, text: str) -> None:
    """A slip in "log" is a routing key: without a broker nobody would ever hear of it."""
    (problem,) = fail(text).values()

    assert "is a routing key, and amqp.url names no broker" in problem.allowed
    assert load(f"amqp.url = 'amqp://h'\n{text}")


def test_alerts_of_nothing_are_the_defaults() -> None:
    """Without a word in the file what matters is watched; memory only where a class asks to save some."""
    names = [one.name for one in alerts_of(default_settings())]

    assert names == [one.name for one in DEFAULTS if one.name != COMPRESSED]


def test_alerts_of_a_class_that_compresses_watch_the_memory_too(load: Load) -> None:
    """Who asks for compression is told when it saves little."""
    settings = load("[[class]]\nname = 'c'\nmatch = ['c:*']\ncompress = true")

    assert [one.name for one in alerts_of(settings)] == [one.name for one in DEFAULTS]


def test_alert_with_the_name_of_a_default_changes_what_it_says(load: Load) -> None:
    """What it leaves out stays that of the default, and no alert stands twice."""
    settings = load("""
        [metrics]
        notify = ["log", "http://h/x"]
        [[alert]]
        name = "hit rate low"
        for = "1s"
        [[alert]]
        name = "latency high"
        when = "latency_p99 > 5ms"
        notify = ["log"]
        [[alert]]
        name = "errors"
        enabled = false
        """)
    names = [one.name for one in alerts_of(settings)]
    both = (*LOG, Notify("webhook", "http://h/x"))

    assert len(names) == len(set(names)) == len(DEFAULTS) - 2
    assert "errors" not in names
    low = _named(settings, "hit rate low")
    assert (low.condition, low.for_s, low.notify) == (Condition("hit_rate", "<", 0.85), 1.0, both)
    high = _named(settings, "latency high")
    assert (high.condition, high.for_s, high.notify) == (Condition("latency_p99", ">", 0.005), 300.0, LOG)


@pytest.mark.parametrize(
    ("when", "clear"),
    [
        *(("hit_rate < 80%", 0.84), ("hit_rate < 98%", 0.99), ("latency_p99 > 20ms", 0.019)),
        *(("upstream_up < 1", 1.0), ("queue_depth > 0", 0.0)),
    ],
)
def test_alert_without_clear_ends_a_margin_beyond_its_bound(load: Load, when: str, clear: float) -> None:
    """5 % beyond; of a share that is nearly 1, half of what is left; a state has nothing beyond."""
    assert clear == pytest.approx(_named(load(f"[[alert]]\nname = 'a'\nwhen = '{when}'"), "a").clear)


@pytest.mark.parametrize(("key", "value"), [("history", "'30s'"), ("history", "'2d'"), ("queue_full_at", "-1")])
def test_load_metrics_out_of_range_is_refused(fail: Fail, key: str, value: str) -> None:
    """Memory is bounded."""
    assert [f"metrics.{key}"] == list(fail(f"[metrics]\n{key} = {value}"))


def test_readme_names_every_default_and_every_figure() -> None:
    """What the page says is there is there, as it says."""
    chapter = README.partition("## Alerts and trends\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| ([^|]+) \|", chapter, re.MULTILINE)
    table = chapter.partition("| written as | figures |")[2].partition("\n\n")[0]
    defaults = [
        (one.name, one.when.text if one.when else "", format_seconds(one.for_s) if one.for_s else "at once")
        for one in DEFAULTS
    ]

    assert rows == defaults
    assert sorted(re.findall(r"`([a-z][a-z0-9_]+)`", table)) == sorted(FIGURES)
