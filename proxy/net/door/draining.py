"""The end of a worker that serves: nobody new, and nobody is cut off who has asked for something.

    listeners retire --> [owes a reply, holds a half request, or has sent what is not read yet] --> stays
                         [quiet]       --> closed at once
                         [never quiet] --> closed after BUSY_S, right after a reply, when nothing of it is unread

A client that sends again while its connection is being closed has sent it after the close: it was not run, and clients
retry that. One that is quiet is the likelier to notice first, which is why that moment is waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from proxy.net.clients.client import ClientConnection
    from proxy.net.worker import Worker

QUIET_S: Final = 0.05  # silent for so long, a client is between two requests rather than in the middle of sending one
BUSY_S: Final = 2.0  # how long the quiet moment of a client is waited for
_LOOK_S: Final = 0.01


async def drain(worker: Worker, timeout_s: float) -> None:
    """Take no more clients, let those who wait for something get it, close the rest; after `timeout_s` leave it.

    Cancelled, it leaves the clients as they are.
    """
    worker.draining = True
    worker.reactor.enter()
    for listener in worker.listeners:
        listener.retire()
    worker.engine.recomputes.end()
    worker.reactor.flush()
    ends_at = worker.reactor.time() + timeout_s
    patient_until = worker.reactor.time() + BUSY_S
    with trio.move_on_after(timeout_s):
        while worker.clients or any(listener.is_shaking_hands for listener in worker.listeners):
            now = worker.reactor.time()
            for client in list(worker.clients):
                if may_go(client, now, is_patient=now < patient_until):
                    client.close()
            await trio.sleep(_LOOK_S)
    await worker.reconciler.settle(max(0.0, ends_at - worker.reactor.time()))
    await worker.value_layer.settle()


def may_go(client: ClientConnection, now: float, *, is_patient: bool) -> bool:
    """Tell whether a client can be closed and loses nothing by it; who is patient waits for it to be quiet, too."""
    if client.pin is not None and client.pin.state.outlives_drain:  # it may be owed a reply all the same
        return not is_patient or not (client.queue or client.is_mid_request)
    return client.is_idle and not client.is_mid_request and not (is_patient and now - client.read_at < QUIET_S)
