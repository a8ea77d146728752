"""What becomes of a worker that hangs: it is killed and replaced, before systemd ends the whole service for it."""

from __future__ import annotations

import trio

from proxy.errors import RemoteError
from proxy.log import get_logger
from proxy.supervisor.fleet import Child, Fleet

log = get_logger("supervisor")


async def feel_all(fleet: Fleet, patience_s: float) -> None:
    """Return once every worker that serves has turned, or is killed because it has not in so many seconds."""
    async with trio.open_nursery() as nursery:
        for child in fleet.children():
            if child.urls is not None:
                nursery.start_soon(_feel, child, patience_s)


async def _feel(child: Child, patience_s: float) -> None:
    try:
        await child.channel.ask("pulse", timeout_s=patience_s)
    except RemoteError as exc:
        if child.channel.is_open:  # else it has gone by itself
            log.warning("worker killed: it hangs", pid=child.pid, why=str(exc))
            child.process.kill()
