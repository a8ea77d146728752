"""Numbers as Redis counts with them; that the sums are right is shown against real servers in test_differential."""

from __future__ import annotations

from fractions import Fraction
from math import inf

import pytest

from proxy.core.outage.offline.numbers import INT64_MAX, INT64_MIN, added, float_of, integer_of, written


@pytest.mark.parametrize("word", [b"", b"+1", b"-0", b"01", b" 1", b"1 ", b"1.0", b"9223372036854775808", b"9" * 5000])
def test_integer_of_another_form_is_none(word: bytes) -> None:
    """Redis takes one form of each number only."""
    assert integer_of(word) is None


def test_integer_of_reaches_both_ends() -> None:
    """The largest and the smallest are numbers."""
    assert integer_of(b"9223372036854775807") == INT64_MAX
    assert integer_of(b"-9223372036854775808") == INT64_MIN


@pytest.mark.parametrize(
    ("word", "number"),
    [
        (b"3.0", Fraction(3)),
        (b"+.5", Fraction(1, 2)),
        (b"5e3", Fraction(5000)),
        (b"0x1.8p1", Fraction(3)),
        (b"-0", Fraction(0)),
        (b"-inf", -inf),
        (b"Infinity", inf),
        (b"nan", None),
        (b"1e", None),
        (b"1e5000", None),
        (b"1e-5000", None),
        (b"1e99999999999999999999", None),
        (b"9" * 6000, None),
    ],
)
def test_float_of_reads_what_redis_reads(word: bytes, number: Fraction | float | None) -> None:
    """Decimal and hexadecimal; too large, too small and too long are none."""
    assert float_of(word) == number


def test_added_rounds_to_64_bits() -> None:
    """A tenth is none of the numbers there are, and three of them are not three tenths."""
    tenth = float_of(b"0.1")
    assert isinstance(tenth, Fraction)
    total = Fraction(0)
    for _ in range(3):
        found = added(total, tenth)
        assert found is not None
        total = found

    assert tenth != Fraction(1, 10)
    assert tenth.denominator.bit_length() - 1 == 67
    assert written(total) == b"0.3"
    assert added(inf, tenth) is None
    assert added(Fraction(2) ** 16383, Fraction(2) ** 16383) is None


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Fraction(0), b"0"),
        (Fraction(-1, 10**18), b"0"),
        (Fraction(-5, 2), b"-2.5"),
        (Fraction(10**20), b"1" + b"0" * 20),
        (Fraction(1, 10**17), b"0.00000000000000001"),
        (Fraction(10) ** 4500, b"1" + b"0" * 4500),
    ],
)
def test_written_has_17_digits_at_most_and_no_zeros_at_its_end(number: Fraction, text: bytes) -> None:
    """As "%.17Lf", trimmed; a number of any length."""
    assert written(number) == text
