"""Real servers for what Redis itself runs of values: scripts, fences, sequences."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..e2e.raw import RawClient
from ..e2e.servers import REQUIRED_KINDS, Server, find_kind


@pytest.fixture(scope="module", params=REQUIRED_KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Start a server of each kind."""
    with Server(find_kind(request.param)) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[RawClient]:
    """Connect to it, empty."""
    with server.connect() as connection:
        connection.command("FLUSHALL")
        yield connection
