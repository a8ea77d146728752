"""Fixtures of the network tests: a scripted peer, a real server, and a worker in the test's nursery."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

import pytest
import trio

from proxy.config.model import Settings, parse_endpoint
from proxy.net import reactor
from proxy.net.worker import Worker

from ..e2e.servers import Server, ServerOptions, find_kind
from .driver import Proxy, Upstreamlike, make_settings
from .peer import Peer


class Serve(Protocol):
    """Starts a worker in front of an upstream."""

    async def __call__(
        self, target: Upstreamlike | str, settings: Settings | None = None, **sections: dict[str, Any]
    ) -> Proxy:
        """Return it once it serves; `sections` change fields of the default settings."""


@pytest.fixture
async def peer(nursery: trio.Nursery) -> Peer:
    """Listen as a scripted Redis."""
    made = Peer(nursery)
    made.listen()
    return made


@pytest.fixture
def redis() -> Iterator[Server]:
    """Run a real Redis of its own for the test; users alice and bob have the password `pw`."""
    users = ["user alice on >pw ~* &* +@all", "user bob on >pw ~* &* +@all -@dangerous -@admin"]
    with Server(find_kind("redis7"), ServerOptions(acl=users)) as server:
        yield server


class Bugs:
    """Stands for the reactor's logger, and keeps what it was told of exceptions that nobody foresaw."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def exception(self, event: str, **about: object) -> None:
        """Keep the traceback of the exception being handled."""
        self.seen.append(traceback.format_exc())


@pytest.fixture
def bugs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bugs]:
    """Fail the test for a bug that the reactor survived; a test that plants one clears the list."""
    kept = Bugs()
    monkeypatch.setattr(reactor, "log", kept)
    yield kept
    assert kept.seen == []


@pytest.fixture
async def serve(nursery: trio.Nursery, bugs: Bugs) -> AsyncIterator[Serve]:
    """Return what starts workers in the test's nursery; the clients that a test leaves open are closed."""
    proxies: list[Proxy] = []

    async def start(target: Upstreamlike | str, settings: Settings | None = None, **sections: dict[str, Any]) -> Proxy:
        url = target if isinstance(target, str) else target.url
        proxy = Proxy(Worker(settings or make_settings(**sections), parse_endpoint(url)))
        proxies.append(proxy)
        await nursery.start(proxy.run)
        return proxy

    yield start
    for proxy in proxies:
        pending = proxy.worker.engine.outage.fallbacks._pending
        assert not [stand_in for stand_in in pending if stand_in.is_answered], "kept beyond their reply"
        for client in proxy.clients:
            client.close()
