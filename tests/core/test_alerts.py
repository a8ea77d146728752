"""When alerts begin and end, played with a hand clock."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from proxy.config.alert_conditions import Notify, parse_condition
from proxy.config.alerts import Alert
from proxy.core.figures.alerts import CALM_S, UNKNOWN_S, Alerts, Notice

LOW = Alert("low", parse_condition("hit_rate < 80%"), 10.0, 0.84, (Notify("log"),))


def _play(alerts: Alerts, values: Sequence[float | None], begin: float = 0.0) -> list[tuple[float, Notice]]:
    """Hand in one value a second; return what was said, with when."""
    said = []
    for second, value in enumerate(values):
        now = begin + second
        said += [(now, one) for one in alerts.judge({} if value is None else {"hit_rate": value}, now)]
    return said


def test_judge_that_holds_for_long_enough_begins_once() -> None:
    """One message, after as long as `for`, and no more while it lasts."""
    said = _play(Alerts([LOW]), [0.5] * 100)

    assert [(at, one.state, one.value) for at, one in said] == [(10.0, "on", 0.5)]
    assert said[0][1].text == "low: hit_rate is 50%, below 80% for 10s"
    assert said[0][1].notify == (Notify("log"),)


def test_judge_that_holds_for_too_short_says_nothing() -> None:
    """Each time it is not so, it begins anew."""
    assert _play(Alerts([LOW]), ([0.5] * 9 + [0.9]) * 10) == []


def test_judge_without_for_begins_at_once() -> None:
    """What may never be is told in the same second."""
    said = _play(Alerts([attrs.evolve(LOW, for_s=0.0)]), [0.9, 0.5, 0.5])

    assert [(at, one.text) for at, one in said] == [(1.0, "low: hit_rate is 50%, below 80%")]


def test_judge_between_bound_and_clear_neither_begins_nor_ends() -> None:
    """A figure that wavers about its bound makes one message, not a hundred."""
    alerts = Alerts([LOW])

    said = _play(alerts, [0.5] * 15 + [0.83, 0.79] * 50 + [0.83] * 100)

    assert [one.state for _, one in said] == ["on"]
    assert alerts.rows(300.0)[0]["state"] == "on"


def test_rows_of_what_is_on_and_holds_no_more_say_that_it_was() -> None:
    """Until it has been calm for long enough it is on; its words are true all the same."""
    alerts = Alerts([LOW])
    _play(alerts, [0.5] * 15 + [0.9])

    assert [(row["state"], row["text"]) for row in alerts.rows(16.0)] == [("on", "low: hit_rate is 90%, was below 80%")]


def test_judge_beyond_clear_for_as_long_as_for_ends_once() -> None:
    """One message off, with how long it was so."""
    said = _play(Alerts([LOW]), [0.5] * 15 + [0.9] * 5 + [0.5] + [0.9] * 40)

    assert [(at, one.state) for at, one in said] == [(10.0, "on"), (31.0, "off")]
    assert said[1][1].text == "low is over after 31s: hit_rate is 90%"
    assert said[1][1].lasted_s == 31.0


def test_judge_end_of_a_long_for_does_not_wait_as_long() -> None:
    """Who was told that something is wrong hears within a minute that it is right again."""
    long = attrs.evolve(LOW, for_s=600.0)

    said = _play(Alerts([long]), [0.5] * 700 + [0.9] * 200)

    assert [(at, one.state) for at, one in said] == [(600.0, "on"), (700.0 + CALM_S, "off")]


def test_judge_not_measured_for_a_while_changes_nothing() -> None:
    """A minute without reads has no hit rate: an alert that is on stays on, one that is not does not begin."""
    assert [one.state for _, one in _play(Alerts([LOW]), [0.5] * 15 + [None] * 30 + [0.5] * 50)] == ["on"]
    assert _play(Alerts([LOW]), ([0.5] * 8 + [None] * 3) * 10) == []


def test_judge_not_measured_any_more_ends() -> None:
    """An alert about what is not there any more would stand forever."""
    said = _play(Alerts([LOW]), [0.5] * 15 + [None] * 200)

    assert [(at, one.state) for at, one in said] == [(10.0, "on"), (14.0 + UNKNOWN_S, "off")]
    assert said[1][1].text == "low is over after 74s: hit_rate is not measured any more"


def test_judge_figure_that_was_never_known_is_off() -> None:
    """Without a broker there is no alert about it."""
    alerts = Alerts([LOW])

    assert _play(alerts, [None] * 100) == []
    assert alerts.rows(100.0)[0]["state"] == "off"


def test_replace_keeps_the_state_of_rules_that_say_the_same() -> None:
    """A reload in the middle of an alert neither ends it nor begins it again; who is told may change."""
    alerts = Alerts([LOW])
    _play(alerts, [0.5] * 15)

    assert alerts.replace([attrs.evolve(LOW, notify=(Notify("amqp", "k"),))], 15.0) == []
    said = _play(alerts, [0.5] * 50 + [0.9] * 20, begin=15.0)

    assert [(one.state, one.notify) for _, one in said] == [("off", (Notify("amqp", "k"),))]


def test_replace_ends_what_is_not_watched_any_more() -> None:
    """Whoever was told that it began is told that nobody watches it now."""
    gone = Alerts([LOW])
    changed = Alerts([LOW])
    for alerts in (gone, changed):
        _play(alerts, [0.5] * 15)

    (end,) = gone.replace([], 20.0)
    (other,) = changed.replace([attrs.evolve(LOW, for_s=5.0)], 20.0)

    assert (end.state, end.text) == ("off", "low is over after 20s: it is no longer watched like this")
    assert other.state == "off"
    assert [(at, one.state) for at, one in _play(changed, [0.5] * 10, begin=20.0)] == [(25.0, "on")]
    assert gone.rows(20.0) == []


def test_replace_says_nothing_of_rules_that_were_not_on() -> None:
    """Nobody was told of them."""
    alerts = Alerts([LOW])
    _play(alerts, [0.5] * 5)

    assert alerts.replace([], 5.0) == []


def test_rows_show_first_what_is_on_with_words_and_value() -> None:
    """What a report and a dashboard show of every rule."""
    high = Alert("many", parse_condition("clients > 5"), 0.0, 4.0, (Notify("log"),))
    alerts = Alerts([LOW, high])
    alerts.judge({"hit_rate": 0.9, "clients": 7.0}, 3.0)

    many, low = alerts.rows(5.0)

    assert many == {
        "name": "many",
        "state": "on",
        "figure": "clients",
        "when": "clients > 5",
        "for_s": 0.0,
        "value": 7.0,
        "shown": "7",
        "lasts_s": 2.0,
        "text": "many: clients is 7, above 5",
    }
    assert (low["state"], low["lasts_s"], low["text"], low["shown"]) == ("off", None, "", "90%")


def test_bounds_are_those_of_the_first_rule_of_a_figure() -> None:
    """Trends say when they get there."""
    assert Alerts([LOW, attrs.evolve(LOW, name="other")]).bounds() == {"hit_rate": (0.8, "low")}


def test_body_of_a_notice_names_no_target() -> None:
    """What is sent holds no URL of anybody."""
    notice = _play(Alerts([attrs.evolve(LOW, notify=(Notify("webhook", "https://h/s3cret"),))]), [0.5] * 11)[0][1]

    assert notice.body() == {
        "state": "on",
        "name": "low",
        "figure": "hit_rate",
        "when": "hit_rate < 80%",
        "value": 0.5,
        "lasted_s": 10.0,
        "text": "low: hit_rate is 50%, below 80% for 10s",
    }
