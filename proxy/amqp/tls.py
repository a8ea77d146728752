"""TLS towards the broker: the context that [amqp] tls asks for."""

from __future__ import annotations

import ssl

from proxy.config.model import TlsClient
from proxy.errors import BrokerRefusedError


def client_context(settings: TlsClient) -> ssl.SSLContext:
    """Return the context for `amqps://`. Raises BrokerRefusedError when the files cannot be used."""
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
        if not settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if settings.cert:
            context.load_cert_chain(settings.cert, settings.key or None)
    except (OSError, ssl.SSLError) as exc:
        raise BrokerRefusedError(f"amqp.tls cannot be used: {exc}") from exc
    return context
