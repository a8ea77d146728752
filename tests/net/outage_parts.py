"""What the tests of outages share: a class that may be served stale, and a value of it that L1 holds."""

from __future__ import annotations

from typing import Any

import attrs

from proxy.config.model import ClassSettings, Settings

from .conftest import Serve
from .driver import Client, Proxy, Upstreamlike, make_settings
from .peer import until

STALE_S = 30.0
CLASSES = (ClassSettings("news", ("n:*",), stale_if_error_s=STALE_S), ClassSettings("rest", ("r:*",)))
VALUE = b"$3\r\nold\r\n"


def settings_of(*, classes: tuple[ClassSettings, ...] = CLASSES, **sections: dict[str, Any]) -> Settings:
    """Return settings with these classes; timeouts that fail soon."""
    upstream = {"response_timeout_s": 0.5, "connect_timeout_s": 0.5, **sections.pop("upstream", {})}
    return attrs.evolve(make_settings(upstream=upstream, **sections), classes=classes)


async def with_value(
    serve: Serve, target: Upstreamlike | str, settings: Settings | None = None
) -> tuple[Proxy, Client]:
    """Return a proxy whose L1 holds n:1 and r:1, and the client who has read them."""
    proxy = await serve(target, settings or settings_of())
    client = await proxy.connect()
    for key in ("n:1", "r:1"):
        assert await client.command("SET", key, "old") == b"+OK\r\n"
        await proxy.settled()
        for _ in range(2):
            assert await client.command("GET", key) == VALUE
    await until(lambda: len(proxy.worker.engine.l1) == 2, "L1 holds both")
    return proxy, client


def outage_is(proxy: Proxy, state: str) -> bool:
    """Say whether the worker thinks so."""
    return proxy.worker.engine.outage.state == state
