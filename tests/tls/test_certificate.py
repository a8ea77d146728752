"""When a certificate ends is read from it as OpenSSL reads it, and anything else is refused."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest
from cryptography import x509

from proxy.tls.certificate import read_end

from .pems import Pems, at


@pytest.mark.parametrize("ends", [at(2027, 3, 4), at(2049, 12, 31), at(2050, 1, 1), at(2999, 7, 1)])
def test_read_end_is_that_of_the_first_certificate(tmp_path: Path, ends: object) -> None:
    """Both forms of time are read: two digits of a year until 2049, four from 2050 on."""
    pems = Pems(tmp_path)
    pems.write(ends=ends)  # type: ignore[arg-type]
    text = pems.cert.read_text()
    found = x509.load_pem_x509_certificates(text.encode())[0]

    assert read_end(text) == found.not_valid_after_utc.timestamp()


def test_read_end_of_text_around_it_and_a_chain_behind_it(tmp_path: Path) -> None:
    """Many tools write what they know as text above; the authority's own end does not count."""
    pems = Pems(tmp_path)
    pems.write(ends=at(2031))

    assert read_end("subject=CN = x\n" + pems.cert.read_text() + pems.ca.read_text()) == at(2031).timestamp()


def test_read_end_of_anything_else_is_a_value_error(tmp_path: Path) -> None:
    """Whatever is damaged: a sentence or a date, never another exception."""
    pems = Pems(tmp_path)
    pems.write()
    der = base64.b64decode("".join(pems.cert.read_text().split("-----")[2].split()))
    dice = random.Random(7)
    for text in ("", "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----", pems.key.read_text()):
        with pytest.raises(ValueError, match="certificate"):
            read_end(text)
    refused = 0
    for size in [*range(60), *range(60, len(der), 7)]:
        refused += not _reads(der[:size])
    for _ in range(3000):
        damaged = bytearray(der)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(180)] = dice.randrange(256)
        refused += not _reads(bytes(damaged))

    assert refused > 100


def _reads(der: bytes) -> bool:
    body = base64.encodebytes(der).decode()
    try:
        read_end(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
    except ValueError:
        return False
    return True
