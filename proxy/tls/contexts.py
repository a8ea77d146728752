"""The contexts that the `tls` tables of the configuration ask for, whoever is at the other end.

Ciphers are Python's own choice. No version below 1.2 is ever spoken, nobody renegotiates, nothing is compressed, and
nobody is asked for the password of a key: a proxy that waited for one at its terminal would stand still.
"""

from __future__ import annotations

import ssl
from typing import Final

from proxy.config.model import TlsClient, TlsServer
from proxy.tls.renewal import Renewable

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def client_side(what: str, settings: TlsClient) -> Renewable:
    """Return the context for a connection of ours; `what` names the table. Raises OSError (ssl.SSLError is one)."""
    return Renewable(what, (settings.ca, settings.cert, settings.key), lambda: _make_client(settings))


def server_side(what: str, settings: TlsServer) -> Renewable:
    """Return the context for those who connect to us. Raises OSError when the files cannot be used."""
    return Renewable(what, (settings.ca, settings.cert, settings.key), lambda: _make_server(settings))


def _make_client(settings: TlsClient) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca or None)
    context.minimum_version = _VERSIONS[settings.min_version]
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.cert:
        context.load_cert_chain(settings.cert, settings.key or None, _no_password)
    return context


def _make_server(settings: TlsServer) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = _VERSIONS[settings.min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.load_cert_chain(settings.cert, settings.key, _no_password)
    if settings.ca:
        context.load_verify_locations(settings.ca)
        context.verify_mode = ssl.CERT_REQUIRED if settings.require_client_cert else ssl.CERT_OPTIONAL
    return context


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted; store it without a password, readable by this user alone")
