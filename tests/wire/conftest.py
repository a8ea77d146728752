"""Real servers that the codecs are compared with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..e2e.servers import REQUIRED_KINDS, Server, find_kind


@pytest.fixture(scope="session", params=REQUIRED_KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Run each kind that is always there, for all tests of this directory together."""
    with Server(find_kind(request.param)) as running:
        yield running
