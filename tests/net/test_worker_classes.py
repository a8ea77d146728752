"""A worker tells L1 the classes of keys."""

from __future__ import annotations

import attrs

from proxy.cache.entry import Scope
from proxy.config.model import ClassSettings
from proxy.wire.encode import bulk

from .conftest import Serve
from .driver import make_settings, warm
from .peer import Peer

V = b"$1\r\nv\r\n"
KEYS = ("page:1", "cart:1", "other")


async def test_apply_classes_has_l1_learn_by_them(peer: Peer, serve: Serve) -> None:
    """What is put into L1 is of the group of its class from the reload on; without classes all is of one."""
    proxy = await serve(peer)
    client = await proxy.connect()
    worker = proxy.worker

    async def groups() -> list[int]:
        await client.command("SET", "warm", "v")
        await proxy.settled()
        assert await warm(client) == V
        for key in KEYS:
            await client.command("SET", key, "v")
            await client.command("GET", key)
        resident = worker.engine.l1.namespace(Scope(b"", 0, 2)).resident
        entries = [resident[bulk(key.encode())] for key in KEYS]
        return [entry.block.groups[entry.place] for entry in entries]

    before = await groups()
    classes = (ClassSettings("pages", ("page:*",)), ClassSettings("carts", ("cart:*",)))
    worker.reactor.enter()
    worker.apply(attrs.evolve(make_settings(), classes=classes))
    worker.reactor.flush()
    after = await groups()

    assert before == [0, 0, 0]
    assert after == [1, 2, 0]
