"""The connections that stay open: to whichever node of the cluster is tried, with the TLS of [amqp] tls.

Owns how long a node may take to answer, how soon one that has fallen silent is given up, and how pauses between tries
grow.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from proxy.amqp.connection import Connection, connect
from proxy.amqp.tls import client_context
from proxy.config.model import AmqpEndpoint, TlsClient
from proxy.tls.renewal import Renewable

CONNECT_TIMEOUT_S: Final = 3.0  # of one node; the next is tried then
HEARTBEAT_S: Final = 2.0  # a broker that is silent for two is gone


def pause_s(failures: int, first_s: float, longest_s: float) -> float:
    """Return how long to wait after so many failures in a row: growing from one to the other, never in step."""
    return min(first_s * 2.0 ** min(failures - 1, 20), longest_s) * (0.5 + random.random() / 2)


class Nodes:
    """Connect to nodes. `name` is what the broker shows of us; the files of `tls` are read when first needed."""

    def __init__(self, tls: TlsClient, name: str) -> None:
        self._tls = tls
        self._name = name
        self._context: Renewable | None = None

    @asynccontextmanager
    async def connected(self, endpoint: AmqpEndpoint, what: str) -> AsyncIterator[Connection]:
        """Be connected to a node, for `what`. Raises AmqpError as `connect` does, also for TLS files of no use."""
        if endpoint.is_tls and self._context is None:
            self._context = client_context(self._tls)
        async with connect(
            endpoint,
            context=self._context.current() if endpoint.is_tls and self._context is not None else None,
            name=f"{self._name} {what}",
            heartbeat_s=HEARTBEAT_S,
            timeout_s=CONNECT_TIMEOUT_S,
        ) as connection:
            yield connection
