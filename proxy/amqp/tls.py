"""TLS towards the broker: the context that [amqp] tls asks for."""

from __future__ import annotations

from proxy.config.model import TlsClient
from proxy.errors import BrokerRefusedError
from proxy.tls.contexts import client_side
from proxy.tls.renewal import Renewable


def client_context(settings: TlsClient) -> Renewable:
    """Return the context for `amqps://`. Raises BrokerRefusedError when the files cannot be used."""
    try:
        return client_side("amqp.tls", settings)
    except OSError as exc:
        raise BrokerRefusedError(f"amqp.tls cannot be used: {exc}") from exc
