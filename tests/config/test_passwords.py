"""Hashes that a file may hold: those that can be tried, in a time that somebody can wait for."""

from __future__ import annotations

import pytest

from proxy.config.passwords import PasswordHash

REST = "$" + "A" * 22 + "$" + "A" * 43


@pytest.mark.parametrize(
    "parameters",
    [
        "ln=16,r=1,p=1",  # N that scrypt does not know for such small blocks: each try would fail
        "ln=17,r=1,p=1",
        "ln=14,r=8,p=99",  # little memory, and four seconds of a processor
        "ln=17,r=8,p=20",
        "ln=9,r=8,p=5",
        "ln=14,r=0,p=5",
        "ln=14,r=8,p=0",
        "ln=20,r=8,p=1",
    ],
)
def test_parse_of_a_hash_that_cannot_be_tried_or_takes_too_long_is_refused(parameters: str) -> None:
    """Nobody finds out at the first login."""
    with pytest.raises(ValueError, match="too little work, or for too much"):
        PasswordHash.parse(f"$scrypt${parameters}{REST}")


@pytest.mark.parametrize("parameters", ["ln=14,r=8,p=5", "ln=10,r=8,p=1", "ln=15,r=1,p=1", "ln=17,r=8,p=1"])
def test_hash_that_is_taken_can_be_tried(parameters: str) -> None:
    """With the smallest blocks as well as with much memory."""
    assert PasswordHash.parse(f"$scrypt${parameters}{REST}").matches(b"no") is False
