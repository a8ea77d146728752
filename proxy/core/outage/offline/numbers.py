"""Numbers as Redis reads and writes them: 64-bit integers, and the long doubles of INCRBYFLOAT.

Redis counts with the 80-bit floats of x86, which Python does not have. So they are done here in whole fractions, and
rounded where the machine would round: after reading, after adding. Written as printf does with "%.17Lf".
Source: Redis documentation, INCRBYFLOAT ("17 digits after the decimal point").
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Final

INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)
_INTEGER: Final = re.compile(rb"-?[1-9][0-9]{0,18}|0")
_DECIMAL: Final = re.compile(rb"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(?:e([+-]?[0-9]+))?", re.IGNORECASE)
_HEX: Final = re.compile(rb"([+-]?)0x([0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p([+-]?[0-9]+))?", re.IGNORECASE)
_INFINITY: Final = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)
_MANTISSA_BITS: Final = 64
_LEAST_EXPONENT: Final = -16445  # of the smallest number there is
_MOST_EXPONENT: Final = 16384  # numbers are below two to this
_DIGITS: Final = 17
_BITS_MAX: Final = 17_000
_PLACES_MAX: Final = 5_000
_AT_ONCE: Final = 4000  # digits that Python reads and writes without an error
_FLOAT_MAX_BYTES: Final = 5 * 1024


def integer_of(word: bytes) -> int | None:
    """Read a signed 64-bit integer, in the one form Redis takes; None for anything else."""
    if _INTEGER.fullmatch(word) is None:
        return None
    number = int(word)
    return number if INT64_MIN <= number <= INT64_MAX else None


def float_of(word: bytes) -> Fraction | float | None:
    """Read a long double; None for what Redis takes for none. Only infinity is a float of Python."""
    if not 0 < len(word) < _FLOAT_MAX_BYTES:
        return None
    found = _DECIMAL.fullmatch(word)
    base, scale = 10, 10
    if found is None and _INFINITY.fullmatch(word):
        return -math.inf if word[:1] == b"-" else math.inf
    if found is None:
        found = _HEX.fullmatch(word)
        base, scale = 16, 2
    if found is None:
        return None
    sign, digits, exponent = found.groups()
    whole, _, part = digits.partition(b".")
    power = int(exponent or b"0") if len(exponent or b"") < 20 else _BITS_MAX * 5
    mantissa = int(whole + part, 16) if base == 16 else _read(whole + part)
    if not mantissa:
        return Fraction(0)
    # Where its first digit stands: far outside of what there is, working it out would only take time.
    stands_at = len((whole + part).lstrip(b"0")) - len(part)
    if abs(stands_at * (4 if base == 16 else 1) + power) > (_BITS_MAX if base == 16 else _PLACES_MAX):
        return None
    read = rounded(Fraction(mantissa, base ** len(part)) * Fraction(scale) ** power)
    if read is None or not read:  # too large, or so small that nothing is left: an error of strtold
        return None
    return -read if sign == b"-" else read


def added(one: Fraction | float, other: Fraction | float) -> Fraction | None:
    """Return the sum of two long doubles, None where that is infinity, or no number at all."""
    if isinstance(one, float) or isinstance(other, float):
        return None
    return rounded(one + other)


def rounded(number: Fraction) -> Fraction | None:
    """Return the nearest long double, None where that is infinity."""
    if not number:
        return number
    size = abs(number)
    exponent = size.numerator.bit_length() - size.denominator.bit_length() - _MANTISSA_BITS
    unit = _unit(exponent)
    mantissa = round(size / unit)  # to even
    if mantissa.bit_length() < _MANTISSA_BITS:  # the estimate was one too large
        unit = _unit(exponent - 1)
        mantissa = round(size / unit)
    elif mantissa.bit_length() > _MANTISSA_BITS:
        unit = _unit(exponent + 1)
        mantissa = round(size / unit)
    found = mantissa * unit
    if found >= Fraction(2) ** _MOST_EXPONENT:
        return None
    return found if number > 0 else -found


def _unit(exponent: int) -> Fraction:
    return Fraction(2) ** max(exponent, _LEAST_EXPONENT)


def written(number: Fraction) -> bytes:
    """Write a long double: 17 digits behind the point, without the zeros at the end."""
    scaled = round(abs(number) * 10**_DIGITS)  # to even, as printf
    if not scaled:
        return b"0"  # never -0
    whole, part = divmod(scaled, 10**_DIGITS)
    digits = b"%b.%017d" % (_decimal(whole), part)
    text = digits.rstrip(b"0").rstrip(b".")
    return b"-" + text if number < 0 else text


def _read(digits: bytes) -> int:
    number = 0
    for at in range(0, len(digits), _AT_ONCE):
        piece = digits[at : at + _AT_ONCE]
        number = number * 10 ** len(piece) + int(piece)
    return number


def _decimal(number: int) -> bytes:
    high, low = divmod(number, 10**_AT_ONCE)
    return b"%d%0*d" % (high, _AT_ONCE, low) if high else b"%d" % low
