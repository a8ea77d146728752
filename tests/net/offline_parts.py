"""What the tests of `offline = "memory"` share: three classes, a worker behind a door to a real Redis, and a client."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from proxy.config.model import ClassSettings, Settings

from ..e2e.servers import Server
from .conftest import Serve
from .door import Door
from .driver import Client, Proxy, make_settings
from .peer import until

OK = b"+OK\r\n"
NIL = b"$-1\r\n"
KEPT = ClassSettings("kept", ("kept:*",), version=True, offline="memory")
PLAIN = ClassSettings("plain", ("plain:*",), offline="memory")
OTHER = ClassSettings("other", ("other:*",))


def settings(*classes: ClassSettings, **sections: dict[str, Any]) -> Settings:
    """Return settings with these classes, or the usual three."""
    return attrs.evolve(make_settings(**sections), classes=classes or (KEPT, PLAIN, OTHER))


@attrs.define
class Scene:
    """A worker behind a door to Redis, and a client."""

    door: Door
    proxy: Proxy
    client: Client

    async def away(self) -> None:
        """Let Redis go away, and the worker notice."""
        self.door.shut()
        await until(lambda: self.proxy.stats()["upstream"]["state"] != "up", "Redis is away")
        groups = self.proxy.worker.links.groups.values()
        await until(lambda: self.proxy.worker.gate.is_shut, "one link knocks for all")
        await until(lambda: not any(link.connected for group in groups for link in group.links), "all links are lost")

    async def back(self) -> None:
        """Let Redis come back, and hear of everything."""
        self.door.reopen()
        await until(lambda: not self.proxy.worker.reconciler.memory.places, "Redis was told")
        await until(lambda: self.proxy.stats()["upstream"]["state"] == "up", "Redis is back")

    @property
    def figures(self) -> dict[str, Any]:
        """What stats.json says of it."""
        found: dict[str, Any] = self.proxy.stats()["offline"]
        return found


async def scene(redis: Server, serve: Serve, nursery: trio.Nursery, using: Settings | None = None) -> Scene:
    """Start all of it; the client's link stands."""
    door = await Door(redis, nursery).open()
    proxy = await serve(door.url, using or settings())
    client = await proxy.connect()
    assert await client.command("PING") == b"+PONG\r\n"
    await proxy.settled()
    return Scene(door, proxy, client)
