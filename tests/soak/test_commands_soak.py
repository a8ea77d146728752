"""Every command in every way of sending, in both protocols, on every server: bare, and on values in envelopes."""

from __future__ import annotations

import pytest

from ..e2e.conftest import kind_or_skip
from ..e2e.servers import OPTIONAL_KINDS, REQUIRED_KINDS
from ..e2e.targets import running_pair
from ..e2e.test_differential_commands import DELIVERIES, walk
from ..e2e.test_values_commands import STORED, assert_walk_is_the_same

pytestmark = [
    pytest.mark.parametrize("delivery", DELIVERIES),
    pytest.mark.parametrize("protocol", [2, 3]),
    pytest.mark.parametrize("name", [*REQUIRED_KINDS, *OPTIONAL_KINDS]),
]


def test_command_through_respite_answers_as_redis(name: str, protocol: int, delivery: str) -> None:
    """The same bytes, and the same data behind."""
    with running_pair(kind_or_skip(name)) as pair:
        differences = walk(pair, protocol, DELIVERIES[delivery])

    assert not differences, f"{len(differences)} differences\n" + "\n".join(differences[:60])


@pytest.mark.parametrize("stored", STORED)
def test_command_on_values_in_envelopes_answers_as_redis(
    name: str, protocol: int, delivery: str, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes, and the same values and TTLs afterwards."""
    assert_walk_is_the_same(name, stored, (protocol, DELIVERIES[delivery]), monkeypatch)
