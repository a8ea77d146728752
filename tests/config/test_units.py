"""Times and sizes, both ways."""

from __future__ import annotations

import datetime
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.units import format_bytes, format_seconds, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10us", 1e-5),
        ("250ms", 0.25),
        ("10s", 10.0),
        ("1.5s", 1.5),
        ("5m", 300.0),
        ("2 h", 7200.0),
        ("1d", 86400.0),
        ("0s", 0.0),
        (10, 10.0),
        (0.5, 0.5),
        (0, 0.0),
    ],
)
def test_parse_seconds_known_form_gives_seconds(value: object, expected: float) -> None:
    """Each unit, a fraction, and a plain number of seconds are times."""
    assert expected == pytest.approx(parse_seconds(value))


@pytest.mark.parametrize(
    "value",
    [
        *("", "10", "s", "-1s", "10 minutes", "10S", "5M", "1m30s", "1e3s", "0x10s", " 10s", "10s\n", "\u0661s"),
        *(-1, -0.1, math.nan, math.inf, True, False, None, [], {}, datetime.time(1)),
    ],
)
def test_parse_seconds_unknown_form_is_refused(value: object) -> None:
    """A time needs a unit or is a number; negative, endless and boolean ones are none."""
    with pytest.raises(ValueError, match="a time is"):
        parse_seconds(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1B", 1),
        ("10KiB", 10240),
        ("64MiB", 67108864),
        ("1.5GiB", 1610612736),
        ("1 TiB", 1 << 40),
        ("64mib", 67108864),
        (0, 0),
        (1500, 1500),
    ],
)
def test_parse_bytes_known_form_gives_bytes(value: object, expected: int) -> None:
    """Each unit in any case, a fraction, and a plain number of bytes are sizes."""
    assert expected == parse_bytes(value)


@pytest.mark.parametrize("value", ["", "64", "64MB", "64mb", "64M", "-1KiB", "MiB", -1, 1.5, True, None, [], "6_4MiB"])
def test_parse_bytes_unknown_form_is_refused(value: object) -> None:
    """A unit that is read both 1000- and 1024-based is refused, as is all that is no whole size."""
    with pytest.raises(ValueError, match="a size is"):
        parse_bytes(value)


@given(st.integers(min_value=0, max_value=1 << 45))
def test_format_bytes_any_size_reads_back(size: int) -> None:
    """A size that is written down is read as the same size."""
    assert size == parse_bytes(format_bytes(size))


@given(st.integers(min_value=0, max_value=10_000_000).map(lambda millis: millis / 1000))
def test_format_seconds_any_time_reads_back(seconds: float) -> None:
    """A time that is written down is read as the same time, to the precision people write."""
    assert seconds == pytest.approx(parse_seconds(format_seconds(seconds)), rel=1e-5)


def test_format_seconds_round_values_take_the_largest_unit() -> None:
    """Limits appear in messages as people write them."""
    written = [format_seconds(seconds) for seconds in (30 * 86400, 300, 10, 0.25, 1e-5, 0)]

    expected = ["30d", "5m", "10s", "250ms", "10us", "0s"]
    assert expected == written
