"""How long commands block, by their own words."""

from __future__ import annotations

import pytest

from proxy.wire.blocking import FOREVER, waits_s


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("BLPOP a b 1.5", 1.5),
        ("BRPOP a 0", FOREVER),
        ("BLMOVE a b LEFT RIGHT 2", 2.0),
        ("BRPOPLPUSH a b 3", 3.0),
        ("BZPOPMIN a 0.1", 0.1),
        ("BZMPOP 4 1 a MIN", 4.0),
        ("BLMPOP 0 1 a LEFT", FOREVER),
        ("WAIT 1 500", 0.5),
        ("WAITAOF 1 0 0", FOREVER),
        ("XREAD COUNT 1 block 250 STREAMS s $", 0.25),
        ("XREADGROUP GROUP g c BLOCK 0 STREAMS s >", FOREVER),
        ("XREADGROUP GROUP block c BLOCK 250 STREAMS s >", 0.25),
        ("XREADGROUP GROUP g block COUNT 1 BLOCK 0 STREAMS s >", FOREVER),
        ("XREADGROUP BLOCK 250 GROUP block block STREAMS block >", 0.25),
        ("XREAD BLOCK 250 STREAMS block streams 0 0", 0.25),
        ("MODULE.BLOCKS k 1", FOREVER),
        ("BLPOP a x", 0.0),
        ("BLPOP a -1", 0.0),
        ("BLPOP a nan", 0.0),
        ("BLPOP", FOREVER),
    ],
)
def test_waits_s_is_what_the_command_asks_for(line: str, expected: float) -> None:
    """In seconds, whatever the unit of the command; what Redis refuses at once waits for nothing."""
    args = [word.encode() for word in line.split()]

    assert waits_s(args[0], args) == expected
