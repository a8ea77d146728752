"""The share of the server's tracking table that is in use decides: nothing, a warning, or to track less."""

from __future__ import annotations

import pytest

from proxy.core import governor as governor_module
from proxy.core.governor import DEFAULT_MAX_KEYS, Governor


class Logger:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def warning(self, event: str, **about: object) -> None:
        """Keep a line."""
        self.lines.append(about)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Logger:
    """Stand in for the governor's logger."""
    made = Logger()
    monkeypatch.setattr(governor_module, "log", made)
    return made


def info(keys: int) -> bytes:
    """Return INFO stats of a server that tracks so many keys, each for several clients."""
    return (
        b"# Stats\r\ntotal_connections_received:5\r\ntracking_total_keys:%d\r\n"
        b"tracking_total_items:%d\r\ntracking_total_prefixes:7\r\n" % (keys, keys * 40)
    )


def governor(max_keys: int = 1000) -> Governor:
    """Return one whose table has a bound."""
    made = Governor()
    made.limit([b"tracking-table-max-keys", b"%d" % max_keys])
    return made


@pytest.mark.parametrize(
    ("keys", "verdict"),
    [
        (0, "calm"),
        (599, "calm"),
        (700, "calm"),
        (799, "calm"),
        (800, "warn"),
        (949, "warn"),
        (950, "narrow"),
        (1000, "narrow"),
        (5000, "narrow"),
    ],
)
@pytest.mark.usefixtures("log")
def test_judge_of_a_table_seen_first_goes_by_the_share_in_use(keys: int, verdict: str) -> None:
    """Keys count, not the clients that each is tracked for."""
    made = governor()

    assert made.judge(info(keys)) == verdict
    assert (made.keys, made.verdict, made.pressure) == (keys, verdict, keys / 1000)


@pytest.mark.parametrize(
    ("shares", "verdicts"),
    [
        ((800, 700, 600, 599, 700), ("warn", "warn", "warn", "calm", "calm")),
        ((950, 900, 700, 599), ("narrow", "warn", "warn", "calm")),
        ((810, 960, 960), ("warn", "narrow", "narrow")),
    ],
)
@pytest.mark.usefixtures("log")
def test_judge_calms_down_only_when_there_is_room_again(shares: tuple[int, ...], verdicts: tuple[str, ...]) -> None:
    """A table that hovers around a bound does not make the verdict hover."""
    made = governor()

    assert tuple(made.judge(info(keys)) for keys in shares) == verdicts


def test_judge_logs_each_rise_once_and_says_what_to_do(log: Logger) -> None:
    """Not at every look; again after it has calmed down."""
    made = governor()
    for keys in (500, 800, 850, 790, 810, 960, 970, 500, 820):
        made.judge(info(keys))

    assert [line["keys"] for line in log.lines] == [800, 960, 820]
    assert {line["max_keys"] for line in log.lines} == {1000}
    assert all("tracking-table-max-keys" in str(line["advice"]) for line in log.lines)


@pytest.mark.parametrize("reply", [[b"tracking-table-max-keys", b"5000"], {b"tracking-table-max-keys": b"5000"}])
def test_limit_of_the_server_is_taken_in_both_protocols(reply: object) -> None:
    """CONFIG GET answers an array in RESP2, a map in RESP3."""
    made = Governor()
    made.limit(reply)

    assert made.max_keys == 5000


@pytest.mark.parametrize(
    "reply",
    [
        None,
        [],
        {},
        [b"tracking-table-max-keys"],
        [b"tracking-table-max-keys", b"many"],
        b"-NOPERM",
        {b"a": b"1", b"b": b"2"},
    ],
)
def test_limit_that_may_not_be_asked_is_redis_default(reply: object) -> None:
    """Whatever was known before."""
    made = governor()
    made.limit(reply)

    assert made.max_keys == DEFAULT_MAX_KEYS


def test_table_without_a_bound_is_never_full(log: Logger) -> None:
    """0 says that there is none."""
    made = governor(0)

    assert made.judge(info(10_000_000)) == "calm"
    assert made.pressure == 0.0
    assert log.lines == []


@pytest.mark.parametrize("text", [b"", b"# Stats\r\n", b"tracking_total_items:900\r\n", b"tracking_total_keys:\r\n"])
def test_judge_of_a_server_that_tells_nothing_is_calm(text: bytes) -> None:
    """An older server, or one that hides the section."""
    made = governor()

    assert made.judge(text) == "calm"
    assert made.keys == 0


def test_judge_says_nothing_when_the_table_empties(log: Logger) -> None:
    """A warning is for a table that fills: one that empties from narrow to warn is no news."""
    made = Governor()
    made.limit([b"x", b"1000"])
    made.judge(b"tracking_total_keys:960")
    made.judge(b"tracking_total_keys:900")

    assert [line["keys"] for line in log.lines] == [960]
