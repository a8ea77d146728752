"""What publishers write for a version."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.events.versions import VERSION_MAX, moment_of, version_of

AT_MS = 1732272000123  # 2024-11-22T10:40:00.123Z


def _until(last_ms: int) -> int:
    return last_ms << 16 | 0xFFFF


@pytest.mark.parametrize("written", [AT_MS, str(AT_MS), f" {AT_MS} ", float(AT_MS)])
def test_version_of_milliseconds_is_all_of_that_millisecond(written: object) -> None:
    """A value that was written in the same millisecond is not newer than the event."""
    assert version_of(written) == _until(AT_MS)


@pytest.mark.parametrize("written", [AT_MS << 16 | 7, str(AT_MS << 16 | 7)])
def test_version_of_a_version_is_itself(written: object) -> None:
    """What RESPITE VERSION says comes back as it is, also as text, which JavaScript needs for it."""
    assert version_of(written) == AT_MS << 16 | 7


@pytest.mark.parametrize(
    ("written", "last_ms"),
    [
        ("2024-11-22T10:40:00.123Z", AT_MS),
        ("2024-11-22t10:40:00.123z", AT_MS),
        ("2024-11-22 11:40:00,123+01:00", AT_MS),
        ("2024-11-22T05:10:00.123 -0530", AT_MS),
        ("2024-11-22T11:40:00.1239999999+01", AT_MS),
        ("2024-11-22T10:40:00.12Z", AT_MS + 6),
        ("2024-11-22T10:40:00.1Z", AT_MS + 76),
        ("2024-11-22T10:40:00Z", AT_MS + 876),
        ("2024-11-22T10:40Z", AT_MS - 123 + 59_999),
    ],
)
def test_version_of_iso_time_is_the_end_of_what_it_names(written: str, last_ms: int) -> None:
    """A clock's text that was cut short takes every value of what was cut, or one from before the change would stay."""
    assert version_of(written) == _until(last_ms)


@pytest.mark.parametrize("written", [0, "0", 0.0])
def test_version_of_zero_is_none(written: object) -> None:
    """0 stands for no version in an envelope; taken for one it would be older than anything."""
    assert version_of(written) is None


@pytest.mark.parametrize("written", [1, 41, 999_999_999])
def test_version_of_small_number_is_somebodys_counter(written: int) -> None:
    """Small numbers mean for events what they mean for RESPITE SETV."""
    assert version_of(written) == _until(written)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (1732272000, "looks like seconds"),
        ("1732272000", "looks like seconds"),
        (1732272000123456, "looks like microseconds"),
        ("2024-11-22T10:40:00", "of no known zone"),
        ("0001-01-01T00:00:00Z", "never set"),
        ("1970-01-01T00:00:00.000Z", "never set"),
        ("2024-11-31T10:40:00Z", "a time that there is not"),
        ("2024-11-22T10:40:60Z", "a time that there is not"),
        ("2024-11-22T10:40:00+99:00", "a time that there is not"),
        ("2024-11-22", "is a whole number"),
        ("", "is a whole number"),
        ("now", "is a whole number"),
        ("-1", "is a whole number"),
        ("9" * 5000, "is a whole number"),
        ("\u0661\u0662", "is a whole number"),
        (-1, "is a whole number"),
        (1.5, "is a whole number"),
        (float("nan"), "is a whole number"),
        (float("inf"), "is a whole number"),
        (1e300, "is a whole number"),
        (True, "is a whole number"),
        (1 << 47, "past the year 6429"),
        ("6430-01-01T00:00:00Z", "past the year 6429"),
        (VERSION_MAX + 1, "is a whole number"),
        (10**4000, "is a whole number"),
        ([1], "is a whole number"),
        ({}, "is a whole number"),
        (None, "is a whole number"),
    ],
)
def test_version_of_what_is_likely_none_is_refused(written: object, words: str) -> None:
    """What would be taken for an ancient version, and so change nothing, is refused with what it looks like."""
    with pytest.raises(ValueError, match=words):
        version_of(written)


@settings(deadline=None)
@given(st.one_of(st.text(), st.integers(), st.floats(), st.datetimes(timezones=st.timezones()).map(str)))
def test_version_of_anything_is_a_version_or_a_reason(written: object) -> None:
    """No text and no number is a crash, and what is read fits where versions are kept."""
    try:
        version = version_of(written)
    except ValueError:
        return

    assert version is None or 0 < version <= VERSION_MAX


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        (AT_MS, AT_MS),
        ("2024-11-22T10:40:00Z", AT_MS - 123),
        ("2024-11-22T10:40:00", None),
        (5, None),
        (True, None),
        (1 << 60, None),
        (1.5, None),
        ({}, None),
    ],
)
def test_moment_of_is_the_beginning_or_unknown(written: object, moment: int | None) -> None:
    """A time that only feeds figures is read where it can be, and never refused."""
    assert moment_of(written) == moment
