"""How long certificates hold, those of ours above all: the one date of them that an operator must know.

Reads just so much of the DER as lies before it, with no library but Python's. Source: RFC 5280, section 4.1.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from proxy.config.model import Settings

SOON_S: Final = 14 * 86400.0
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"


def read_end(pem: str) -> float:
    """Return when the first certificate of a PEM file ends, in seconds since 1970. Raises ValueError for anything else.

    The first is our own; those behind it are the chain that leads to an authority.
    """
    begin = pem.find(_BEGIN)
    end = pem.find(_END, begin)
    if begin < 0 or end < 0:
        raise ValueError("it holds no certificate")
    der = ssl.PEM_cert_to_DER_cert(pem[begin : end + len(_END)])
    certificate, _ = _element(der, _SEQUENCE)
    body, _ = _element(certificate, _SEQUENCE)
    if body[:1] == bytes([_VERSION]):
        _, body = _element(body, _VERSION)
    for tag in (0x02, _SEQUENCE, _SEQUENCE):  # serial number, signature algorithm, issuer
        _, body = _element(body, tag)
    validity, _ = _element(body, _SEQUENCE)
    _, validity = _element(validity, validity[0] if validity else 0)
    return _time(validity)


def read_end_of(path: Path) -> float | None:
    """Return when the first certificate of a file ends; None where it says nothing."""
    try:
        return read_end(path.read_text(encoding="ascii", errors="replace"))
    except (OSError, ValueError):
        return None


def own_certificates(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield the certificates that we show to others: the side, and the file."""
    for name, tls in (
        ("listen", settings.listen.tls),
        ("upstream", settings.upstream.tls),
        ("amqp", settings.amqp.tls),
    ):
        if tls.cert:
            yield name, Path(tls.cert)


def ending_soon(settings: Settings, now_s: float) -> Iterator[str]:
    """Yield a sentence for each of ours that ends soon or has ended; `now_s` is in seconds since 1970."""
    for name, path in own_certificates(settings):
        ends_at = read_end_of(path)
        if ends_at is not None and ends_at - now_s < SOON_S:
            yield f"{name}.tls.cert {'ends' if ends_at > now_s else 'has ended'} at {shown(ends_at)}"


def shown(at_s: float) -> str:
    """Show a moment, given in seconds since 1970, as the standards do."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(data: bytes) -> float:
    tag = data[0] if data else 0
    text = _element(data, tag)[0].decode("ascii")
    if tag == _UTC_TIME:  # two digits of a year: 50 to 99 are of the last century
        text = ("19" if text >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("its end is no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _element(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return what an element holds, and what lies behind it."""
    if len(data) < 2 or data[0] != tag:
        raise ValueError("it is no certificate")
    size, at = data[1], 2
    if size & 0x80:
        at += size & 0x7F
        size = int.from_bytes(data[2:at], "big")
    if at + size > len(data):
        raise ValueError("it is cut short")
    return data[at : at + size], data[at + size :]
