"""Numbers as people say them, bars and sparks as wide as they are asked to be."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.cli.forms import bar, brief, count, duration, micros, rate, share, size, spark, version


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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0, "0"), (9999, "9999"), (10_000, "10k"), (999_499, "999k"), (999_999, "1.0M"), (99_400_000, "99.4M")),
        *((99_600_000, "100M"), (2.5e9, "2.5G"), (None, "-")),
    ],
)
def test_brief_has_five_cells_at_most(value: object, text: str) -> None:
    """Tables side by side have no room for more."""
    assert brief(value) == text
    assert len(text) <= 5


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
    assert spark([0.0, 5.0, 10.0], 10).plain == "▁▅█"
    assert spark([0.0, 0.0], 10).plain == "▁▁"


def test_spark_has_gaps_and_as_many_cells_as_there_are() -> None:
    """What is not known is no zero; where there is too much for the room, a cell is a mean."""
    assert spark([10.0, None, 10.0], 10).plain == "█ █"
    assert spark([10.0, 0.0, 10.0, 10.0, None, 5.0, None, None], 4).plain == "▅█▅ "
    assert spark([], 4).plain == ""


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
