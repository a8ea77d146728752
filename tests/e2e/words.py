r"""Command lines as the tables write them, and the words they mean.

A line is split like a shell would (quotes group, `\xNN` is a byte); a tuple is taken as it is, for scripts and other
words that quoting would spoil.
"""

from __future__ import annotations

import re
import shlex

Line = str | tuple[str | bytes, ...]
Words = tuple[bytes, ...]


def words(line: Line) -> Words:
    """Split a line into the arguments it stands for."""
    if isinstance(line, str):
        return tuple(_unescape(word) for word in shlex.split(line))
    return tuple(word if isinstance(word, bytes) else word.encode() for word in line)


def _unescape(word: str) -> bytes:
    return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), word.encode())
