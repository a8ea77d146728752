"""TLS towards the broker: the context that [amqp] tls asks for."""

from __future__ import annotations

import ssl

from proxy.config.model import TlsClient
from proxy.errors import BrokerRefusedError
from proxy.tls import make_client_context


def client_context(settings: TlsClient) -> ssl.SSLContext:
    """Return the context for `amqps://`. Raises BrokerRefusedError when the files cannot be used."""
    try:
        return make_client_context(settings)
    except OSError as exc:
        raise BrokerRefusedError(f"amqp.tls cannot be used: {exc}") from exc
