"""Every command on values in envelopes, in every way of sending, on every server there is."""

from __future__ import annotations

import pytest

from ..e2e.servers import OPTIONAL_KINDS, REQUIRED_KINDS
from ..e2e.test_differential_commands import DELIVERIES
from ..e2e.test_values_commands import STORED, assert_walk_is_the_same


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("name", [*REQUIRED_KINDS, *OPTIONAL_KINDS])
def test_command_on_values_in_envelopes_answers_as_redis(
    name: str, stored: str, protocol: int, delivery: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes, and the same values and TTLs afterwards."""
    assert_walk_is_the_same(name, stored, (protocol, DELIVERIES[delivery]), monkeypatch)
